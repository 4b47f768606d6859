from __future__ import annotations

import numpy as np
import pytest

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.synthetic_data.expressions import LOWER_LOOP, UPPER_LOOP, Closing, edit_expression
from v3recon.synthetic_data.profiling import affine_map
from v3recon.synthetic_data.warp import (
    expression_map,
    eye_sheet,
    fold_share,
    lid_line,
    lid_sheet,
    move_sheet,
    remap,
    smooth_curve,
)

MIRROR = load_face_mesh().mirror
SIDE = 192


def test_nothing_moves_nothing_changes(face):
    source_map = expression_map(face.points, face.points, (), SIDE)
    np.testing.assert_allclose(source_map, affine_map(np.eye(2, 3), SIDE), atol=2e-2)
    np.testing.assert_allclose(remap(face.canvas, source_map), face.canvas, atol=2)


def test_a_point_shows_where_it_came_from(face, head):
    moved = edit_expression(face, "mouth_open", head, MIRROR, [2]).points
    source_map = expression_map(face.points, moved, (), SIDE)
    for k in (152, 17, 205, 425):  # chin, lower lip, cheeks
        column, row = np.round(moved[k, :2]).astype(int)
        assert np.abs(source_map[row, column] - face.points[k, :2]).max() < 2.0


def test_border_of_the_picture_stays(face, head):
    moved = edit_expression(face, "mouth_open", head, MIRROR, [2]).points
    source_map = expression_map(face.points, moved, (), SIDE)
    plain = affine_map(np.eye(2, 3), SIDE)
    np.testing.assert_allclose(source_map[:3], plain[:3], atol=0.3)
    np.testing.assert_allclose(source_map[:, [0, 1, -2, -1]], plain[:, [0, 1, -2, -1]], atol=0.3)


def test_rings_do_not_cross_each_other(face, head):
    """Along each spoke the rings keep their order below the dropped chin."""
    moved = edit_expression(face, "mouth_open", head, MIRROR, [2]).points
    _, after = move_sheet(face.points, moved)
    outline = load_face_mesh().outline
    spoke = int(np.flatnonzero(outline == 152)[0])
    rings = after[471:].reshape(4, len(outline), 3)[:, spoke, 1]
    assert (np.diff([moved[152, 1], *rings]) > 0).all()


def test_lid_takes_skin_from_above_the_eye_only(face, head):
    edited = edit_expression(face, "eyes_closed", head, MIRROR, [0])
    for side, upper in (("right", 159), ("left", 386)):
        source, target = lid_sheet(face.points, edited.points, side)
        middle = source.reshape(14, 41, 2)[:, 20]
        assert (np.diff(middle[:, 1]) > -1e-4).all()
        assert middle[-1, 1] < face.points[upper, 1]
        line = lid_line(edited.points, side, UPPER_LOOP)
        np.testing.assert_allclose(target.reshape(14, 41, 3)[-1, :, :2], line, atol=1e-3)


def test_a_curve_passes_through_its_points():
    points = np.random.default_rng(0).normal(size=(9, 2))
    np.testing.assert_allclose(smooth_curve(points)[::5], points, atol=1e-9)


def test_folds_are_found(face):
    assert fold_share(face.points, face.points) == 0
    crossed = face.points.copy()
    crossed[:, 0] = np.where(crossed[:, 1] > 110, 192 - crossed[:, 0], crossed[:, 0])
    assert fold_share(face.points, crossed) > 0.2


@pytest.mark.parametrize("gaze", [0.0, 0.5])
def test_what_shows_of_a_half_closed_eye_stays_or_looks_down(face, head, gaze):
    edited = edit_expression(face, "eyes_closed", head, MIRROR, [0], Closing((0.6, 0.6)))
    source, target = eye_sheet(face.points, edited.points, "right", gaze)
    source, target = source.reshape(8, 41, 2), target.reshape(8, 41, 3)
    middle = target[3, 20, :2]
    came = source[3, 20] - middle
    lowered = edited.points[159, 1] - face.points[159, 1]
    assert abs(came[0]) < 1.5 and came[1] == pytest.approx(-gaze * lowered, abs=1.5)
    # It lies between the moved lids and comes from between the photo's own.
    for loop, row in ((UPPER_LOOP, 0), (LOWER_LOOP, -1)):
        lid = lid_line(edited.points, "right", loop)
        np.testing.assert_allclose(target[row, :, :2], lid, atol=1e-3)
    upper, lower = (lid_line(face.points, "right", loop) for loop in (UPPER_LOOP, LOWER_LOOP))
    inside = (source[:, 5:-5, 1] > upper[5:-5, 1]) & (source[:, 5:-5, 1] < lower[5:-5, 1])
    assert inside.all()
    source_map = expression_map(face.points, edited.points, edited.closed, SIDE, gaze)
    column, row = np.round(middle).astype(int)
    np.testing.assert_allclose(source_map[row, column] - [column, row], came, atol=1)
