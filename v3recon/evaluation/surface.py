"""Distances to a surface of triangles, and alignment to it: what geometry is measured with.

Everything here is in millimeters and NumPy; one mesh, no batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree

from v3recon._fast.compiled import compiled
from v3recon.geometry.similarity import solve_similarity

MAX_STEPS = 60
ALIGNED_POINTS = 3000
"""Alignment uses about so many of the points; more move it by a hundredth of a millimeter."""
SETTLED_MM = 2e-3
"""Alignment ends when the points move less than this in a step (root of the mean square)."""
OUTLIER_MM = 10.0
"""Points farther from the surface do not take part in the alignment."""
LEAST_COSINE = 0.5
"""Of the angle between a point's normal and the surface's, to take part in the alignment."""
_NEIGHBORS, _EXACT_FIRST = 6, 32
_MOST_PAIRS = 4_000_000


@dataclass(frozen=True)
class Similarity:
    """A point x becomes scale * x @ rotation + translation.

    Attributes:
        scale: factor.
        rotation: [3, 3], acts on row vectors.
        translation: [3] millimeters.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] moved."""
        return self.scale * points @ self.rotation + self.translation

    def inverse(self) -> Similarity:
        """The way back."""
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -self.translation @ rotation / self.scale)


def similarity_of(source: np.ndarray, target: np.ndarray, with_scale: bool = True) -> Similarity:
    """Least-squares similarity, or rigid motion, that brings points [N, 3] to others."""
    pair = (torch.from_numpy(one)[None] for one in (source, target))
    scale, rotation, translation = (one[0].numpy() for one in solve_similarity(*pair))
    if with_scale:
        return Similarity(float(scale), rotation, translation)
    return Similarity(1.0, rotation, target.mean(0) - source.mean(0) @ rotation)


class Surface:
    """A mesh that answers where its nearest point is."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        """Index a mesh; degenerate triangles count as their edges.

        Args:
            vertices: [V, 3] millimeters.
            faces: [F, 3], at least one.
        """
        assert len(faces), faces.shape
        self.vertices, self.faces = vertices, faces
        self._corners = vertices[faces]
        middle = self._corners.mean(1)
        self._tree = KDTree(middle)
        self._reach = float(np.linalg.norm(self._corners - middle[:, None], axis=2).max())

    def closest(
        self, points: np.ndarray, *, exact: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nearest surface point of each point.

        Triangles are tried in the order of their middles' distance until no other can be nearer.

        Args:
            points: [N, 3].
            exact: False tries a few triangles only, four times faster: on a mesh of even
                triangles a point in a hundred is then off by a fraction of a triangle.

        Returns:
            places [N, 3], triangle ids [N], barycentric weights [N, 3].
        """
        points = np.ascontiguousarray(points, np.float64)
        count = len(points)
        ids, weights = np.zeros(count, np.int64), np.zeros((count, 3))
        open_points, tried = (
            np.arange(count),
            min(_EXACT_FIRST if exact else _NEIGHBORS, len(self.faces)),
        )
        while len(open_points):
            settled = []
            # Few points at a time when each has many candidates.
            for piece in np.array_split(open_points, len(open_points) * tried // _MOST_PAIRS + 1):
                distance, candidates = self._tree.query(points[piece], k=tried)
                distance = distance.reshape(len(piece), tried)
                candidates = candidates.reshape(len(piece), tried)
                found = _nearest_of(points[piece], self._corners, candidates, distance, self._reach)
                ids[piece], weights[piece], done = found
                settled.append(done)
            if tried == len(self.faces) or not exact:
                break
            open_points = open_points[~np.concatenate(settled)]
            tried = min(4 * tried, len(self.faces))
        places = (weights[..., None] * self._corners[ids]).sum(1)
        return places, ids, weights

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Distance [N] of points [N, 3] to the surface."""
        return np.linalg.norm(self.closest(points)[0] - points, axis=1)

    def normals(self, ids: np.ndarray) -> np.ndarray:
        """Unit normals [N, 3] of triangles [N]; zero where a triangle has no area."""
        first, second, third = self._corners[ids].transpose(1, 0, 2)
        normal = np.cross(second - first, third - first)
        return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)


@compiled()
def _nearest_of(points, corners, candidates, middle_distance, reach):
    """Nearest of the candidate triangles, and whether no other triangle can be nearer.

    points [N, 3], corners [F, 3, 3], candidates [N, K] by increasing middle_distance [N, K] of the
    triangles' middles; reach: the farthest corner from its triangle's middle.
    """
    count, tried = candidates.shape
    ids, weights = np.zeros(count, np.int64), np.zeros((count, 3))
    settled = np.zeros(count, np.bool_)
    for n in range(count):
        best = np.inf
        for k in range(tried):
            if best + reach <= middle_distance[n, k]:
                settled[n] = True
                break
            corner = corners[candidates[n, k]]
            v, w = closest_on_triangle(points[n], corner)
            squared = 0.0
            for i in range(3):
                place = (1 - v - w) * corner[0, i] + v * corner[1, i] + w * corner[2, i]
                squared += (place - points[n, i]) ** 2
            distance = np.sqrt(squared)
            if distance < best:
                best = distance
                ids[n] = candidates[n, k]
                weights[n, 0], weights[n, 1], weights[n, 2] = 1 - v - w, v, w
        if best + reach <= middle_distance[n, tried - 1]:
            settled[n] = True
    return ids, weights, settled


@compiled()
def closest_on_triangle(point, corner):
    """Weights (v, w) of the second and third corner at a triangle's point nearest to a point [3].

    Ericson, "Real-Time Collision Detection", 2005, section 5.1.5; corner is [3, 3], first the
    corner. The weights are not negative and sum to 1 at most.
    """
    d1 = d2 = d3 = d4 = d5 = d6 = 0.0
    for i in range(3):
        ab, ac = corner[1, i] - corner[0, i], corner[2, i] - corner[0, i]
        d1 += ab * (point[i] - corner[0, i])
        d2 += ac * (point[i] - corner[0, i])
        d3 += ab * (point[i] - corner[1, i])
        d4 += ac * (point[i] - corner[1, i])
        d5 += ab * (point[i] - corner[2, i])
        d6 += ac * (point[i] - corner[2, i])
    if d1 <= 0 and d2 <= 0:
        return 0.0, 0.0
    if d3 >= 0 and d4 <= d3:
        return 1.0, 0.0
    if d6 >= 0 and d5 <= d6:
        return 0.0, 1.0
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        return d1 / (d1 - d3), 0.0
    if vb <= 0 and d2 >= 0 and d6 <= 0:
        return 0.0, d2 / (d2 - d6)
    if va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        along = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        return 1 - along, along
    total = va + vb + vc
    return vb / total, vc / total


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3] of a mesh, faces weighted by area; zero where no face is."""
    first, second, third = vertices[faces].transpose(1, 0, 2)
    of_faces = np.cross(second - first, third - first)
    total = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(total, faces[:, corner], of_faces)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def align(
    points: np.ndarray,
    normals: np.ndarray,
    surface: Surface,
    start: Similarity,
    *,
    with_scale: bool,
    steps: int = MAX_STEPS,
) -> Similarity:
    """Move points onto a surface: iterated closest points, distances along the normals.

    Chen and Medioni 1992, with a scale where asked for. Points farther than `OUTLIER_MM` from the
    surface do not pull, nor do those that face another way, as the inside of the nose does.

    Args:
        points: [N, 3].
        normals: [N, 3] of the points, unit.
        surface: the other shape, which stays.
        start: where the points are put first.
        with_scale: whether the scale is free; else it stays that of `start`.
        steps: at most so many.

    Returns:
        The similarity of the points.
    """
    stride = max(1, len(points) // ALIGNED_POINTS)
    points, normals = points[::stride], normals[::stride]
    now = start
    for _ in range(steps):
        moved = now(points)
        places, ids, _ = surface.closest(moved, exact=False)
        normal = surface.normals(ids)
        offset = places - moved
        near = np.linalg.norm(offset, axis=1) < OUTLIER_MM
        near &= ((normals @ now.rotation) * normal).sum(1) > LEAST_COSINE
        if near.sum() < 20:
            return now
        middle = moved[near].mean(0)
        arm, normal = moved[near] - middle, normal[near]
        columns = [np.cross(arm, normal), normal]
        if with_scale:
            columns.append((arm * normal).sum(1, keepdims=True))
        system = np.concatenate(columns, 1)
        right = (offset[near] * normal).sum(1)
        square = system.T @ system
        # A trace of damping: a flat or round piece leaves some motions free.
        square[np.diag_indices(len(square))] += 1e-6 * np.trace(square) / len(square)
        step = np.linalg.solve(square, system.T @ right)
        turn = _rotation_of(step[:3])
        factor = 1 + float(step[6]) if with_scale else 1.0
        change = Similarity(factor, turn, middle + step[3:6] - factor * middle @ turn)
        now = Similarity(factor * now.scale, now.rotation @ turn, change(now.translation[None])[0])
        motion = change(moved[near]) - moved[near]
        if np.sqrt((motion**2).sum(1).mean()) < SETTLED_MM:
            break
    return now


def _rotation_of(vector: np.ndarray) -> np.ndarray:
    """Rotation for row vectors that turns by a vector's length about it (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    column = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
    return column.T
