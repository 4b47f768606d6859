"""Where the detector's 468 points (MediaPipe Face Mesh) lie on the head.

Points that are places of the face by name, lids and lips, are put on the mesh's own edge loops.
The others come from a smooth registration of the detector's mean mesh and are then moved along the
surface until they agree with photographs on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from v3recon.photohead.landmark_sets import dense_halves, lip_border
from v3recon.photohead.loops import arc_lengths, points_along
from v3recon.photohead.registration import (
    Pull,
    Surface,
    closest_points,
    displace,
    edges_of,
    graph_laplacian,
    solve_similarity,
    vertex_normals,
)
from v3recon.photohead.shape import HeadShape

POINT_COUNT = 468
# Contours by the detector's ids, viewer's left to right (eyes: outer to inner corner).
RIGHT_EYE_UPPER = (33, 246, 161, 160, 159, 158, 157, 173, 133)
RIGHT_EYE_LOWER = (33, 7, 163, 144, 145, 153, 154, 155, 133)
LEFT_EYE_UPPER = (263, 466, 388, 387, 386, 385, 384, 398, 362)
LEFT_EYE_LOWER = (263, 249, 390, 373, 374, 380, 381, 382, 362)
INNER_LIP_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LIP_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_LIP_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LIP_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
_ANCHORS = (33, 133, 362, 263, 78, 308, 4)
"""Eye corners, inner mouth corners, tip of the nose."""
_LID_LOOP, _LIP_LOOP = 1, 2
_ROUNDS = 20
_SMOOTH = (150.0, 0.05)
_AGREEMENT = 0.5
_REACH = 0.15  # decimeters
_OUTLIER = 0.03  # decimeters; residuals of this size count half


@dataclass(frozen=True)
class SurfacePlaces:
    """Points on the skin of the mean head.

    Attributes:
        points: [N, 3] model frame.
        vertices: [N, 3] dense vertex ids of their triangles.
        weights: [N, 3] barycentric.
    """

    points: np.ndarray
    vertices: np.ndarray
    weights: np.ndarray


def embed_detector(
    shape: HeadShape, mean: np.ndarray, triangles: np.ndarray
) -> tuple[SurfacePlaces, np.ndarray]:
    """First places of the 468 points, and which of them are fixed by name [468].

    Args:
        shape: the head.
        mean: [468, 3] mean of detections, upright, any scale, y up, z toward the camera.
        triangles: [F, 3] the detector's mesh.
    """
    surface, ids = _skin(shape)
    vertices = surface.vertices
    lid, seam = shape.loops.lids[0], shape.loops.mouth[1]
    control = shape.mean
    inner, outer = lid[control[lid, 0].argmin()], lid[control[lid, 0].argmax()]
    right, left = seam[control[seam, 0].argmin()], seam[control[seam, 0].argmax()]
    image = shape.template.mirror
    anchors = [image[outer], image[inner], inner, outer, right, left, shape.loops.nose_tip]
    scale, rotation, shift = solve_similarity(mean[list(_ANCHORS)], control[anchors])
    start = scale * mean @ rotation + shift
    named = _named_places(shape, vertices, start)
    pinned = np.array(sorted(named))
    targets = np.array([named[point] for point in pinned])
    fixed = np.isin(np.arange(POINT_COUNT), pinned)
    smooth = graph_laplacian(edges_of(triangles), POINT_COUNT)
    every = sparse.csr_matrix(sparse.identity(POINT_COUNT))
    places = start
    for number in range(_ROUNDS):
        weight = _SMOOTH[0] * (_SMOOTH[1] / _SMOOTH[0]) ** (number / (_ROUNDS - 1))
        closest = closest_points(surface, places)
        way = closest.points - places
        along = closest.normals * (closest.normals * way).sum(1, keepdims=True)
        good = (vertex_normals(places, triangles) * closest.normals).sum(1) > _AGREEMENT
        good &= (np.linalg.norm(way, axis=1) < _REACH) & ~fixed
        pulls = [
            Pull(every, places + along, good.astype(float)),
            Pull(sparse.csr_matrix(every[pinned]), targets, 10.0),
        ]
        places = displace(start, pulls, np.sqrt(weight) * smooth)
    return _drop(surface, ids, shape, places), fixed


def move_detector(
    shape: HeadShape,
    places: SurfacePlaces,
    fixed: np.ndarray,
    mirror: np.ndarray,
    residual: Tensor,
    rotation: Tensor,
    trust: Tensor,
) -> SurfacePlaces:
    """Move the free points along the surface by what fits to photographs leave over.

    Args:
        shape: the head.
        places: the points now.
        fixed: [468] points that stay.
        mirror: [468] mirror images.
        residual: [B, 468, 2] detected minus projected, decimeters at the point's depth, x right,
            y up.
        rotation: [B, 3, 3] of the fits, for row vectors.
        trust: [B] weight of each photo.
    """
    toward = rotation[:, :, :2]
    weight = trust[:, None] / (1 + (residual.norm(dim=-1) / _OUTLIER) ** 2)
    matrix = torch.einsum("bn,bik,bjk->nij", weight, toward, toward)
    matrix = matrix + 1e-3 * len(residual) * torch.eye(3)
    right = torch.einsum("bn,bik,bnk->ni", weight, toward, residual)
    offset = torch.linalg.solve(matrix, right[..., None])[..., 0].double().numpy()
    offset = (offset + offset[mirror] * [-1.0, 1.0, 1.0]) / 2
    surface, ids = _skin(shape)
    normals = vertex_normals(surface.vertices, shape.triangles)[places.vertices]
    normal = (normals * places.weights[..., None]).sum(1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    offset -= normal * (normal * offset).sum(1, keepdims=True)
    offset[fixed] = 0.0
    moved = places.points + offset
    moved = (moved + moved[mirror] * [-1.0, 1.0, 1.0]) / 2
    return _drop(surface, ids, shape, moved)


def _skin(shape: HeadShape) -> tuple[Surface, np.ndarray]:
    """The skin of the mean head as a surface, and the numbers of its triangles."""
    vertices = shape.dense.operator @ shape.mean
    skin = (shape.surface[shape.triangles] == 0).all(1)
    return Surface.of(vertices, shape.triangles[skin]), np.flatnonzero(skin)


def _drop(surface: Surface, ids: np.ndarray, shape: HeadShape, places: np.ndarray) -> SurfacePlaces:
    closest = closest_points(surface, places)
    return SurfacePlaces(closest.points, shape.triangles[ids[closest.triangle]], closest.bary)


def _named_places(
    shape: HeadShape, vertices: np.ndarray, start: np.ndarray
) -> dict[int, np.ndarray]:
    """Places of the detector's lid and lip points on the mesh's loops."""
    named: dict[int, np.ndarray] = {}
    lids = dense_halves(shape, shape.loops.lids[_LID_LOOP])
    for ids, line in zip((LEFT_EYE_UPPER[::-1], LEFT_EYE_LOWER[::-1]), lids, strict=True):
        named.update(
            zip(ids, points_along(vertices[line], arc_lengths(start[list(ids)])), strict=True)
        )
    for right, left in (
        *zip(RIGHT_EYE_UPPER, LEFT_EYE_UPPER, strict=True),
        *zip(RIGHT_EYE_LOWER, LEFT_EYE_LOWER, strict=True),
    ):
        named[right] = named[left] * [-1.0, 1.0, 1.0]
    inner = dense_halves(shape, shape.loops.mouth[_LIP_LOOP])
    for pair, lines in (
        ((INNER_LIP_UPPER, INNER_LIP_LOWER), inner),
        ((OUTER_LIP_UPPER, OUTER_LIP_LOWER), lip_border(shape)),
    ):
        for ids, line in zip(pair, lines, strict=True):
            named.update(
                zip(ids, points_along(vertices[line], arc_lengths(start[list(ids)])), strict=True)
            )
    return named
