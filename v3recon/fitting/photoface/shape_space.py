"""Identity and expression modes of the control mesh, learned from aligned detections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from v3recon.fitting.photoface.control_shape import ControlFit
from v3recon.fitting.photoface.expressions import (
    IDENTITY_STATES,
    LID_PAIRS,
    LIP_PAIRS,
    STATE_NAMES,
    effects_of_states,
    local_modes,
    measure_states,
    move_together,
    name_expressions,
    neutral_face,
    state_modes,
)
from v3recon.fitting.photoface.statistics import (
    principal_modes,
    smooth_modes,
)

SYMMETRIC_MODES, ASYMMETRIC_MODES, SMOOTH_MODES = 36, 10, 34
"""Identity modes from the photos (symmetric, asymmetric) and from a Gaussian process: 80."""

MIN_PHOTOS = 400
"""Fewer aligned photos cannot carry the modes."""

_FLIP = np.array([-1.0, 1.0, 1.0], np.float32)
_CORNER_SMOOTHING, _CORNER_RADIUS = 0.09, 0.22  # decimetres
_PERSON_RELIABILITY = 0.35  # correlation of a mode between two photos of a person


@dataclass(frozen=True)
class ShapeSpace:
    """The shape part of PhotoFace, control mesh, decimetres.

    Attributes:
        mean: [482, 3] neutral mean face.
        id_basis: [482, 3, 80] per standard deviation.
        exp_basis: [482, 3, 64] per standard deviation.
        named: name -> [64] expression coefficients.
        figures: numbers for the data card.
    """

    mean: np.ndarray
    id_basis: np.ndarray
    exp_basis: np.ndarray
    named: dict[str, np.ndarray]
    figures: dict[str, float]


def build_shape_space(
    points: np.ndarray,
    angles: np.ndarray,
    subjects: np.ndarray,
    mirror: np.ndarray,
    control: ControlFit,
) -> ShapeSpace:
    """Learn the shape space.

    Args:
        points: [N, 468, 3] aligned faces, nearly frontal, decimetres.
        angles: [N, 2] pitch and yaw of the heads, radians.
        subjects: [N] names; several photos of a name are the same person.
        mirror: [468].
        control: from points to control vertices.

    Raises:
        ValueError: if there are too few photos.
    """
    if len(points) < MIN_PHOTOS:
        raise ValueError(
            f"{len(points)} usable photos are too few: the model needs at least {MIN_PHOTOS} "
            "faces within 28 degrees of frontal"
        )
    count = len(points)
    points = points.astype(np.float32)  # half the memory; sums below are small
    both = np.concatenate([points, points[:, mirror] * _FLIP])
    angles = np.concatenate([angles, angles * [1.0, -1.0]])
    first, second = _pairs(subjects)
    first = np.concatenate([first, first + count])
    second = np.concatenate([second, second + count])

    raw = measure_states(both).astype(float)
    center, spread = raw.mean(0), raw.std(0)
    states = (raw - center) / spread
    mean = both.mean(0, dtype=float).astype(np.float32)
    nuisance = _pose_functions(angles)
    effects, leaks = effects_of_states(both - mean, states, nuisance)
    clean = both - _combine(nuisance, leaks)
    neutral = neutral_face(clean, states, mirror)
    residual = clean - mean - _combine(states, effects)
    repeat = _repeatability(states, first, second)

    offsets = (measure_states(neutral[None])[0] - center) / spread
    change = (residual[first] - residual[second]) * np.float32(np.sqrt(0.5))
    exp_points = np.concatenate(
        [state_modes(effects, offsets, neutral, repeat), local_modes(change, neutral)], 2
    )
    id_points = _identity_modes(residual, states, effects, repeat, subjects, mirror, neutral)
    figures = {
        "photos": float(count),
        "people": float(len(np.unique(subjects))),
        "pairs": float(len(first) // 2),
        "rms_mm": 100 * _rms(both - mean),
        "rms_without_states_and_pose_mm": 100 * _rms(residual),
        **{f"repeat_{name}": float(repeat[i]) for i, name in enumerate(STATE_NAMES)},
    }
    return ShapeSpace(
        mean=control.solve(neutral[:, :, None])[:, :, 0],
        id_basis=control.solve(id_points),
        exp_basis=control.solve(exp_points),
        named=name_expressions(exp_points, neutral, clean, states, mirror),
        figures=figures,
    )


def _identity_modes(
    residual: np.ndarray,
    states: np.ndarray,
    effects: np.ndarray,
    repeat: np.ndarray,
    subjects: np.ndarray,
    mirror: np.ndarray,
    neutral: np.ndarray,
) -> np.ndarray:
    """Identity modes [468, 3, 80]: person averages, then a Gaussian process.

    The photos come with their mirror images, so a sample is split into its symmetric part, which
    repeats between photos of a person, and the rest, which hardly does. Lids and lips of a pair
    move together, so identity neither opens nor closes them.
    """
    count = len(residual) // 2
    share = np.array(
        [
            np.sqrt(repeat[i]) if name in IDENTITY_STATES else 0.0
            for i, name in enumerate(STATE_NAMES)
        ]
    )
    samples = residual + _combine(states * share, effects)
    samples = _keep_closed(samples)
    own, image = samples[:count], samples[count:]
    _, person, photos = np.unique(subjects, return_inverse=True, return_counts=True)
    weights = photos * _PERSON_RELIABILITY / (1 + (photos - 1) * _PERSON_RELIABILITY)
    weights = np.sqrt(weights / weights.mean()).astype(np.float32)[:, None, None]
    symmetric = weights * _person_means((own + image) / 2, person, photos)
    asymmetric = weights * _person_means((own - image) / 2, person, photos)
    flat = (len(photos), -1)
    even, _ = principal_modes(symmetric.reshape(flat), SYMMETRIC_MODES)
    odd, _ = principal_modes(asymmetric.reshape(flat), ASYMMETRIC_MODES)
    learned = np.concatenate([even, odd * np.sqrt(0.12 / _PERSON_RELIABILITY)], 1)
    smooth = smooth_modes(neutral, mirror, learned, SMOOTH_MODES, _keep_closed)
    modes = np.concatenate([learned, smooth], 1).reshape(len(neutral), 3, -1)
    return _smooth_mouth_corners(modes, neutral)


def _smooth_mouth_corners(modes: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """The modes with smoother displacements at the mouth's corners.

    The detector places the thin triangles there independently; random faces would fold.
    """
    squared = ((neutral[:, None] - neutral[None]) ** 2).sum(2)
    kernel = np.exp(-squared / _CORNER_SMOOTHING**2)
    kernel /= kernel.sum(1, keepdims=True)
    share = np.exp(-squared[:, [61, 291]].min(1) / _CORNER_RADIUS**2)[:, None, None]
    return (1 - share) * modes + share * np.tensordot(kernel, modes, 1)


def _keep_closed(field: np.ndarray) -> np.ndarray:
    """Displacements [..., 468, 3] that open neither lips nor lids."""
    return move_together(move_together(field, LIP_PAIRS), LID_PAIRS)


def _combine(weights: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Sums [N, 468, 3] of displacement fields [K, 468, 3] with weights [N, K], single precision."""
    return np.tensordot(weights.astype(np.float32), fields.astype(np.float32), 1)


