from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_photo import SIDE, make_face, mean_mesh, paint_photo

from v3recon.synthetic_data.source_face import (
    SkippedPhotoError,
    canvas_matrix,
    cut_canvas,
    looks_covered,
    looks_shaded,
    make_source_face,
    projected_mesh,
    to_pixels,
)


def test_fit_projects_onto_the_detection(face, head):
    projected = to_pixels(projected_mesh(face.decoded, head)[:, :2], face.crop_to_canvas)
    assert np.abs(projected - face.points[:, :2]).max() < 1.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda mesh: mesh * [0.1, 0.1, 0.1], "smaller"),
        (lambda mesh: mesh + np.array([150, 0, 0]), "border"),
    ],
)
def test_bad_faces_are_skipped_with_a_reason(head, change, reason):
    mesh = mean_mesh(head)
    with pytest.raises(SkippedPhotoError, match=reason):
        make_source_face(paint_photo(mesh), change(mesh), head, size=96)


def test_turned_faces_are_for_poses_only(head):
    mesh = mean_mesh(head, yaw=1.0)
    photo = paint_photo(mesh)
    with pytest.raises(SkippedPhotoError, match="pose"):
        make_source_face(photo, mesh, head, size=96)
    assert abs(make_source_face(photo, mesh, head, size=96, turned=True).pose[1]) > 0.9


def test_covered_mouth_is_skipped(head):
    classes = np.ones((SIDE, SIDE), np.uint8)
    classes[160:] = 18  # cloth over everything below the nose
    with pytest.raises(SkippedPhotoError, match="covered"):
        make_face(head, classes=classes)


def test_a_sleeve_over_the_lips_looks_covered(face, head):
    assert not looks_covered(face)
    canvas = face.canvas.copy()
    canvas[round(face.points[2, 1]) :] = (90, 95, 100)
    assert looks_covered(replace(face, canvas=canvas))
    assert not looks_covered(make_face(head, grey=True))


def test_dark_glasses_look_shaded(face):
    assert not looks_shaded(face)
    eyes = face.points[[33, 133, 362, 263, 228, 448], :2]
    (left, top), (right, bottom) = (eyes.min(0) - 8).astype(int), (eyes.max(0) + 8).astype(int)
    canvas = face.canvas.copy()
    canvas[top:bottom, left:right] = 25
    assert looks_shaded(replace(face, canvas=canvas))
    canvas[:, : round(face.points[168, 0])] = face.canvas[:, : round(face.points[168, 0])]
    assert not looks_shaded(replace(face, canvas=canvas))  # one eye in the shadow


def test_canvas_stays_inside_the_photo_where_it_can():
    box = np.array([[20.0, 60.0], [120.0, 160.0]])
    matrix = canvas_matrix(box, 200, 2.0, (200, 220))
    corners = (np.array([[-0.5, -0.5], [199.5, 199.5]]) - matrix[:, 2]) / matrix[0, 0]
    # Centred it would begin at -30; the face may move by 15 pixels at most.
    assert np.isclose(corners[0, 0], -15) and np.isclose(corners[0, 1], 10)
    assert corners[1, 0] <= 199.51


def test_canvas_of_a_photo_is_the_photo():
    photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(cut_canvas(photo, np.eye(2, 3), 64), photo)


def test_outside_of_the_photo_is_not_black():
    photo = np.full((64, 64, 3), 200, np.uint8)
    matrix = np.array([[1.0, 0, 40], [0, 1, 40]])
    assert cut_canvas(photo, matrix, 128).min() > 190
