"""Affine maps between pictures, [..., 2, 3]: out = matrix[:, :2] @ (x, y) + matrix[:, 2].

Pixels: x right, y down, the centre of the first pixel is (0, 0). Where a picture is resized its
outer edges agree, half a pixel beyond the outer centres: centre p becomes (p + 0.5) ratio - 0.5.
This file alone holds that formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def apply_affine_2d(points: Tensor, matrix: Tensor) -> Tensor:
    """Map pixels.

    Args:
        points: [..., N, 2].
        matrix: [..., 2, 3].

    Returns:
        [..., N, 2].
    """
    assert points.shape[-1] == 2 and matrix.shape[-2:] == (2, 3), (points.shape, matrix.shape)
    return points @ matrix[..., :2].transpose(-1, -2) + matrix[..., None, :, 2]


def invert_affine_2d(matrix: Tensor) -> Tensor:
    """Inverse of maps [..., 2, 3]."""
    inverse = torch.linalg.inv(matrix[..., :2])
    return torch.cat([inverse, -inverse @ matrix[..., 2:]], -1)


def compose_affine_2d(outer: Tensor, inner: Tensor) -> Tensor:
    """The map [..., 2, 3] that applies `inner` first, then `outer`."""
    assert outer.shape[-2:] == inner.shape[-2:] == (2, 3), (outer.shape, inner.shape)
    linear = outer[..., :2] @ inner[..., :2]
    return torch.cat([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], -1)


def resize_affine_2d(ratio: float | Sequence[float], offset: Sequence[float] = (0, 0)) -> Tensor:
    """The map of a picture's pixels to those of a resized window of it.

    Args:
        ratio: size of the result over the window's, one number or (x, y).
        offset: left and top of the window, pixels of the picture.

    Returns:
        [2, 3] float64.
    """
    ratios = torch.tensor(
        [ratio, ratio] if isinstance(ratio, float | int) else list(ratio), dtype=torch.float64
    )
    start = torch.tensor(list(offset), dtype=torch.float64)
    shift = (0.5 - start) * ratios - 0.5
    return torch.cat([ratios.diag(), shift[:, None]], 1)


def affine_scale_2d(matrix: Tensor) -> Tensor:
    """Mean scale [...] of maps [..., 2, 3]: the root of the area's factor."""
    return torch.linalg.det(matrix[..., :2]).abs().sqrt()
