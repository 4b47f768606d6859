"""Label arrays: round trips, and everything that is refused."""

from __future__ import annotations

import numpy as np
import pytest

from v3recon.part_masks.labels import check_labels, read_labels, write_labels


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_round_trip(tmp_path, suffix):
    labels = np.arange(40) % 9
    write_labels(tmp_path / f"a{suffix}", labels)
    found = read_labels(tmp_path / f"a{suffix}", 40)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.uint8


def test_csv_rows_may_come_in_any_order(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("vertex,label\n2,7\n0,5\n\n1,0\n")
    assert read_labels(path).tolist() == [5, 0, 7]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("vertex,part\n0,1\n", "first line"),
        ("vertex,label\n0,1\n0,2\n", "each once"),
        ("vertex,label\n0,1\n2,2\n", "each once"),
        ("vertex,label\n0,1,4\n", "a vertex and a label"),
        ("vertex,label\n0,nose\n", "nose"),
        ("vertex,label\n0,9\n", "0…9|9…9"),
        ("vertex,label\n", "no labels"),
        ("", "first line"),
    ],
)
def test_bad_csv(tmp_path, text, reason):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_labels(path)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.array([0.0, 1.0]), "integers"),
        (np.array([[1, 2]]), "integers"),
        (np.array([1, 2, -1]), "-1…2"),
        (np.array([3, 9, 4]), "3…9"),
        (np.array([1, 2]), "2 labels for a face model of 3"),
        (np.array(["a"]), "integers"),
    ],
)
def test_bad_arrays(labels, reason):
    with pytest.raises(ValueError, match=reason):
        check_labels(labels, 3)


def test_bad_files(tmp_path):
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "labels.txt").write_text("1")
    for name in ("pickle.npy", "cut.npy", "labels.txt", "absent.npy"):
        with pytest.raises(ValueError, match=name):
            read_labels(tmp_path / name)
    with pytest.raises(ValueError, match="txt"):
        write_labels(tmp_path / "labels.txt", np.array([1]))
