"""Labels from cut to cut: exact on toy meshes, both directions, all layouts."""

from __future__ import annotations

import numpy as np
import pytest

from v3recon.cli.part_masks import main
from v3recon.part_masks.labels import read_labels, write_labels
from v3recon.part_masks.transfer import pairs_of, read_indices, transfer_labels, transfer_nearest

KEPT = np.array([4, 0, 2])  # vertex b of the small cut is vertex KEPT[b] of the large one
LARGE = np.array([1, 8, 3, 8, 5], np.uint8)
SMALL = np.array([5, 1, 3], np.uint8)


@pytest.mark.parametrize(
    "indices",
    [
        KEPT,
        KEPT[:, None],
        KEPT.astype(np.float64),
        np.array([1, -1, 2, -1, 0]),
        np.array([[4, 0], [0, 1], [2, 2]]),
    ],
    ids=["ids of A", "column", "floats", "ids of B", "pairs"],
)
def test_layouts_and_directions(indices):
    pairs = pairs_of(indices, 5, 3)
    np.testing.assert_array_equal(transfer_labels(LARGE, pairs, 3), SMALL)
    np.testing.assert_array_equal(transfer_labels(SMALL, pairs[:, ::-1], 5), [1, 0, 3, 0, 5])


def test_vertices_without_counterpart_take_the_nearest_label():
    large = np.array([[0, 0, 0], [0.9, 0, 0], [1, 0, 0], [2.1, 0, 0], [2, 0, 0]])
    pairs = pairs_of(KEPT, 5, 3)[:, ::-1]
    filled = transfer_labels(SMALL, pairs, 5, large[KEPT], large)
    np.testing.assert_array_equal(filled, [1, 3, 3, 5, 5])
    np.testing.assert_array_equal(transfer_nearest(SMALL, large[KEPT], large), filled)


def test_round_trip_of_a_cut():
    rng = np.random.default_rng(0)
    kept = rng.permutation(300)[:200]
    labels = rng.integers(0, 9, 200).astype(np.uint8)
    pairs = pairs_of(kept, 300, 200)
    there = transfer_labels(labels, pairs[:, ::-1], 300)
    np.testing.assert_array_equal(transfer_labels(there, pairs, 200), labels)


@pytest.mark.parametrize(
    "indices",
    [np.array([0, 1]), np.array([0, 1, 5]), np.array([0.5, 1, 2]), np.array(["a", "b", "c"])],
)
def test_indices_that_fit_no_mesh(indices):
    with pytest.raises(ValueError, match=r"indices|ids"):
        pairs_of(indices, 5, 3)


def test_conflicting_counterparts():
    with pytest.raises(ValueError, match="several counterparts"):
        transfer_labels(np.array([1, 2], np.uint8), np.array([[0, 0], [1, 0]]), 1)


def test_index_files(tmp_path):
    np.save(tmp_path / "indices_5_3.npy", KEPT)
    pairs, count_a, count_b = read_indices(tmp_path / "indices_5_3.npy")
    assert (count_a, count_b) == (5, 3) and pairs.tolist() == [[4, 0], [0, 1], [2, 2]]
    np.save(tmp_path / "other.npy", KEPT)
    with pytest.raises(ValueError, match="indices_A_B"):
        read_indices(tmp_path / "other.npy")
    with pytest.raises(ValueError, match="no such file"):
        read_indices(tmp_path / "indices_5_4.npy")


def test_command(tmp_path, capsys):
    np.save(tmp_path / "indices_5_3.npy", KEPT)
    write_labels(tmp_path / "small.npy", SMALL)
    indices, out = str(tmp_path / "indices_5_3.npy"), tmp_path / "large.csv"
    arguments = ["transfer", "--labels", str(tmp_path / "small.npy"), "--indices", indices]
    assert main([*arguments, "--out", str(out)]) == 0
    assert read_labels(out).tolist() == [1, 0, 3, 0, 5]
    write_labels(tmp_path / "small.npy", SMALL[:2])
    assert main([*arguments, "--out", str(out)]) == 2
    assert "links meshes of 5 and 3" in capsys.readouterr().err
