"""The z-buffer rasteriser for the CPU, compiled by numba; see `rasterize.py` for its definition.

One pass over the vertices finds homogeneous pixel coordinates and the first and last pixel at or
beyond each vertex; most triangles of a dense face lie between pixel centres and are rejected from
these whole numbers alone. Items of a batch are drawn by threads (the compiled code releases the
interpreter's lock). Face ids must be in range; `rasterize` is called with faces of a checked model.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from v3recon._fast.compiled import compiled
from v3recon.types import Fragments

FAR_AWAY = 1 << 30
"""Stands for an unbounded side of the bounding box of a vertex that has no place on the image."""
SLACK = 1e-6
"""Pixels by which bounding boxes are enlarged, against rounding in the division by w."""


def find_faces(clip: Tensor, faces: Tensor, image_size: tuple[int, int]) -> Fragments:
    """Fragments without gradient, float32; arguments as in `rasterize`."""
    height, width = image_size
    batch = len(clip)
    clip_np, faces_np = _to_numpy(clip), np.ascontiguousarray(faces.cpu().numpy())
    targets = (  # made by numpy, because it asks for huge pages
        np.full((batch, height, width), -1, np.int64),
        np.zeros((batch, height, width, 3), np.float32),
        np.zeros((batch, height, width), np.float32),
    )

    def draw(item: int) -> None:
        placed = _place_vertices(clip_np[item], height, width)
        _scan(*placed, faces_np, (height, width), *(target[item] for target in targets), None, None)

    for_each_item(draw, batch)
    return Fragments(*(torch.from_numpy(target).to(clip.device) for target in targets))


def find_cover(
    clip: Tensor, faces: Tensor, face_group: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """Bits of the groups that cover each pixel [B, H, W] uint8; arguments as in `cover`."""
    height, width = image_size
    clip_np, faces_np = _to_numpy(clip), np.ascontiguousarray(faces.cpu().numpy())
    bit = np.left_shift(np.uint8(1), face_group.to(torch.uint8).cpu().numpy())
    bits = torch.zeros(len(clip), height, width, dtype=torch.uint8)
    bits_np = bits.numpy()

    def draw(item: int) -> None:
        placed = _place_vertices(clip_np[item], height, width)
        _scan(*placed, faces_np, (height, width), None, None, None, bit, bits_np[item])

    for_each_item(draw, len(clip))
    return bits.to(clip.device)


def interpolate_cpu(attributes: Tensor, face_id: Tensor, bary: Tensor, faces: Tensor) -> Tensor:
    """Float32 form of `interpolate` without gradient; arguments as there."""
    batch, height, width = face_id.shape
    out_np = np.zeros((batch, height, width, attributes.shape[-1]), np.float32)
    arrays = [t.contiguous().numpy() for t in (attributes.float(), face_id, bary, faces)]
    attributes_np, face_id_np, bary_np, faces_np = arrays

    def fill(item: int) -> None:
        source = attributes_np[item if len(attributes_np) > 1 else 0]
        _interpolate(source, face_id_np[item], bary_np[item], faces_np, out_np[item])

    for_each_item(fill, batch)
    return torch.from_numpy(out_np)


def touched_cpu(face_id: Tensor, faces: Tensor, vertex_count: int) -> Tensor:
    """Vertices of triangles that own a pixel, [B, V] bool."""
    touched = torch.zeros(len(face_id), vertex_count, dtype=torch.bool)
    arrays = [t.contiguous().numpy() for t in (face_id, faces, touched)]
    for_each_item(lambda item: _touch(arrays[0][item], arrays[1], arrays[2][item]), len(face_id))
    return touched


def label_pixels_cpu(face_id: Tensor, bary: Tensor, faces: Tensor, seen_label: Tensor) -> Tensor:
    """Labels [B, H, W] uint8 of pixels from labels [B, V] uint8 of vertices, 0 = unseen or none."""
    labels = torch.zeros(face_id.shape, dtype=torch.uint8)
    tensors = (face_id, bary, faces, seen_label, labels)
    ids, weights, faces_np, source, out = (t.contiguous().numpy() for t in tensors)

    def fill(item: int) -> None:
        _label(ids[item], weights[item], faces_np, source[item], out[item])

    for_each_item(fill, len(face_id))
    return labels


def _to_numpy(clip: Tensor) -> np.ndarray:
    return clip.detach().cpu().contiguous().numpy()


def for_each_item(task: Callable[[int], None], batch: int) -> None:
    """Call a task, whose work is compiled, with 0…batch - 1; several at a time."""
    workers = min(batch, torch.get_num_threads())
    if workers < 2:
        for item in range(batch):
            task(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(task, range(batch)))


@compiled()
def _place_vertices(clip, height, width):
    """Homogeneous pixels [V, 4] (X, Y, w, z), whole-pixel bounds [V, 4], any vertex out of view."""
    count = clip.shape[0]
    corners = np.empty((count, 4), np.float64)
    box = np.empty((count, 4), np.int32)  # first and last column, first and last row
    clipped = False
    for i in range(count):
        w = np.float64(clip[i, 3])
        z = np.float64(clip[i, 2])
        x = 0.5 * ((np.float64(clip[i, 0]) + w) * width - w)
        y = 0.5 * ((np.float64(clip[i, 1]) + w) * height - w)
        corners[i, 0] = x
        corners[i, 1] = y
        corners[i, 2] = w
        corners[i, 3] = z
        if w > 0 and -w <= z and z <= w and abs(x) < np.inf and abs(y) < np.inf:
            column = min(max(x / w, -1.0), float(width))
            row = min(max(y / w, -1.0), float(height))
            box[i, 0] = max(np.int32(np.ceil(column - SLACK)), 0)
            box[i, 1] = min(np.int32(np.floor(column + SLACK)), width - 1)
            box[i, 2] = max(np.int32(np.ceil(row - SLACK)), 0)
            box[i, 3] = min(np.int32(np.floor(row + SLACK)), height - 1)
        else:
            clipped = True
            box[i, 0] = -FAR_AWAY
            box[i, 1] = FAR_AWAY
            box[i, 2] = -FAR_AWAY
            box[i, 3] = FAR_AWAY
    return corners, box, clipped


@compiled()
def _bounds(corners, i, j, k, height, width):
    """First and last column and row of a triangle with a vertex out of view; empty when unseen."""
    seen = False
    for vertex in (i, j, k):
        for axis in range(4):
            if not abs(corners[vertex, axis]) < np.inf:
                return 1, 0, 1, 0
        seen = seen or corners[vertex, 2] > 0
    if not seen:
        return 1, 0, 1, 0
    if corners[i, 2] <= 0 or corners[j, 2] <= 0 or corners[k, 2] <= 0:
        return 0, width - 1, 0, height - 1  # it passes the camera's plane: no bound
    c0 = r0 = float(FAR_AWAY)
    c1 = r1 = -float(FAR_AWAY)
    for vertex in (i, j, k):
        column = corners[vertex, 0] / corners[vertex, 2]
        row = corners[vertex, 1] / corners[vertex, 2]
        c0 = min(c0, column)
        c1 = max(c1, column)
        r0 = min(r0, row)
        r1 = max(r1, row)
    return (
        int(np.ceil(min(max(c0, 0.0), float(width)) - SLACK)),
        int(np.floor(max(min(c1, width - 1.0), -1.0) + SLACK)),
        int(np.ceil(min(max(r0, 0.0), float(height)) - SLACK)),
        int(np.floor(max(min(r1, height - 1.0), -1.0) + SLACK)),
    )


@compiled()
def _owns_edge(e, a, b, area):
    """Top-left rule for one edge value of a triangle whose area has this sign."""
    return e != 0.0 or a * area > 0.0 or (a == 0.0 and b * area > 0.0)


@compiled()
def _scan(corners, box, clipped, faces, size, face_id, bary, depth, bit, bits):  # noqa: C901
    """Visit the pixels of every triangle whose bounding box holds a pixel's centre.

    Without `bits` the mesh is z-buffered into the other three (depth 0 = empty pixel); with it,
    bit[f] is set wherever triangle f is; numba compiles each form without the other's branches.
    One function, because both must agree about every pixel and a call per triangle would cost more
    than the triangle's pixels.
    """
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        c0 = min(box[i, 0], box[j, 0], box[k, 0])
        c1 = max(box[i, 1], box[j, 1], box[k, 1])
        r0 = min(box[i, 2], box[j, 2], box[k, 2])
        r1 = max(box[i, 3], box[j, 3], box[k, 3])
        if (c0 > c1) | (r0 > r1):
            continue
        if c1 == FAR_AWAY:
            c0, c1, r0, r1 = _bounds(corners, i, j, k, size[0], size[1])
        x0, y0, w0 = corners[i, 0], corners[i, 1], corners[i, 2]
        x1, y1, w1 = corners[j, 0], corners[j, 1], corners[j, 2]
        x2, y2, w2 = corners[k, 0], corners[k, 1], corners[k, 2]
        # Swapping the two vertices of an edge negates its three terms exactly, so that the
        # triangles on both sides never both own, nor both refuse, a pixel.
        a0, b0, k0 = y1 * w2 - y2 * w1, x2 * w1 - x1 * w2, x1 * y2 - x2 * y1
        a1, b1, k1 = y2 * w0 - y0 * w2, x0 * w2 - x2 * w0, x2 * y0 - x0 * y2
        a2, b2, k2 = y0 * w1 - y1 * w0, x1 * w0 - x0 * w1, x0 * y1 - x1 * y0
        for r in range(r0, r1 + 1):
            row0, row1, row2 = b0 * r + k0, b1 * r + k1, b2 * r + k2
            for c in range(c0, c1 + 1):
                e0, e1, e2 = a0 * c + row0, a1 * c + row1, a2 * c + row2
                low, high = min(e0, e1, e2), max(e0, e1, e2)
                if (low < 0.0) & (high > 0.0):
                    continue
                total = e0 + e1 + e2
                if (low == 0.0) | (high == 0.0):
                    if not (
                        _owns_edge(e0, a0, b0, total)
                        and _owns_edge(e1, a1, b1, total)
                        and _owns_edge(e2, a2, b2, total)
                    ):
                        continue
                scale = 1.0 / total
                u, v, t = e0 * scale, e1 * scale, e2 * scale
                w = u * w0 + v * w1 + t * w2
                if clipped:
                    z = u * corners[i, 3] + v * corners[j, 3] + t * corners[k, 3]
                    if not (w > 0.0 and -w <= z and z <= w):
                        continue
                if bits is not None:
                    bits[r, c] |= bit[f]
                if depth is not None:
                    nearer = np.float32(w)
                    if depth[r, c] == 0.0 or nearer < depth[r, c]:
                        depth[r, c] = nearer
                        face_id[r, c] = f
                        bary[r, c, 0] = u
                        bary[r, c, 1] = v
                        bary[r, c, 2] = t


@compiled()
def _interpolate(attributes, face_id, bary, faces, out):
    """Weighted sum of the three vertices' attributes at covered pixels of one item."""
    height, width = face_id.shape
    channels = attributes.shape[1]
    for r in range(height):
        for c in range(width):
            f = face_id[r, c]
            if f >= 0:
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                u, v, t = bary[r, c, 0], bary[r, c, 1], bary[r, c, 2]
                for channel in range(channels):
                    out[r, c, channel] = (
                        u * attributes[i, channel]
                        + v * attributes[j, channel]
                        + t * attributes[k, channel]
                    )


