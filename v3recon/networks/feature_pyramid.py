"""Feature maps of a backbone merged from coarse to fine (Lin et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import interpolate


class FeaturePyramid(nn.Module):
    """Feature maps of several strides to one of the finest size that knows the coarser ones."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        """Build with random weights.

        Args:
            widths: channels of the maps, finest first; each half as large as the one before.
            width: channels of the result.
        """
        super().__init__()
        self.laterals = nn.ModuleList([nn.Conv2d(count, width, 1) for count in widths])
        self.smooths = nn.ModuleList([block(width, width) for _ in widths])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Merged map [B, width, h, w] of maps [B, widths[i], …], finest (h, w) first."""
        merged: Tensor | None = None
        layers = list(zip(self.laterals, self.smooths, maps, strict=True))
        for lateral, smooth, level in reversed(layers):
            here = lateral(level)
            merged = smooth(here if merged is None else here + enlarge(merged))
        return cast(Tensor, merged)


def block(inputs: int, outputs: int, side: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU; height and width stay."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def enlarge(x: Tensor) -> Tensor:
    """Twice the height and width."""
    return interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
