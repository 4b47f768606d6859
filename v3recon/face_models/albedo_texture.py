"""Albedo in texture space: finer than vertices, linear in the same coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FINE_TAIL = 2
"""The last modes are stored finely as well, after the first ones."""


@dataclass(frozen=True)
class AlbedoTexture:
    """Mean and modes of the albedo on the grid of texture coordinates; row 0 is v = 1.

    Modes are stored in 8 bits: the first and the last two at full size, those between at half.

    Attributes:
        mean: [3, H, W] uint8 RGB.
        fine: [Kf, 3, T, T] int8.
        fine_unit: [Kf] albedo (0…1) per step and standard deviation.
        coarse: [Kc, 3, T / 2, T / 2] int8.
        coarse_unit: [Kc].
    """

    mean: Tensor
    fine: Tensor
    fine_unit: Tensor
    coarse: Tensor
    coarse_unit: Tensor

    def to(self, device: torch.device | str) -> AlbedoTexture:
        """The same on another device."""
        values = (self.mean, self.fine, self.fine_unit, self.coarse, self.coarse_unit)
        return AlbedoTexture(*(value.to(device) for value in values))

    def texture(self, alb_coeffs: Tensor) -> Tensor:
        """Albedo [B, 3, H, W] RGB, 0…1, clamped.

        Args:
            alb_coeffs: [B, K].
        """
        fine, coarse = self._split(alb_coeffs)
        size = (self.mean.shape[1], self.mean.shape[2])
        change = _combine(fine * self.fine_unit, self.fine, size)
        if self.coarse.numel():
            change = change + _combine(coarse * self.coarse_unit, self.coarse, size)
        return (self.mean / 255 + change).clamp(0, 1)

    def at(self, uv_coords: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [V, 3] and modes [V, 3, K] at texture coordinates [V, 2] (v up), bilinear."""
        mean = _sample(self.mean[None].float() / 255, uv_coords)[..., 0]
        fine = _sample(self.fine.float(), uv_coords) * self.fine_unit
        if not self.coarse.numel():
            return mean, fine
        coarse = _sample(self.coarse.float(), uv_coords) * self.coarse_unit
        head = fine.shape[2] - _FINE_TAIL
        return mean, torch.cat([fine[..., :head], coarse, fine[..., head:]], 2)

    def _split(self, coeffs: Tensor) -> tuple[Tensor, Tensor]:
        count = len(self.coarse_unit)
        if not count:
            return coeffs, coeffs[:, :0]
        head = coeffs.shape[1] - count - _FINE_TAIL
        fine = torch.cat([coeffs[:, :head], coeffs[:, head + count :]], 1)
        return fine, coeffs[:, head : head + count]


def _combine(weights: Tensor, modes: Tensor, size: tuple[int, int]) -> Tensor:
    """Weighted sums [B, 3, H, W] of modes [K, 3, T, T], resized."""
    total = weights @ modes.flatten(1).to(weights.dtype)
    grid = total.unflatten(1, modes.shape[1:])
    return torch.nn.functional.interpolate(grid, size, mode="bilinear", align_corners=False)


def _sample(pictures: Tensor, uv_coords: Tensor) -> Tensor:
    """Values [V, 3, K] of pictures [K, 3, H, W] at texture coordinates."""
    grid = torch.stack([2 * uv_coords[:, 0] - 1, 1 - 2 * uv_coords[:, 1]], 1)
    grid = grid[None, None].expand(len(pictures), -1, -1, -1)
    sampled = torch.nn.functional.grid_sample(
        pictures, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[:, :, 0].permute(2, 1, 0).contiguous()
