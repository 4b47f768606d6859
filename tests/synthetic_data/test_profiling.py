from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from v3recon.face_models.detector_mesh import estimate_pose, load_face_mesh
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.synthetic_data.profiling import (
    build_sheet,
    face_center,
    profile_map,
    sample_labels,
    turn_sheet,
)

MESH = load_face_mesh()
SIZE = 256


def mean_points(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """The posed mean face in a picture of 256 pixels; angles in degrees."""
    angle = torch.deg2rad(torch.tensor([pitch, yaw, roll], dtype=torch.float64))
    rotation = euler_to_matrix(angle[None])[0].numpy()
    return MESH.mean.astype(np.float64) @ rotation * [55, -55, 55] + [SIZE / 2, SIZE / 2, 0]


def turned(points: np.ndarray, yaw: float, pitch: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Sheet and turned sheet; degrees."""
    sheet = build_sheet(points)
    return sheet, turn_sheet(sheet, estimate_pose(points), np.radians(yaw), np.radians(pitch))


def test_a_turned_face_has_the_pose_and_keeps_its_shape():
    points = mean_points(yaw=12, pitch=-8, roll=25)
    _, sheet = turned(points, 70, 5)
    face = sheet[:468]
    np.testing.assert_allclose(np.degrees(estimate_pose(face)), [5, 70, 25], atol=1e-3)
    distances = [np.linalg.norm(p - face_center(p), axis=1) for p in (points, face)]
    np.testing.assert_allclose(*distances, atol=1e-9)


def test_the_outermost_ring_stays_where_it_was():
    sheet, moved = turned(mean_points(), 60)
    rim = len(MESH.outline)
    np.testing.assert_allclose(moved[-rim:], sheet[-rim:], atol=1e-9)
    assert np.abs(moved[:468] - sheet[:468]).max() > 20


@pytest.mark.parametrize("yaw", [0.0, 25.0])
def test_points_and_picture_move_together(yaw):
    points = mean_points(roll=10)
    place = points[280, :2]  # a cheek that stays visible
    y, x = np.mgrid[:SIZE, :SIZE]
    spot = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 3.0**2))
    sheet, moved = turned(points, -yaw)
    source = profile_map(sheet, moved, np.eye(2, 3), SIZE)
    picture = cv2.remap(spot.astype(np.float32), source, None, cv2.INTER_LINEAR)
    weight = picture.astype(np.float64) ** 6  # its peak: foreshortening skews the skirts
    found = [(x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()]
    np.testing.assert_allclose(found, moved[280, :2], atol=0.5)


def test_the_nearer_half_hides_the_farther_half():
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[:, :128], image[:, 128:] = 1, 2
    # Positive yaw turns the nose to the viewer's right: the viewer's left cheek stays in view.
    sheet, moved = turned(mean_points(), 90)
    source = profile_map(sheet, moved, np.eye(2, 3), SIZE)
    x, y, _ = np.round(moved[MESH.landmarks_68[36]]).astype(int)
    assert moved[1, 0] > moved[MESH.outline, 0].max()
    column, _ = source[y, x]
    assert image[y, round(column)] == 1


def test_labels_are_the_vote_of_four():
    labels = np.array([[1, 2], [2, 2]], np.uint8)
    y, x = np.mgrid[:2, :2].astype(np.float32)
    assert sample_labels(labels, np.stack([x, y], -1)).tolist() == [[2]]
    assert sample_labels(labels, np.stack([x + 9, y], -1)).tolist() == [[0]]
