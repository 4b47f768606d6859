"""Corrections of a first estimate, read from the feature maps where its mesh lies.

A head that sees a pooled map must say from afar where a lip ends. Here the estimated landmarks are
projected into a fine feature map, and what lies under them says how they must move: the mesh
alignment feedback of PyMAF (Zhang et al., ICCV 2021) for a face in one crop. Close-ups then read a
patch of a still finer map around each point of eyes, brows, nose and lips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate

from v3recon.face_models.bfm import CONTOUR_LINES
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera, project, to_grid
from v3recon.geometry.rotation import euler_to_matrix, rotation_6d_to_matrix
from v3recon.types import ANGLE_SIZE

POINTS = 106
"""Points of the face at which features are read: the 106 landmarks."""
CHANNELS = 24
"""Features read at each point."""
HIDDEN = 320
"""Width between features and corrections."""
TRANS_SIZE = 3
CORRECTION_COUNTS = ("corrections", "closeups", "fine_closeups")
"""Settings of a regressor that say how often its estimate is corrected, and by what."""
MAX_CORRECTIONS = 8
CLOSEUP_POINTS = slice(CONTOUR_LINES, POINTS)
"""Points that have close-ups: all but the jaw's, whose place slides along the contour."""
CLOSEUP_SIDE = 5
"""Samples along a side of a close-up, one cell of the finest map apart."""
CLOSEUP_WIDTH = 96
CLOSEUP_CHANNELS = 16
"""Width within, and numbers kept of, each close-up."""
CLOSEUP_HIDDEN = 208
"""Width between close-ups and corrections."""
FINE_SIDE, FINE_SPACING = 7, 1.5
FINE_CHANNELS, FINE_HIDDEN = 24, 256
"""The same for close-ups of a fine map (`networks.fine_map`), which may look further: what is there
has been understood."""


