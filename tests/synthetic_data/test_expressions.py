from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.synthetic_data.expressions import KINDS, Closing, edit_expression, openings
from v3recon.synthetic_data.source_face import SkippedPhotoError

MIRROR = load_face_mesh().mirror


def test_every_kind_changes_what_it_names(face, head):
    before = openings(face.points[:, :2])
    for kind in KINDS:
        after = openings(edit_expression(face, kind, head, MIRROR, [1]).points[:, :2])
        closed = [side for side in ("right_eye", "left_eye") if after[side] < 0.01]
        wanted = {"eyes_closed": 2, "mouth_open+eyes_closed": 2, "one_eye_closed": 1}.get(kind, 0)
        assert len(closed) == wanted, kind
        assert (after["mouth"] > before["mouth"] + 0.15) == kind.startswith("mouth_open"), kind


def test_lids_meet_along_the_whole_eye(face, head):
    points = edit_expression(face, "eyes_closed", head, MIRROR, [0]).points
    for upper, lower in ((160, 144), (158, 153), (387, 373), (385, 380)):
        np.testing.assert_array_equal(points[upper], points[lower])


def test_an_amount_leaves_its_share_of_the_gap(face, head):
    before = openings(face.points[:, :2])
    for amount in (0.4, 0.8):
        closing = Closing((amount, amount))
        edited = edit_expression(face, "eyes_closed", head, MIRROR, [0], closing)
        after = openings(edited.points[:, :2])
        assert edited.amounts == (amount, amount)
        for eye in ("right_eye", "left_eye"):
            assert after[eye] == pytest.approx((1 - amount) * before[eye], rel=0.1)


def _upper_share(face, model, seed, closing):
    """Share of the closing way of the right eye's middle that the upper lid makes."""
    edited = edit_expression(face, "eyes_closed", model, MIRROR, [seed], closing)
    down, up = (edited.points[[159, 145], 1] - face.points[[159, 145], 1]) * (1, -1)
    return down / (down + up)


def test_the_upper_lid_closes_eyes_and_both_narrow_them(face, head):
    closed, narrowed = (
        np.array([_upper_share(face, head, seed, Closing((a, a))) for seed in range(24)])
        for a in (1.0, 0.6)
    )
    assert closed.min() > 0.55
    edited = edit_expression(face, "eyes_closed", head, MIRROR, [0])
    moved = edited.points[:, 1] - face.points[:, 1]
    assert moved[159] > -1.2 * moved[145] and moved[159] > 3
    assert 0.2 < narrowed.min() < 0.45 and narrowed.max() > 0.75


def test_two_eyes_close_unequally(face, head):
    closing = Closing((0.4, 0.9))
    for seed in range(6):
        edited = edit_expression(face, "eyes_closed", head, MIRROR, [seed], closing)
        before, after = openings(face.points[:, :2]), openings(edited.points[:, :2])
        for side, amount in zip(edited.closed, edited.amounts, strict=True):
            eye = f"{side}_eye"
            assert after[eye] == pytest.approx((1 - amount) * before[eye], rel=0.15)


def test_closed_and_half_closed_are_drawn_by_their_share():
    rng = np.random.default_rng(0)
    closing = Closing((0.4, 0.9), partial=0.3)
    pairs = np.array([closing.draw(rng, 2) for _ in range(500)])
    differences = pairs[:, 1] - pairs[:, 0]
    assert 0.36 < (differences != 0).sum() / (pairs < 1).any(1).sum() < 0.64
    assert differences.min() < -0.2 and differences.max() > 0.2 and abs(differences.mean()) < 0.02
    amounts = pairs[:, 0]
    assert 0.24 < (amounts < 1).mean() < 0.36
    drawn = amounts[amounts < 1]
    assert drawn.min() < 0.43 and 0.87 < drawn.max() <= 0.9
    assert {Closing().draw(rng, 2) for _ in range(5)} == {(1.0, 1.0)}
    assert len(closing.draw(rng, 1)) == 1
    for amount, partial in (((0.0, 1.0), 1.0), ((0.8, 0.5), 1.0), ((0.5, 1.0), 1.5)):
        with pytest.raises(ValueError, match="must be"):
            Closing(amount, partial)


def test_only_displacements_are_added(face, head):
    """A detection that the model cannot fit moves by the same displacement."""
    noise = np.random.default_rng(0).normal(0, 1.5, face.points.shape)
    noisy = replace(face, points=face.points + noise)
    clean = edit_expression(face, "mouth_open", head, MIRROR, [3]).points - face.points
    moved = edit_expression(noisy, "mouth_open", head, MIRROR, [3]).points - noisy.points
    np.testing.assert_allclose(moved, clean, atol=1e-9)


def test_upper_face_stays_when_the_jaw_drops(face, head):
    moved = edit_expression(face, "mouth_open", head, MIRROR, [3]).points - face.points
    assert np.linalg.norm(moved[[10, 151, 168, 33, 263], :2], axis=1).max() < 1.5
    assert moved[14, 1] > 5 and moved[152, 1] > 1.5  # lip and chin go down the picture


def test_draws_are_repeatable(face, head):
    first, again, other = (
        edit_expression(face, "frown", head, MIRROR, seed).points for seed in ([7], [7], [8])
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.05


def test_refuses_what_the_photo_shows_already(face, head):
    shut = replace(face, points=edit_expression(face, "eyes_closed", head, MIRROR, [0]).points)
    with pytest.raises(SkippedPhotoError, match="eye is closed"):
        edit_expression(shut, "eyes_closed", head, MIRROR, [0])
    points = face.points.copy()
    points[14, 1] += 0.5 * np.linalg.norm(points[61] - points[291])
    with pytest.raises(SkippedPhotoError, match="mouth is open"):
        edit_expression(replace(face, points=points), "mouth_open", head, MIRROR, [0])
