"""The control mesh: MediaPipe's face mesh, made a symmetric disc with filled eyes."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

DETECTOR_POINTS = 468
"""Vertices of MediaPipe's face mesh; they keep their ids in the control and the dense mesh."""

# Contours by MediaPipe's ids, from the viewer's left to right (eyes: outer to inner corner).
RIGHT_EYE_UPPER = (33, 246, 161, 160, 159, 158, 157, 173, 133)
RIGHT_EYE_LOWER = (33, 7, 163, 144, 145, 153, 154, 155, 133)
LEFT_EYE_UPPER = (263, 466, 388, 387, 386, 385, 384, 398, 362)
LEFT_EYE_LOWER = (263, 249, 390, 373, 374, 380, 381, 382, 362)
INNER_LIP_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LIP_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_LIP_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LIP_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
RIGHT_BROW_UPPER = (70, 63, 105, 66, 107)
RIGHT_BROW_LOWER = (46, 53, 52, 65, 55)
LEFT_BROW_UPPER = (300, 293, 334, 296, 336)
LEFT_BROW_LOWER = (276, 283, 282, 295, 285)

EYE_ROWS = (
    (RIGHT_EYE_UPPER, RIGHT_EYE_LOWER),
    (LEFT_EYE_UPPER, LEFT_EYE_LOWER),
)
EYE_ROW_LENGTH = len(RIGHT_EYE_UPPER) - 2
"""Vertices in the middle row that fills each eye."""

# Enough known mirror pairs to start the search for all of them.
_KNOWN_PAIRS = ((33, 263), (133, 362), (61, 291), (10, 10), (152, 152), (1, 1), (6, 6), (234, 454))


@dataclass(frozen=True)
class ControlTopology:
    """Connectivity of the control mesh.

    Attributes:
        faces: [F, 3] triangles, counter-clockwise seen from outside.
        mirror: [Vc] id of each vertex's mirror image.
        outline: ids along the outer boundary, a closed loop.
        crease_edges: [E, 2] edges kept crisp under subdivision (the lids).
        corners: ids that subdivision leaves where they are (eye and mouth corners).
    """

    faces: np.ndarray
    mirror: np.ndarray
    outline: np.ndarray
    crease_edges: np.ndarray
    corners: np.ndarray

    @property
    def vertex_count(self) -> int:
        """Vertices of the control mesh: the detector's and two middle rows in the eyes."""
        return len(self.mirror)


def eye_rows() -> np.ndarray:
    """Ids [2, R] of the middle rows of the right and the left eye, outer to inner corner."""
    first = DETECTOR_POINTS + np.arange(2)[:, None] * EYE_ROW_LENGTH
    return first + np.arange(EYE_ROW_LENGTH)


