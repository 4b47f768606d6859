"""Rotations as 3 x 3 matrices that act on row vectors: `rotated = points @ rotation`."""

from __future__ import annotations

import torch
from torch import Tensor


def euler_to_matrix(angle: Tensor) -> Tensor:
    """Rotation from pitch, yaw and roll: (Rz Ry Rx) transposed, for row vectors (3DDFA_V3).

    Args:
        angle: [..., 3] pitch about x, yaw about y, roll about z, radians.

    Returns:
        [..., 3, 3], acts on row vectors `v @ R`.
    """
    assert angle.shape[-1] == 3, angle.shape
    cos, sin = angle.cos(), angle.sin()
    cx, cy, cz = cos.unbind(-1)
    sx, sy, sz = sin.unbind(-1)
    # Columns of Rz Ry Rx are the rows of its transpose.
    columns = [
        torch.stack([cz * cy, sz * cy, -sy], -1),
        torch.stack([cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx], -1),
        torch.stack([cz * sy * cx + sz * sx, sz * sy * cx - cz * sx, cy * cx], -1),
    ]
    return torch.stack(columns, -2)


def matrix_to_euler(rotation: Tensor) -> Tensor:
    """Pitch, yaw and roll of a rotation; inverse of `euler_to_matrix` for |yaw| < 90 degrees.

    At |yaw| = 90 degrees pitch and roll are not separate; roll 0 is returned there.

    Args:
        rotation: [..., 3, 3], acts on row vectors.

    Returns:
        [..., 3] pitch, yaw, roll in radians, yaw in [-pi/2, pi/2].
    """
    assert rotation.shape[-2:] == (3, 3), rotation.shape
    sin_yaw = (-rotation[..., 0, 2]).clamp(-1, 1)
    # atan2 keeps precision near 90 degrees, where asin loses half of the digits.
    squared = rotation[..., 0, 0] ** 2 + rotation[..., 0, 1] ** 2
    cos_yaw = squared.clamp(min=1e-14).sqrt()  # the gradient of sqrt is infinite at 0
    yaw = torch.atan2(sin_yaw, cos_yaw)
    locked = cos_yaw < 1e-6
    # Chosen before atan2, so that the branch not taken gives no NaN gradient.
    pitch = torch.atan2(
        torch.where(locked, -rotation[..., 2, 1], rotation[..., 1, 2]),
        torch.where(locked, rotation[..., 1, 1], rotation[..., 2, 2]),
    )
    zero = torch.zeros_like(yaw)
    roll = torch.atan2(
        torch.where(locked, zero, rotation[..., 0, 1]),
        torch.where(locked, zero + 1, rotation[..., 0, 0]),
    )
    return torch.stack([pitch, yaw, roll], -1)


def rotation_6d_to_matrix(six: Tensor) -> Tensor:
    """Rotation from two unnormalised row axes by Gram-Schmidt (Zhou et al., CVPR 2019).

    Unlike angles it has no jump and no gimbal lock, so networks learn it well at profile views.

    Args:
        six: [..., 6], first and second row of the matrix, any length but not parallel.

    Returns:
        [..., 3, 3] rotation, determinant +1, acts on row vectors.
    """
    assert six.shape[-1] == 6, six.shape
    first = torch.nn.functional.normalize(six[..., :3], dim=-1)
    second = six[..., 3:] - (first * six[..., 3:]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)


def matrix_to_rotation_6d(rotation: Tensor) -> Tensor:
    """First two rows of a rotation [..., 3, 3] as [..., 6]; see `rotation_6d_to_matrix`."""
    assert rotation.shape[-2:] == (3, 3), rotation.shape
    return rotation[..., :2, :].flatten(-2)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rotation from axis times angle (Rodrigues), for row vectors.

    Args:
        axis_angle: [..., 3], direction = axis, length = angle in radians.

    Returns:
        [..., 3, 3], acts on row vectors.
    """
    assert axis_angle.shape[-1] == 3, axis_angle.shape
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    cross = cross.unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross).transpose(-1, -2)
