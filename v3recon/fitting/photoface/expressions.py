"""Expression: measured states of a face, the modes they move, and named expressions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v3recon.fitting.photoface.statistics import principal_modes, ridge
from v3recon.fitting.photoface.topology import (
    EYE_ROWS,
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LEFT_BROW_LOWER,
    LEFT_BROW_UPPER,
    OUTER_LIP_LOWER,
    OUTER_LIP_UPPER,
    RIGHT_BROW_LOWER,
    RIGHT_BROW_UPPER,
)

STATE_NAMES = (
    "right_eye_open",
    "left_eye_open",
    "right_brow_height",
    "left_brow_height",
    "brow_distance",
    "mouth_gap",
    "mouth_width",
    "corner_height",
    "corner_tilt",
    "protrusion",
    "lower_lip_to_chin",
    "jaw_shift",
)
"""Columns of `measure_states`; the first expression modes of the model, in this order."""

UPPER_STATES = STATE_NAMES[:5]
EYE_STATES = STATE_NAMES[:2]
IDENTITY_STATES = (
    "right_brow_height",
    "left_brow_height",
    "brow_distance",
    "mouth_width",
    "corner_height",
    "protrusion",
    "lower_lip_to_chin",
)
"""States that differ between people as well, so identity keeps their repeatable share."""

LIP_PAIRS = tuple(zip(INNER_LIP_UPPER[1:-1], INNER_LIP_LOWER[1:-1], strict=True))
LID_PAIRS = tuple(
    pair for upper, lower in EYE_ROWS for pair in zip(upper[1:-1], lower[1:-1], strict=True)
)
LOCAL_MODES = {"eyes": 16, "brows": 10, "mouth": 26}
"""Residual modes a region; with the states they make 64."""

CLOSED_LID = 0.2
"""Where closed lids meet: share of the opening above the lower lid."""
LID_FORWARD = 0.018
"""How far closed lids stand out over the open eye, decimetres: the eyeball is behind them."""
PUCKER_FORWARD = 0.03
"""Added protrusion of puckered lips, decimetres: few of the photos show any."""


@dataclass(frozen=True)
class Expressions:
    """Expression modes and vectors on the detector's points.

    Attributes:
        neutral: [468, 3] neutral mean face: eyes open, mouth closed; decimetres.
        modes: [468, 3, 64] displacement per standard deviation.
        named: name -> [64] coefficients.
    """

    neutral: np.ndarray
    modes: np.ndarray
    named: dict[str, np.ndarray]


def measure_states(points: np.ndarray) -> np.ndarray:
    """States of aligned faces, in the order of STATE_NAMES.

    Args:
        points: [N, 468, 3] model frame, decimetres.

    Returns:
        [N, 12]; openings are relative to the eye's width, the rest in decimetres.
    """

    def at(*index: int) -> np.ndarray:
        return points[:, list(index)].mean(1)

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[:, a] - points[:, b], axis=1)

    right_gap = (at(160, 159, 158) - at(144, 145, 153))[:, 1]
    left_gap = (at(387, 386, 385) - at(373, 374, 380))[:, 1]
    corners = at(61, 291)
    right_brow = at(*RIGHT_BROW_UPPER, *RIGHT_BROW_LOWER)
    left_brow = at(*LEFT_BROW_UPPER, *LEFT_BROW_LOWER)
    columns = {
        "right_eye_open": right_gap / distance(33, 133),
        "left_eye_open": left_gap / distance(263, 362),
        "right_brow_height": (right_brow - at(33, 133))[:, 1],
        "left_brow_height": (left_brow - at(263, 362))[:, 1],
        "brow_distance": (distance(107, 336) + distance(55, 285)) / 2,
        "mouth_gap": distance(13, 14),
        "mouth_width": distance(61, 291),
        "corner_height": (corners - at(0, 17))[:, 1],
        "corner_tilt": (at(61) - at(291))[:, 1],
        "protrusion": (at(0, 17) - corners)[:, 2],
        "lower_lip_to_chin": distance(17, 152),
        "jaw_shift": (at(152, 17) - at(168, 1))[:, 0],
    }
    return np.stack([columns[name] for name in STATE_NAMES], 1)


def move_together(points: np.ndarray, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Points (or displacements) [..., 468, 3] with each pair at its common mean."""
    upper, lower = (list(side) for side in zip(*pairs, strict=True))
    result = points.copy()
    middle = (points[..., upper, :] + points[..., lower, :]) / 2
    result[..., upper, :] = middle
    result[..., lower, :] = middle
    return result