class MeshAlignedCorrections(nn.Module):
    """Estimate and feature maps to a better estimate, a few times.

    Attributes:
        mean: [P, 3] points of the mean face, decimetres.
        basis: [P, 3, Kid + Kexp] their modes. Both come from a face model by `set_points` and
            travel with the weights.
    """

    mean: Tensor
    basis: Tensor

    def __init__(
        self, widths: Sequence[int], sizes: tuple[int, int, int], rotation_size: int, count: int
    ) -> None:
        """Build with random weights whose corrections are 0.

        Args:
            widths: channels of the feature maps, finest first.
            sizes: numbers of identity, expression and albedo coefficients.
            rotation_size: numbers that parameterise the rotation, 3 (Euler) or 6.
            count: how often the estimate is corrected.
        """
        super().__init__()
        shape_size = sizes[0] + sizes[1]
        self.register_buffer("mean", torch.zeros(POINTS, 3))
        self.register_buffer("basis", torch.zeros(POINTS, 3, shape_size))
        self.laterals = nn.ModuleList([nn.Conv2d(width, CHANNELS, 1) for width in widths])
        self.smooth = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.Hardswish(),
        )
        outputs = shape_size + rotation_size + TRANS_SIZE
        self.steps = nn.ModuleList(
            [_zero_step(POINTS * (CHANNELS + 2), HIDDEN, outputs) for _ in range(count)]
        )

    def forward(
        self, maps: Sequence[Tensor], shape: Tensor, pose: Tensor, trans: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The corrected estimate.

        Args:
            maps: feature maps [B, widths[i], h, w] of the whole crop, finest first.
            shape: [B, Kid + Kexp] first estimate.
            pose: [B, 3] Euler angles, radians, or [B, 6] two axes.
            trans: [B, 3] decimetres.

        Returns:
            Shape, pose and translation, of the same shapes.
        """
        fine = self._fine_map(maps)
        for step in self.steps:
            places = self.places(shape.detach(), pose.detach(), trans.detach())
            seen = grid_sample(fine, places[:, :, None], align_corners=False)
            change = step(torch.cat([seen.flatten(1), places.flatten(1)], 1))
            shape, pose, trans = _add(change, shape, pose, trans)
        return shape, pose, trans

    def _fine_map(self, maps: Sequence[Tensor]) -> Tensor:
        """One map [B, CHANNELS, h, w] of the finest size that knows the coarser ones."""
        merged: Tensor | None = None
        for lateral, level in zip(reversed(self.laterals), reversed(maps), strict=True):
            here = lateral(level)
            if merged is not None:
                here = here + interpolate(merged, level.shape[-2:], mode="nearest")
            merged = here
        return self.smooth(merged)

    def places(self, shape: Tensor, pose: Tensor, trans: Tensor) -> Tensor:
        """Where the points are in the crop.

        Args:
            shape: [B, Kid + Kexp].
            pose: [B, 3] Euler angles, radians, or [B, 6] two axes.
            trans: [B, 3] decimetres.

        Returns:
            [B, P, 2] in -1…1 (borders of the crop).
        """
        camera = Camera()
        code = self.basis.flatten(0, 1) @ shape.T
        points = self.mean + code.T.unflatten(1, (POINTS, 3))
        is_euler = pose.shape[1] == ANGLE_SIZE
        rotation = euler_to_matrix(pose) if is_euler else rotation_6d_to_matrix(pose)
        pixels = project(points @ rotation + trans[:, None], camera)
        return to_grid(pixels, camera)


class CloseUps(nn.Module):
    """Patches around the points of an estimate to its correction; the same weights every time.

    The step between coarse and fine is that of cascaded shape regression (Cao et al., IJCV 2014):
    what a patch shows depends on how far its point is off.
    """

    def __init__(
        self,
        width: int,
        shape_size: int,
        rotation_size: int,
        count: int,
        *,
        side: int = CLOSEUP_SIDE,
        spacing: float = 1.0,
        channels: int = CLOSEUP_CHANNELS,
        hidden: int = CLOSEUP_HIDDEN,
        named: bool = False,
    ) -> None:
        """Build with random weights whose corrections are 0.

        Args:
            width: channels of the map that is read.
            shape_size: numbers of identity and expression coefficients together.
            rotation_size: numbers that parameterise the rotation, 3 (Euler) or 6.
            count: how often the estimate is corrected.
            side: samples along a side of a close-up.
            spacing: cells of the map between them.
            channels: numbers kept of each close-up.
            hidden: width between close-ups and corrections.
            named: whether a close-up is read knowing which point's it is.
        """
        super().__init__()
        self.count = count
        self.side, self.spacing = side, spacing
        pixels = side**2 * width
        self.read = nn.Sequential(
            nn.LayerNorm(pixels),
            nn.Linear(pixels, CLOSEUP_WIDTH),
            nn.Hardswish(),
            nn.Linear(CLOSEUP_WIDTH, channels),
        )
        points = len(range(POINTS)[CLOSEUP_POINTS])
        self.names = nn.Parameter(torch.zeros(points, CLOSEUP_WIDTH)) if named else None
        outputs = shape_size + rotation_size + TRANS_SIZE
        self.step = _zero_step(points * (channels + 2), hidden, outputs)

    def forward(
        self,
        fine: Tensor,
        where: MeshAlignedCorrections,
        shape: Tensor,
        pose: Tensor,
        trans: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The corrected estimate.

        Args:
            fine: feature map [B, width, h, w] of the whole crop.
            where: knows where the points of an estimate are.
            shape: [B, Kid + Kexp].
            pose: [B, 3] Euler angles, radians, or [B, 6] two axes.
            trans: [B, 3] decimetres.

        Returns:
            Shape, pose and translation, of the same shapes.
        """
        steps = torch.arange(self.side, device=fine.device, dtype=fine.dtype)
        reach = (steps - self.side // 2) * self.spacing
        rows, columns = torch.meshgrid(reach, reach, indexing="ij")
        cell = fine.new_tensor([2 / fine.shape[-1], 2 / fine.shape[-2]])
        offsets = torch.stack([columns, rows], -1).flatten(0, 1) * cell
        normalise, widen, bend, narrow = self.read
        for _ in range(self.count):
            places = where.places(shape.detach(), pose.detach(), trans.detach())
            places = places[:, CLOSEUP_POINTS]
            seen = grid_sample(fine, places[:, :, None] + offsets, align_corners=False)
            hidden = widen(normalise(seen.permute(0, 2, 3, 1).flatten(2)))
            read = narrow(bend(hidden if self.names is None else hidden + self.names))
            change = self.step(torch.cat([read.flatten(1), places.flatten(1)], 1))
            shape, pose, trans = _add(change, shape, pose, trans)
        return shape, pose, trans


def _add(
    change: Tensor, shape: Tensor, pose: Tensor, trans: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """An estimate plus its correction [B, Kid + Kexp + R + 3]."""
    sizes = [shape.shape[1], pose.shape[1], TRANS_SIZE]
    by_shape, by_pose, by_trans = change.split(sizes, 1)
    return shape + by_shape, pose + by_pose, trans + by_trans


def _zero_step(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """What was read to a correction, which is 0 until it is trained."""
    step = nn.Sequential(nn.Linear(inputs, hidden), nn.Hardswish(), nn.Linear(hidden, outputs))
    last = step[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return step


@torch.no_grad()
def set_points(corrections: MeshAlignedCorrections, model: LinearFaceModel) -> None:
    """Take the points from a face model; done once, before training.

    Raises:
        ValueError: if the model has another number of 106 landmarks or of modes.
    """
    mean, basis = model.shape_basis_at(model.landmarks_106)
    if mean.shape != corrections.mean.shape or basis.shape != corrections.basis.shape:
        raise ValueError(
            f"the network expects {tuple(corrections.basis.shape)} points, axes and modes, the face"
            f" model {model.name!r} gives {tuple(basis.shape)}"
        )
    corrections.mean.copy_(mean)
    corrections.basis.copy_(basis)


def feature_levels(
    backbone: nn.Module, wanted: Sequence[int] = (4, 8, 16)
) -> tuple[list[int], list[int]]:
    """Which of a backbone's maps have these strides: indices and widths.

    Raises:
        ValueError: if the backbone has no such maps (it is no pyramid).
    """
    info = cast(list[dict[str, Any]], getattr(backbone, "feature_info", []))
    strides = [level["reduction"] for level in info]
    if not set(wanted) <= set(strides):
        raise ValueError(f"this backbone has no feature maps of strides {tuple(wanted)} to read")
    indices = [strides.index(stride) for stride in wanted]
    return indices, [info[index]["num_chs"] for index in indices]
