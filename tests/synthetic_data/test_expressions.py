from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synthetic_data.expressions import KINDS, edit_expression, openings
from synthetic_data.source_face import SkippedPhotoError
from v3recon.data.face_mesh import load_face_mesh

MIRROR = load_face_mesh().mirror


def test_every_kind_changes_what_it_names(face, photoface):
    before = openings(face.points[:, :2])
    for kind in KINDS:
        after = openings(edit_expression(face, kind, photoface, MIRROR, [1]).points[:, :2])
        closed = [side for side in ("right_eye", "left_eye") if after[side] < 0.01]
        wanted = {"eyes_closed": 2, "mouth_open+eyes_closed": 2, "one_eye_closed": 1}.get(kind, 0)
        assert len(closed) == wanted, kind
        assert (after["mouth"] > before["mouth"] + 0.15) == kind.startswith("mouth_open"), kind


def test_lids_meet_along_the_whole_eye(face, photoface):
    points = edit_expression(face, "eyes_closed", photoface, MIRROR, [0]).points
    for upper, lower in ((160, 144), (158, 153), (387, 373), (385, 380)):
        np.testing.assert_array_equal(points[upper], points[lower])


def test_only_displacements_are_added(face, photoface):
    """A detection that the model cannot fit moves by the same displacement."""
    noise = np.random.default_rng(0).normal(0, 1.5, face.points.shape)
    noisy = replace(face, points=face.points + noise)
    clean = edit_expression(face, "mouth_open", photoface, MIRROR, [3]).points - face.points
    moved = edit_expression(noisy, "mouth_open", photoface, MIRROR, [3]).points - noisy.points
    np.testing.assert_allclose(moved, clean, atol=1e-9)


def test_upper_face_stays_when_the_jaw_drops(face, photoface):
    moved = edit_expression(face, "mouth_open", photoface, MIRROR, [3]).points - face.points
    assert np.linalg.norm(moved[[10, 151, 168, 33, 263], :2], axis=1).max() < 1.5
    assert moved[14, 1] > 5 and moved[152, 1] > 1.5  # lip and chin go down the picture


def test_draws_are_repeatable(face, photoface):
    first, again, other = (
        edit_expression(face, "frown", photoface, MIRROR, seed).points for seed in ([7], [7], [8])
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.05


def test_refuses_what_the_photo_shows_already(face, photoface):
    shut = replace(face, points=edit_expression(face, "eyes_closed", photoface, MIRROR, [0]).points)
    with pytest.raises(SkippedPhotoError, match="eye is closed"):
        edit_expression(shut, "eyes_closed", photoface, MIRROR, [0])
    points = face.points.copy()
    points[14, 1] += 0.5 * np.linalg.norm(points[61] - points[291])
    with pytest.raises(SkippedPhotoError, match="mouth is open"):
        edit_expression(replace(face, points=points), "mouth_open", photoface, MIRROR, [0])
