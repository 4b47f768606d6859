"""Image to face coefficients: a convolutional backbone and seven linear heads (3DDFA_V3)."""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from v3recon.networks.mobilenet_v3 import MobileNetV3Large
from v3recon.types import ANGLE_SIZE, SH_SIZE, FaceCoeffs

Network = TypeVar("Network", bound=nn.Module)

ANGLE_HEAD = 3
HEAD_WEIGHT_STD = 1e-3


class Regressor(nn.Module):
    """Coefficients of the face in an aligned crop, by a network of 3DDFA_V3 or Deep3D.

    The layout of the parameters is that of the official checkpoints: `backbone.*` and
    `final_layers.0…6` (id, exp, alb, angle, sh, trans xy, trans z), 1 x 1 convolutions.

    Attributes:
        backbone_name: "resnet50", "mbnetv3" or a timm name.
        sizes: numbers of identity, expression and albedo coefficients.
        input_size: side of the crop it takes, pixels; it covers the 224-pixel camera frame.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        sizes: tuple[int, int, int] = (80, 64, 80),
        input_size: int = 224,
    ) -> None:
        """Build with random weights; see `networks.checkpoints` for loading.

        Raises:
            ValueError: if the backbone is not known.
        """
        super().__init__()
        self.backbone_name = backbone
        self.sizes = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
        self.input_size = int(input_size)
        self.backbone, width = make_backbone(backbone)
        heads = [nn.Conv2d(width, count, 1) for count in (*self.sizes, ANGLE_SIZE, SH_SIZE, 2, 1)]
        for head in heads:
            nn.init.normal_(head.weight, 0, HEAD_WEIGHT_STD)
            nn.init.constant_(head.bias, 0)  # pyright: ignore[reportArgumentType]
        self.final_layers = nn.ModuleList(heads)

    def forward(self, image: Tensor) -> FaceCoeffs:
        """Coefficients of the faces.

        Args:
            image: [B, 3, S, S] RGB in 0…1, not normalized; S = input_size.

        Raises:
            ValueError: if the crops have another size.
        """
        size = self.input_size
        if image.ndim != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(f"expected crops [B, 3, {size}, {size}], got {tuple(image.shape)}")
        features = self.backbone(image)[..., None, None]
        id_, exp, alb, angle, sh, xy, z = (head(features).flatten(1) for head in self.final_layers)
        return FaceCoeffs(id_, exp, alb, angle, sh, torch.cat([xy, z], 1))


def make_backbone(name: str) -> tuple[nn.Module, int]:
    """A backbone with random weights that gives pooled features, and their number.

    Args:
        name: "mbnetv3" (the official small one), or any timm classifier ("resnet50", …).

    Raises:
        ValueError: if timm does not know the name.
    """
    if name == "mbnetv3":
        return MobileNetV3Large(), MobileNetV3Large.num_features
    import timm  # slow to import, and mbnetv3 does not need it

    if not timm.is_model(name):
        raise ValueError(f"backbone {name!r} is not known; use mbnetv3, resnet50 or a timm name")
    backbone = timm.create_model(name, pretrained=False, num_classes=0)
    # Some heads widen the features after pooling; timm names that width apart.
    width = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return backbone, cast(int, width)


def fuse_for_inference(regressor: Network, in_place: bool = False) -> Network:
    """A faster copy for evaluation: batch norms folded into the convolutions before them.

    The copy gives the same coefficients up to rounding, cannot be trained, and its parameters
    have no official names any more: save the original.

    Args:
        regressor: the network.
        in_place: change the network itself, which spares the memory of a copy.
    """
    fused = (regressor if in_place else copy.deepcopy(regressor)).eval()
    # Of the modules only those with children: the list must not keep folded convolutions alive.
    for module in [module for module in fused.modules() if any(True for _ in module.children())]:
        _fold_children(module)
    fused.requires_grad_(False)
    return fused.to(memory_format=torch.channels_last)


def _fold_children(module: nn.Module) -> None:
    """Fold each batch norm that directly follows a convolution among the children."""
    children = list(module.named_children())
    for (conv_name, conv), (norm_name, norm) in itertools.pairwise(children):
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
        # timm's batch norm carries its activation along; torch's own has none.
        setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
