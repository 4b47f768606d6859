"""Landmark loss with Deep3D's weights (Deng et al., CVPRW 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

HEAVY_LANDMARKS_68 = (28, 29, 30, 60, 61, 62, 63, 64, 65, 66, 67)
"""Nose tip and inner lips, 0-based iBUG order; they weigh 20 in Deep3D."""


def landmark_weights_68(
    heavy: float = 20.0, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Deep3D's weights [68]: `heavy` for `HEAVY_LANDMARKS_68`, else 1."""
    weights = torch.ones(68, device=device, dtype=dtype)
    weights[list(HEAVY_LANDMARKS_68)] = heavy
    return weights


def landmark_loss(points: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of w |q - q'|^2 over all landmarks of the batch (Deep3D, eq. 5).

    The mean divides by the number of landmarks, not by the sum of the weights, as the release
    does. Landmarks of weight 0 may hold anything, NaN included.

    Args:
        points: [B, L, 2] predicted, pixels.
        target: [B, L, 2] pixels.
        weights: [L] or [B, L] >= 0; 0 = not annotated. Default 1.

    Returns:
        scalar, square pixels.
    """
    assert points.shape == target.shape and points.ndim == 3, (points.shape, target.shape)
    if weights is None:
        return ((points - target) ** 2).sum(-1).mean()
    weights = weights.to(points).expand(points.shape[:2])
    difference = torch.where((weights > 0)[..., None], points - target, 0)
    return (weights * (difference**2).sum(-1)).mean()


def gather_landmarks(points_2d: Tensor, index: Tensor) -> Tensor:
    """Landmarks [B, L, 2] of dense points [B, V, 2]; index [L] or, marched, [B, L]."""
    if index.ndim == 1:
        return points_2d[:, index]
    return points_2d.gather(1, index[..., None].expand(-1, -1, points_2d.shape[-1]))
