"""The texture's grid as a mesh: one point a texel of the skin, so that albedo is learned on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from v3recon.photohead.albedo_samples import AlbedoMesh
from v3recon.photohead.shape import HeadShape
from v3recon.render.rasterize import rasterize

TEXTURE_SIZE = 256
"""Rows and columns of the grid on which albedo is learned."""


@dataclass(frozen=True)
class TexelMesh:
    """Texels of the skin as points of the head.

    Attributes:
        mesh: operator, grid triangles, mirror and part labels of the Va texels.
        groups: [Va] index into `face_models.surfaces.GROUP_NAMES`.
        number: [T, T] number of each texel's point, -1 outside; row 0 is v = 1.
    """

    mesh: AlbedoMesh
    groups: np.ndarray
    number: np.ndarray

    def picture(self, values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Values [Va, C] of the points on the grid: [T, T, C]."""
        grid = np.full((*self.number.shape, values.shape[1]), fill, values.dtype)
        inside = self.number >= 0
        grid[inside] = values[self.number[inside]]
        return grid


def make_texels(
    shape: HeadShape, uv: np.ndarray, part_labels: np.ndarray, group_labels: np.ndarray
) -> TexelMesh:
    """The skin's texels.

    Args:
        shape: the head.
        uv: [V, 2] texture coordinates, v up, symmetric about u = 0.5.
        part_labels: [V] 0…8.
        group_labels: [V] groups.
    """
    skin = (shape.surface[shape.triangles] == 0).all(1)
    triangles = shape.triangles[skin]
    clip = np.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1], np.zeros(len(uv)), np.ones(len(uv))], 1)
    size = (TEXTURE_SIZE, TEXTURE_SIZE)
    fragments = rasterize(
        torch.from_numpy(clip).float()[None], torch.from_numpy(triangles.astype(np.int64)), size
    )
    owner, bary = fragments.face_id[0].numpy(), fragments.bary[0].numpy()
    inside = (owner >= 0) & (owner[:, ::-1] >= 0)
    number = np.full(size, -1)
    number[inside] = np.arange(inside.sum())
    corners = triangles[owner[inside]]
    weights = bary[inside].astype(np.float64)
    count = len(corners)
    rows = sparse.csr_matrix(
        (weights.ravel(), (np.repeat(np.arange(count), 3), corners.ravel())),
        shape=(count, len(uv)),
    )
    nearest = corners[np.arange(count), weights.argmax(1)]
    mesh = AlbedoMesh(
        operator=sparse.csr_matrix(rows @ shape.dense.operator),
        faces=_grid_faces(number),
        mirror=number[:, ::-1][inside],
        labels=part_labels[nearest],
    )
    return TexelMesh(mesh, group_labels[nearest], number)


def _grid_faces(number: np.ndarray) -> np.ndarray:
    """Two triangles for each square of four texels inside, counter-clockwise with v up."""
    a, b = number[:-1, :-1], number[:-1, 1:]
    c, d = number[1:, :-1], number[1:, 1:]
    full = (a >= 0) & (b >= 0) & (c >= 0) & (d >= 0)
    return np.concatenate([np.stack([a, c, b], 2)[full], np.stack([b, c, d], 2)[full]])
