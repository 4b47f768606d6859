"""How far eyes and mouths are open, by their landmarks.

The opening of an eye is the mean distance of its two pairs of lid points, across the line of its
corners, over their distance; that of a mouth the same of its three inner pairs, over the distance
of the outer corners.
"""

from __future__ import annotations

import torch
from torch import Tensor

APERTURES = ("right eye", "left eye", "mouth")
CLOSED_EYE = 0.15
"""Opening over width below which an eye counts as closed; ordinary eyes have 0.2 to 0.35."""
OPEN_MOUTH = 0.2
"""Gap of the lips over the mouth's width above which a mouth counts as open."""

_CORNERS = ((36, 39), (42, 45), (60, 64))
_PAIRS = (((37, 41), (38, 40)), ((43, 47), (44, 46)), ((61, 67), (62, 66), (63, 65)))
_WIDTHS = ((36, 39), (42, 45), (48, 54))


def openings_of_points(points: Tensor, target: Tensor | None = None) -> Tensor:
    """Openings of `APERTURES` [B, 3] by 68 points; crossed lids and lips are below zero.

    NaN where one of the points that are needed is.

    Args:
        points: [B, 68, 2] any pixels, y down.
        target: [B, 68, 2] points whose widths to divide by; default the same.
    """
    assert points.shape[1:] == (68, 2), points.shape
    widths = points if target is None else target
    found = []
    for corners, pairs, ends in zip(_CORNERS, _PAIRS, _WIDTHS, strict=True):
        along = points[:, corners[1]] - points[:, corners[0]]
        across = torch.stack([-along[:, 1], along[:, 0]], 1)
        across = across / across.norm(dim=1, keepdim=True).clamp(min=1e-9)
        gaps = [((points[:, low] - points[:, up]) * across).sum(1) for up, low in pairs]
        width = (widths[:, ends[1]] - widths[:, ends[0]]).norm(dim=1).clamp(min=1e-9)
        found.append(torch.stack(gaps).mean(0) / width)
    return torch.stack(found, 1)
