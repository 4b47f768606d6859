"""Where the parts of the face are in a crop: a feature pyramid with a class for every pixel.

A coefficient says little about a pixel; a map that is trained on part masks says where lips and
brows end. Close-ups (`networks.mesh_aligned`) read it around the points of an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle

CLASSES = 9
"""Nothing, and the eight parts of `face_models.parts`."""
STRIDES = (2, 4, 8, 16, 32)
"""Levels of a backbone that a part map reads."""
WIDTH, JOINED = 48, 64
"""Channels of the pyramid, and where the finest map joins it."""
FOLD = 2
"""The finest map is read, and the classes are given, in squares of 2 x 2 pixels: as fine, and
half the work."""


class FeaturePyramid(nn.Module):
    """Feature maps of a backbone merged from coarse to fine (Lin et al., CVPR 2017)."""

    def __init__(self, widths: Sequence[int], width: int, *, separable: bool) -> None:
        """Build with random weights.

        Args:
            widths: channels of the maps, finest first; each half as large as the one before.
            width: channels of the result.
            separable: filter each channel apart, which is smaller and faster.
        """
        super().__init__()
        self.laterals = nn.ModuleList([nn.Conv2d(count, width, 1) for count in widths])
        smooth = separable_block if separable else block
        self.smooths = nn.ModuleList([smooth(width) for _ in widths])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """One map [B, width, h, w] of the finest size that knows the coarser ones."""
        merged: Tensor | None = None
        layers = list(zip(self.laterals, self.smooths, maps, strict=True))
        for lateral, smooth, level in reversed(layers):
            here = lateral(level)
            merged = smooth(here if merged is None else here + enlarge(merged))
        return cast(Tensor, merged)


class PartMap(nn.Module):
    """Feature maps of a backbone to the classes of the pixels at half the crop's size."""

    def __init__(self, widths: Sequence[int]) -> None:
        """Build with random weights.

        Args:
            widths: channels of the maps of `STRIDES`.
        """
        super().__init__()
        self.pyramid = FeaturePyramid(widths[1:], WIDTH, separable=True)
        self.join = nn.Sequential(
            nn.Conv2d(WIDTH + FOLD**2 * widths[0], JOINED, 1, bias=False),
            nn.BatchNorm2d(JOINED),
            nn.Hardswish(),
        )
        self.fine = nn.Sequential(separable_block(JOINED), separable_block(JOINED))
        self.head = nn.Conv2d(JOINED, FOLD**2 * CLASSES, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits [B, 9, h, w] of maps [B, widths[i], …] of `STRIDES`, finest (h, w) first."""
        seen = [self.pyramid(maps[1:]), pixel_unshuffle(maps[0], FOLD)]
        return pixel_shuffle(self.head(self.fine(self.join(torch.cat(seen, 1)))), FOLD)


def block(channels: int, outputs: int = 0, side: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU; as many outputs as inputs unless told."""
    outputs = outputs or channels
    return nn.Sequential(
        nn.Conv2d(channels, outputs, side, padding=side // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def separable_block(channels: int) -> nn.Sequential:
    """A 5 x 5 filter of each channel, then a mixture of them."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.Hardswish(),
    )


def enlarge(x: Tensor) -> Tensor:
    """Twice the height and width."""
    return interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
