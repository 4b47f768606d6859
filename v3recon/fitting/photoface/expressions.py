"""Measured states of a face: what changes with expression, in numbers."""

from __future__ import annotations

import numpy as np

STATE_NAMES = (
    "right_eye_open",
    "left_eye_open",
    "mouth_gap",
    "mouth_width",
    "corner_height",
    "corner_tilt",
    "right_brow_height",
    "left_brow_height",
    "brow_distance",
    "protrusion",
    "lower_lip_to_chin",
    "jaw_shift",
)
"""Columns of `measure_states`."""


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
    lips = at(13, 14)
    columns = [
        right_gap / distance(33, 133),
        left_gap / distance(263, 362),
        distance(13, 14),
        distance(61, 291),
        (corners - at(0, 17))[:, 1],
        (at(61) - at(291))[:, 1],
        (at(70, 63, 105, 66, 107, 46, 53, 52, 65, 55) - at(33, 133))[:, 1],
        (at(300, 293, 334, 296, 336, 276, 283, 282, 295, 285) - at(263, 362))[:, 1],
        (distance(107, 336) + distance(55, 285)) / 2,
        (at(0, 17) - corners)[:, 2],
        distance(17, 152),
        (at(152, 17) - at(168, 1))[:, 0] + 0 * lips[:, 0],
    ]
    return np.stack(columns, 1)
