"""The rasteriser in plain tensor operations, for any device; see `rasterize.py` for its definition.

Every triangle is expanded into the pixels of its bounding box. The (triangle, pixel) pairs of the
whole batch are numbered through and worked off in chunks, which bounds the memory whatever the
triangles' sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 1 << 20
"""Pairs worked on at once, about 200 bytes each."""
SLACK = {torch.float64: 1e-6, torch.float32: 1e-2}
"""Pixels by which bounding boxes are enlarged, against rounding in the division by w."""
UNOWNED = torch.iinfo(torch.int32).max


def find_faces(clip: Tensor, faces: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Owner of each pixel [B, H, W] int64, -1 = none; arguments as in `rasterize`."""
    height, width = image_size
    pixel_count = len(clip) * height * width
    depth = torch.full((pixel_count,), torch.inf, device=clip.device)
    owner = torch.full((pixel_count,), UNOWNED, dtype=torch.int32, device=clip.device)
    for pixel, face, w in _hits(clip, faces, image_size):
        nearer = w.float() < depth[pixel]  # strict: earlier chunks hold the lower face ids
        pixel, face, w = pixel[nearer], face[nearer], w[nearer].float()
        depth.scatter_reduce_(0, pixel, w, "amin")
        winner = w == depth[pixel]
        pixel, face = pixel[winner], face[winner]
        owner[pixel] = UNOWNED
        owner.scatter_reduce_(0, pixel, face.to(torch.int32), "amin")
    return torch.where(owner == UNOWNED, -1, owner.long()).reshape(-1, height, width)


def find_cover(
    clip: Tensor, faces: Tensor, face_group: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """Bits of the groups that cover each pixel [B, H, W] uint8; arguments as in `cover`."""
    height, width = image_size
    groups = torch.zeros(8, len(clip) * height * width, dtype=torch.uint8, device=clip.device)
    for pixel, face, _ in _hits(clip, faces, image_size):
        groups[face_group[face].long(), pixel] = 1
    bits = torch.zeros_like(groups[0])
    for group in range(8):
        bits |= groups[group] << group
    return bits.reshape(-1, height, width)


def _hits(
    clip: Tensor, faces: Tensor, image_size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Chunks of (flat pixel of the batch, face, depth) for every triangle at every pixel in it."""
    height, width = image_size
    # MPS has no float64: there a pixel within about 1e-5 of an edge may go to the neighbour.
    exact = clip if clip.device.type == "mps" else clip.double()
    x, y, z, w = exact.unbind(-1)
    x, y = 0.5 * ((x + w) * width - w), 0.5 * ((y + w) * height - w)
    vertices = torch.stack([x, y, w, z], -1)  # homogeneous pixels
    item, face, first, size = _boxes(vertices, faces, image_size)
    end = torch.cumsum(size[:, 0] * size[:, 1], 0)
    pair_count = int(end[-1]) if len(end) else 0
    for start in range(0, pair_count, CHUNK):
        pair = torch.arange(start, min(start + CHUNK, pair_count), device=clip.device)
        box = torch.searchsorted(end, pair, right=True)
        step = pair - (end[box] - size[box, 0] * size[box, 1])
        row = first[box, 1] + torch.div(step, size[box, 0], rounding_mode="floor")
        column = first[box, 0] + step % size[box, 0]
        inside, depth = _test(vertices, faces, item[box], face[box], column, row)
        pixel = (item[box] * height + row) * width + column
        yield pixel[inside], face[box][inside], depth[inside]


def _boxes(
    vertices: Tensor, faces: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch item, face, first (column, row) and size (columns, rows) of boxes with any pixel."""
    height, width = image_size
    w = vertices[..., 2]
    finite = torch.isfinite(vertices).all(-1)
    front = finite & (w > 0)
    place = vertices[..., :2] / torch.where(front, w, torch.ones_like(w))[..., None]
    limit = place.new_tensor([width, height])
    place = torch.where(front[..., None], place.clamp(min=-1).minimum(limit), 0)
    corner_front = front[:, faces]
    bounded = corner_front.all(-1)[..., None]  # else the triangle passes the camera's plane
    corners = place[:, faces]
    slack = SLACK[place.dtype]
    first = (corners.amin(2) - slack).ceil().long().clamp(min=0)
    last = torch.minimum((corners.amax(2) + slack).floor().long(), (limit - 1).long())
    first = torch.where(bounded, first, 0)
    last = torch.where(bounded, last, (limit - 1).long())
    drawn = finite[:, faces].all(-1) & corner_front.any(-1) & (first <= last).all(-1)
    item, face = torch.nonzero(drawn, as_tuple=True)
    first, last = first[item, face], last[item, face]
    return item, face, first, last - first + 1


def _test(
    vertices: Tensor, faces: Tensor, item: Tensor, face: Tensor, column: Tensor, row: Tensor
) -> tuple[Tensor, Tensor]:
    """Is the pixel the triangle's [N] bool, and the depth there [N]."""
    corners = vertices.reshape(-1, 4)[faces[face] + (item * vertices.shape[1])[:, None]]
    column, row = column.to(corners.dtype), row.to(corners.dtype)
    x, y, w, z = corners.unbind(-1)
    edges = []
    for one, two in ((1, 2), (2, 0), (0, 1)):
        a = y[:, one] * w[:, two] - y[:, two] * w[:, one]
        b = x[:, two] * w[:, one] - x[:, one] * w[:, two]
        if corners.dtype == torch.float64:
            c = x[:, one] * y[:, two] - x[:, two] * y[:, one]
            value = a * column + (b * row + c)
        else:  # seen from the pixel, because float32 cancels too much far from the origin
            x1, y1 = x[:, one] - column * w[:, one], y[:, one] - row * w[:, one]
            x2, y2 = x[:, two] - column * w[:, two], y[:, two] - row * w[:, two]
            value = x1 * y2 - x2 * y1
        edges.append((value, a, b))
    total = edges[0][0] + edges[1][0] + edges[2][0]
    inside = total != 0
    depth = torch.zeros_like(total)
    z_here = torch.zeros_like(total)
    scale = 1 / torch.where(inside, total, torch.ones_like(total))
    for vertex, (value, a, b) in enumerate(edges):
        side = value * total.sign()
        owns_edge = (a * total > 0) | ((a == 0) & (b * total > 0))  # top-left rule
        inside = inside & ((side > 0) | ((side == 0) & owns_edge))
        weight = value * scale
        depth = depth + weight * w[:, vertex]
        z_here = z_here + weight * z[:, vertex]
    inside = inside & (depth > 0) & (-depth <= z_here) & (z_here <= depth)
    return inside, depth
