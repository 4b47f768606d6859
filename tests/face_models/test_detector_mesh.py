from __future__ import annotations

import numpy as np
import pytest
import torch

from v3recon.face_models.detector_mesh import (
    MIRROR_68,
    MIRROR_LABELS,
    estimate_pose,
    load_face_mesh,
    rotation_between,
)
from v3recon.geometry.rotation import euler_to_matrix

MESH = load_face_mesh()


def mean_points(pitch: float, yaw: float, roll: float) -> np.ndarray:
    angle = torch.deg2rad(torch.tensor([pitch, yaw, roll], dtype=torch.float64))
    return MESH.mean @ euler_to_matrix(angle[None])[0].numpy() * [60, -60, 60]


def test_mirror_tables_are_involutions_and_agree():
    assert (MESH.mirror[MESH.mirror] == np.arange(468)).all()
    assert (MIRROR_68[MIRROR_68] == np.arange(68)).all()
    assert (MIRROR_LABELS[MIRROR_LABELS] == np.arange(9)).all()
    assert (MESH.mirror[MESH.landmarks_68] == MESH.landmarks_68[MIRROR_68]).all()
    np.testing.assert_allclose(MESH.mean[MESH.mirror], MESH.mean * [-1, 1, 1], atol=1e-6)
    # The right eye is the person's own right, at the viewer's left.
    assert MESH.mean[MESH.right_eye, 0].max() < 0 < MESH.mean[MESH.left_eye, 0].min()


def test_mesh_is_a_disc_with_three_holes():
    edges = np.sort(MESH.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    assert 468 - len(unique) + len(MESH.triangles) == 1 - 3  # Euler characteristic
    loops = [MESH.outline, MESH.mouth, MESH.right_eye, MESH.left_eye]
    rim = np.concatenate([np.stack([loop, np.roll(loop, -1)], 1) for loop in loops])
    np.testing.assert_array_equal(np.unique(np.sort(rim, 1), axis=0), unique[counts == 1])


@pytest.mark.parametrize("angles", [(0, 0, 0), (10, 35, -20), (-15, -70, 30)])
def test_estimate_pose_recovers_angles(angles):
    np.testing.assert_allclose(np.degrees(estimate_pose(mean_points(*angles))), angles, atol=1e-3)


def test_rotation_between_reaches_the_new_pose():
    points = mean_points(-8, 20, 25)
    turn = rotation_between(estimate_pose(points), np.radians(80), np.radians(5))
    pose = estimate_pose((points - points.mean(0)) @ turn)
    np.testing.assert_allclose(np.degrees(pose), [5, 80, 25], atol=1e-3)
