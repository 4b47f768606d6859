from __future__ import annotations

from dataclasses import replace

import numpy as np

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.synthetic_data.expressions import edit_expression
from v3recon.synthetic_data.generate import make_expression, shrink
from v3recon.synthetic_data.labels import mesh_to_picture
from v3recon.synthetic_data.quality import (
    MAX_SEAM,
    STATES,
    judge,
    measure_states,
    response,
    seam_ratio,
)

MIRROR = load_face_mesh().mirror


def test_states_have_no_scale_and_no_pose(face):
    states = measure_states(face.points)
    assert states.shape == (len(STATES),)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    np.testing.assert_allclose(measure_states(3 * face.points @ turn + 5), states)


def test_response_is_the_share_that_was_read():
    wanted = np.array([-0.09, -0.09, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert response(wanted, wanted) == 1
    assert response(wanted, 0 * wanted) == 0
    assert np.isclose(response(wanted, 0.25 * wanted), 0.25)
    assert response(wanted, np.array([0, 0, 0.3, 0.1, 0, 0, 0.0])) == 0  # another change


def test_seams_raise_the_gradient(face):
    picture = shrink(face.canvas)
    points = mesh_to_picture(face.points)[:, :2]
    assert seam_ratio(picture, picture, points, points) == 1
    cut = picture.copy()
    rows = slice(int(points[234, 1]) - 8, int(points[234, 1]) + 8)
    cut[rows, 20:76:3] = 255
    assert seam_ratio(picture, cut, points, points) > MAX_SEAM


def test_judge_gives_the_reason(face, head):
    edited = edit_expression(face, "mouth_open", head, MIRROR, [0])
    picture, labels = make_expression(face, edited, head, [0])
    before = shrink(face.canvas)
    shapes = {
        "right": edited.points,
        "unchanged": face.points,
        "none": None,
    }
    states = measure_states(shapes["unchanged"])

    def reason(read, face_edit=edited):
        reader = (lambda picture, points: shapes[read]) if read else None
        return judge(
            reader, face, face_edit, before, picture, points=labels.points, states_before=states
        ).reason

    assert reason("right") == "" and reason(None) == ""
    assert "does not read" in reason("unchanged")
    assert "finds no face" in reason("none")
    crossed = edited.points.copy()
    crossed[:, 0] = np.where(crossed[:, 1] > 100, 192 - crossed[:, 0], crossed[:, 0])
    assert "folds" in reason("right", replace(edited, points=crossed))
