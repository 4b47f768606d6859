from __future__ import annotations

import numpy as np
import pytest

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.io.celebamask import classes_of_labels
from v3recon.synthetic_data.expressions import edit_expression
from v3recon.synthetic_data.mask_editing import (
    edit_mask,
    load_generator,
    run_generator,
    solve_affine,
)

MIRROR = load_face_mesh().mirror


def brighten(image: np.ndarray, mask: np.ndarray, edited: np.ndarray) -> np.ndarray:
    assert mask.shape == edited.shape == image.shape[:2]
    return np.full_like(image, 7)


def test_affine_is_recovered():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 2)) * 20
    matrix = np.array([[1.1, 0.2, 3.0], [-0.1, 0.9, -5.0]])
    found = solve_affine(points, points @ matrix[:, :2].T + matrix[:, 2], damping=0)
    np.testing.assert_allclose(found, matrix, atol=1e-9)


def test_points_on_a_line_do_not_break_it():
    points = np.stack([np.arange(5.0), np.zeros(5)], 1)
    np.testing.assert_allclose(
        solve_affine(points, points + np.array([2, 3])), [[1, 0, 2], [0, 1, 3]]
    )


def test_no_edit_leaves_the_parts(face):
    mask = classes_of_labels(face.labels)
    edited = edit_mask(mask, face.points, face.points)
    assert (edited != mask).mean() < 0.01


def test_edits_change_the_parts(face, head):
    mask = classes_of_labels(face.labels)
    shut = edit_expression(face, "eyes_closed", head, MIRROR, [0]).points
    edited = edit_mask(mask, face.points, shut)
    assert not np.isin(edited, (4, 5)).any() and np.isin(mask, (4, 5)).any()
    opened = edit_expression(face, "mouth_open", head, MIRROR, [0]).points
    edited = edit_mask(mask, face.points, opened)
    assert (edited == 10).sum() > 50
    rows_before, rows_after = (np.nonzero(m == 12)[0].mean() for m in (mask, edited))
    assert rows_after - rows_before > 0.6 * (opened[17, 1] - face.points[17, 1])


def test_generator_by_name():
    generator = load_generator("test_mask_editing:brighten")
    image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    assert (run_generator(generator, image, mask, mask) == 7).all()
    with pytest.raises(ValueError, match="returned"):
        run_generator(lambda image, mask, edited: image[:2], image, mask, mask)


@pytest.mark.parametrize("name", ["nothing_like_this:f", "json:nothing", "json", "json:__name__"])
def test_bad_generators(name):
    with pytest.raises(ValueError, match="--generator"):
        load_generator(name)