def find_mirror(points: np.ndarray) -> np.ndarray:
    """Mirror image of every vertex of a nearly symmetric point set.

    Args:
        points: [468, 3] mean of many faces in any pose.

    Returns:
        [468] ids, an involution.

    Raises:
        ValueError: if the points are too asymmetric for a one-to-one match.
    """
    first = np.array([pair[0] for pair in _KNOWN_PAIRS] + [pair[1] for pair in _KNOWN_PAIRS])
    second = np.array([pair[1] for pair in _KNOWN_PAIRS] + [pair[0] for pair in _KNOWN_PAIRS])
    flipped = points * [-1.0, 1.0, 1.0]
    mirror = np.arange(len(points))
    for _ in range(3):
        source, target = flipped[first], points[second]
        u, _, vt = np.linalg.svd((source - source.mean(0)).T @ (target - target.mean(0)))
        rotation = (u * [1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
        moved = (flipped - source.mean(0)) @ rotation + target.mean(0)
        mirror = np.asarray(KDTree(points).query(moved)[1])
        first, second = np.arange(len(points)), mirror
    if not np.array_equal(mirror[mirror], np.arange(len(points))):
        raise ValueError("the mean face is too asymmetric to pair its vertices; use more photos")
    return mirror


def make_topology(edges: set[tuple[int, int]], mean: np.ndarray) -> ControlTopology:
    """Control mesh from the detector's tessellation graph.

    Triangles are the graph's 3-cliques without those enclosed by three others; the few diagonals
    that differ between the sides are taken from the right one; the eyes get a middle row.

    Args:
        edges: undirected edges of the tessellation.
        mean: [468, 3] mean face, x right, y up, z toward the camera.
    """
    triangles = _cliques(edges)
    mirror = find_mirror(mean)
    triangles = _symmetric(triangles, mirror, mean)
    for (upper, lower), row in zip(EYE_ROWS, eye_rows(), strict=True):
        triangles += _fill_eye(upper, lower, row)
    rows = eye_rows()
    mirror = np.concatenate([mirror, rows[1], rows[0]])
    faces = _orient(np.array(triangles), mean)
    creases = [
        (int(a), int(b))
        for upper, lower in EYE_ROWS
        for line in (upper, lower)
        for a, b in itertools.pairwise(line)
    ]
    corners = np.array([33, 133, 263, 362, 78, 308])
    loops = boundary_loops(faces)
    outline = max(loops, key=len)
    return ControlTopology(faces, mirror, outline, np.array(creases), corners)


def boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Closed boundary loops of an oriented mesh, each a list of vertex ids in face order."""
    directed = {(int(f[i]), int(f[(i + 1) % 3])) for f in faces for i in range(3)}
    successor = {a: b for a, b in directed if (b, a) not in directed}
    loops = []
    while successor:
        start = min(successor)
        loop = [start]
        while (vertex := successor.pop(loop[-1])) != start:
            loop.append(vertex)
        loops.append(np.array(loop))
    return loops


def _cliques(edges: set[tuple[int, int]]) -> list[tuple[int, int, int]]:
    neighbors: dict[int, set[int]] = {}
    for a, b in edges:
        neighbors.setdefault(a, set()).add(b)
        neighbors.setdefault(b, set()).add(a)
    cliques = sorted({_triangle(a, b, c) for a, b in edges for c in neighbors[a] & neighbors[b]})
    count = Counter((c[i], c[j]) for c in cliques for i, j in ((0, 1), (0, 2), (1, 2)))
    return [
        c for c in cliques if not all(count[c[i], c[j]] > 2 for i, j in ((0, 1), (0, 2), (1, 2)))
    ]


def _triangle(a: int, b: int, c: int) -> tuple[int, int, int]:
    low, middle, high = sorted((a, b, c))
    return low, middle, high


def _symmetric(
    triangles: list[tuple[int, int, int]], mirror: np.ndarray, mean: np.ndarray
) -> list[tuple[int, int, int]]:
    """Triangles of the right side (x < 0) and their mirror images where the sides differ."""
    known = {_triangle(*t) for t in triangles}
    middle = (mean[33, 0] + mean[263, 0]) / 2
    result = []
    for triangle in sorted(known):
        image = _triangle(*(int(mirror[v]) for v in triangle))
        if image in known:
            result.append(triangle)
        elif mean[list(triangle), 0].mean() < middle:
            result += [triangle, image]
    return result


def _fill_eye(
    upper: tuple[int, ...], lower: tuple[int, ...], row: np.ndarray
) -> list[tuple[int, int, int]]:
    """Triangles between both lids and the middle row, which joins them at the corners."""
    middle = [upper[0], *map(int, row), upper[-1]]
    triangles = []
    for lid in (upper, lower):
        for i in range(len(middle) - 1):
            quad = (lid[i], lid[i + 1], middle[i + 1], middle[i])
            for triangle in ((quad[0], quad[1], quad[2]), (quad[0], quad[2], quad[3])):
                if len(set(triangle)) == 3:
                    triangles.append(triangle)
    return triangles


def _orient(triangles: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The same triangles, all counter-clockwise seen from outside (the nose faces +z)."""
    faces = triangles.copy()
    by_edge: dict[tuple[int, int], list[int]] = {}
    for index, face in enumerate(faces):
        for i in range(3):
            edge = sorted((int(face[i]), int(face[(i + 1) % 3])))
            by_edge.setdefault((edge[0], edge[1]), []).append(index)
    seen = np.zeros(len(faces), bool)
    queue = deque([0])
    seen[0] = True
    while queue:
        index = queue.popleft()
        for i in range(3):
            a, b = int(faces[index, i]), int(faces[index, (i + 1) % 3])
            for other in by_edge[min(a, b), max(a, b)]:
                if seen[other]:
                    continue
                corners = [int(v) for v in faces[other]]
                if corners[(corners.index(a) + 1) % 3] == b:  # same direction: turn it round
                    faces[other] = faces[other][::-1]
                seen[other] = True
                queue.append(other)
    inside = faces[(faces < len(mean)).all(1)]
    a, b, c = (mean[inside[:, i]] for i in range(3))
    if np.cross(b - a, c - a)[:, 2].sum() < 0:
        faces = faces[:, ::-1].copy()
    return faces
