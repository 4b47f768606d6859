"""Texture coordinates without folds: a convex-combination map made even by weights.

Tutte's theorem: if every inner vertex lies at a convex combination of its neighbours and the
outline on a convex curve, no triangle of a planar mesh is turned over (Tutte 1963; Floater 2003,
"Mean value coordinates"). Weights may therefore be changed at will as long as they stay positive:
dividing them by how much each vertex's surroundings are stretched evens the map out (Yoshizawa et
al. 2004, "A fast and simple stretch-minimizing mesh parameterization"). Holes (the mouth) are
closed by a fan while solving.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from v3recon.fitting.photoface.topology import boundary_loops

MARGIN = 0.01
"""Free border of the texture on each side."""
SQUARENESS = 4.0
"""Exponent of the superellipse |x|^p + |y|^p = 1 that the outline is laid on."""
_STRETCH_ROUNDS = 6
_STRETCH_POWER = 0.5


def unwrap(vertices: np.ndarray, faces: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Texture coordinates of a symmetric open mesh, itself symmetric about u = 1/2.

    Args:
        vertices: [V, 3] mean face, x right, y up; symmetric under `mirror`.
        faces: [F, 3], oriented, a disc with holes.
        mirror: [V] mirror images.

    Returns:
        [V, 2] in 0…1, u to the viewer's right, v up.

    Raises:
        ValueError: if the mesh is not a disc with holes, or the map still has a fold.
    """
    loops = boundary_loops(faces)
    if not loops:
        raise ValueError("a closed surface has no outline to lay flat")
    outline = max(loops, key=len)
    holes = [loop for loop in loops if loop is not outline]
    closed_faces, closed_vertices = _close(faces, vertices, holes)
    border = _border(vertices[outline])
    weights = _mean_value_weights(closed_vertices, closed_faces)
    best = _solve(weights, outline, border)
    stretch = stretch_energy(closed_vertices, closed_faces, best)
    uv = best
    for _ in range(_STRETCH_ROUNDS):
        local = _vertex_stretch(closed_vertices, closed_faces, uv) ** _STRETCH_POWER
        weights = weights @ sparse.diags(1 / local)
        uv = _solve(weights, outline, border)
        energy = stretch_energy(closed_vertices, closed_faces, uv)
        if energy >= stretch:
            break
        best, stretch = uv, energy
    flat = best[: len(vertices)]
    flat = (flat + flat[mirror] * [-1.0, 1.0]) / 2
    if (signed_areas(flat, faces) <= 0).any():
        raise ValueError("the texture map has folds; is the mesh a disc with holes?")
    return 0.5 + flat * (0.5 - MARGIN)


