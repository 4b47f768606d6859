"""Image to face coefficients: a convolutional backbone and seven linear heads (3DDFA_V3)."""

from __future__ import annotations

import copy
import itertools
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from v3recon.geometry.rotation import euler_to_matrix, matrix_to_euler, rotation_6d_to_matrix
from v3recon.networks.fine_map import CLASSES, FEATURES, STRIDES, FineMap
from v3recon.networks.mesh_aligned import (
    FINE_CHANNELS,
    FINE_HIDDEN,
    FINE_SIDE,
    FINE_SPACING,
    CloseUps,
    MeshAlignedCorrections,
    feature_levels,
)
from v3recon.networks.mobilenet_v3 import MobileNetV3Large
from v3recon.types import ANGLE_SIZE, SH_SIZE, FaceCoeffs

ROTATIONS = {"euler": ANGLE_SIZE, "6d": 6}
"""Parameterisations of the rotation and how many numbers the angle head gives for each."""

POOLINGS = ("mean", "spatial")
"""How the last feature map is read: its mean (the official way), or the mean and, beside it, a few
channels of the map itself, so that the heads see where something is."""
SPATIAL_CHANNELS = 48
SPATIAL_GRID = 5
"""Those channels are resized to this many cells a side: the heads fit any input size."""

IDENTITY_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ANGLE_HEAD = 3
HEAD_WEIGHT_STD = 1e-3


