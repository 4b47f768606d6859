"""Nine-term spherical-harmonics light (Ramamoorthi and Hanrahan 2001), constants of 3DDFA_V3."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Products of the Lambertian kernel a_l and the basis constants c_l.
A0C0 = math.pi / math.sqrt(4 * math.pi)
A1C1 = 2 * math.pi / math.sqrt(3) * math.sqrt(3 / (4 * math.pi))
A2C2 = 2 * math.pi / math.sqrt(8) * 3 * math.sqrt(5) / math.sqrt(12 * math.pi)
AMBIENT = 0.8
"""Added to the first coefficient of each colour, so that zero coefficients mean ambient light."""


def sh_basis(normals: Tensor) -> Tensor:
    """The nine basis functions at unit normals.

    Args:
        normals: [..., 3] unit vectors, world frame.

    Returns:
        [..., 9].
    """
    assert normals.shape[-1] == 3, normals.shape
    return torch.stack(_basis_functions(normals), -1)


def irradiance(normals: Tensor, sh: Tensor) -> Tensor:
    """Light that reaches a surface: Y (gamma + [0.8, 0, ...]) per colour.

    Args:
        normals: [B, N, 3] unit vectors, world frame.
        sh: [B, 27] coefficients, colour first (3 x 9).

    Returns:
        [B, N, 3] RGB, 1 = albedo shown as it is.
    """
    assert sh.shape[-1] == 27, sh.shape
    gamma = sh.reshape(-1, 3, 9)
    ambient = torch.zeros(9, device=sh.device, dtype=sh.dtype)
    ambient[0] = AMBIENT
    basis = torch.stack(_basis_functions(normals), 1)  # [B, 9, N]: lies better in memory
    return ((gamma + ambient) @ basis).transpose(1, 2)


def shade_sh(albedo: Tensor, normals: Tensor, sh: Tensor) -> Tensor:
    """Lit colours: albedo times irradiance (not clamped).

    Args:
        albedo: [B, N, 3] RGB in 0…1.
        normals: [B, N, 3] unit vectors, world frame.
        sh: [B, 27] coefficients.

    Returns:
        [B, N, 3] RGB.
    """
    assert albedo.shape == normals.shape, (albedo.shape, normals.shape)
    return albedo * irradiance(normals, sh)


def white_light(sh: Tensor) -> Tensor:
    """Nine coefficients of the white light nearest to a colored one (Deep3D's form of 9).

    The mean over the colors: of all lights with three equal colors the one whose coefficients
    differ least (squared).

    Args:
        sh: [B, 27] coefficients, color first (3 x 9).

    Returns:
        [B, 9]; `white_light(sh).repeat(1, 3)` is a light for `shade_sh`.
    """
    assert sh.shape[-1] == 27, sh.shape
    return sh.reshape(-1, 3, 9).mean(1)


def _basis_functions(normals: Tensor) -> list[Tensor]:
    """The nine values [...] at unit normals [..., 3]."""
    nx, ny, nz = normals.unbind(-1)
    return [
        torch.full_like(nx, A0C0),
        -A1C1 * ny,
        A1C1 * nz,
        -A1C1 * nx,
        A2C2 * nx * ny,
        -A2C2 * ny * nz,
        A2C2 / (2 * math.sqrt(3)) * (3 * nz**2 - 1),
        -A2C2 * nx * nz,
        A2C2 / 2 * (nx**2 - ny**2),
    ]
