"""Sets of points: anchors, nearest neighbours, distance statistics, farthest-point sampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

STATISTICS = ("min", "max", "mean")
"""Statistics of the distances from an anchor to a point set, in the order of every table here."""


def anchor_grid(
    image_size: tuple[int, int],
    grid_size: tuple[int, int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Anchors spread over an image, on pixel centres, row by row.

    Whole pixels, so that a distance transform of a mask sampled there is exact.

    Args:
        image_size: (H, W) of the image, pixels.
        grid_size: (rows, columns) of anchors, at most (H, W).
        device: where to put them.
        dtype: floating type.

    Returns:
        [rows * columns, 2] (x, y), pixels.
    """
    axes = []
    for size, count in zip(image_size, grid_size, strict=True):
        if not 0 < count <= size:
            raise ValueError(f"anchor grid {grid_size} does not fit the image {image_size}")
        steps = torch.arange(count, dtype=torch.float64)
        axes.append(((steps + 0.5) * (size / count)).floor())
    rows, columns = torch.meshgrid(axes[0], axes[1], indexing="ij")
    return torch.stack([columns, rows], -1).reshape(-1, 2).to(device=device, dtype=dtype)


def pairwise_sq_dist(first: Tensor, second: Tensor) -> Tensor:
    """Squared Euclidean distances [..., N, M] of points [..., N, D] and [..., M, D].

    Taken from differences, not from |a|^2 - 2ab + |b|^2, which loses digits for near points.
    """
    assert first.shape[-1] == second.shape[-1], (first.shape, second.shape)
    total = torch.zeros(())
    for axis in range(first.shape[-1]):  # never holds [..., N, M, D]
        difference = first[..., :, None, axis] - second[..., None, :, axis]
        total = difference**2 if axis == 0 else total + difference**2
    return total


@torch.no_grad()
def nearest(
    source: Tensor, target: Tensor, target_mask: Tensor | None = None, chunk: int = 1 << 22
) -> tuple[Tensor, Tensor]:
    """Nearest target point of every source point.

    Args:
        source: [B, N, D].
        target: [B, M, D], M >= 1.
        target_mask: [B, M] bool, False = not there.
        chunk: pairs held in memory at once, for the whole batch.

    Returns:
        squared distance [B, N] (infinite where no target is there) and index [B, N]; no gradient.
    """
    assert source.ndim == 3 and target.ndim == 3, (source.shape, target.shape)
    step = max(1, chunk // (target.shape[0] * target.shape[1]))
    best, index = [], []
    for start in range(0, source.shape[1], step):
        squared = pairwise_sq_dist(source[:, start : start + step], target)
        if target_mask is not None:
            squared = squared.masked_fill(~target_mask[:, None], torch.inf)
        value, where = squared.min(-1)
        best.append(value)
        index.append(where)
    return torch.cat(best, 1), torch.cat(index, 1)


def distance_statistics(
    points: Tensor, anchors: Tensor, weights: Tensor | None = None, chunk: int = 1 << 24
) -> Tensor:
    """Least, greatest and mean distance from anchors to point sets, differentiable.

    The descriptor of Wang et al., 3DDFA_V3 (CVPR 2024), section 3.2. Anchors are processed in
    pieces whose distances are computed again in the backward pass, so memory stays bounded.

    Args:
        points: [B, N, 2] pixels.
        anchors: [A, 2] pixels.
        weights: [B, N] >= 0; 0 takes a point out of the set; others weigh the mean. Default 1.
        chunk: distances held at once.

    Returns:
        [B, 3, A] min, max, mean, pixels; 0 for a set whose weights are all 0.
    """
    assert points.ndim == 3 and anchors.ndim == 2, (points.shape, anchors.shape)
    if weights is None:
        weights = torch.ones_like(points[..., 0])
    weights = weights.to(points.dtype)
    step = max(1, chunk // max(1, points.shape[0] * points.shape[1]))
    pieces = [anchors[start : start + step] for start in range(0, len(anchors), step)]
    if len(pieces) == 1:
        return _statistics(points, anchors, weights)
    if not (points.requires_grad and torch.is_grad_enabled()):
        return torch.cat([_statistics(points, piece, weights) for piece in pieces], -1)
    parts = [
        checkpoint(_statistics, points, piece, weights, use_reentrant=False) for piece in pieces
    ]
    return torch.cat(parts, -1)


def _statistics(points: Tensor, anchors: Tensor, weights: Tensor) -> Tensor:
    squared = pairwise_sq_dist(anchors[None], points)  # [B, A, N]
    # The slope of a distance is undefined at zero; it counts as zero here.
    distance = torch.where(squared > 0, squared, 1).sqrt() * (squared > 0)
    there = (weights > 0)[:, None]
    least = distance.masked_fill(~there, torch.inf).amin(-1)
    greatest = distance.masked_fill(~there, -torch.inf).amax(-1)
    total = weights.sum(-1, keepdim=True)
    mean = (distance @ weights[..., None])[..., 0] / total.clamp_min(1e-12)
    table = torch.stack([least, greatest, mean], 1)
    return torch.where((total > 0)[:, None], table, 0)


def farthest_point_sampling(points: Tensor, count: int, start: int = 0) -> Tensor:
    """Indices of `count` well spread points, each the farthest from those before (Eldar 1997).

    Args:
        points: [N, D].
        count: how many; all points in their order when count >= N.
        start: index of the first.

    Returns:
        [min(count, N)] int64, in the order of selection; ties go to the smallest index.
    """
    assert points.ndim == 2, points.shape
    if count >= len(points):
        return torch.arange(len(points), device=points.device)
    chosen = torch.empty(count, dtype=torch.long, device=points.device)
    distance = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)
    current = torch.tensor(start, device=points.device)
    for slot in range(count):
        chosen[slot] = current
        distance = torch.minimum(distance, ((points - points[current]) ** 2).sum(-1))
        current = distance.argmax()
    return chosen