def region_masks(mean: np.ndarray) -> dict[str, np.ndarray]:
    """Smooth weights [468] of regions of the face, 0…1; left and right are mirror images."""
    brows = RIGHT_BROW_UPPER + RIGHT_BROW_LOWER + LEFT_BROW_UPPER + LEFT_BROW_LOWER
    eyes = tuple(vertex for rows in EYE_ROWS for row in rows for vertex in row)
    lips = INNER_LIP_UPPER + INNER_LIP_LOWER + OUTER_LIP_UPPER + OUTER_LIP_LOWER
    lower_lid = mean[[145, 374], 1].mean()
    upper = _sigmoid((mean[:, 1] - lower_lid + 0.10) / 0.05)
    return {
        "eyes": _near(mean, eyes, 0.09),
        "brows": _near(mean, brows, 0.16) * upper,
        "mouth": _near(mean, lips, 0.28),
        "upper": upper,
        "lower": _sigmoid((lower_lid - 0.12 - mean[:, 1]) / 0.08),
        "right": _sigmoid(-mean[:, 0] / 0.06),
        "left": _sigmoid(mean[:, 0] / 0.06),
    }


def neutral_face(points: np.ndarray, states: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mean of the photos whose states are those of a face at rest, its lips then closed.

    Args:
        points: [N, 468, 3] aligned faces and their mirror images.
        states: [N, 12] in standard deviations.
        mirror: [468].
    """
    z = dict(zip(STATE_NAMES, states.T, strict=True))
    score = (
        -np.abs(z["mouth_gap"] + 1.0)
        - np.abs(z["mouth_width"] + 0.5)
        - np.abs(z["corner_height"] + 0.5)
        - np.abs(z["brow_distance"])
        - np.abs(z["right_eye_open"] - 0.2)
        - np.abs(z["left_eye_open"] - 0.2)
    )
    chosen = np.argsort(-score, kind="stable")[: max(len(points) // 20, 20)]
    mean = points[chosen].mean(0, dtype=float)
    mean = (mean + mean[mirror] * [-1.0, 1.0, 1.0]) / 2
    return move_together(mean, LIP_PAIRS)


def state_modes(
    effects: np.ndarray, offsets: np.ndarray, neutral: np.ndarray, repeat: np.ndarray
) -> np.ndarray:
    """Expression modes of the measured states, local and with lids and lips that can close.

    Args:
        effects: [12, 468, 3] displacement per standard deviation of each state.
        offsets: [12] the neutral face's states, in standard deviations from the mean.
        neutral: [468, 3].
        repeat: [12] share of each state that belongs to the person.

    Returns:
        [468, 3, 12] per standard deviation of expression alone.
    """
    masks = region_masks(neutral)
    modes = []
    for index, name in enumerate(STATE_NAMES):
        weight = masks["upper"] if name in UPPER_STATES else masks["lower"]
        side = name.split("_")[0]
        if side in ("right", "left"):
            weight = weight * masks[side]
        mode = effects[index] * weight[:, None]
        if name in EYE_STATES:
            mode = _closing_mode(mode, neutral, EYE_ROWS[EYE_STATES.index(name)])
        else:
            mode = move_together(mode, LID_PAIRS)
            if name != "mouth_gap":
                mode = move_together(mode, LIP_PAIRS)
        spread = np.sqrt(1 + offsets[index] ** 2)  # about the neutral face, not the mean
        if name in IDENTITY_STATES:
            spread *= np.sqrt(1 - repeat[index])
        modes.append(mode * spread)
    return np.stack(modes, 2)


def local_modes(changes: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Principal modes of what else changes in a person's face, region by region.

    Args:
        changes: [N, 468, 3] residual differences of one person in two photos over sqrt(2).
        neutral: [468, 3].

    Returns:
        [468, 3, 52] per standard deviation.
    """
    masks = region_masks(neutral)
    blocks = []
    for region, count in LOCAL_MODES.items():
        mask = np.where(masks[region] > 0.01, masks[region], 0.0)
        local = changes * mask.astype(changes.dtype)[:, None]
        if region != "eyes":
            local = move_together(local, LID_PAIRS)
        if region != "mouth":
            local = move_together(local, LIP_PAIRS)
        blocks.append(principal_modes(local.reshape(len(local), -1), count)[0])
    return np.concatenate(blocks, 1).reshape(len(neutral), 3, -1)


def name_expressions(
    modes: np.ndarray,
    neutral: np.ndarray,
    points: np.ndarray,
    states: np.ndarray,
    mirror: np.ndarray,
) -> dict[str, np.ndarray]:
    """Coefficients of expressions, from the photos that show each one most clearly.

    Args:
        modes: [468, 3, 64].
        neutral: [468, 3].
        points: [N, 468, 3] aligned faces and their mirror images, free of pose effects.
        states: [N, 12] in standard deviations.
        mirror: [468].
    """
    z = dict(zip(STATE_NAMES, states.T, strict=True))
    masks = region_masks(neutral)
    brows = z["right_brow_height"] + z["left_brow_height"]
    smile = z["mouth_width"] + z["corner_height"]
    opened = np.maximum(z["mouth_gap"], 0)
    # score, region, gain, lips kept closed
    recipes = {
        "mouth_open": (z["mouth_gap"], "lower", 1.0, False),
        "mouth_round": (z["mouth_gap"] - z["mouth_width"], "lower", 1.0, False),
        "smile": (smile - 2 * opened, "lower", 1.0, True),
        "smile_open": (smile + 0.5 * z["mouth_gap"], "lower", 1.0, False),
        "pucker": (0.7 * z["protrusion"] - z["mouth_width"] - opened, "lower", 1.5, True),
        "corners_down": (-z["corner_height"] - 0.5 * opened, "lower", 1.3, True),
        "brows_raised": (brows, "upper", 1.0, True),
        "frown": (-z["brow_distance"] - 0.7 * brows, "upper", 1.25, True),
        "jaw_left": (z["jaw_shift"] - opened, "lower", 1.6, True),
    }
    named = {"neutral": np.zeros(modes.shape[2])}
    for name, (score, region, gain, closed) in recipes.items():
        chosen = np.argsort(-score, kind="stable")[: max(len(points) // 280, 10)]
        change = gain * (points[chosen].mean(0) - neutral) * masks[region][:, None]
        if name != "jaw_left":
            change = (change + change[mirror] * [-1.0, 1.0, 1.0]) / 2
        change = move_together(change, LID_PAIRS)
        if closed:
            change = move_together(change, LIP_PAIRS)
        if name == "pucker":
            change[:, 2] += PUCKER_FORWARD * _near(neutral, (13, 14), 0.16)
        named[name] = _solve_coefficients(modes, change, closed)
        if name == "jaw_left":
            image = change[mirror] * [-1.0, 1.0, 1.0]
            named["jaw_right"] = _solve_coefficients(modes, image, closed)
    named.update(_side_expressions(modes, named, masks))
    for index, name in enumerate(("right_eye_closed", "left_eye_closed")):
        named[name] = np.zeros(modes.shape[2])
        named[name][index] = _closing_amount(modes[:, :, index], neutral, EYE_ROWS[index])
    named["eyes_closed"] = named["right_eye_closed"] + named["left_eye_closed"]
    named["mouth_open_eyes_closed"] = named["mouth_open"] + named["eyes_closed"]
    return named


def _side_expressions(
    modes: np.ndarray, named: dict[str, np.ndarray], masks: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One side of smile, brows raised and frown."""
    result = {}
    for source, target in (("smile", "smile"), ("brows_raised", "brow_raised")):
        change = modes @ named[source]
        for side in ("right", "left"):
            part = change * masks[side][:, None]
            result[f"{side}_{target}"] = _solve_coefficients(modes, part, closed_lips=True)
    return result


def _solve_coefficients(modes: np.ndarray, change: np.ndarray, closed_lips: bool) -> np.ndarray:
    """Coefficients [64] whose displacement is nearest to a wanted one, lids left alone.

    Lids (and lips, where they must stay closed) count much more, by their gaps.
    """
    count = modes.shape[2]
    design, wanted = modes.reshape(-1, count), change.reshape(-1)
    pairs = LID_PAIRS + (LIP_PAIRS if closed_lips else ())
    upper, lower = (list(side) for side in zip(*pairs, strict=True))
    gaps = (modes[upper] - modes[lower]).reshape(-1, count)
    normal = design.T @ design + 1e3 * gaps.T @ gaps + 1e-3 * np.eye(count)
    return np.linalg.solve(normal, design.T @ wanted)


def _closing_mode(
    mode: np.ndarray, neutral: np.ndarray, rows: tuple[tuple[int, ...], tuple[int, ...]]
) -> np.ndarray:
    """The eye mode, bent so that some multiple of it lets both lids meet exactly."""
    upper, lower = list(rows[0][1:-1]), list(rows[1][1:-1])
    amount = _closing_amount(mode, neutral, rows)
    top = neutral[upper] + amount * mode[upper]
    bottom = neutral[lower] + amount * mode[lower]
    seam = CLOSED_LID * top + (1 - CLOSED_LID) * bottom
    across = np.linspace(-1, 1, len(upper) + 2)[1:-1]
    seam[:, 2] += LID_FORWARD * (1 - across**2)
    result = mode.copy()
    result[upper] = (seam - neutral[upper]) / amount
    result[lower] = (seam - neutral[lower]) / amount
    return result


def _closing_amount(
    mode: np.ndarray, neutral: np.ndarray, rows: tuple[tuple[int, ...], tuple[int, ...]]
) -> float:
    """Multiple of a mode that takes the mean vertical gap of the lids to zero."""
    upper, lower = list(rows[0][1:-1]), list(rows[1][1:-1])
    gap = (neutral[upper] - neutral[lower])[:, 1].mean()
    change = (mode[upper] - mode[lower])[:, 1].mean()
    return float(-gap / change)


def effects_of_states(
    residual: np.ndarray, states: np.ndarray, nuisance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of shape on states and pose together.

    Args:
        residual: [N, 468, 3] aligned faces without their mean.
        states: [N, 12] in standard deviations.
        nuisance: [N, M] functions of the head's pose.

    Returns:
        displacement per state [12, 468, 3] and per pose function [M, 468, 3].
    """
    flat = ridge(np.concatenate([states, nuisance], 1), residual.reshape(len(residual), -1))
    effects = flat.reshape(len(flat), -1, 3)
    return effects[: states.shape[1]], effects[states.shape[1] :]


def _near(mean: np.ndarray, vertices: tuple[int, ...], radius: float) -> np.ndarray:
    """1 at the vertices, falling off like a Gaussian."""
    squared = ((mean[:, None] - mean[list(vertices)][None]) ** 2).sum(2).min(1)
    return np.exp(-squared / radius**2)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