class Regressor(nn.Module):
    """Coefficients of the face in an aligned crop.

    The layout of the parameters is that of the official checkpoints: `backbone.*` and
    `final_layers.0…6` (id, exp, alb, angle, sh, trans xy, trans z), 1 x 1 convolutions.

    Attributes:
        backbone_name: "resnet50", "mbnetv3" or a timm name.
        sizes: numbers of identity, expression and albedo coefficients.
        input_size: side of the crop it takes, pixels; it covers the 224-pixel camera frame.
        rotation: "euler" (the official one) or "6d" (no jumps; better at profile views).
        pooling: "mean" (the official one) or "spatial".
        corrections: how often the estimate is corrected where its mesh lies in finer feature
            maps (see `networks.mesh_aligned`); 0 in the official networks.
        closeups: how often it is then corrected by close-ups of the points; needs corrections.
        fine_closeups: how often it is at last corrected by close-ups of a map made for them (see
            `networks.fine_map`); needs close-ups.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        sizes: tuple[int, int, int] = (80, 64, 80),
        input_size: int = 224,
        rotation: str = "euler",
        pooling: str = "mean",
        corrections: int = 0,
        closeups: int = 0,
        fine_closeups: int = 0,
    ) -> None:
        """Build with random weights; see `networks.checkpoints` for loading.

        Raises:
            ValueError: if the backbone, the rotation or the pooling is not known, a backbone
                without a pyramid of feature maps is to be corrected, or close-ups are asked for
                without corrections, fine ones without close-ups.
        """
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling {pooling!r} is not known; use one of {list(POOLINGS)}")
        if rotation not in ROTATIONS:
            raise ValueError(f"rotation {rotation!r} is not known; use one of {list(ROTATIONS)}")
        self.backbone_name = backbone
        self.sizes = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
        self.input_size = int(input_size)
        self.rotation = rotation
        self.pooling = pooling
        self.backbone, width = make_backbone(backbone)
        if pooling == "spatial":
            self.spatial = _spatial_reader(width)
            width += SPATIAL_CHANNELS * SPATIAL_GRID**2
        outputs = (*self.sizes, ROTATIONS[rotation], SH_SIZE, 2, 1)
        heads = [nn.Conv2d(width, count, 1) for count in outputs]
        for head in heads:
            nn.init.normal_(head.weight, 0, HEAD_WEIGHT_STD)
            nn.init.constant_(head.bias, 0)  # pyright: ignore[reportArgumentType]
        if rotation == "6d":
            heads[ANGLE_HEAD].bias = nn.Parameter(torch.tensor(IDENTITY_6D))
        self.final_layers = nn.ModuleList(heads)
        self.aligned: MeshAlignedCorrections | None = None
        self.near: CloseUps | None = None
        self.fine_map: FineMap | None = None
        self.nearest: CloseUps | None = None
        self._levels: list[int] = []
        self._add_corrections(corrections, closeups, fine_closeups)

    def _add_corrections(self, corrections: int, closeups: int, fine_closeups: int) -> None:
        """Build what corrects the estimate, and choose the feature maps that it reads."""
        if closeups and not corrections:
            raise ValueError("close-ups need corrections before them")
        if fine_closeups and not closeups:
            raise ValueError("fine close-ups need close-ups before them")
        shape_size, size = sum(self.sizes[:2]), ROTATIONS[self.rotation]
        if corrections:
            self._levels, widths = feature_levels(self.backbone)
            self.aligned = MeshAlignedCorrections(widths, self.sizes, size, corrections)
        if closeups:
            finest, widths = feature_levels(self.backbone, (2,))
            self._levels = [*finest, *self._levels]
            self.near = CloseUps(widths[0], shape_size, size, closeups)
        if fine_closeups:
            self._levels, widths = feature_levels(self.backbone, STRIDES)
            self.fine_map = FineMap(widths)
            self.nearest = CloseUps(
                FEATURES + CLASSES, shape_size, size, fine_closeups, side=FINE_SIDE,
                spacing=FINE_SPACING, channels=FINE_CHANNELS, hidden=FINE_HIDDEN, named=True,
            )  # fmt: skip

    @property
    def corrections(self) -> int:
        """How often the estimate is corrected."""
        return 0 if self.aligned is None else len(self.aligned.steps)

    @property
    def closeups(self) -> int:
        """How often it is then corrected by close-ups."""
        return 0 if self.near is None else self.near.count

    @property
    def fine_closeups(self) -> int:
        """How often it is at last corrected by close-ups of the fine map."""
        return 0 if self.nearest is None else self.nearest.count

    def features(self, image: Tensor) -> Tensor:
        """Pooled features [B, F, 1, 1] of crops [B, 3, S, S] in 0…1, S = input_size.

        Raises:
            ValueError: if the crops have another size.
        """
        return self._features(image)[0]

    def _features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`features` and the maps that the corrections read."""
        if image.ndim != 4 or image.shape[1:] != (3, self.input_size, self.input_size):
            size = self.input_size
            raise ValueError(f"expected crops [B, 3, {size}, {size}], got {tuple(image.shape)}")
        if self.pooling == "mean" and self.aligned is None:
            return self.backbone(image)[..., None, None], []
        backbone = cast(Any, self.backbone)  # the forward_... are timm's names
        finer: list[Tensor] = []
        if self.aligned is None:
            last = backbone.forward_features(image)
        else:
            last, finer = backbone.forward_intermediates(image, indices=self._levels)
        pooled = backbone.forward_head(last, pre_logits=True)
        if self.pooling == "spatial":
            cells = interpolate(
                self.spatial(last),
                (SPATIAL_GRID, SPATIAL_GRID),
                mode="bilinear",
                align_corners=False,
            )
            pooled = torch.cat([pooled, cells.flatten(1)], 1)
        return pooled[..., None, None], finer

    def forward(self, image: Tensor) -> FaceCoeffs:
        """Coefficients of the faces.

        Args:
            image: [B, 3, S, S] RGB in 0…1, not normalised; S = input_size.

        Returns:
            Coefficients of B faces; the angle is Euler's whatever the parameterisation.
        """
        return self._split(image)[0]

    def predict(self, image: Tensor) -> tuple[FaceCoeffs, Tensor]:
        """Coefficients and the rotation matrix, which has a useful gradient at every pose.

        Args:
            image: [B, 3, S, S] RGB in 0…1.

        Returns:
            The coefficients, and rotation [B, 3, 3] that acts on row vectors.
        """
        coeffs, rotation = self._split(image)
        return coeffs, euler_to_matrix(coeffs.angle) if rotation is None else rotation

    def _split(self, image: Tensor) -> tuple[FaceCoeffs, Tensor | None]:
        features, finer = self._features(image)
        fine = None if self.fine_map is None else self.fine_map(image, finer)
        # Half a pixel is 1/400 of an axis: what leaves the backbone is read in full precision.
        with torch.autocast(image.device.type, enabled=False):
            finer = [level.to(image.dtype) for level in finer]
            fine = None if fine is None else fine.to(image.dtype)
            return self._read(features.to(image.dtype), finer, fine)

    def _read(
        self, features: Tensor, finer: list[Tensor], fine: Tensor | None
    ) -> tuple[FaceCoeffs, Tensor | None]:
        """Coefficients and, where it is learned, the rotation matrix from what was seen."""
        outputs = [head(features).flatten(1) for head in self.final_layers]
        id_coeffs, exp_coeffs, alb_coeffs, pose, sh, trans_xy, trans_z = outputs
        trans = torch.cat([trans_xy, trans_z], 1)
        if self.aligned is not None:
            shape = torch.cat([id_coeffs, exp_coeffs], 1)
            coarser = finer if self.near is None else finer[1 : 1 + len(self.aligned.laterals)]
            shape, pose, trans = self.aligned(coarser, shape, pose, trans)
            if self.near is not None:
                shape, pose, trans = self.near(finer[0], self.aligned, shape, pose, trans)
            if self.nearest is not None and fine is not None:
                shown = torch.cat([fine[:, :FEATURES], fine[:, FEATURES:].softmax(1)], 1)
                shape, pose, trans = self.nearest(shown, self.aligned, shape, pose, trans)
            id_coeffs, exp_coeffs = shape.split(list(self.sizes[:2]), 1)
        rotation = None
        if self.rotation == "6d":
            rotation = rotation_6d_to_matrix(pose)
            pose = matrix_to_euler(rotation)
        return FaceCoeffs(id_coeffs, exp_coeffs, alb_coeffs, pose, sh, trans), rotation


def _spatial_reader(width: int) -> nn.Sequential:
    """1 x 1 convolution of a feature map [B, width, h, w] to SPATIAL_CHANNELS channels."""
    return nn.Sequential(
        nn.Conv2d(width, SPATIAL_CHANNELS, 1, bias=False),
        nn.BatchNorm2d(SPATIAL_CHANNELS),
        nn.Hardswish(),
    )


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


def fuse_for_inference(regressor: Regressor, in_place: bool = False) -> Regressor:
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
