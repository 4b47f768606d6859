"""A map of the crop that is made for close-ups: fine, and aware of what is around.

The backbone's finest map sees edges, not whose edges; its coarse ones know lips from chins, not
where they end. A feature pyramid joined by the finest map and the picture knows both. Beside its
features it names the part at every pixel, which is how it is taught what to look at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from v3recon.networks.feature_pyramid import FeaturePyramid

CLASSES = 9
"""Nothing, and the eight parts of `face_models.parts`."""
STRIDES = (2, 4, 8, 16, 32)
"""Levels of a backbone that are read."""
FEATURES = 16
"""Channels of the map beside the classes."""
WIDTH, JOINED = 48, 64
"""Channels of the pyramid, and where the finest map and the picture join it."""
FOLD = 2
"""The finest map is read, and the result given, in squares of 2 x 2 cells: as fine, and a quarter
of the work."""


class FineMap(nn.Module):
    """Picture and feature maps of a backbone to one map of half the picture's side."""

    def __init__(self, widths: Sequence[int]) -> None:
        """Build with random weights.

        Args:
            widths: channels of the maps of `STRIDES`.
        """
        super().__init__()
        self.pyramid = FeaturePyramid(widths[1:], WIDTH)
        folded = FOLD**2 * widths[0] + (2 * FOLD) ** 2 * 3
        self.join = nn.Sequential(
            nn.Conv2d(WIDTH + folded, JOINED, 1, bias=False),
            nn.BatchNorm2d(JOINED),
            nn.Hardswish(),
            nn.Conv2d(JOINED, JOINED, 3, padding=1, bias=False),
            nn.BatchNorm2d(JOINED),
            nn.Hardswish(),
        )
        self.head = nn.Conv2d(JOINED, FOLD**2 * (FEATURES + CLASSES), 1)

    def forward(self, image: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Features, then logits of the classes.

        Args:
            image: [B, 3, S, S] RGB in 0…1, S divisible by 32.
            maps: [B, widths[i], S / STRIDES[i], …] of that picture.

        Returns:
            [B, FEATURES + CLASSES, S / 2, S / 2]; class 0 is nothing.
        """
        seen = [
            self.pyramid(maps[1:]),
            pixel_unshuffle(maps[0], FOLD),
            pixel_unshuffle(image - 0.5, 2 * FOLD),
        ]
        return pixel_shuffle(self.head(self.join(torch.cat(seen, 1))), FOLD)
