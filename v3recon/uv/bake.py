"""Vertex attributes to UV maps and back.

A UV map is a square picture: texel (column c, row r) has its centre at u = (c + 0.5) / size,
v = 1 - (r + 0.5) / size, as OBJ viewers read it. The triangles drawn in UV space never change for
a face model, so they are rasterised once (`make_uv_layout`) and every bake is a gather.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import KDTree
from torch import Tensor

from v3recon._fast.compiled import compiled
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.render.rasterize import rasterize

_MIRROR_NEIGHBOURS = 4


@dataclass(frozen=True)
class UvLayout:
    """A face model's triangles drawn in UV space.

    Attributes:
        size: side S of the map, texels.
        inside: [S, S] bool, texels that a triangle covers.
        triangle: [S, S] int32, that triangle; outside, the one of the nearest texel inside.
        bary: [S, S, 3] float32, its barycentric weights at the texel (of the nearest texel
            inside for those outside: bakes run on beyond the outline, so viewers that blur
            textures mix in no background).
        faces: [F, 3] int32.
        uv_pixels: [V, 2] float32, the vertices in texels, x right, y down.
        mirror: [S, S, 2] float32, the texel (x, y) that shows the same place of the face's other
            side.
    """

    size: int
    inside: npt.NDArray[np.bool_]
    triangle: npt.NDArray[np.int32]
    bary: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    uv_pixels: npt.NDArray[np.float32]
    mirror: npt.NDArray[np.float32]
    _coarser: dict[int, UvLayout] = field(default_factory=dict, repr=False, compare=False)

    def at_size(self, size: int) -> UvLayout:
        """A coarser layout made of every n-th texel, kept; `size` must divide this one's.

        Raises:
            ValueError: if it does not.
        """
        if size == self.size:
            return self
        if self.size % size:
            raise ValueError(f"a layout of {self.size} texels cannot be thinned out to {size}")
        if size in self._coarser:
            return self._coarser[size]
        step = self.size // size
        pick = slice((step - 1) // 2, None, step), slice((step - 1) // 2, None, step)
        scale = np.float32(1 / step)
        coarser = UvLayout(
            size,
            self.inside[pick],
            np.ascontiguousarray(self.triangle[pick]),
            np.ascontiguousarray(self.bary[pick]),
            self.faces,
            (self.uv_pixels + 0.5) * scale - 0.5,
            (self.mirror[pick] + 0.5) * scale - 0.5,
        )
        self._coarser[size] = coarser
        return coarser


_LAYOUTS: WeakKeyDictionary[LinearFaceModel, dict[int, UvLayout]] = WeakKeyDictionary()


def uv_layout(model: LinearFaceModel, size: int = 1024) -> UvLayout:
    """The layout of a face model, made at the first call and kept as long as the model lives."""
    layouts = _LAYOUTS.setdefault(model, {})
    if size not in layouts:
        layouts[size] = make_uv_layout(model, size)
    return layouts[size]


def make_uv_layout(model: LinearFaceModel, size: int) -> UvLayout:
    """Rasterise a model's triangles in UV space.

    Args:
        model: a face model with uv coordinates.
        size: side of the map, texels.

    Raises:
        ValueError: if the uv coordinates cover no texel.
    """
    uv = model.uv_coords.detach().cpu()
    faces = model.faces.detach().cpu()
    ones = torch.ones_like(uv[:, 0])
    clip = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1], 0 * ones, ones], -1)[None]
    fragments = rasterize(clip, faces, (size, size), rasterizer="cpu")
    triangle = fragments.face_id[0].numpy().astype(np.int32)
    bary = fragments.bary[0].numpy().astype(np.float32)
    inside = triangle >= 0
    if not inside.any():
        raise ValueError(
            f"the uv coordinates of face model {model.name!r} cover no texel; textures need them"
        )
    nearest = _nearest_inside(inside)
    uv_pixels = uv.numpy() * size
    uv_pixels[:, 1] = size - uv_pixels[:, 1]
    uv_pixels = (uv_pixels - 0.5).astype(np.float32)
    triangle, bary = triangle.reshape(-1)[nearest], bary.reshape(-1, 3)[nearest]
    faces = faces.numpy().astype(np.int32)
    mirror = np.zeros((size, size, 2), np.float32)
    _gather(_mirror_pixels(model, uv_pixels), faces, triangle, bary, 0, 0, mirror)
    return UvLayout(size, inside, triangle, bary, faces, uv_pixels, mirror)


def bake(attributes: Tensor | npt.NDArray, layout: UvLayout) -> npt.NDArray[np.float32]:
    """Vertex attributes to UV maps.

    Args:
        attributes: [B, V, C].
        layout: of the same face model.

    Returns:
        [B, S, S, C] float32, row 0 at v = 1; running on beyond the outline.
    """
    values = np.asarray(attributes.detach().cpu() if isinstance(attributes, Tensor) else attributes)
    assert values.ndim == 3 and values.shape[1] == len(layout.uv_pixels), values.shape
    values = np.ascontiguousarray(values, np.float32)
    maps = np.zeros((len(values), layout.size, layout.size, values.shape[2]), np.float32)
    for index, vertex_values in enumerate(values):
        _gather(vertex_values, layout.faces, layout.triangle, layout.bary, 0, 0, maps[index])
    return maps


def bake_part(
    values: npt.NDArray[np.float32], layout: UvLayout, part: tuple[slice, slice]
) -> npt.NDArray[np.float32]:
    """Vertex values [V, C] in a rectangle of texels, [rows, columns, C]; as `bake` makes them."""
    rows, columns = part
    size = rows.stop - rows.start, columns.stop - columns.start
    out = np.empty((*size, values.shape[1]), np.float32)
    _gather(values, layout.faces, layout.triangle, layout.bary, rows.start, columns.start, out)
    return out


def sample_uv(maps: npt.NDArray, layout: UvLayout) -> npt.NDArray[np.float32]:
    """Values of UV maps at the vertices, bilinear.

    Args:
        maps: [B, S, S, C], uint8 or float.
        layout: of the face model.

    Returns:
        [B, V, C] float32, in the units of the maps.
    """
    assert maps.ndim == 4 and maps.shape[1] == layout.size, maps.shape
    # OpenCV limits a remapped picture to 32,767 rows: the vertices are laid out as a square.
    count, side = len(layout.uv_pixels), int(np.ceil(np.sqrt(len(layout.uv_pixels))))
    places = np.zeros((side * side, 2), np.float32)
    places[:count] = layout.uv_pixels
    places = places.reshape(side, side, 2)
    sampled = [sample_map(one.astype(np.float32), places) for one in maps]
    return np.stack(sampled).reshape(len(maps), side * side, -1)[:, :count]


def sample_map(picture: npt.NDArray, places: npt.NDArray[np.float32]) -> npt.NDArray:
    """Values of a picture at given places, bilinear; the border goes on outside.

    Args:
        picture: [H, W] or [H, W, C].
        places: [h, w, 2], x right and y down, pixels.

    Returns:
        [h, w] or [h, w, C] of the picture's type.
    """
    return cv2.remap(
        picture,
        places,
        None,  # pyright: ignore  (OpenCV's stubs do not know that one map is enough)
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _nearest_inside(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Flat index of the nearest texel inside, for every texel [S, S]."""
    _, labels = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(labels, np.int32)
    source = np.zeros(int(labels.max()) + 1, np.int64)
    source[labels[inside]] = np.flatnonzero(inside)
    return source[labels]


def _mirror_pixels(
    model: LinearFaceModel, uv_pixels: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Texels of the vertices' mirror images: from the model's table, else by position.

    A mesh that is not symmetric has no exact partners; the mean of the nearest vertices' places,
    weighted by 1 / squared distance, varies smoothly where the nearest alone would jump.
    """
    if len(model.mirror):
        return uv_pixels[model.mirror.cpu().numpy()]
    mean = model.mean_vertices().cpu().numpy()
    distance, neighbour = KDTree(mean).query(mean * [-1, 1, 1], k=_MIRROR_NEIGHBOURS)
    weight = 1 / (distance**2 + 1e-12)
    weight /= weight.sum(1, keepdims=True)
    return (uv_pixels[neighbour] * weight[..., None]).sum(1).astype(np.float32)


@compiled()
def _gather(values, faces, triangle, bary, top, left, out):
    """Weighted sums of the triangles' vertex values, for texels from (top, left) on."""
    rows, columns, channels = out.shape
    for row in range(rows):
        for column in range(columns):
            face = triangle[top + row, left + column]
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            wa, wb, wc = bary[top + row, left + column]
            for k in range(channels):
                out[row, column, k] = wa * values[a, k] + wb * values[b, k] + wc * values[c, k]
