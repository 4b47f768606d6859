"""How well scores tell two kinds apart."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import rankdata


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative, ties half (Mann and Whitney 1947).

    Args:
        positive: [P] scores.
        negative: [N] scores.

    Returns:
        0…1, NaN where one kind is missing.
    """
    if not len(positive) or not len(negative):
        return math.nan
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    return float((ranks - len(positive) * (len(positive) + 1) / 2) / len(positive) / len(negative))
