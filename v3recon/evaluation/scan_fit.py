"""The best that a face model can do for a scan: its coefficients fitted to the scan itself."""

from __future__ import annotations

import numpy as np
import torch

from v3recon.evaluation.surface import LEAST_COSINE, OUTLIER_MM, Similarity, Surface, align
from v3recon.face_models.linear_face_model import LinearFaceModel

MM_PER_UNIT = 100.0
"""Millimeters in the face models' decimeter."""
STEPS, ALIGN_STEPS = 15, 5
NOISE_MM = 1.0
"""Standard deviation of a scan's points as seen by the model; more trusts the statistics more."""
INDEPENDENT_POINTS = 2000
"""So many independent measurements a scan counts as, however many points it has."""


def mean_vertices(model: LinearFaceModel) -> np.ndarray:
    """Vertices [V, 3] of the mean face, millimeters."""
    return neutral_vertices(model, torch.zeros(1, model.sizes[0], device=model.mean_shape.device))


def neutral_vertices(model: LinearFaceModel, identity: torch.Tensor) -> np.ndarray:
    """Vertices [V, 3] of an identity [1, Kid] without expression, millimeters."""
    with torch.no_grad():
        expression = identity.new_zeros(1, model.sizes[1])
        return model.vertices(identity, expression)[0].double().cpu().numpy() * MM_PER_UNIT


def fit_to_points(
    points: np.ndarray,
    normals: np.ndarray,
    model: LinearFaceModel,
    start: Similarity,
    *,
    with_scale: bool,
) -> np.ndarray:
    """Vertices [V, 3] of the model's face nearest to a scan's points, millimeters.

    Alternates the similarity with a regularized least-squares step of all identity and expression
    coefficients along the normals (Amberg, Knothe and Vetter, FG 2008).

    Args:
        points: [N, 3] of the scan, millimeters.
        normals: [N, 3] of the scan there.
        model: the face model.
        start: brings the points into the model's frame.
        with_scale: whether the scan's size is free.

    Returns:
        The fitted face in the model's own frame.
    """
    mean, basis = (one.double().cpu().numpy() * MM_PER_UNIT for one in _shape_basis(model))
    faces = model.faces.cpu().numpy()
    coefficients, vertices = np.zeros(basis.shape[2]), mean
    motion = start
    for _ in range(STEPS):
        surface = Surface(vertices, faces)
        motion = align(points, normals, surface, motion, with_scale=with_scale, steps=ALIGN_STEPS)
        moved = motion(points)
        places, ids, weights = surface.closest(moved, exact=False)
        near = np.linalg.norm(places - moved, axis=1) < OUTLIER_MM
        near &= ((normals @ motion.rotation) * surface.normals(ids)).sum(1) > LEAST_COSINE
        normal, corner, weight = surface.normals(ids[near]), faces[ids[near]], weights[near]
        rows, base = np.zeros((len(corner), basis.shape[2])), np.zeros((len(corner), 3))
        for i in range(3):
            rows += weight[:, i, None] * np.einsum("nd,ndk->nk", normal, basis[corner[:, i]])
            base += weight[:, i, None] * mean[corner[:, i]]
        right = ((moved[near] - base) * normal).sum(1)
        trust = INDEPENDENT_POINTS / max(int(near.sum()), 1) / NOISE_MM**2
        square = trust * rows.T @ rows + np.eye(len(coefficients))
        found = np.linalg.solve(square, trust * rows.T @ right)
        change = np.abs(found - coefficients).max()
        coefficients, vertices = found, mean + basis @ found
        if change < 1e-2:
            break
    return vertices


def _shape_basis(model: LinearFaceModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [V, 3] and basis [V, 3, K] of the dense vertices."""
    if model.subdivision is None:
        return model.mean_shape, torch.cat([model.id_basis, model.exp_basis], -1)
    control = torch.cat([model.mean_shape[..., None], model.id_basis, model.exp_basis], -1)
    dense = (model.subdivision @ control.flatten(1)).unflatten(1, control.shape[1:])
    return dense[..., 0], dense[..., 1:]
