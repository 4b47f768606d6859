"""From the photo to the aligned crop and back: where the frame changes between the two.

The crop frame is the 224-pixel frame of `geometry.camera.Camera`, whatever the resolution of the
network's input. All pixels: x right, y down, the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from v3recon.detection.crop_pixels import crop_image
from v3recon.face_models.bfm import five_points
from v3recon.geometry.affine2d import (
    affine_scale_2d,
    apply_affine_2d,
    compose_affine_2d,
    invert_affine_2d,
    resize_affine_2d,
)
from v3recon.geometry.camera import Camera
from v3recon.geometry.similarity import solve_scaled_pose
from v3recon.types import Detection

POS_FACE_SCALE = 102.0
"""Crop pixels per unit of the five 3D points, in 3DDFA_V3's five-point rule."""

BOX_FACTOR = 1.414
"""Side of the crop of this project's networks over the longer side of the 68 points' box."""

FIVE_POINT_RULE = {"name": "five_points"}
"""The crop rule of the official networks; see `crop_of_detection`."""


# From a detector's box to the box of the 68 landmarks, in longer sides of the former.
BOX_SHIFT = (0.01, 0.134)
BOX_SCALE = 0.811


@dataclass(frozen=True)
class CropTransform:
    """Affine map between a photo and its crop frame, or N of them; exactly invertible.

    Attributes:
        matrix: [2, 3] or [N, 2, 3] float64, photo pixels to crop pixels.
    """

    matrix: Tensor

    def to_crop(self, points: Tensor) -> Tensor:
        """Photo pixels [..., L, 2] to crop pixels."""
        return _apply(points, self.matrix)

    def from_crop(self, points: Tensor) -> Tensor:
        """Crop pixels [..., L, 2] to photo pixels."""
        return _apply(points, self.inverse_matrix)

    @property
    def inverse_matrix(self) -> Tensor:
        """Of the shape of `matrix`, crop pixels to photo pixels."""
        return invert_affine_2d(self.matrix)

    @property
    def scale(self) -> float:
        """Crop pixels per photo pixel, of one crop."""
        return float(affine_scale_2d(self.matrix))


def crop_of_five_points(points: Tensor, points_3d: Tensor, camera: Camera) -> CropTransform:
    """3DDFA_V3's crop: the scaled orthographic fit (POS) of five 3D points, in exact form.

    Upstream cuts to whole pixels and resizes the whole photo; here the fit's centre falls on the
    camera's principal point exactly. No rotation is removed.

    Args:
        points: [5, 2] photo pixels: eyes, nose, mouth corners, the viewer's left first.
        points_3d: [5, 3] the same points in 3D, y up; see `face_models.bfm.five_points`.
        camera: camera of the crop.

    Raises:
        ValueError: if the points fall together.
    """
    assert points.shape == (5, 2) and points_3d.shape == (5, 3), (points.shape, points_3d.shape)
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)  # POS wants both y axes up
    scale, _, center = solve_scaled_pose(points_3d.double()[None], points.double()[None] * flip)
    if not (torch.isfinite(scale).all() and scale > 1e-6):
        raise ValueError("the five points of the face fall together")
    ratio = POS_FACE_SCALE / float(scale)
    target = torch.tensor(
        [camera.center, camera.image_size - 1 - camera.center], dtype=torch.float64
    )
    return _similarity(ratio, target - ratio * center[0] * flip)


def crop_of_square(center: Tensor, side: float, camera: Camera) -> CropTransform:
    """Crop whose frame is an upright square of the photo.

    Args:
        center: [2] of the square, photo pixels.
        side: of the square, photo pixels.
        camera: camera of the crop.
    """
    if not (math.isfinite(side) and side > 0):
        raise ValueError(f"a crop's side must be positive, got {side}")
    ratio = camera.image_size / side
    middle = (camera.image_size - 1) / 2
    return _similarity(ratio, middle - ratio * center.double())


def crop_of_landmarks(landmarks: Tensor, scale: float, camera: Camera) -> CropTransform:
    """Square of `scale` times the longer side of the landmarks' box, around that box's middle.

    Args:
        landmarks: [L, 2] photo pixels, iBUG's 68 points.
        scale: side of the square over the box's longer side.
        camera: camera of the crop.
    """
    low, high = landmarks.double().amin(0), landmarks.double().amax(0)
    return crop_of_square((low + high) / 2, scale * float((high - low).max()), camera)


