"""Openings of eyes and mouths by points or by part labels, and their figures.

By points they are those of `face_models.openings`. In masks an opening is the mean height of the
eye, or of what lies between the lips, over the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from v3recon.evaluation.report import percent
from v3recon.face_models.openings import CLOSED_EYE, OPEN_MOUTH
from v3recon.face_models.parts import LIP_LABELS

LEAST_CHANGE = 0.05
"""Smaller true changes of an opening say nothing about the response."""
_EYES, _MOUTH = slice(0, 2), slice(2, 3)
LINES = {
    "closed eyes": (_EYES, -math.inf, CLOSED_EYE),
    "open eyes": (_EYES, CLOSED_EYE, math.inf),
    "open mouths": (_MOUTH, OPEN_MOUTH, math.inf),
    "other mouths": (_MOUTH, -math.inf, OPEN_MOUTH),
}
"""Lines of a report -> which of `APERTURES`, and the range [low, high) of their true openings."""
HEADER = ("opening, % of width", "number", "true", "read", "mean error", "as such %")
LIMITS_NOTE = (
    f"openings over the true width; an eye counts as closed below {CLOSED_EYE:.0%}, a mouth "
    f"as open above {OPEN_MOUTH:.0%}; 'as such': the prediction is on the same side of it"
)

_UP_LIP, _DOWN_LIP = LIP_LABELS
_MIDDLE = 0.5
"""Share of the width, around its middle, over which a mask's heights are averaged."""


@dataclass(frozen=True)
class Openings:
    """Openings of `APERTURES` of many faces, over the true width; NaN where not known.

    Attributes:
        true: [N, 3].
        read: [N, 3].
    """

    true: Tensor
    read: Tensor

    def line(self, columns: slice, low: float, high: float) -> dict[str, float]:
        """Figures of the eyes or mouths whose true opening is in [low, high)."""
        true, read = self.true[:, columns].flatten(), self.read[:, columns].flatten()
        chosen = (true >= low) & (true < high) & read.isfinite()
        true, read = true[chosen], read[chosen]
        if not len(true):
            return {"count": 0, "error": math.nan, "bias": math.nan, "as_such": math.nan}
        return {
            "count": len(true),
            "true": float(true.mean()),
            "error": float((read - true).abs().mean()),
            "bias": float((read - true).mean()),
            "as_such": float(((read >= low) & (read < high)).double().mean()),
        }

    def lines(self) -> dict[str, dict[str, float]]:
        """Figures of closed and other eyes, open and other mouths."""
        return {name: self.line(*line) for name, line in LINES.items()}


def opening_rows(lines: dict[str, dict[str, float]], suffix: str = "") -> list[tuple[str, ...]]:
    """Rows under `HEADER` of `Openings.lines`; those without an eye or mouth are left out."""
    return [
        (
            f"{name}{suffix}",
            str(line["count"]),
            percent(line["true"], 1),
            percent(line["true"] + line["bias"], 1),
            percent(line["error"], 1),
            percent(line["as_such"], 0),
        )
        for name, line in lines.items()
        if line["count"]
    ]


def openings_of_labels(labels: np.ndarray) -> np.ndarray:
    """Openings of `APERTURES` [3] by a label map [H, W] 0…8 of an upright face.

    An absent eye is closed; without both lips the mouth is not known (NaN).
    """
    found = []
    for label in (1, 2):
        heights = (labels == label).sum(0)
        found.append(_middle_mean(heights, heights > 0))
    upper, lower = labels == _UP_LIP, labels == _DOWN_LIP
    if not (upper.any() and lower.any()):
        return np.array([*found, math.nan])
    rows = np.arange(len(labels))[:, None]
    end = np.where(upper, rows, -1).max(0)
    start = np.where(lower, rows, len(labels)).min(0)
    both = upper.any(0) & lower.any(0)
    gap = np.where(both, np.maximum(start - end - 1, 0), 0)
    return np.array([*found, _middle_mean(gap, upper.any(0) | lower.any(0))])


def response(true_change: Tensor, read_change: Tensor) -> float:
    """Slope of read on true changes [N] through the origin; NaN where nothing changes."""
    chosen = (true_change.abs() > LEAST_CHANGE) & read_change.isfinite()
    wanted = true_change[chosen]
    if not len(wanted):
        return math.nan
    return float((wanted * read_change[chosen]).sum() / (wanted**2).sum())


def _middle_mean(heights: np.ndarray, present: np.ndarray) -> float:
    """Mean of [W] heights over the middle of the present columns, over their width."""
    columns = np.flatnonzero(present)
    if not len(columns):
        return 0.0
    first, width = int(columns[0]), int(columns[-1]) - int(columns[0]) + 1
    cut = int(width * (1 - _MIDDLE) / 2)
    return float(heights[first + cut : first + width - cut].mean()) / width
