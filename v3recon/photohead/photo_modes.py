"""Expression modes that photographs show and the 52 ARKit shapes cannot make."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from v3recon.photohead.detector_points import SurfacePlaces
from v3recon.photohead.registration import edges_of, graph_laplacian
from v3recon.photohead.shape import HeadShape

PHOTO_MODES = 12
_SMOOTH = 0.5
_RIDGE = 0.05
"""Pull of each control vertex toward no displacement: it ends the modes where no point is."""


def learn_photo_modes(
    shape: HeadShape,
    places: SurfacePlaces,
    residual: np.ndarray,
    rotation: np.ndarray,
    people: np.ndarray,
    keep: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Modes [Vc, 3, 12] per standard deviation, and the share of the residuals they explain.

    What fits leave over in several photos of a person differs from photo to photo by expression;
    what repeats is identity or the detector's habit and is taken out as each person's mean. The
    rest is turned back into the head's frame (its depth is not seen and stays zero), its principal
    components are found, and a smooth displacement of the control mesh carries each.

    Args:
        shape: the head.
        places: the detector's points on it.
        residual: [N, 468, 2] detected minus projected, decimeters, x right, y up.
        rotation: [N, 3, 3] of the fits, for row vectors.
        people: [N] who is shown.
        keep: [N] photos to use.
    """
    flat = np.concatenate([residual, np.zeros_like(residual[..., :1])], 2)
    turned = (flat @ rotation.transpose(0, 2, 1))[keep]
    names, person, count = np.unique(people[keep], return_inverse=True, return_counts=True)
    several = count[person] > 1
    turned, person = turned[several], person[several]
    total = np.zeros((len(names), *turned.shape[1:]))
    np.add.at(total, person, turned)
    centered = turned - (total / np.maximum(count, 1)[:, None, None])[person]
    samples = centered.reshape(len(centered), -1)
    limit = 6 * np.median(np.linalg.norm(samples, axis=1))
    samples = samples[np.linalg.norm(samples, axis=1) < limit]
    values, vectors = np.linalg.eigh(samples.T @ samples / max(len(samples), 1))
    values, vectors = values[::-1][:PHOTO_MODES], vectors[:, ::-1][:, :PHOTO_MODES]
    modes = (vectors * np.sqrt(values)).reshape(-1, 3, PHOTO_MODES)
    modes = modes * np.sign(modes[:, 1].sum(0))
    explained = float(values.sum() / samples.var(0).sum())
    return _to_control(shape, places, modes), explained


def _to_control(shape: HeadShape, places: SurfacePlaces, modes: np.ndarray) -> np.ndarray:
    """Smooth displacements [Vc, 3, K] of the skin that follow the detector's points [468, 3, K]."""
    count = len(shape.mean)
    points = len(places.points)
    rows = sparse.csr_matrix(
        (places.weights.ravel(), (np.repeat(np.arange(points), 3), places.vertices.ravel())),
        shape=(points, shape.dense.vertex_count),
    )
    operator = sparse.csr_matrix(rows @ shape.dense.operator)
    skin = shape.template.quads[shape.template.quad_surface == 0]
    smooth = graph_laplacian(edges_of(skin), count)
    near = np.zeros(count)
    near[operator.indices] = 1.0
    ridge = np.where(near > 0, 1e-4, _RIDGE)
    matrix = operator.T @ operator + _SMOOTH * smooth.T @ smooth + sparse.diags(ridge)
    right = operator.T @ modes.reshape(points, -1)
    solved = splu(sparse.csc_matrix(matrix)).solve(right)
    solved[shape.template.vertex_surface != 0] = 0.0
    return solved.reshape(count, 3, -1)
