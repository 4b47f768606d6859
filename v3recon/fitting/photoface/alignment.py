"""Generalised Procrustes alignment of detected point sets (Gower 1975)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EYE_DISTANCE = 0.90
"""Distance of the outer eye corners of the mean face, decimetres."""


@dataclass(frozen=True)
class Aligned:
    """Point sets in the model frame.

    Attributes:
        points: [N, P, 3] decimetres, x right, y up, z toward the camera.
        rotation: [N, 3, 3], acts on row vectors: aligned = scale * detected @ rotation + t.
        scale: [N] decimetres per pixel.
        mean: [P, 3] symmetric mean.
    """

    points: np.ndarray
    rotation: np.ndarray
    scale: np.ndarray
    mean: np.ndarray


def solve_similarities(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity of every point set to one target, weighted least squares (Umeyama 1991).

    Args:
        source: [N, P, 3].
        target: [P, 3].
        weights: [P], non-negative.

    Returns:
        scale [N], rotation [N, 3, 3] for row vectors, translation [N, 3].
    """
    weights = weights / weights.sum()
    source_mean = np.einsum("p,npc->nc", weights, source)
    target_mean = weights @ target
    centered = target - target_mean
    covariance = np.einsum("npi,pj->nij", source, weights[:, None] * centered)
    variance = np.einsum("p,npc->n", weights, source**2) - (source_mean**2).sum(1)
    u, singular, vt = np.linalg.svd(covariance)
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None, :]) @ vt
    scale = (singular * sign).sum(1) / variance
    translation = target_mean - scale[:, None] * np.einsum("nc,ncd->nd", source_mean, rotation)
    return scale, rotation, translation


def align(
    points: np.ndarray,
    mirror: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    rounds: int = 4,
) -> Aligned:
    """Align all point sets with their symmetric mean.

    Args:
        points: [N, P, 3] detections, x right, y up, z toward the camera, pixels.
        mirror: [P] mirror images.
        weights: [P]; rigid places (nose bridge, forehead, eye corners) more than movable ones.
        start: [P, 3] a first mean, symmetric and upright.
        rounds: alternations between mean and alignment.
    """
    mean = _normalize(start, mirror)
    for _ in range(rounds):
        scale, rotation, translation = solve_similarities(points, mean, weights)
        aligned = scale[:, None, None] * (points @ rotation) + translation[:, None]
        mean = _normalize(aligned.mean(0), mirror)
    return Aligned(aligned, rotation, scale, mean)


def pose_weights(aligned: Aligned) -> np.ndarray:
    """Weights [P] for a second alignment: places that move or deform little count more."""
    variance = ((aligned.points - aligned.mean) ** 2).sum(2).mean(0)
    return 1 / (variance + variance.min())


def head_angles(rotation: np.ndarray) -> np.ndarray:
    """Pitch, yaw, roll [N, 3] in radians of the heads, from rotations of `Aligned` [N, 3, 3].

    The angles are those of `geometry.rotation.euler_to_matrix` for model to photo.
    """
    pose = rotation.transpose(0, 2, 1)
    yaw = np.arctan2(-pose[:, 0, 2], np.hypot(pose[:, 0, 0], pose[:, 0, 1]))
    pitch = np.arctan2(pose[:, 1, 2], pose[:, 2, 2])
    roll = np.arctan2(pose[:, 0, 1], pose[:, 0, 0])
    return np.stack([pitch, yaw, roll], 1)


def _normalize(mean: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Symmetric, outer eye corners EYE_DISTANCE apart, centred."""
    flipped = mean[mirror] * [-1.0, 1.0, 1.0]
    mean = (mean + flipped) / 2
    mean = mean * EYE_DISTANCE / np.linalg.norm(mean[33] - mean[263])
    return mean - [0, mean[:, 1].mean(), mean[:, 2].mean()]
