"""Linear statistics of aligned shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import eigh


def principal_modes(data: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of centred samples, from their covariance; signs are fixed.

    Args:
        data: [N, D], centred.
        count: modes wanted, at most D.

    Returns:
        modes [D, count], each scaled by its standard deviation, and deviations [count],
        largest first. A mode's largest entry is positive.
    """
    active = np.flatnonzero(np.abs(data).max(0) > 0)
    part = data[:, active]
    vectors, deviation = _leading((part.T @ part).astype(np.float64) / len(data), count)
    modes = np.zeros((data.shape[1], count))
    modes[active] = vectors
    return modes * deviation, deviation


def ridge(inputs: np.ndarray, outputs: np.ndarray, strength: float = 1e-3) -> np.ndarray:
    """Coefficients [K, D] of ridge regression, outputs [N, D] = inputs [N, K] @ coefficients."""
    size = inputs.shape[1]
    normal = inputs.T @ inputs + strength * len(inputs) * np.eye(size)
    return np.linalg.solve(normal, (inputs.astype(outputs.dtype).T @ outputs).astype(float))


KERNEL_SCALES = ((0.8, 0.012), (0.4, 0.010), (0.2, 0.006))
"""Length and standard deviation of the smooth modes' kernels, decimetres."""


def smooth_modes(
    points: np.ndarray,
    mirror: np.ndarray,
    known: np.ndarray,
    count: int,
    constrain: Callable[[np.ndarray], np.ndarray],
    asymmetric_share: float = 0.25,
) -> np.ndarray:
    """Leading modes of a smooth Gaussian process beside known modes (Lüthi et al. 2018).

    The kernel is a sum of Gaussians of several lengths, the same for every axis; mirror images
    are correlated, so most of the variance is symmetric. Similarities of the whole face and what
    the known modes span are taken out.

    Args:
        points: [P, 3] template, decimetres.
        mirror: [P].
        known: [3 P, K] modes.
        count: modes wanted.
        constrain: linear map on displacement fields [..., P, 3] that the modes must obey.
        asymmetric_share: variance of the asymmetric part relative to the symmetric one.

    Returns:
        [3 P, count] per standard deviation, largest first.
    """
    squared = ((points[:, None] - points[None]) ** 2).sum(2)
    kernel = np.zeros_like(squared)
    for length, deviation in KERNEL_SCALES:
        kernel += deviation**2 * np.exp(-squared / length**2)
    size = len(points)
    full = np.zeros((size, 3, size, 3))
    for axis, sign in enumerate((-1.0, 1.0, 1.0)):
        reflected = sign * kernel[:, mirror]
        even, odd = (kernel + reflected) / 2, (kernel - reflected) / 2
        full[:, axis, :, axis] = even + asymmetric_share * odd
    matrix = full.reshape(3 * size, 3 * size)
    matrix = constrain(matrix.T.reshape(-1, size, 3)).reshape(3 * size, -1)
    matrix = constrain(matrix.T.reshape(-1, size, 3)).reshape(3 * size, -1)
    excluded = np.concatenate([_similarity_fields(points), known], 1)
    orthonormal, _ = np.linalg.qr(excluded / np.linalg.norm(excluded, axis=0))
    matrix = matrix - orthonormal @ (orthonormal.T @ matrix)
    matrix = matrix - (matrix @ orthonormal) @ orthonormal.T
    vectors, deviation = _leading((matrix + matrix.T) / 2, count)
    return vectors * deviation


def _leading(covariance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading eigenvectors [D, count] and deviations [count]; largest entries are positive."""
    size = len(covariance)
    values, vectors = eigh(covariance, subset_by_index=[size - count, size - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    return vectors, np.sqrt(np.maximum(values, 0))


def _similarity_fields(points: np.ndarray) -> np.ndarray:
    """Displacements [3 P, 7] of translation, rotation and scale."""
    fields = [np.broadcast_to(axis, points.shape) for axis in np.eye(3)]
    fields += [np.cross(axis, points) for axis in np.eye(3)]
    fields.append(points)
    return np.stack([field.reshape(-1) for field in fields], 1)
