"""The state whose projected points lie nearest where a network saw them: a Gauss-Newton step.

A network says of every point where it lies and how sure that is; how shape, rotation and place must
change for it is geometry and need not be learned. The step minimizes

    sum_p w_p |aim_p - project_p(state) - J_p d|^2 + sum_k s_k d_k^2

over the change d (Levenberg, Quarterly of Applied Mathematics 1944; one damping a coefficient).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import linear_points
from v3recon.geometry.camera import Camera, project, to_camera
from v3recon.geometry.rotation import rotation_6d_to_matrix

ROTATION_CHANGE = 3
"""Numbers of a small rotation (axis times angle)."""
NEAREST = 1.0
"""Depth that is reckoned with for nearer points, decimetres."""
EXPORTED_STEPS = 20
"""Conjugate gradient steps in exported networks."""
_TINY = 1e-12


def gauss_newton_step(
    state: tuple[Tensor, Tensor, Tensor],
    model: tuple[Tensor, Tensor],
    aims: Tensor,
    weights: Tensor,
    damping: Tensor,
) -> Tensor:
    """A state moved toward seen points.

    Args:
        state: shape [B, K], two axes of the rotation [B, 6], place [B, 3] in decimetres.
        model: mean [P, 3] of the points and their modes [P, 3, K], decimetres.
        aims: [B, P, 2] where the points were seen, crop pixels.
        weights: [B, P] of each, one over square pixels, >= 0.
        damping: [K + 6] of shape, rotation (radians) and place, > 0.

    Returns:
        [B, K + 9], axes of length 1 but for the change.
    """
    shape, axes, place = state
    mean, basis = model
    camera = Camera()
    rotation = rotation_6d_to_matrix(axes)
    turned = linear_points(mean, basis, shape) @ rotation
    missing = aims - project(turned + place[:, None], camera)
    with torch.no_grad():
        jacobian = projection_jacobian(basis, rotation, turned, place, camera)
    weight = weights[..., None].expand(-1, -1, 2).flatten(1)
    change = damped_least_squares(jacobian, missing.flatten(1), weight, damping)
    moved, turn, shift = change.split([shape.shape[1], ROTATION_CHANGE, place.shape[1]], 1)
    first, second = rotation[:, 0], rotation[:, 1]
    return torch.cat(
        [shape + moved, first + _cross(turn, first), second + _cross(turn, second), place + shift],
        1,
    )


def projection_jacobian(
    basis: Tensor, rotation: Tensor, turned: Tensor, place: Tensor, camera: Camera
) -> Tensor:
    """How pixels change with shape, a small rotation of the turned points, and place.

    Args:
        basis: [P, 3, K] modes of the points, decimetres.
        rotation: [B, 3, 3], acts on row vectors.
        turned: [B, P, 3] rotated points before translation, decimetres.
        place: [B, 3] translation, decimetres.
        camera: the camera.

    Returns:
        [B, 2 P, K + 6]: x of the first point, its y, x of the second …; pixels per unit.
    """
    count, points, modes = turned.shape[0], len(basis), basis.shape[-1]
    rows = basis.permute(1, 0, 2).flatten(1)
    by_shape = (rotation.transpose(1, 2) @ rows).reshape(count, 3, points, modes)
    x, y, z = turned.unbind(-1)
    none = torch.zeros_like(x)
    by_turn = torch.stack(
        [torch.stack(axis, -1) for axis in ((none, z, -y), (-z, none, x), (y, -x, none))], 1
    )
    by_place = torch.eye(3, dtype=turned.dtype, device=turned.device)[:, None]
    by_place = by_place.expand(count, 3, points, 3)
    change = torch.cat([by_shape, by_turn, by_place], 3)
    right, up, depth = to_camera(turned + place[:, None], camera).unbind(-1)
    depth = depth.clamp(min=NEAREST)
    scale = (camera.focal / depth)[..., None]
    right, up = (right / depth)[..., None], (up / depth)[..., None]
    columns = scale * (change[:, 0] + right * change[:, 2])
    lines = -scale * (change[:, 1] + up * change[:, 2])
    return torch.stack([columns, lines], 2).flatten(1, 2)


def damped_least_squares(
    jacobian: Tensor, missing: Tensor, weight: Tensor, damping: Tensor
) -> Tensor:
    """The d that minimizes sum weight (missing - jacobian d)^2 + sum damping d^2.

    Exported networks find it by `conjugate_gradients`: no exporter knows Cholesky's factors.

    Args:
        jacobian: [B, N, K]; has no gradient.
        missing: [B, N].
        weight: [B, N] >= 0.
        damping: [K] > 0.

    Returns:
        [B, K].
    """
    if torch.onnx.is_in_onnx_export():
        return conjugate_gradients(jacobian, missing, weight, damping, EXPORTED_STEPS)
    return cast(Tensor, _LeastSquares.apply(jacobian, missing, weight, damping))


class _LeastSquares(torch.autograd.Function):
    """With A d = J^T W m and A v = the gradient of d, all gradients are products of d and v."""

    @staticmethod
    def forward(
        ctx: Any, jacobian: Tensor, missing: Tensor, weight: Tensor, damping: Tensor
    ) -> Tensor:
        across = jacobian.transpose(1, 2)
        matrix = across @ (weight[..., None] * jacobian)
        matrix.diagonal(dim1=1, dim2=2).add_(damping)
        factor = torch.linalg.cholesky(matrix)
        found = torch.cholesky_solve(across @ (weight * missing)[..., None], factor)
        ctx.save_for_backward(jacobian, missing, weight, factor, found)
        return found[..., 0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
        jacobian, missing, weight, factor, found = ctx.saved_tensors
        dual = torch.cholesky_solve(grads[0][..., None], factor)
        seen = jacobian @ torch.cat([found, dual], 2)
        left = missing - seen[..., 0]
        return (
            None,
            weight * seen[..., 1],
            left * seen[..., 1],
            -(found * dual).sum((0, 2)),
        )


def conjugate_gradients(
    jacobian: Tensor, missing: Tensor, weight: Tensor, damping: Tensor, steps: int
) -> Tensor:
    """`damped_least_squares` by conjugate gradients from 0, preconditioned by the diagonal.

    Exact after as many steps as d has numbers; each step lowers the sum.
    """
    across = jacobian.transpose(1, 2)
    matrix = across @ (weight[..., None] * jacobian)
    diagonal = (across.square() @ weight[..., None]) + damping[:, None]
    rest = across @ (weight * missing)[..., None]
    found = torch.zeros_like(rest)
    along = scaled = rest / diagonal
    size = (rest * scaled).sum(1, keepdim=True)
    for _ in range(steps):
        image = matrix @ along + damping[:, None] * along
        reach = size / ((along * image).sum(1, keepdim=True) + _TINY)
        found = found + reach * along
        rest = rest - reach * image
        scaled = rest / diagonal
        before, size = size, (rest * scaled).sum(1, keepdim=True)
        along = scaled + size / (before + _TINY) * along
    return found[..., 0]


def _cross(left: Tensor, right: Tensor) -> Tensor:
    """Vector product [B, 3]; written out, since exporters do not know it."""
    a, b, c = left.unbind(-1)
    x, y, z = right.unbind(-1)
    return torch.stack([b * z - c * y, c * x - a * z, a * y - b * x], -1)
