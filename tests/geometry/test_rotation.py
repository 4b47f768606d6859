from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from v3recon.geometry.rotation import (
    axis_angle_to_matrix,
    euler_to_matrix,
    matrix_to_euler,
    matrix_to_rotation_6d,
    rotation_6d_to_matrix,
)


def random_angles(count: int, generator: torch.Generator) -> torch.Tensor:
    """Pitch and roll in +-pi, yaw in +-pi/2."""
    unit = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1
    return unit * torch.tensor([math.pi, math.pi / 2, math.pi], dtype=torch.float64)


def test_quarter_turns_turn_the_axes_as_documented():
    half_pi = math.pi / 2
    x, y, z = torch.eye(3)
    pitch, yaw, roll = euler_to_matrix(half_pi * torch.eye(3))
    torch.testing.assert_close(y @ pitch, z, atol=1e-6, rtol=0)  # chin goes back
    torch.testing.assert_close(z @ yaw, x, atol=1e-6, rtol=0)  # nose goes to the viewer's right
    torch.testing.assert_close(x @ roll, y, atol=1e-6, rtol=0)  # counter-clockwise


def test_twin_of_scipy(generator):
    angle = random_angles(50, generator)
    expected = Rotation.from_euler("xyz", angle.numpy()).as_matrix()  # extrinsic: Rz Ry Rx
    torch.testing.assert_close(euler_to_matrix(angle), torch.from_numpy(expected).mT)


def test_result_is_a_rotation(generator):
    rotation = euler_to_matrix(random_angles(50, generator))
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, eye)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))


def test_euler_round_trip(generator):
    angle = random_angles(200, generator)
    torch.testing.assert_close(matrix_to_euler(euler_to_matrix(angle)), angle)


@pytest.mark.parametrize("yaw", [math.pi / 2, -math.pi / 2])
def test_gimbal_lock_gives_an_equal_rotation_with_roll_zero(yaw):
    rotation = euler_to_matrix(torch.tensor([[0.3, yaw, -0.5]], dtype=torch.float64))
    angle = matrix_to_euler(rotation)
    assert angle[0, 2] == 0
    torch.testing.assert_close(euler_to_matrix(angle), rotation, atol=1e-6, rtol=0)


def test_gradient_of_angles_is_finite_at_the_gimbal_lock():
    rotation = torch.tensor([[[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]], requires_grad=True)
    matrix_to_euler(rotation).sum().backward()
    assert rotation.grad is not None and rotation.grad.isfinite().all()


def test_6d_round_trip_and_rescaling(generator):
    rotation = euler_to_matrix(random_angles(50, generator))
    six = matrix_to_rotation_6d(rotation)
    torch.testing.assert_close(rotation_6d_to_matrix(six), rotation)
    # Lengths, and a part of the second axis along the first, do not matter.
    six = torch.cat([2 * six[:, :3], 3 * six[:, 3:] + 0.7 * six[:, :3]], 1)
    torch.testing.assert_close(rotation_6d_to_matrix(six), rotation)


def test_axis_angle_twin_of_scipy(generator):
    vectors = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    vectors[0] = 0
    expected = Rotation.from_rotvec(np.asarray(vectors)).as_matrix()
    torch.testing.assert_close(axis_angle_to_matrix(vectors), torch.from_numpy(expected).mT)


@pytest.mark.parametrize(
    ("function", "width"),
    [(euler_to_matrix, 3), (rotation_6d_to_matrix, 6), (axis_angle_to_matrix, 3)],
)
def test_gradients(function, width, generator):
    values = torch.randn(3, width, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, values)


def test_gradient_of_angles(generator):
    angle = (0.8 * random_angles(4, generator)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: matrix_to_euler(euler_to_matrix(a)), angle)


def test_any_leading_shape(generator):
    angle = random_angles(6, generator)
    folded = euler_to_matrix(angle.reshape(2, 3, 3))
    torch.testing.assert_close(folded.reshape(6, 3, 3), euler_to_matrix(angle))
