"""Heads that lie on their side or hang: found in a turned photo, told in the upright one's frame.

A turn by quarters about the optical axis changes the roll, the translation and the light of a face
and nothing else, so that what is returned has an upright crop as every other face.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from v3recon.detection.crop import CropTransform
from v3recon.geometry.camera import Camera
from v3recon.types import Detection, FaceCoeffs


def turn_photo(image_np: np.ndarray, quarters: int) -> np.ndarray:
    """A photo [H, W, 3] turned counterclockwise by 90 degrees so many times."""
    # A copy: numpy calls one pixel with negative strides contiguous, torch refuses them.
    return np.rot90(image_np, quarters).copy(order="C")


def from_turned_matrix(quarters: int, image_size: tuple[int, int]) -> Tensor:
    """[2, 3] float64: pixels of `turn_photo`'s result to pixels of the photo.

    Args:
        quarters: of the turn.
        image_size: (H, W) of the photo.
    """
    height, width = image_size
    rows = {
        0: [[1, 0, 0], [0, 1, 0]],
        1: [[0, -1, width - 1], [1, 0, 0]],
        2: [[-1, 0, width - 1], [0, -1, height - 1]],
        3: [[0, 1, 0], [-1, 0, height - 1]],
    }
    return torch.tensor(rows[quarters % 4], dtype=torch.float64)


def from_turned_coeffs(coeffs: FaceCoeffs, quarters: int) -> FaceCoeffs:
    """Coefficients found in a turned photo as those of the same face in the upright photo.

    Args:
        coeffs: of B faces; roll, x and y of the translation and the light change.
        quarters: of the turn, counterclockwise.
    """
    angle = -math.pi / 2 * (quarters % 4)
    cos, sin = round(math.cos(angle)), round(math.sin(angle))
    pitch, yaw, roll = coeffs.angle.unbind(1)
    roll = torch.remainder(roll + angle + math.pi, 2 * math.pi) - math.pi
    x, y, z = coeffs.trans.unbind(1)
    trans = torch.stack([cos * x - sin * y, sin * x + cos * y, z], 1)
    light = coeffs.sh.reshape(len(coeffs.sh), 3, 9).clone()
    double_cos, double_sin = cos * cos - sin * sin, 2 * cos * sin
    # The order of the nine is that of `geometry.spherical_harmonics`: y, z, x; xy, yz, zz, xz, xx.
    for first, second, c, s in ((1, 3, cos, sin), (5, 7, cos, sin), (4, 8, double_cos, double_sin)):
        one, two = light[..., first].clone(), light[..., second].clone()
        light[..., first], light[..., second] = c * one + s * two, c * two - s * one
    return FaceCoeffs(
        coeffs.id,
        coeffs.exp,
        coeffs.alb,
        torch.stack([pitch, yaw, roll], 1),
        light.reshape(coeffs.sh.shape),
        trans,
    )


def from_turned_crop(
    crop: CropTransform, quarters: int, image_size: tuple[int, int], camera: Camera
) -> CropTransform:
    """The upright crop of the photo in which a face of a crop of the turned photo is the same.

    Args:
        crop: of the turned photo.
        quarters: of the turn.
        image_size: (H, W) of the photo.
        camera: camera of the crop; its principal point stays in place.
    """
    principal = torch.tensor(
        [camera.center, camera.image_size - 1 - camera.center], dtype=torch.float64
    )
    back = from_turned_matrix(quarters, image_size)
    place = back[:, :2] @ crop.from_crop(principal[None])[0] + back[:, 2]
    shift = principal - crop.scale * place
    matrix = torch.cat([crop.scale * torch.eye(2, dtype=torch.float64), shift[:, None]], 1)
    return CropTransform(matrix)


def from_turned_detection(
    detection: Detection, quarters: int, image_size: tuple[int, int]
) -> Detection:
    """A detection in the turned photo in the photo's own pixels."""
    back = from_turned_matrix(quarters, image_size)

    def moved(points: Tensor) -> Tensor:
        return points.double() @ back[:, :2].T + back[:, 2]

    corners = moved(detection.box.reshape(2, 2))
    box = torch.cat([corners.amin(0), corners.amax(0)])
    points = None if detection.points is None else moved(detection.points)
    return Detection(box, detection.score, points)
