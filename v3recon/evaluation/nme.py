"""Normalised mean error of 68 landmarks, yaw bins and pose errors.

Protocol of AFLW2000-3D (Zhu et al., TPAMI 2017): per photo the mean point distance over the root
of the area of the ground-truth points' box; the reported figure is the mean of the means of three
yaw bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from v3recon.geometry.rotation import euler_to_matrix, matrix_to_euler

OUTER_EYE_CORNERS = (36, 45)
YAW_EDGES = (30.0, 60.0)
"""Upper limits of the first two yaw bins, degrees; a limit belongs to the lower bin."""
YAW_BINS = ("0-30", "30-60", "60-90")
LARGE_ERROR = 0.10
"""An error above this share counts as missed, as in 300-W's failure rate."""


@dataclass(frozen=True)
class BinnedError:
    """Errors by yaw bin; NaN where a bin is empty.

    Attributes:
        bins: mean error of each bin.
        counts: photos in each bin.
        mean: mean of the means of the bins that hold a photo.
        std: standard deviation over those bins (divided by their number, as 3DDFA's program).
        std_sample: the same divided by one less, as printed in 3DDFA's paper.
        plain: mean over all photos.
    """

    bins: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float
    std: float
    std_sample: float
    plain: float


def box_size(points: Tensor) -> Tensor:
    """Root of width times height of the points' box, [B].

    Args:
        points: [B, N, 2] any pixels.
    """
    assert points.ndim == 3 and points.shape[-1] == 2, points.shape
    extent = points.amax(1) - points.amin(1)
    return extent.prod(-1).sqrt()


def inter_ocular_distance(points: Tensor) -> Tensor:
    """Distance of the outer eye corners, [B].

    Args:
        points: [B, 68, 2] any pixels.
    """
    assert points.shape[1:] == (68, 2), points.shape
    right, left = OUTER_EYE_CORNERS
    return (points[:, right] - points[:, left]).norm(dim=-1)


def normalized_mean_error(points: Tensor, target: Tensor, size: Tensor) -> Tensor:
    """Mean distance of corresponding points over a size, [B].

    Args:
        points: [B, N, 2] predicted.
        target: [B, N, 2] ground truth, the same pixels.
        size: [B] what to divide by, e.g. `box_size` of all ground-truth points.
    """
    assert points.shape == target.shape and size.shape == points.shape[:1], (
        points.shape,
        target.shape,
        size.shape,
    )
    return (points - target).norm(dim=-1).mean(1) / size


def yaw_bin(yaw: Tensor) -> Tensor:
    """Bin 0, 1 or 2 of each yaw [B] in degrees, by its absolute value."""
    size = yaw.abs()
    return (size > YAW_EDGES[0]).long() + (size > YAW_EDGES[1]).long()


def bin_errors(error: Tensor, yaw: Tensor) -> BinnedError:
    """Means by yaw bin and their summary.

    Args:
        error: [B] of the photos that were finished.
        yaw: [B] degrees.
    """
    assert error.shape == yaw.shape and error.ndim == 1, (error.shape, yaw.shape)
    index = yaw_bin(yaw)
    groups = [error[index == number].double() for number in range(len(YAW_BINS))]
    means = [float(group.mean()) if len(group) else math.nan for group in groups]
    filled = torch.tensor([mean for mean in means if not math.isnan(mean)], dtype=torch.float64)
    return BinnedError(
        bins=tuple(means),
        counts=tuple(len(group) for group in groups),
        mean=float(filled.mean()) if len(filled) else math.nan,
        std=float(filled.std(correction=0)) if len(filled) else math.nan,
        std_sample=float(filled.std()) if len(filled) > 1 else math.nan,
        plain=float(error.double().mean()) if len(error) else math.nan,
    )


def rotation_from_300wlp(angle: Tensor) -> Tensor:
    """Rotation [B, 3, 3] for row vectors of the pitch, yaw, roll that AFLW2000 and 300W-LP store.

    Their matrix for column vectors, axes as ours (x right, y up, z toward the camera), is
    Rx(-pitch) Ry(-yaw) Rz(-roll) in our elementary rotations: the transpose of ours for the same
    three numbers. So signs *and* order differ: positive yaw shows the face turned to the viewer's
    left there (right here), positive pitch is up there (down here).

    Args:
        angle: [B, 3] radians.
    """
    return euler_to_matrix(angle).transpose(-1, -2)


def rotation_to_300wlp(rotation: Tensor) -> Tensor:
    """Pitch, yaw, roll [B, 3] in 300W-LP's convention; inverse of `rotation_from_300wlp`."""
    return matrix_to_euler(rotation.transpose(-1, -2))


def angle_errors(angle: Tensor, target: Tensor) -> Tensor:
    """Absolute differences of angles, at most 180 degrees.

    Args:
        angle: [B, 3] degrees.
        target: [B, 3] degrees.
    """
    return ((angle - target + 180) % 360 - 180).abs()


def rotation_distance(rotation: Tensor, target: Tensor) -> Tensor:
    """Angle [B] of the turn between two rotations [B, 3, 3], degrees."""
    # By the chord: arccos of the trace loses half of the digits near 0.
    chord = (rotation.double() - target.double()).flatten(1).norm(dim=1)
    return torch.rad2deg(2 * torch.asin((chord / math.sqrt(8)).clamp(max=1)))
