"""Vertex attributes at pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from v3recon.types import Fragments


def interpolate(attributes: Tensor, fragments: Fragments, faces: Tensor) -> Tensor:
    """Attributes of the visible surface, sum of b_i a_i; differentiable in both.

    Args:
        attributes: [B, V, C] values at the vertices, or [1, V, C] for the whole batch.
        fragments: what `rasterize` returned for these faces.
        faces: [F, 3] int64.

    Returns:
        [B, H, W, C], 0 where no triangle is.
    """
    batch, height, width = fragments.face_id.shape
    if attributes.ndim != 3 or attributes.shape[0] not in (1, batch):
        raise ValueError(f"expected attributes [{batch} or 1, V, C], got {tuple(attributes.shape)}")
    if _plain(attributes, fragments.bary):
        from v3recon.render._cpu import interpolate_cpu  # compiled only where it is used

        return interpolate_cpu(attributes, fragments.face_id, fragments.bary, faces)
    channels = attributes.shape[-1]
    owner = fragments.face_id.reshape(-1)
    pixel = torch.nonzero(owner >= 0).squeeze(1)
    vertex = faces[owner[pixel]]
    if attributes.shape[0] > 1:
        item = torch.div(pixel, height * width, rounding_mode="floor")
        vertex = vertex + (item * attributes.shape[1])[:, None]
    # index_select, because its gradient is a plain index_add; that of indexing sorts first.
    corners = attributes.reshape(-1, channels).index_select(0, vertex.reshape(-1))
    weights = fragments.bary.reshape(-1, 3).index_select(0, pixel)
    values = (corners.reshape(-1, 3, channels) * weights[..., None]).sum(1)
    empty = values.new_zeros(owner.numel(), channels)
    return empty.index_copy(0, pixel, values).reshape(batch, height, width, channels)


def interpolate_labels(labels: Tensor, fragments: Fragments, faces: Tensor) -> Tensor:
    """Labels of the visible surface: where the interpolated indicator of a label is at least 1/2.

    The largest label wins where two reach one half.

    Args:
        labels: [B, V] uint8 labels of the vertices, 0 = none.
        fragments: what `rasterize` returned for these faces.
        faces: [F, 3] int64.

    Returns:
        [B, H, W] uint8, 0 where no triangle is or no label reaches one half.
    """
    assert labels.ndim == 2 and labels.dtype == torch.uint8, (labels.shape, labels.dtype)
    bary = fragments.bary.detach()
    if _plain(bary, bary):
        from v3recon.render._cpu import label_pixels_cpu

        return label_pixels_cpu(fragments.face_id, bary, faces, labels)
    owner = fragments.face_id.reshape(-1)
    pixel = torch.nonzero(owner >= 0).squeeze(1)
    item = torch.div(pixel, fragments.face_id[0].numel(), rounding_mode="floor")
    vertex = faces[owner[pixel]] + (item * labels.shape[1])[:, None]
    corner_labels = labels.reshape(-1)[vertex]  # [N, 3]
    same = corner_labels[:, :, None] == corner_labels[:, None, :]
    # Weight of each corner's own label; no other label has any weight at the pixel.
    share = (same * bary.reshape(-1, 3)[pixel][:, None, :]).sum(-1)
    out = torch.zeros(owner.numel(), dtype=torch.uint8, device=owner.device)
    out[pixel] = (corner_labels * (share >= 0.5)).amax(1)
    return out.reshape(fragments.face_id.shape)


def coverage(fragments: Fragments) -> Tensor:
    """Where some triangle is, [B, H, W] bool."""
    return fragments.face_id >= 0


def _plain(attributes: Tensor, bary: Tensor) -> bool:
    """Float32 on the CPU, and no gradient is asked for."""
    tensors = (attributes, bary)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return not wanted and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