def _pairs(subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photos of the same person, each with the person's next one."""
    order = np.argsort(subjects, kind="stable")
    same = np.flatnonzero(subjects[order][1:] == subjects[order][:-1])
    return order[same], order[same + 1]


def _pose_functions(angles: np.ndarray) -> np.ndarray:
    """Pitch, yaw, their squares and product, standardised [N, 5]."""
    pitch, yaw = angles.T
    functions = np.stack([pitch, yaw, pitch**2, yaw**2, pitch * yaw], 1)
    return (functions - functions.mean(0)) / functions.std(0)


def _repeatability(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation [K] between two photos of a person, clipped to 0…0.9."""
    if len(first) < 20:  # no people with several photos: what LFW says
        return np.full(values.shape[1], _PERSON_RELIABILITY)
    a, b = values[first], values[second]
    a, b = a - a.mean(0), b - b.mean(0)
    correlation = (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.clip(correlation, 0.0, 0.9)


def _person_means(samples: np.ndarray, person: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """Means [people, 468, 3] of every person's photos."""
    rows = (np.ones(len(samples)), (person.reshape(-1), np.arange(len(samples))))
    total = sparse.csr_matrix(rows) @ samples.reshape(len(samples), -1)
    return total.reshape(-1, *samples.shape[1:]) / photos[:, None, None]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).sum(-1).mean()))
