"""Part re-projection distance loss, PRDL (Wang et al., 3DDFA_V3, CVPR 2024, section 3.2 to 4).

A part of the face is a set of image points: the pixels of its mask on the target side, its
projected vertices on the predicted side. Both are described by their least, greatest and mean
distance to a grid of anchors; the loss compares the descriptions. Anchors outside the part
carry most of the signal, so that parts attract each other without touching.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from v3recon.geometry.point_sets import distance_statistics, farthest_point_sampling


def part_index_sets(
    part_labels: Tensor,
    mean_shape: Tensor,
    max_points: int = 3000,
    keep: Tensor | None = None,
    part_count: int = 8,
) -> Tensor:
    """Vertices of each part, large parts thinned by farthest-point sampling; once per model.

    Args:
        part_labels: [V] labels 1 … part_count, 0 = none.
        mean_shape: [V, 3] dense mean shape, on which distances are measured.
        max_points: most vertices of one part (the paper reduces skin to 3000).
        keep: [V] bool, False leaves a vertex out (see `above_brows`).
        part_count: number of parts.

    Returns:
        [P, N] vertex ids, filled up with -1.
    """
    assert part_labels.ndim == 1 and mean_shape.shape == (len(part_labels), 3), mean_shape.shape
    sets = []
    for label in range(1, part_count + 1):
        inside = part_labels == label
        if keep is not None:
            inside = inside & keep
        vertices = inside.nonzero()[:, 0]
        sets.append(vertices[farthest_point_sampling(mean_shape[vertices], max_points)])
    return torch.nn.utils.rnn.pad_sequence(sets, batch_first=True, padding_value=-1)


def above_brows(
    part_labels: Tensor,
    mean_shape: Tensor,
    skin_label: int = 8,
    brow_labels: Sequence[int] = (3, 4),
) -> Tensor:
    """Skin above the middle of the brows: the forehead, which photos hide under hair.

    Args:
        part_labels: [V].
        mean_shape: [V, 3], y up.
        skin_label: label of the skin; other parts are kept.
        brow_labels: labels of the brows.

    Returns:
        [V] bool. The counterpart on the mask's side is `fitting.part_targets.cut_forehead`.
    """
    brows = torch.isin(part_labels, torch.tensor(brow_labels, device=part_labels.device))
    if not brows.any():
        raise ValueError(f"no vertex has a brow label {tuple(brow_labels)}")
    return (part_labels == skin_label) & (mean_shape[:, 1] > mean_shape[brows, 1].mean())


@torch.no_grad()
def covered_by(points_2d: Tensor, mask: Tensor) -> Tensor:
    """Points that fall on a mask, for dropping those hidden by hair, hands or glasses.

    Args:
        points_2d: [B, N, 2] pixels.
        mask: [B, H, W] bool.

    Returns:
        [B, N] bool; False outside the picture.
    """
    assert points_2d.ndim == 3 and mask.ndim == 3, (points_2d.shape, mask.shape)
    height, width = mask.shape[1:]
    column, row = points_2d.round().long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return mask.flatten(1).gather(1, flat) & inside


def part_distribution_loss(
    points_2d: Tensor,
    part_index: Tensor | Sequence[Tensor],
    target_statistics: Tensor,
    anchors: Tensor,
    *,
    part_weights: Tensor | None = None,
    statistic_weights: Sequence[float] = (1.0, 1.0, 1.0),
    vertex_weights: Tensor | None = None,
    per_face: bool = False,
) -> Tensor:
    """L = mean over faces of sum_p w_p |Gamma(V_p) - Gamma(C_p)|^2 / A.

    Gamma holds, for every anchor, the least, greatest and mean distance to the set. Dividing by
    the number of anchors A makes a reduced grid worth as much as the full H x W one.

    On the CPU distances are never stored (see `part_distribution_kernels`); elsewhere a plain torch
    path with bounded memory is used. Both select one point for min and max, so gradients are
    those of the paper's equations 9 to 11.

    Args:
        points_2d: [B, V, 2] projected vertices, pixels.
        part_index: [P, N] vertex ids filled up with -1, or P tensors of ids.
        target_statistics: [B, P, 3, A] min, max, mean of the target, pixels
            (`fitting.part_targets.part_target_statistics`).
        anchors: [A, 2] pixels (`geometry.point_sets.anchor_grid`).
        part_weights: [P] or [B, P] >= 0; 0 where the part is absent from the mask. Default 1.
        statistic_weights: weights of min, max and mean.
        vertex_weights: [B, V] >= 0, bool or float; 0 drops a vertex (hidden), other values weigh
            the mean. A part without vertices left counts nothing.
        per_face: give the faces' losses instead of their mean.

    Returns:
        scalar, or [B] with `per_face`; square pixels.

    Raises:
        ValueError: for shapes or indices that disagree and, on the CPU, for NaN or infinite points.
    """
    index = _padded(part_index)
    batch, parts, anchor_count = len(points_2d), len(index), len(anchors)
    assert points_2d.ndim == 3 and points_2d.shape[-1] == 2, points_2d.shape
    if target_statistics.shape != (batch, parts, 3, anchor_count):
        raise ValueError(
            f"target_statistics is {tuple(target_statistics.shape)}, "
            f"expected {(batch, parts, 3, anchor_count)}"
        )
    if not (len(statistic_weights) == 3 and min(statistic_weights) >= 0):
        raise ValueError(f"statistic_weights must be three numbers >= 0, got {statistic_weights}")
    if index.numel() and int(index.max()) >= points_2d.shape[1]:
        raise ValueError(f"part_index names vertex {int(index.max())} of {points_2d.shape[1]}")
    if points_2d.device.type == "cpu" and not bool(points_2d.isfinite().all()):
        raise ValueError("points_2d holds coordinates that are not finite")
    if part_weights is None:
        part_weights = points_2d.new_ones(parts)
    factors = part_weights.detach().to(points_2d).expand(batch, parts)[..., None]
    factors = factors * points_2d.new_tensor(statistic_weights) / anchor_count
    if vertex_weights is None:
        vertex_weights = torch.ones_like(points_2d[..., 0])
    weights = vertex_weights.detach().to(points_2d)
    target = target_statistics.detach().to(points_2d)
    anchors = anchors.to(points_2d)
    if points_2d.device.type == "cpu" and points_2d.dtype in (torch.float32, torch.float64):
        losses = _FusedPartDistribution.apply(points_2d, weights, index, anchors, target, factors)
    else:
        losses = _plain_part_distribution(points_2d, weights, index, anchors, target, factors)
    return losses if per_face else losses.mean()


def _padded(part_index: Tensor | Sequence[Tensor]) -> Tensor:
    if isinstance(part_index, Tensor):
        assert part_index.ndim == 2, part_index.shape
        return part_index
    return torch.nn.utils.rnn.pad_sequence(
        [ids.long() for ids in part_index], batch_first=True, padding_value=-1
    )


def _plain_part_distribution(
    points_2d: Tensor,
    weights: Tensor,
    index: Tensor,
    anchors: Tensor,
    target: Tensor,
    factors: Tensor,
) -> Tensor:
    """Loss of each face [B] in plain torch, any device and type."""
    total = points_2d.new_zeros(len(points_2d))
    for part, padded in enumerate(index):
        members = padded[padded >= 0]
        if not len(members):
            continue
        weight = weights[:, members]
        statistics = distance_statistics(points_2d[:, members], anchors, weight)
        squared = (statistics - target[:, part]) ** 2 * factors[:, part, :, None]
        total = total + squared.sum((1, 2)) * (weight.sum(1) > 0)
    return total


class _FusedPartDistribution(torch.autograd.Function):
    """Value and gradient in one pass of the CPU kernels."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        points_2d: Tensor,
        weights: Tensor,
        index: Tensor,
        anchors: Tensor,
        target: Tensor,
        factors: Tensor,
    ) -> Tensor:
        # Imported here: numba takes a second to load and is not needed elsewhere.
        from v3recon.losses.part_distribution_kernels import face_losses

        points = points_2d.detach().contiguous().numpy()
        loss, gradient = face_losses(
            points,
            weights.contiguous().numpy(),
            index.cpu().contiguous().numpy().astype(np.int64),
            anchors.T.contiguous().numpy(),
            target.contiguous().numpy(),
            factors.double().contiguous().numpy(),
            need_gradient=points_2d.requires_grad,
        )
        ctx.save_for_backward(torch.from_numpy(gradient))
        return torch.from_numpy(loss).to(points_2d.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, slope: Tensor) -> tuple:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * slope[:, None, None], None, None, None, None, None
