"""Rasterised silhouette loss: soft coverage of triangles against a mask, compared by IoU.

SoftRasterizer (Liu et al., ICCV 2019, section 3.2 and eq. 9). Only for comparison with the part
distribution loss: its signal fades a few sigma away from the outline.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint


def soft_silhouette(
    points_2d: Tensor, faces: Tensor, pixels: Tensor, sigma: float, chunk: int = 1 << 21
) -> Tensor:
    """Probability that the triangles cover each pixel, differentiable in the vertices.

    A = 1 - prod_f (1 - D_f), D_f = sigmoid(+-d^2 / sigma), d = distance to the triangle's
    outline, + inside, - outside. Since 1 - sigmoid(x) = exp(-softplus(x)), the product is a sum.

    Args:
        points_2d: [B, V, 2] pixels.
        faces: [F, 3], either orientation.
        pixels: [P, 2] or [B, P, 2] (x, y) where to look.
        sigma: softness, square pixels.
        chunk: pixel-triangle pairs held at once; more are computed again in the backward pass.

    Returns:
        [B, P] in 0…1.
    """
    assert points_2d.ndim == 3 and faces.ndim == 2, (points_2d.shape, faces.shape)
    pixels = pixels.expand(len(points_2d), -1, -1)
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    corners = points_2d[:, faces]  # [B, F, 3, 2]
    step = max(1, chunk // max(1, len(points_2d) * len(faces)))
    pieces = [pixels[:, start : start + step] for start in range(0, pixels.shape[1], step)]
    if len(pieces) == 1:
        return _coverage(corners, pixels, sigma)
    return torch.cat(
        [checkpoint(_coverage, corners, piece, sigma, use_reentrant=False) for piece in pieces], 1
    )


def _coverage(corners: Tensor, pixels: Tensor, sigma: float) -> Tensor:
    x, y = pixels[:, None, :, 0], pixels[:, None, :, 1]  # [B, 1, P]
    squared, sides = None, []
    for start, end in ((0, 1), (1, 2), (2, 0)):
        ax, ay = corners[:, :, start, 0, None], corners[:, :, start, 1, None]  # [B, F, 1]
        ex, ey = corners[:, :, end, 0, None] - ax, corners[:, :, end, 1, None] - ay
        px, py = x - ax, y - ay  # [B, F, P]
        sides.append((ex * py - ey * px).detach() >= 0)
        along = ((px * ex + py * ey) / (ex * ex + ey * ey).clamp_min(1e-12)).clamp(0, 1)
        distance = (px - along * ex) ** 2 + (py - along * ey) ** 2
        squared = distance if squared is None else torch.minimum(squared, distance)
    assert squared is not None
    inside = (sides[0] == sides[1]) & (sides[1] == sides[2])
    signed = torch.where(inside, squared, -squared) / sigma
    return -torch.expm1(-softplus(signed).sum(1))


def silhouette_iou_loss(silhouette: Tensor, mask: Tensor) -> Tensor:
    """1 - |A M| / |A + M - A M| (SoftRasterizer, eq. 9).

    Args:
        silhouette: [B, P] coverage, 0…1.
        mask: [B, P] bool or 0…1.

    Returns:
        [B], 0…1; 0 where the mask is empty, so that absent parts count nothing.
    """
    assert silhouette.shape == mask.shape and mask.ndim == 2, (silhouette.shape, mask.shape)
    mask = mask.to(silhouette)
    both = (silhouette * mask).sum(1)
    either = (silhouette + mask - silhouette * mask).sum(1)
    loss = 1 - both / either.clamp_min(torch.finfo(either.dtype).tiny)
    return torch.where(mask.sum(1) > 0, loss, 0)
