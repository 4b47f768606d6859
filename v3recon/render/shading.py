"""Grey shading that shows the shape alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

LIGHTS = ((-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1), (0, 0, 1))
"""Directions toward 3DDFA_V3's five lights, world frame, not normalised."""
LIGHT_STRENGTH = 1.7
GRAY_ALBEDO = 0.78


def gray_shading(normals: Tensor) -> Tensor:
    """Grey of a matte surface under five equal lights: 0.78 mean(1.7 max(0, n . l)).

    Args:
        normals: [..., 3] unit normals, world frame.

    Returns:
        [..., 3] RGB with equal channels, 0 to about 1.
    """
    assert normals.shape[-1] == 3, normals.shape
    lights = normalize(torch.tensor(LIGHTS, dtype=normals.dtype, device=normals.device), dim=-1)
    gray = GRAY_ALBEDO * LIGHT_STRENGTH * (normals @ lights.T).clamp(min=0).mean(-1, keepdim=True)
    return gray.expand(*normals.shape)
