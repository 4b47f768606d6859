"""Identity modes that turn no triangle over, by a small smooth change.

The area of a triangle toward its normal on the mean head is, to first order, linear in the
coefficients; over normal ones it is zero at a known number of deviations. Triangles for which that
number is small have the linear functionals of their modes shortened, all of them at once, by the
change of the modes with the least bending energy.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from v3recon.photohead.registration import edges_of, graph_laplacian, triangulate
from v3recon.photohead.subdivision import Subdivided

DEVIATIONS = 5.0
"""Deviations of the coefficients, in the worst direction, below which no triangle may turn over."""
_OVERSHOOT = 1.05
"""Factor on `DEVIATIONS` in what is solved for; the soft solution falls short of it."""
_ROUNDS = 30
_PULL = 1.0
"""Weight of the functionals against the bending energy of displacements in centimeters."""
_STAY = 0.05
"""Weight of the change itself against its bending energy."""


def unfold(dense: Subdivided, quads: np.ndarray, mean: np.ndarray, modes: np.ndarray) -> np.ndarray:
    """Modes [K, Vc, 3] under which no triangle turns over within `DEVIATIONS`, to first order.

    Args:
        dense: the subdivision; its triangles are looked at.
        quads: [Q, 4] of the control mesh, along which changes are smooth.
        mean: [Vc, 3] control vertices of the mean head, centimeters.
        modes: [K, Vc, 3] per standard deviation.
    """
    count = len(mean)
    triangles = triangulate(dense.quads)
    laplacian = graph_laplacian(edges_of(quads), count)
    bending = laplacian.T @ laplacian + _STAY * sparse.identity(count)
    bending = sparse.kron(bending, sparse.identity(3))
    for _ in range(_ROUNDS):
        distance = turning_distances(dense, triangles, mean, modes)
        bad = np.flatnonzero(distance < DEVIATIONS)
        if not len(bad):
            break
        rows = area_changes(dense, triangles[bad], mean)
        shorter = distance[bad] / (_OVERSHOOT * DEVIATIONS) - 1
        wanted = shorter[:, None] * (rows @ modes.reshape(len(modes), -1).T)
        system = sparse.csc_matrix(bending + _PULL * rows.T @ rows)
        change = splu(system).solve(_PULL * (rows.T @ wanted))
        modes = modes + change.T.reshape(modes.shape)
    return modes


def turning_distances(
    dense: Subdivided, triangles: np.ndarray, mean: np.ndarray, modes: np.ndarray
) -> np.ndarray:
    """Deviations [F] of the coefficients at which each triangle turns over, to first order."""
    slopes = area_changes(dense, triangles, mean) @ modes.reshape(len(modes), -1).T
    return 1 / np.maximum(np.linalg.norm(slopes, axis=1), 1e-12)


def area_changes(dense: Subdivided, triangles: np.ndarray, mean: np.ndarray) -> sparse.csr_matrix:
    """Change of each triangle's area toward its mean normal, as a share of it.

    Returns:
        [F, 3 Vc] linear in displacements of the control vertices, x, y, z of each in turn.
    """
    corners = (dense.operator @ mean)[triangles]
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(one, other)
    square = (normal**2).sum(1, keepdims=True)
    of_one, of_other = np.cross(other, normal) / square, np.cross(normal, one) / square
    of_corners = (-of_one - of_other, of_one, of_other)
    row = np.repeat(np.arange(len(triangles)), 3)
    column = (3 * triangles[:, :, None] + np.arange(3)).transpose(1, 0, 2)  # [3 corners, F, 3]
    shape = (len(triangles), 3 * dense.vertex_count)
    of_dense = sum(
        sparse.csr_matrix((slope.ravel(), (row, columns.ravel())), shape=shape)
        for slope, columns in zip(of_corners, column, strict=True)
    )
    return sparse.csr_matrix(of_dense @ sparse.kron(dense.operator, sparse.identity(3)))
