"""Similarity transforms and scaled orthographic pose, solved in closed form and batched."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_similarity(
    source: Tensor, target: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares similarity: target = scale * source @ rotation + translation (Umeyama 1991).

    Args:
        source: [B, N, D] points, D = 2 or 3.
        target: [B, N, D] points.
        weights: [B, N] non-negative weights; default 1.

    Returns:
        scale [B], rotation [B, D, D] (det +1, acts on row vectors), translation [B, D].
    """
    assert source.shape == target.shape and source.ndim == 3, (source.shape, target.shape)
    if weights is None:
        weights = torch.ones_like(source[..., 0])
    weights = (weights / weights.sum(1, keepdim=True))[..., None]
    source_mean = (weights * source).sum(1, keepdim=True)
    target_mean = (weights * target).sum(1, keepdim=True)
    source_0, target_0 = source - source_mean, target - target_mean
    covariance = (weights * source_0).transpose(1, 2) @ target_0
    u, singular, vt = torch.linalg.svd(covariance)
    sign = torch.ones_like(singular)
    sign[:, -1] = torch.linalg.det(u @ vt).sign()  # no mirror images
    rotation = (u * sign[:, None, :]) @ vt
    variance = (weights * source_0**2).sum((1, 2))
    scale = (singular * sign).sum(1) / variance
    translation = target_mean[:, 0] - scale[:, None] * (source_mean @ rotation)[:, 0]
    return scale, rotation, translation


def solve_scaled_pose(points_3d: Tensor, points_2d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled orthographic pose of 3D points seen in an image (POS; DeMenthon and Davis 1995).

    Solves points_2d = points_3d @ rows + translation for an affine camera and takes its scale
    from the mean length of the two rows, as 3DDFA_V3's five-point crop does.

    Args:
        points_3d: [B, N, 3] or [N, 3], N >= 4, not coplanar.
        points_2d: [B, N, 2], both axes in the same sense as the x and y of `points_3d`.

    Returns:
        scale [B], rotation [B, 3, 3] (orthonormalised, acts on row vectors), translation [B, 2].
    """
    points_3d = points_3d.expand(points_2d.shape[0], -1, -1)
    ones = torch.ones_like(points_3d[..., :1])
    homogeneous = torch.cat([points_3d, ones], -1)
    affine = torch.linalg.lstsq(homogeneous, points_2d).solution  # [B, 4, 2]
    first, second = affine[:, :3, 0], affine[:, :3, 1]
    scale = (first.norm(dim=1) + second.norm(dim=1)) / 2
    u, _, vt = torch.linalg.svd(torch.stack([first, second], 1), full_matrices=False)
    rows = u @ vt  # nearest orthonormal pair
    rotation = torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], 1)
    return scale, rotation.transpose(1, 2), affine[:, 3]