def widened(crop: CropTransform, factor: float, camera: Camera) -> CropTransform:
    """An upright square crop `factor` times as wide as another one, around the same middle."""
    middle = torch.full((1, 2), (camera.image_size - 1) / 2, dtype=torch.float64)
    return crop_of_square(
        crop.from_crop(middle)[0], factor * camera.image_size / crop.scale, camera
    )


def crop_of_photo(width: int, height: int, camera: Camera) -> CropTransform:
    """The whole photo stretched to the crop frame, for photos that are aligned crops already."""
    size = camera.image_size
    return CropTransform(resize_affine_2d((size / width, size / height)))


def crop_of_detection(
    detection: Detection, rule: dict, points_3d: Tensor, camera: Camera
) -> CropTransform:
    """Crop of a detected face by a network's rule.

    Args:
        detection: the face.
        rule: {"name": "five_points"}, or {"name": "box", "scale": side of the square over the
            longer side of the 68 landmarks' box}; part of a checkpoint's description.
        points_3d: [5, 3] for the five-point rule.
        camera: camera of the crop.

    Raises:
        ValueError: for an unknown rule, or a detection that lacks what the rule needs.
    """
    name = rule.get("name")
    if name == "five_points":
        if detection.points is None:
            raise ValueError("the five-point crop needs a detector that gives five points")
        return crop_of_five_points(detection.points, points_3d, camera)
    if name == "box":
        center, longer = landmark_box_of(detection)
        return crop_of_square(center, float(rule["scale"]) * longer, camera)
    raise ValueError(f"unknown crop rule {rule!r}; known: five_points, box")


def crop_again(
    landmarks_68: Tensor, rule: dict, points_3d: Tensor, camera: Camera
) -> CropTransform:
    """The same rule on landmarks that a first pass has found: the second look's crop.

    Args:
        landmarks_68: [68, 2] photo pixels.
        rule: as in `crop_of_detection`.
        points_3d: [5, 3] for the five-point rule.
        camera: camera of the crop.
    """
    if rule.get("name") == "box":
        return crop_of_landmarks(landmarks_68, float(rule["scale"]), camera)
    return crop_of_five_points(five_points(landmarks_68), points_3d, camera)


def landmark_box_of(detection: Detection) -> tuple[Tensor, float]:
    """Where the 68 landmarks' box of a detected face should lie, photo pixels.

    Fitted to MTCNN's boxes of 730 faces with hand-made landmarks; on 41 others the middle is
    off by 3 to 4 % (standard deviation) of the longer side, and that by 6 %. RetinaFace learned
    from the same kind of boxes.

    Returns:
        The box's middle [2] and its longer side.
    """
    corners = detection.box.double().reshape(2, 2)
    longer = float((corners[1] - corners[0]).max())
    shift = torch.tensor(BOX_SHIFT, dtype=torch.float64) * longer
    return corners.mean(0) + shift, BOX_SCALE * longer


def input_matrix(matrix: Tensor, size: int, camera: Camera) -> Tensor:
    """Photo to crop frame [2, 3] made photo to network input of another size.

    The input covers the same square as the frame, so corners agree, not the first pixels'
    centres.
    """
    return compose_affine_2d(resize_affine_2d(size / camera.image_size).to(matrix), matrix)


def crop_photo(image_np: np.ndarray, crop: CropTransform, size: int, camera: Camera) -> np.ndarray:
    """Pixels of a crop [size, size, 3] of a photo [H, W, 3]; see `crop_pixels.crop_image`."""
    return crop_image(image_np, input_matrix(crop.matrix, size, camera), size)


def resize_crop(image_np: np.ndarray, size: int) -> np.ndarray:
    """Stretch an aligned crop to size x size, as 3DDFA_V3 does; the same pixels if it is so."""
    if image_np.shape[:2] == (size, size):
        return image_np
    return np.asarray(Image.fromarray(image_np).resize((size, size), Image.Resampling.BICUBIC))


def _apply(points: Tensor, matrix: Tensor) -> Tensor:
    return apply_affine_2d(points.double(), matrix.to(points.device)).to(points)


def _similarity(ratio: float, offset: Tensor) -> CropTransform:
    linear = torch.eye(2, dtype=torch.float64) * ratio
    return CropTransform(torch.cat([linear, offset.double()[:, None]], 1))
