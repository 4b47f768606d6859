"""The builder's command: index, cache of detections, bad input. No detector is needed."""

from __future__ import annotations

import numpy as np
import pytest

from v3recon.cli import build_face_model
from v3recon.cli.build_face_model import read_index
from v3recon.fitting.photoface import detections
from v3recon.fitting.photoface.expressions import (
    LID_PAIRS,
    STATE_NAMES,
    measure_states,
    move_together,
)
from v3recon.fitting.photoface.shape_space import build_shape_space


@pytest.fixture
def folder(tmp_path):
    """Three files that are called photos, one of them empty."""
    for name, content in (("b.jpg", b"x"), ("a.png", b"yy"), ("c.jpg", b"")):
        (tmp_path / name).write_bytes(content)
    return tmp_path


def fake_detector(monkeypatch, calls):
    """Replaces the processes that detect: one face in a.png, none in b.jpg, c.jpg unreadable."""

    def run(folder, names, workers):
        for name in names:
            calls.append(name)
            if name == "a.png":
                yield name, (np.full((478, 3), 7, np.float32), "")
            else:
                yield name, (None, "the file is empty" if name == "c.jpg" else "")

    monkeypatch.setattr(detections, "_run", run)
    monkeypatch.setattr(detections, "tessellation", set)


def test_folder_without_index(folder):
    entries = read_index(folder, None)
    assert [entry.name for entry in entries] == ["a.png", "b.jpg", "c.jpg"]
    assert {entry.split for entry in entries} == {"train"}


def test_index_is_read_and_sorted(folder):
    (folder / "index.csv").write_text(
        "file,subject,split,landmarks,mask\nb.jpg,Ada,val,,\na.png,,,a.pts,a_mask.png\n"
    )
    first, second = read_index(folder, None)
    assert (first.name, first.subject, first.split) == ("a.png", "a", "train")
    assert (first.landmarks, first.mask) == ("a.pts", "a_mask.png")
    assert (second.name, second.subject, second.split) == ("b.jpg", "Ada", "val")


def test_index_without_file_column_is_refused(folder):
    (folder / "other.csv").write_text("name\na.png\n")
    with pytest.raises(ValueError, match="column `file`"):
        read_index(folder, folder / "other.csv")


def test_detections_are_kept_and_resumed(folder, monkeypatch):
    calls: list[str] = []
    fake_detector(monkeypatch, calls)
    names = ["a.png", "b.jpg", "c.jpg"]
    cache = folder / "cache.npz"
    found = detections.detect_photos(folder, names[:2], cache)
    assert found.names == ["a.png"] and found.points.shape == (1, 478, 3)
    assert found.faceless == ["b.jpg"] and not found.unreadable
    again = detections.detect_photos(folder, names, cache)
    assert calls == names  # each photo once
    assert again.unreadable == {"c.jpg": "the file is empty"}
    np.testing.assert_array_equal(again.points, found.points)
    (folder / "b.jpg").write_bytes(b"changed")
    detections.detect_photos(folder, names, cache)
    assert calls == [*names, "b.jpg"]


def test_damaged_cache_is_refused(folder):
    (folder / "cache.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="delete it"):
        detections.detect_photos(folder, ["a.png"], folder / "cache.npz")


@pytest.mark.parametrize(
    ("photos", "out", "message"),
    [("none", "m.npz", "not a folder"), (".", "none/m.npz", "does not exist")],
)
def test_command_says_what_is_wrong(folder, capsys, photos, out, message):
    argv = ["--photos", str(folder / photos), "--out", str(folder / out)]
    assert build_face_model.main(argv) == 2
    assert message in capsys.readouterr().err


def test_too_few_photos_are_refused_with_the_number(folder, monkeypatch):
    points = np.random.default_rng(0).normal(size=(5, 468, 3))
    with pytest.raises(ValueError, match=r"5 usable photos .* at least 400"):
        build_shape_space(points, np.zeros((5, 2)), np.arange(5).astype(str), np.arange(468), None)


def test_states_measure_what_they_are_called():
    points = np.zeros((1, 468, 3))
    points[0, 33], points[0, 133] = (-0.45, 0, 0), (-0.15, 0, 0)
    points[0, 362], points[0, 263] = (0.15, 0, 0), (0.45, 0, 0)
    points[0, [160, 159, 158], 1] = 0.06
    points[0, 14, 1] = -0.2
    points[0, 61, 0], points[0, 291, 0] = -0.3, 0.3
    points[0, 61, 1] = 0.04
    states = dict(zip(STATE_NAMES, measure_states(points)[0], strict=True))
    assert states["right_eye_open"] == pytest.approx(0.06 / 0.3)
    assert states["left_eye_open"] == 0
    assert states["mouth_gap"] == pytest.approx(0.2)
    assert states["mouth_width"] == pytest.approx(np.hypot(0.6, 0.04))
    assert states["corner_tilt"] == pytest.approx(0.04)
    assert states["jaw_shift"] == 0


def test_pairs_move_together():
    field = np.random.default_rng(0).normal(size=(2, 468, 3))
    moved = move_together(field, LID_PAIRS)
    upper, lower = (list(side) for side in zip(*LID_PAIRS, strict=True))
    np.testing.assert_allclose(moved[:, upper], moved[:, lower])
    np.testing.assert_allclose(moved[:, upper], (field[:, upper] + field[:, lower]) / 2)
    others = np.setdiff1d(np.arange(468), upper + lower)
    np.testing.assert_array_equal(moved[:, others], field[:, others])
