"""How far a face can be relied on: what the network says of it and of its mirror image."""

from __future__ import annotations

import torch
from torch import Tensor

from v3recon.face_models.landmarks import MIRROR_68
from v3recon.geometry.camera import Camera

DOUBTFUL = 0.5
"""Faces of a lower quality are more probably wrong than right: a pattern, a head on its side."""

# Logistic fit to 403 reconstructions of `val` photographs (137 with less than 8 % error of the
# landmarks' box, 266 with more than 15 %: patterns, places beside a face, heads on their side).
_HALF, _STEEPNESS, _FLOOR = 0.032, 4.25, 0.003


def mirror_quality(points: Tensor, mirrored: Tensor, camera: Camera) -> Tensor:
    """Quality of faces by the agreement of two estimates of the 68 landmarks.

    1 / (1 + ((d + 0.003) / 0.032)^4.25), d = mean distance of the landmarks of a crop and of its
    mirror image, mirrored back, over the square root of their box's area.

    Args:
        points: [B, 68, 2] crop pixels.
        mirrored: [B, 68, 2] the same of the mirrored crops, as found there.
        camera: camera of the crop.

    Returns:
        [B] 0…1; 0 where a landmark is not finite.
    """
    back = mirrored[:, torch.tensor(MIRROR_68, device=points.device)]
    width = torch.tensor([camera.image_size - 1, 0], device=points.device, dtype=points.dtype)
    back = width - back * torch.tensor([1, -1], device=points.device, dtype=points.dtype)
    size = (points.amax(1) - points.amin(1)).prod(1).clamp(min=1e-12).sqrt()
    distance = (points - back).norm(dim=2).mean(1) / size
    quality = 1 / (1 + ((distance + _FLOOR) / _HALF) ** _STEEPNESS)
    return torch.nan_to_num(quality, nan=0.0)
