"""From detected points to control vertices: both live on one linear map."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from v3recon.fitting.photoface.topology import (
    DETECTOR_POINTS,
    EYE_ROWS,
    ControlTopology,
    eye_rows,
)

EYE_BULGE = 0.06
"""How far the eye's middle row stands out, as a share of the lids' opening."""
_SMOOTHING = 0.03


class ControlFit:
    """Control vertices whose subdivided mesh passes (nearly) through detected points.

    Subdivision pulls vertices toward their neighbours, so control vertices must overshoot. Lids,
    lips and outline follow curves of their own and are met exactly; elsewhere a little
    smoothness is asked of the overshoot.
    """

    def __init__(self, topology: ControlTopology, operator: sparse.csr_matrix) -> None:
        """Factorise the system once.

        Args:
            topology: the control mesh.
            operator: [V, Vc] subdivision operator; rows 0…467 are the detector's points.
        """
        count = DETECTOR_POINTS
        even = operator[:count]
        self._sees_rows = bool(abs(even[:, count:]).max() > 0)
        if self._sees_rows:
            raise ValueError("the eyes' middle rows must not move the lids: lids must be creases")
        even = even[:, :count].tocsr()
        curves = np.unique(np.concatenate([topology.crease_edges.ravel(), _boundary(topology)]))
        inner = np.setdiff1d(np.arange(count), curves)
        laplacian = _laplacian(topology.faces, count)
        self._curves, self._inner = curves, inner
        self._curve_solver = splu(even[curves][:, curves].tocsc())
        system = even[inner][:, inner]
        smooth = laplacian[:, inner]
        self._even, self._smooth = even, smooth
        self._laplacian = laplacian
        normal = system.T @ system + _SMOOTHING * (smooth.T @ smooth)
        self._inner_solver = splu(normal.tocsc())

    def solve(self, points: np.ndarray) -> np.ndarray:
        """Control vertices of point sets.

        Args:
            points: [468, 3, K] points or displacement modes, model frame.

        Returns:
            [482, 3, K] control vertices or modes; linear in `points`.
        """
        flat = points.reshape(len(points), -1)
        offset = np.zeros_like(flat)  # control = points + offset
        residual = flat - self._even @ flat
        curves, inner = self._curves, self._inner
        offset[curves] = self._curve_solver.solve(residual[curves])
        right = (residual - self._even @ offset)[inner]
        system = self._even[inner][:, inner]
        smooth = self._laplacian @ offset
        offset[inner] = self._inner_solver.solve(
            system.T @ right - _SMOOTHING * (self._smooth.T @ smooth)
        )
        return fill_eyes((flat + offset).reshape(points.shape))


def fill_eyes(points: np.ndarray) -> np.ndarray:
    """Append the eyes' middle rows: between the lids, standing out with their opening.

    Linear in the points, so it holds for modes as well; where lids meet, the rows meet them.

    Args:
        points: [468, 3, ...].

    Returns:
        [482, 3, ...].
    """
    rows = [points]
    for upper, lower in EYE_ROWS:
        high, low = points[list(upper[1:-1])], points[list(lower[1:-1])]
        middle = (high + low) / 2
        middle[:, 2] += EYE_BULGE * (high[:, 1] - low[:, 1])
        rows.append(middle)
    return np.concatenate(rows)


def _boundary(topology: ControlTopology) -> np.ndarray:
    half = np.concatenate([topology.faces[:, [i, (i + 1) % 3]] for i in range(3)])
    edges, uses = np.unique(np.sort(half, 1), axis=0, return_counts=True)
    return np.unique(edges[uses == 1])


def _laplacian(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    """Uniform graph Laplacian of the detector's vertices (eye rows left out)."""
    half = np.concatenate([faces[:, [i, (i + 1) % 3]] for i in range(3)])
    half = half[(half < count).all(1)]
    both = np.concatenate([half, half[:, ::-1]])
    adjacency = sparse.csr_matrix((np.ones(len(both)), both.T), shape=(count, count))
    adjacency.data[:] = 1.0
    degree = np.asarray(adjacency.sum(1)).ravel()
    return sparse.csr_matrix(sparse.identity(count) - sparse.diags(1 / degree) @ adjacency)


__all__ = ["EYE_BULGE", "ControlFit", "eye_rows", "fill_eyes"]
