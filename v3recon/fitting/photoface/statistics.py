"""Linear statistics of aligned shapes."""

from __future__ import annotations

import numpy as np


def principal_modes(data: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of centred samples, from their covariance; signs are fixed.

    Args:
        data: [N, D], centred.
        count: modes wanted, at most D.

    Returns:
        modes [D, count], each scaled by its standard deviation, and deviations [count],
        largest first. A mode's largest entry is positive.
    """
    values, vectors = np.linalg.eigh(data.T @ data / len(data))
    order = np.argsort(values)[::-1][:count]
    deviation = np.sqrt(np.maximum(values[order], 0))
    modes = vectors[:, order]
    largest = np.abs(modes).argmax(0)
    modes = modes * np.sign(modes[largest, np.arange(count)])
    return modes * deviation, deviation


def ridge(inputs: np.ndarray, outputs: np.ndarray, strength: float = 1e-3) -> np.ndarray:
    """Coefficients [K, D] of ridge regression, outputs [N, D] = inputs [N, K] @ coefficients."""
    size = inputs.shape[1]
    normal = inputs.T @ inputs + strength * len(inputs) * np.eye(size)
    return np.linalg.solve(normal, inputs.T @ outputs)


def project_out(data: np.ndarray, modes: np.ndarray, strength: float = 0.0) -> np.ndarray:
    """Samples [N, D] without what modes [D, K] explain (ridge in units of the modes)."""
    gram = modes.T @ modes + strength * np.eye(modes.shape[1])
    return data - np.linalg.solve(gram, modes.T @ data.T).T @ modes.T
