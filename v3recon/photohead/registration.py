"""The template's shape fitted to a target surface: similarity, then smooth displacements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree

_CANDIDATES = 10
"""Triangles, by distance of their centers, among which the closest point is looked for."""


@dataclass(frozen=True)
class Surface:
    """A triangle mesh to measure distances to.

    Attributes:
        vertices: [V, 3].
        triangles: [F, 3].
        tree: search structure of the triangles' centers.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    tree: KDTree

    @classmethod
    def of(cls, vertices: np.ndarray, triangles: np.ndarray) -> Surface:
        """The surface of a mesh."""
        return cls(vertices, triangles, KDTree(vertices[triangles].mean(1)))


@dataclass(frozen=True)
class Closest:
    """Closest points of a surface. N = number of points asked for.

    Attributes:
        triangle: [N] index.
        bary: [N, 3] weights of the triangle's vertices.
        points: [N, 3].
        normals: [N, 3] unit normals of the triangles.
    """

    triangle: np.ndarray
    bary: np.ndarray
    points: np.ndarray
    normals: np.ndarray


def triangulate(polygons: np.ndarray) -> np.ndarray:
    """Triangles [F, 3] of quads [Q, 4]; a fourth id of -1 marks a triangle."""
    quads = polygons[:, 3] >= 0
    return np.concatenate([polygons[:, :3], polygons[quads][:, [0, 2, 3]]])


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3], weighted by area."""
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(total, triangles[:, corner], normal)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def closest_points(surface: Surface, points: np.ndarray) -> Closest:
    """Closest point of the surface to each of `points` [N, 3] (Ericson 2004, section 5.1.5)."""
    count = min(_CANDIDATES, len(surface.triangles))
    _, near = surface.tree.query(points, count)
    near = near.reshape(len(points), count)
    corners = surface.vertices[surface.triangles[near]]  # [N, C, 3, 3]
    bary = _closest_bary(points[:, None], corners)
    places = np.einsum("nck,nckx->ncx", bary, corners)
    best = ((places - points[:, None]) ** 2).sum(2).argmin(1)
    row = np.arange(len(points))
    chosen = corners[row, best]
    normal = np.cross(chosen[:, 1] - chosen[:, 0], chosen[:, 2] - chosen[:, 0])
    length = np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return Closest(near[row, best], bary[row, best], places[row, best], normal / length)


def _closest_bary(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric weights [..., 3] of the closest points of triangles [..., 3, 3]."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-18)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = np.stack([1 - v - w, v, w], -1)
    on_ab = np.clip(d20 / np.maximum(d00, 1e-18), 0, 1)
    on_ac = np.clip(d21 / np.maximum(d11, 1e-18), 0, 1)
    bc = c - b
    on_bc = np.clip(((points - b) * bc).sum(-1) / np.maximum((bc * bc).sum(-1), 1e-18), 0, 1)
    zero = np.zeros_like(v)
    options = np.stack(
        [
            np.stack([1 - on_ab, on_ab, zero], -1),
            np.stack([1 - on_ac, zero, on_ac], -1),
            np.stack([zero, 1 - on_bc, on_bc], -1),
        ],
        -2,
    )  # [..., 3 edges, 3]
    places = np.einsum("...ek,...kx->...ex", options, corners)
    nearest = ((places - points[..., None, :]) ** 2).sum(-1).argmin(-1)
    edge = np.take_along_axis(options, nearest[..., None, None], -2)[..., 0, :]
    return np.where((inside >= 0).all(-1, keepdims=True), inside, edge)


def solve_similarity(
    source: np.ndarray, target: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation [3, 3] (row vectors), shift of source [N, 3] onto target (Umeyama 1991)."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    left, values, right = np.linalg.svd((source - source_mean).T @ (target - target_mean))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * sign) @ right
    scale = float((values * sign).sum() / ((source - source_mean) ** 2).sum())
    return scale, rotation, target_mean - scale * source_mean @ rotation


def edges_of(polygons: np.ndarray) -> np.ndarray:
    """Undirected edges [E, 2] of quads or triangles [F, K]."""
    both = np.stack([polygons, np.roll(polygons, -1, axis=1)], 2).reshape(-1, 2)
    return np.unique(np.sort(both, 1), axis=0)


def graph_laplacian(edges: np.ndarray, count: int) -> sparse.csr_matrix:
    """Each vertex minus the mean of its neighbors, [V, V]."""
    both = np.concatenate([edges, edges[:, ::-1]])
    graph = sparse.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    degree = np.maximum(np.asarray(graph.sum(1)).ravel(), 1)
    return sparse.csr_matrix(sparse.eye(count) - sparse.diags(1 / degree) @ graph)


def spread_change(laplacian: sparse.csr_matrix, ids: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Displacements [V, C] that carry the surroundings of some vertices smoothly along.

    Args:
        laplacian: [V, V] of `graph_laplacian`.
        ids: [N] vertices.
        change: [N, C] their own displacements.
    """
    count = len(laplacian.indptr) - 1
    rows = sparse.csr_matrix(
        (np.ones(len(ids)), (np.arange(len(ids)), ids)), shape=(len(ids), count)
    )
    matrix = laplacian.T @ laplacian + 100.0 * rows.T @ rows + 0.02 * sparse.eye(count)
    return splu(sparse.csc_matrix(matrix)).solve(100.0 * rows.T @ change)


@dataclass(frozen=True)
class Pull:
    """Places that combinations of control vertices should reach.

    Attributes:
        rows: [N, Vc] sparse; rows @ vertices are the places now.
        targets: [N, 3].
        weight: of each squared distance.
    """

    rows: sparse.csr_matrix
    targets: np.ndarray
    weight: float | np.ndarray


def displace(start: np.ndarray, pulls: list[Pull], smooth: sparse.csr_matrix) -> np.ndarray:
    """Vertices [Vc, 3] that minimise sum w |rows x - target|^2 + |smooth (x - start)|^2."""
    matrix = smooth.T @ smooth
    right = np.zeros_like(start)
    for pull in pulls:
        weight = sparse.diags(np.broadcast_to(pull.weight, len(pull.targets)).astype(float))
        matrix = matrix + pull.rows.T @ weight @ pull.rows
        right += pull.rows.T @ (weight @ (pull.targets - pull.rows @ start))
    return start + splu(sparse.csc_matrix(matrix)).solve(right)
