"""Point-set losses that PRDL is compared with: Chamfer, density-aware Chamfer, ICP.

All choose nearest neighbours without gradient and differentiate the chosen distances.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from v3recon.geometry.point_sets import nearest

Direction = Literal["to_target", "from_target", "both"]


def _ones(points: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones_like(points[..., 0])
    return mask.to(points)


def _matched(source: Tensor, target: Tensor, target_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Squared distance [B, N] of each source point to its nearest target point, and its index."""
    index = _nearest_index(source.detach(), target.detach(), target_mask)
    chosen = target.gather(1, index[..., None].expand(-1, -1, target.shape[-1]))
    return ((source - chosen) ** 2).sum(-1), index


def _nearest_index(source: Tensor, target: Tensor, target_mask: Tensor | None) -> Tensor:
    if source.device.type != "cpu":
        return nearest(source, target, target_mask)[1]
    # Imported here: numba takes a second to load. On the CPU it saves the distance matrix.
    from v3recon.losses.part_distribution_kernels import nearest_index

    index = torch.zeros(source.shape[:2], dtype=torch.long)
    mask = torch.ones(target.shape[:2], dtype=torch.bool) if target_mask is None else target_mask
    nearest_index(
        source.contiguous().numpy(),
        target.to(source.dtype).contiguous().numpy(),
        mask.bool().contiguous().numpy(),
        index.numpy(),
    )
    return index


def _mean(values: Tensor, mask: Tensor, present: Tensor) -> Tensor:
    """Mean over the points there, [B]; 0 for faces where one of the two sets is empty."""
    mean = torch.where(mask > 0, values, 0).sum(1) / mask.sum(1).clamp_min(1)
    return torch.where(present, mean, 0)


def chamfer_loss(
    points: Tensor,
    target: Tensor,
    points_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
) -> Tensor:
    """Mean squared distance to the nearest point of the other set, both ways (Fan et al. 2017).

    Args:
        points: [B, N, D].
        target: [B, M, D].
        points_mask: [B, N] bool, False = not there.
        target_mask: [B, M] bool.

    Returns:
        [B] squared units; 0 where one of the sets is empty.
    """
    here, there = _ones(points, points_mask), _ones(target, target_mask)
    present = (here.sum(1) > 0) & (there.sum(1) > 0)
    forward, _ = _matched(points, target, target_mask)
    backward, _ = _matched(target, points, points_mask)
    return _mean(forward, here, present) + _mean(backward, there, present)


def density_aware_chamfer_loss(
    points: Tensor,
    target: Tensor,
    alpha: float,
    points_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
) -> Tensor:
    """Bounded Chamfer distance that counts how often a point is chosen (Wu et al., NeurIPS 2021).

    d = 1/2 [mean_x (1 - r_x exp(-alpha |x - y_x|) / n(y_x)) + the same from y to x], y_x nearest
    to x, n(y) the number of x that chose y, r_x = max(1, N / M): for sets of one size the paper's
    equation 6; for others the expected count takes the place of one, as in its release.

    Args:
        points: [B, N, D].
        target: [B, M, D].
        alpha: 1 / length at which the exponential has fallen to 1/e (the paper: 40 to 1000 for
            shapes of unit size).
        points_mask: [B, N] bool, False = not there.
        target_mask: [B, M] bool.

    Returns:
        [B], at most 1; 0 where one of the sets is empty.
    """
    here, there = _ones(points, points_mask), _ones(target, target_mask)
    size, target_size = here.sum(1), there.sum(1)
    present = (size > 0) & (target_size > 0)
    forward, chosen = _matched(points, target, target_mask)
    backward, chosen_back = _matched(target, points, points_mask)
    forward_term = _bounded(forward, chosen, here, target_size, target.shape[1], alpha)
    backward_term = _bounded(backward, chosen_back, there, size, points.shape[1], alpha)
    return (_mean(forward_term, here, present) + _mean(backward_term, there, present)) / 2


def _bounded(
    squared: Tensor,
    chosen: Tensor,
    mask: Tensor,
    other_size: Tensor,
    other_count: int,
    alpha: float,
) -> Tensor:
    count = squared.new_zeros(len(squared), other_count).scatter_add(1, chosen, mask)
    expected = (mask.sum(1) / other_size.clamp_min(1)).clamp_min(1)[:, None]
    weight = expected / count.gather(1, chosen).clamp_min(1)
    return 1 - weight * (-alpha * _root(squared)).exp()


def icp_loss(
    points: Tensor,
    target: Tensor,
    points_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    direction: Direction = "both",
) -> Tensor:
    """Mean distance, not squared, to closest points held fixed (Besl and McKay 1992).

    One step of iterative closest points: the correspondence and, for "from_target", the mask's
    pixels are constants.

    Args:
        points: [B, N, D] predicted.
        target: [B, M, D].
        points_mask: [B, N] bool, False = not there.
        target_mask: [B, M] bool.
        direction: closest target of each point, closest point of each target, or the sum.

    Returns:
        [B] units of the points; 0 where one of the sets is empty.
    """
    if direction not in ("to_target", "from_target", "both"):
        raise ValueError(f"direction is {direction!r}, not to_target, from_target or both")
    here, there = _ones(points, points_mask), _ones(target, target_mask)
    present = (here.sum(1) > 0) & (there.sum(1) > 0)
    total = torch.zeros_like(points[:, 0, 0])
    if direction != "from_target":
        total = total + _mean(_root(_matched(points, target, target_mask)[0]), here, present)
    if direction != "to_target":
        total = total + _mean(_root(_matched(target, points, points_mask)[0]), there, present)
    return total


def _root(squared: Tensor) -> Tensor:
    """Square root with slope 0 at 0."""
    return torch.where(squared > 0, squared, 1).sqrt() * (squared > 0)
