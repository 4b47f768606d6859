"""Every formula against values of the reference implementation (3DDFA_V3), 1e-5; pixels 1e-4."""

from __future__ import annotations

import pytest
import torch

from v3recon.geometry.camera import Camera, project, to_camera
from v3recon.geometry.mesh import vertex_faces_of, vertex_normals
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.geometry.spherical_harmonics import shade_sh
from v3recon.types import FaceCoeffs

TOLERANCE = {"atol": 1e-5, "rtol": 0}
PIXEL_TOLERANCE = {"atol": 1e-4, "rtol": 0}
TOP_ROW = 223  # row = 223 - y_up


@pytest.fixture
def coeffs(golden) -> FaceCoeffs:
    return FaceCoeffs.from_tensor(golden["coeffs"])


def test_rotation(golden, coeffs):
    torch.testing.assert_close(euler_to_matrix(coeffs.angle), golden["rotation_row"], **TOLERANCE)


def test_rotated_normals(golden):
    normals = vertex_normals(golden["shape"], golden["tri"], golden["point_buf"])
    rotated = normals @ golden["rotation_row"]
    torch.testing.assert_close(rotated, golden["normals_rotated"], **TOLERANCE)


def test_normals_with_our_own_table_of_faces(golden):
    table = vertex_faces_of(golden["tri"], golden["shape"].shape[1])
    rotated = vertex_normals(golden["shape"], golden["tri"], table) @ golden["rotation_row"]
    torch.testing.assert_close(rotated, golden["normals_rotated"], **TOLERANCE)


def test_lit_colors(golden, coeffs):
    colors = shade_sh(golden["albedo"], golden["normals_rotated"], coeffs.sh)
    torch.testing.assert_close(colors, golden["texture"], **TOLERANCE)


def test_pose_and_camera(golden, coeffs):
    posed = golden["shape"] @ euler_to_matrix(coeffs.angle) + coeffs.trans[:, None]
    torch.testing.assert_close(posed, golden["posed"], **TOLERANCE)
    torch.testing.assert_close(to_camera(posed, Camera()), golden["camera"], **TOLERANCE)


def test_projection(golden):
    points = project(golden["posed"], Camera())
    torch.testing.assert_close(points[..., 0], golden["image_xy_up"][..., 0], **PIXEL_TOLERANCE)
    rows = TOP_ROW - golden["image_xy_up"][..., 1]
    torch.testing.assert_close(points[..., 1], rows, **PIXEL_TOLERANCE)
