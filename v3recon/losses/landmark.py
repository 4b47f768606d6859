"""Landmark loss with a contour that follows the pose.

Deep3D (Deng et al., CVPRW 2019) for the weighted points; landmark marching on the cheek contour
after Zhu et al. (CVPR 2015) as used by 3DDFA_V3 (CVPR 2024).
"""

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


@torch.no_grad()
def march_contour_index(
    points_2d: Tensor, contour_lines: Tensor, roll: Tensor, chin: int
) -> Tensor:
    """Vertices that form the outline of the face as seen by the camera.

    With the roll removed, line i gives the vertex with the smallest x for i < N // 2, the largest
    for i > N // 2; the middle landmark, the chin, does not march (3DDFA_V3, `ldm106_2d`).

    Args:
        points_2d: [B, V, 2] projected vertices, pixels, y down.
        contour_lines: [N, K] vertex ids of N (odd) lines from the person's right ear over the
            chin to the left ear, each filled up with -1.
        roll: [B] radians, as in `geometry.rotation.euler_to_matrix`.
        chin: vertex id of the middle landmark (`landmarks_106[16]`).

    Returns:
        [B, N] vertex ids.
    """
    assert points_2d.ndim == 3 and contour_lines.ndim == 2, contour_lines.shape
    lines = contour_lines.clamp_min(0)
    cos, sin = roll.cos()[:, None, None], roll.sin()[:, None, None]
    x, y = points_2d[:, lines].unbind(-1)  # [B, N, K]
    # y points down here, so turning back by the roll is x cos - y sin, not x cos + y sin.
    upright = x * cos - y * sin
    missing = contour_lines < 0
    least = upright.masked_fill(missing, torch.inf).argmin(-1)
    most = upright.masked_fill(missing, -torch.inf).argmax(-1)
    count = len(contour_lines)
    line = torch.arange(count, device=points_2d.device)
    column = torch.where(line < count // 2, least, most)
    index = contour_lines.expand(len(points_2d), -1, -1).gather(2, column[..., None])[..., 0]
    return torch.where(line == count // 2, chin, index)


def gather_landmarks(points_2d: Tensor, index: Tensor) -> Tensor:
    """Landmarks [B, L, 2] of dense points [B, V, 2]; index [L] or, marched, [B, L]."""
    if index.ndim == 1:
        return points_2d[:, index]
    return points_2d.gather(1, index[..., None].expand(-1, -1, points_2d.shape[-1]))