def signed_areas(uv: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Signed areas [F] of the triangles in the texture, positive = not turned over."""
    a, b, c = (uv[faces[:, corner]] for corner in range(3))
    return _cross(b - a, c - a) / 2


def stretch_energy(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> float:
    """Root-mean-square stretch of the map, 1 = even and without shear (Sander et al. 2001)."""
    squared, area = _face_stretch(vertices, faces, uv)
    scale = np.abs(signed_areas(uv, faces)).sum() / area.sum()
    return float(np.sqrt((squared * area).sum() / area.sum() * scale))


def _close(
    faces: np.ndarray, vertices: np.ndarray, holes: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with a fan in every hole; the fans' middles follow the vertices."""
    for hole in holes:
        middle = len(vertices)
        center = vertices[hole].mean(0) - [0, 0, 0.02]  # never on a line between closed lips
        vertices = np.concatenate([vertices, center[None]])
        fan = np.stack([np.roll(hole, -1), hole, np.full(len(hole), middle)], 1)
        faces = np.concatenate([faces, fan])
    return faces, vertices


def _border(outline: np.ndarray) -> np.ndarray:
    """Places [N, 2] of the outline on the superellipse, by its arc length from the top."""
    length = np.linalg.norm(np.roll(outline, -1, 0) - outline, axis=1)
    at = np.concatenate([[0], np.cumsum(length)[:-1]]) / length.sum()
    top = np.lexsort((np.abs(outline[:, 0]), -outline[:, 1]))[0]
    top = min(range(len(outline)), key=lambda i: (abs(outline[i, 0]) > 1e-6, -outline[i, 1], top))
    at = (at - at[top]) % 1.0
    clockwise = _cross(outline[:, :2], np.roll(outline, -1, 0)[:, :2]).sum() < 0
    angle = np.linspace(0, 2 * np.pi, 4001)
    curve = np.stack([np.sin(angle), np.cos(angle)], 1)  # clockwise from the top
    curve /= (np.abs(curve) ** SQUARENESS).sum(1, keepdims=True) ** (1 / SQUARENESS)
    if not clockwise:
        curve = curve * [-1.0, 1.0]
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    along /= along[-1]
    return np.stack([np.interp(at, along, axis) for axis in curve.T], 1)


def _mean_value_weights(vertices: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    """Positive weights [V, V] of the neighbours of each vertex (Floater 2003)."""
    rows, cols, values = [], [], []
    for corner in range(3):
        i, j, k = (faces[:, (corner + step) % 3] for step in range(3))
        ij, ik = vertices[j] - vertices[i], vertices[k] - vertices[i]
        lengths = np.linalg.norm(ij, axis=1), np.linalg.norm(ik, axis=1)
        cosine = (ij * ik).sum(1) / np.maximum(lengths[0] * lengths[1], 1e-12)
        half = np.tan(np.arccos(np.clip(cosine, -0.9999, 0.9999)) / 2)
        for other, length in ((j, lengths[0]), (k, lengths[1])):
            rows.append(i)
            cols.append(other)
            values.append(half / np.maximum(length, 1e-6))
    data = (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols)))
    return sparse.csr_matrix(data, shape=(len(vertices), len(vertices)))


def _solve(weights: sparse.csr_matrix, outline: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Places [V, 2] of all vertices with the outline fixed."""
    total = np.asarray(weights.sum(1)).ravel()
    count = len(total)
    inner = np.setdiff1d(np.arange(count), outline)
    normalized = sparse.diags(1 / total) @ weights
    system = sparse.csr_matrix(sparse.identity(count) - normalized)[inner]
    result = np.zeros((count, 2))
    result[outline] = border
    right = -(system[:, outline] @ border)
    result[inner] = np.asarray(spsolve(system[:, inner].tocsc(), right))
    return result


def _face_stretch(
    vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared mean stretch from texture to surface of each triangle, and its area in 3D."""
    p, q, r = (vertices[faces[:, corner]] for corner in range(3))
    (s1, t1), (s2, t2), (s3, t3) = (uv[faces[:, corner]].T for corner in range(3))
    double = 2 * np.maximum(np.abs(signed_areas(uv, faces)), 1e-14)
    along_s = (p.T * (t2 - t3) + q.T * (t3 - t1) + r.T * (t1 - t2)) / double
    along_t = (p.T * (s3 - s2) + q.T * (s1 - s3) + r.T * (s2 - s1)) / double
    area = np.linalg.norm(np.cross(q - p, r - p), axis=1) / 2
    return ((along_s**2).sum(0) + (along_t**2).sum(0)) / 2, area


def _vertex_stretch(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Area-weighted root-mean-square stretch around each vertex, mean 1."""
    squared, area = _face_stretch(vertices, faces, uv)
    ids, count = faces.ravel(), len(vertices)
    total = np.bincount(ids, np.repeat(squared * area, 3), minlength=count)
    stretch = np.sqrt(
        total / np.maximum(np.bincount(ids, np.repeat(area, 3), minlength=count), 1e-12)
    )
    return np.clip(stretch / stretch.mean(), 0.05, 20.0)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
