from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from v3recon.geometry.affine2d import apply_affine_2d, invert_affine_2d
from v3recon.geometry.rotation import axis_angle_to_matrix, euler_to_matrix
from v3recon.geometry.similarity import solve_scaled_pose, solve_similarity

FIVE_POINTS = torch.tensor(
    [[-32, 30, 20], [33, 28, 20], [0, -5, 60], [-25, -50, 30], [24, -50, 30]], dtype=torch.float64
) / 100  # fmt: skip


def rotation_of(dimension: int) -> torch.Tensor:
    angle = torch.tensor([[0.2, -0.6, 0.9], [-1.0, 0.3, 2.5]], dtype=torch.float64)
    if dimension == 2:
        angle = angle * torch.tensor([0, 0, 1])
    return euler_to_matrix(angle)[:, :dimension, :dimension]


@pytest.mark.parametrize("dimension", [2, 3])
def test_exact_recovery(dimension, generator):
    source = torch.randn(2, 7, dimension, generator=generator, dtype=torch.float64)
    scale = torch.tensor([0.5, 3.0], dtype=torch.float64)
    rotation = rotation_of(dimension)
    translation = torch.randn(2, dimension, generator=generator, dtype=torch.float64)
    target = scale[:, None, None] * source @ rotation + translation[:, None]
    found = solve_similarity(source, target)
    for value, expected in zip(found, (scale, rotation, translation), strict=True):
        torch.testing.assert_close(value, expected)


def test_never_a_mirror_image(generator):
    source = torch.randn(1, 8, 3, generator=generator, dtype=torch.float64)
    mirrored = source * torch.tensor([-1, 1, 1])
    rotation = solve_similarity(source, mirrored)[1]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(1, dtype=torch.float64))


def test_twin_of_iterated_least_squares(generator):
    """Noisy weighted points against scipy's solver on scale, axis-angle and translation."""
    source = torch.randn(1, 9, 3, generator=generator, dtype=torch.float64)
    noise = 0.2 * torch.randn(1, 9, 3, generator=generator, dtype=torch.float64)
    target = 1.7 * source @ rotation_of(3)[:1] + 0.4 + noise
    weights = torch.rand(1, 9, generator=generator, dtype=torch.float64)

    def residual(x: np.ndarray) -> np.ndarray:
        rotation = axis_angle_to_matrix(torch.from_numpy(x[1:4])).numpy()
        error = x[0] * source[0].numpy() @ rotation + x[4:] - target[0].numpy()
        return (error * weights[0, :, None].sqrt().numpy()).ravel()

    scale, rotation, translation = solve_similarity(source, target, weights)
    start = np.array([1.7, *_axis_angle(rotation_of(3)[0]), 0.4, 0.4, 0.4])
    best = least_squares(residual, start, xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    expected = axis_angle_to_matrix(torch.from_numpy(best[1:4]))
    assert abs(scale[0].item() - best[0]) < 1e-6
    torch.testing.assert_close(rotation[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(translation[0], torch.from_numpy(best[4:]), atol=1e-6, rtol=0)


def _axis_angle(rotation: torch.Tensor) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation.mT.numpy()).as_rotvec()


def test_zero_weights_leave_points_out(generator):
    source = torch.randn(1, 6, 2, generator=generator, dtype=torch.float64)
    target = 2 * source + 1
    target[0, 5] = 100
    weights = torch.tensor([[1.0, 1, 1, 1, 1, 0]], dtype=torch.float64)
    scale, rotation, translation = solve_similarity(source, target, weights)
    torch.testing.assert_close(scale, torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(rotation[0], torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(translation, torch.ones(1, 2, dtype=torch.float64))


def test_gradient_of_similarity(generator):
    source = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(solve_similarity, (source, target))


def test_scaled_pose_is_the_reference_rule(generator):
    """DeMenthon and Davis: two rows by stacked least squares, scale = their mean length."""
    points_2d = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64) + 100
    scale, _, translation = solve_scaled_pose(FIVE_POINTS, points_2d)
    for index in range(3):
        system = np.zeros((10, 8))
        system[0::2, 0:3] = system[1::2, 4:7] = FIVE_POINTS.numpy()
        system[0::2, 3] = system[1::2, 7] = 1
        solution = np.linalg.lstsq(system, points_2d[index].numpy().reshape(-1), rcond=None)[0]
        expected = (np.linalg.norm(solution[0:3]) + np.linalg.norm(solution[4:7])) / 2
        assert abs(scale[index].item() - expected) < 1e-9 * expected
        np.testing.assert_allclose(translation[index].numpy(), solution[[3, 7]], rtol=1e-9)


def test_scaled_pose_recovers_an_orthographic_view():
    rotation = rotation_of(3)
    scale = torch.tensor([80.0, 110.0], dtype=torch.float64)
    points_2d = scale[:, None, None] * (FIVE_POINTS @ rotation)[..., :2] + 50
    found_scale, found_rotation, translation = solve_scaled_pose(FIVE_POINTS, points_2d)
    torch.testing.assert_close(found_scale, scale)
    torch.testing.assert_close(found_rotation, rotation)
    torch.testing.assert_close(translation, torch.full((2, 2), 50.0, dtype=torch.float64))


def test_gradient_of_scaled_pose(generator):
    noise = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)
    points_2d = (FIVE_POINTS[:, :2] + 0.05 * noise).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: solve_scaled_pose(FIVE_POINTS, p), points_2d)


def test_affine_inverse(generator):
    matrix = torch.randn(3, 2, 3, generator=generator, dtype=torch.float64)
    points = torch.randn(3, 6, 2, generator=generator, dtype=torch.float64)
    there = apply_affine_2d(points, matrix)
    torch.testing.assert_close(apply_affine_2d(there, invert_affine_2d(matrix)), points)


def test_batch_of_three_is_three_batches_of_one(generator):
    points_2d = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    together = solve_scaled_pose(FIVE_POINTS, points_2d)
    for index in range(3):
        alone = solve_scaled_pose(FIVE_POINTS, points_2d[index : index + 1])
        for one, all_three in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_three[index])
