"""One face of one photo: everything that a reconstruction says about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from v3recon.decode import decode
from v3recon.detection.crop import CropTransform
from v3recon.face_models.landmarks import landmark_points, march_contour, marched_landmarks_106
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera
from v3recon.types import Decoded, Detection, FaceCoeffs

LANDMARK_SETS = {
    "ldm68": "landmarks_68",
    "ldm106": "landmarks_106",
    "ldm106_2d": "landmarks_106_2d",
    "ldm134": "landmarks_134",
}
"""Names in the files and attributes of `Reconstruction`."""


@dataclass(frozen=True)
class Reconstruction:
    """One face of one photo.

    Attributes:
        model: the face model that the coefficients belong to.
        camera: camera of the crop.
        coeffs: coefficients, B = 1.
        decoded: geometry in world and crop frame, B = 1.
        crop: photo pixels to crop pixels and back.
        image_size: (H, W) of the photo.
        points_2d: [V, 2] projected vertices, photo pixels.
        landmarks_68: [68, 2] photo pixels.
        landmarks_106: [106, 2] photo pixels, fixed vertices.
        landmarks_106_2d: [106, 2] photo pixels, the contour marched to the silhouette.
        landmarks_134: [134, 2] photo pixels.
        angle_degrees: [3] pitch, yaw, roll.
        detection: where the face was found; None for photos taken as crops.
        quality: 0…1, how probably the face is one and found right (`quality.mirror_quality`); below
            `quality.DOUBTFUL` it is more probably wrong. NaN where it was not asked for.
    """

    model: LinearFaceModel
    camera: Camera
    coeffs: FaceCoeffs
    decoded: Decoded
    crop: CropTransform
    image_size: tuple[int, int]
    points_2d: Tensor
    landmarks_68: Tensor
    landmarks_106: Tensor
    landmarks_106_2d: Tensor
    landmarks_134: Tensor
    angle_degrees: Tensor
    detection: Detection | None = None
    quality: float = math.nan


def make_reconstructions(
    coeffs: FaceCoeffs,
    model: LinearFaceModel,
    camera: Camera,
    crops: Sequence[CropTransform],
    image_sizes: Sequence[tuple[int, ...]],
    detections: Sequence[Detection | None] | None = None,
) -> list[Reconstruction]:
    """Decode a batch of coefficients and map it to the photos.

    Args:
        coeffs: of B faces.
        model: their face model.
        camera: camera of the crops.
        crops: how each face was cropped.
        image_sizes: (H, W) of each face's photo.
        detections: where each face was found.
    """
    with torch.no_grad():
        coeffs = FaceCoeffs.from_tensor(coeffs.to_tensor().clone(), coeffs.sizes)
        decoded = decode(coeffs, model, camera)
        contour = march_contour(decoded.shape, decoded.rotation, coeffs.trans, model, camera)
        index_106 = marched_landmarks_106(contour, model)
        faces = []
        for i, (crop, size) in enumerate(zip(crops, image_sizes, strict=True)):
            one = slice(i, i + 1)
            points = crop.from_crop(decoded.points_2d[i])
            faces.append(
                Reconstruction(
                    model=model,
                    camera=camera,
                    coeffs=coeffs[one],
                    decoded=Decoded(
                        decoded.shape[one],
                        decoded.rotation[one],
                        decoded.vertices[one],
                        decoded.points_2d[one],
                    ),
                    crop=crop,
                    image_size=(int(size[0]), int(size[1])),
                    points_2d=points,
                    landmarks_68=points[model.landmarks_68],
                    landmarks_106=points[model.landmarks_106],
                    landmarks_106_2d=landmark_points(points[None], index_106[one])[0],
                    landmarks_134=points[model.landmarks_134],
                    angle_degrees=torch.rad2deg(coeffs.angle[i]),
                    detection=None if detections is None else detections[i],
                )
            )
    return faces
