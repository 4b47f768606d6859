"""The Gauss-Newton step of the refiner: Jacobian, least squares, gradients, convergence."""

from __future__ import annotations

import pytest
import torch

from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import axis_angle_to_matrix, rotation_6d_to_matrix
from v3recon.networks.point_solver import (
    conjugate_gradients,
    damped_least_squares,
    gauss_newton_step,
    projection_jacobian,
)

POINTS, MODES = 20, 7


@pytest.fixture
def scene():
    """Mean and modes of points, and a state of two faces, in float64."""
    torch.manual_seed(0)
    kind = {"dtype": torch.float64}
    model = 0.5 * torch.randn(POINTS, 3, **kind), 0.1 * torch.randn(POINTS, 3, MODES, **kind)
    state = (
        torch.randn(2, MODES, **kind),
        torch.randn(2, 6, **kind),
        0.1 * torch.randn(2, 3, **kind),
    )
    return model, state


def pixels(model, shape, rotation, place):
    mean, basis = model
    points = mean + torch.einsum("pck,bk->bpc", basis, shape)
    return project(points @ rotation + place[:, None], Camera())


def test_jacobian_is_the_slope_of_the_projection(scene):
    model, (shape, axes, place) = scene
    rotation = rotation_6d_to_matrix(axes)
    turned = (model[0] + torch.einsum("pck,bk->bpc", model[1], shape)) @ rotation
    found = projection_jacobian(model[1], rotation, turned, place, Camera())
    step = 1e-5
    for k in range(MODES + 6):
        change = torch.zeros(2, MODES + 6, dtype=torch.float64)
        change[:, k] = step
        at = [
            pixels(
                model, shape + sign * change[:, :MODES],
                rotation @ axis_angle_to_matrix(sign * change[:, MODES : MODES + 3]),
                place + sign * change[:, MODES + 3 :],
            )
            for sign in (1, -1)
        ]  # fmt: skip
        slope = (at[0] - at[1]).flatten(1) / (2 * step)
        torch.testing.assert_close(found[..., k], slope, atol=1e-5, rtol=1e-6)


def problem():
    torch.manual_seed(1)
    kind = {"dtype": torch.float64}
    jacobian = torch.randn(2, 20, 6, **kind)
    return jacobian, torch.randn(2, 20, **kind), torch.rand(2, 20, **kind), torch.rand(6, **kind)


def test_least_squares_solve_the_normal_equations():
    jacobian, missing, weight, damping = problem()
    found = damped_least_squares(jacobian, missing, weight, damping)
    matrix = jacobian.mT @ (weight[..., None] * jacobian) + torch.diag(damping)
    expected = torch.linalg.solve(matrix, jacobian.mT @ (weight * missing)[..., None])
    torch.testing.assert_close(found, expected[..., 0])
    torch.testing.assert_close(conjugate_gradients(jacobian, missing, weight, damping, 6), found)


def test_gradients_of_the_least_squares():
    jacobian, *others = problem()
    inputs = tuple(value.requires_grad_() for value in others)
    assert torch.autograd.gradcheck(lambda *given: damped_least_squares(jacobian, *given), inputs)


def test_steps_bring_the_points_to_their_aims(scene):
    model, state = scene
    shape, axes, place = state
    turn = torch.tensor([[0.1, -0.2, 0.15]], dtype=torch.float64).repeat(2, 1)
    aims = pixels(
        model, shape + 0.3, rotation_6d_to_matrix(axes) @ axis_angle_to_matrix(turn), place - 0.1
    )
    weights = torch.ones(2, POINTS, dtype=torch.float64)
    damping = torch.full((MODES + 6,), 1e-6, dtype=torch.float64)
    errors = []
    for _ in range(5):
        found = pixels(model, state[0], rotation_6d_to_matrix(state[1]), state[2])
        errors.append(float((found - aims).norm(dim=-1).mean()))
        moved = gauss_newton_step(state, model, aims, weights, damping)
        state = tuple(moved.split([MODES, 6, 3], 1))
    assert errors[0] > 10 and errors[-1] < 1e-3
    torch.testing.assert_close(state[0], shape + 0.3, atol=1e-3, rtol=0)


def test_points_without_weight_change_nothing(scene):
    model, state = scene
    aims = torch.zeros(2, POINTS, 2, dtype=torch.float64)
    weights = torch.zeros(2, POINTS, dtype=torch.float64)
    moved = gauss_newton_step(state, model, aims, weights, torch.ones(MODES + 6).double())
    torch.testing.assert_close(moved[:, :MODES], state[0])
    torch.testing.assert_close(rotation_6d_to_matrix(moved[:, MODES:-3]),
                               rotation_6d_to_matrix(state[1]))  # fmt: skip
    torch.testing.assert_close(moved[:, -3:], state[2])