@compiled()
def _touch(face_id, faces, touched):
    """Mark the vertices of every owner of a pixel of one item."""
    last = -1
    for f in face_id.flat:
        if f != last and f >= 0:
            touched[faces[f, 0]] = True
            touched[faces[f, 1]] = True
            touched[faces[f, 2]] = True
        last = f


@compiled()
def _label(face_id, bary, faces, seen_label, out):
    """Largest label whose vertices hold at least half of a pixel's weight, for one item."""
    height, width = face_id.shape
    for r in range(height):
        for c in range(width):
            f = face_id[r, c]
            if f < 0:
                continue
            one, two, three = (
                seen_label[faces[f, 0]],
                seen_label[faces[f, 1]],
                seen_label[faces[f, 2]],
            )
            if one == two and two == three:
                out[r, c] = one
                continue
            u, v, t = bary[r, c, 0], bary[r, c, 1], bary[r, c, 2]
            share1 = u + (v if one == two else 0.0) + (t if one == three else 0.0)
            share2 = v + (u if one == two else 0.0) + (t if two == three else 0.0)
            share3 = t + (u if one == three else 0.0) + (v if two == three else 0.0)
            label = 0
            if share1 >= 0.5:
                label = max(label, one)
            if share2 >= 0.5:
                label = max(label, two)
            if share3 >= 0.5:
                label = max(label, three)
            out[r, c] = label
