"""How far a face can be relied on: independent estimates of it must agree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from v3recon.face_models.bfm import five_points
from v3recon.face_models.landmarks import MIRROR_68
from v3recon.geometry.camera import Camera
from v3recon.types import Detection

DOUBTFUL = 0.5
"""Faces of a lower quality are more probably wrong than right: a pattern, a head on its side."""

# Logistic fits to reconstructions of `val` photographs, upright and turned, and of patterns: right
# are those with less than 8 % error of the landmarks' box, wrong those with more than 15 %.
_MIRROR_ONLY = (4.25, 14.62)  # AUC 0.985
_MIRROR, _POINTS, _SCORE, _BIAS = 1.29, 2.50, 1.47, 16.33  # AUC 0.996
_MIRROR_FLOOR, _POINTS_FLOOR, _SCORE_CEILING = 0.003, 0.01, 1.001


def mirror_distance(points: Tensor, mirrored: Tensor, camera: Camera) -> Tensor:
    """Disagreement of what a network says of a crop and of its mirror image.

    Args:
        points: [B, 68, 2] crop pixels.
        mirrored: [B, 68, 2] the same of the mirrored crops, as found there.
        camera: camera of the crop.

    Returns:
        [B] mean distance of the landmarks over the square root of their box's area.
    """
    back = mirrored[:, torch.tensor(MIRROR_68, device=points.device)]
    x = camera.image_size - 1 - back[..., 0]
    back = torch.stack([x, back[..., 1]], -1)
    return (points - back).norm(dim=2).mean(1) / _size(points)


def face_quality(distance: float, landmarks_68: Tensor, detection: Detection | None) -> float:
    """Probability that a face is one and found right.

    1 / (1 + exp(16.33 + 1.29 log(d + 0.003) + 2.50 log(e + 0.01) + 1.47 log(1.001 - s))) with the
    mirror's distance d, the mean distance e of the detector's five points from those of the
    landmarks over their size, and the detector's score s; by d alone where there are none.

    Args:
        distance: of `mirror_distance`.
        landmarks_68: [68, 2] photo pixels.
        detection: what the detector says.

    Returns:
        0…1; 0 where a number is not finite.
    """
    mirror = math.log(max(distance, 0) + _MIRROR_FLOOR) if math.isfinite(distance) else math.inf
    if detection is None or detection.points is None:
        exponent = _MIRROR_ONLY[1] + _MIRROR_ONLY[0] * mirror
    else:
        found = five_points(landmarks_68).double().cpu()
        apart = (found - detection.points.double().cpu()).norm(dim=1).mean()
        points = float(apart / _size(landmarks_68[None]).cpu())
        score = min(max(detection.score, 0.0), 1.0)
        exponent = (
            _BIAS
            + _MIRROR * mirror
            + _POINTS * (math.log(points + _POINTS_FLOOR) if math.isfinite(points) else math.inf)
            + _SCORE * math.log(_SCORE_CEILING - score)
        )
    return 1 / (1 + math.exp(min(exponent, 700.0)))


def _size(points: Tensor) -> Tensor:
    """[B] square root of the area of the box of points [B, N, 2]."""
    return (points.amax(1) - points.amin(1)).prod(1).clamp(min=1e-12).sqrt()
