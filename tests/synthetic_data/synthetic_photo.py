"""A made-up photo: the mean face, its detection exact, painted in skin colour with some texture."""

from __future__ import annotations

import cv2
import numpy as np

from v3recon.decode import decode
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera
from v3recon.synthetic_data.mesh_labels import polygon_labels
from v3recon.synthetic_data.source_face import SourceFace, make_source_face, projected_mesh
from v3recon.types import FaceCoeffs

SIDE = 320


def mean_mesh(model: LinearFaceModel, yaw: float = 0.0) -> np.ndarray:
    """Detection [468, 3] of the mean face in a photo of SIDE pixels."""
    coeffs = FaceCoeffs.zeros(1, model.sizes)
    coeffs.angle[:, 1] = yaw
    decoded = decode(coeffs, model, Camera())
    points = projected_mesh(decoded, model)
    return points + np.array([(SIDE - 224) / 2, (SIDE - 224) / 2, 0])


def paint_photo(mesh: np.ndarray, grey: bool = False) -> np.ndarray:
    """[SIDE, SIDE, 3] uint8: parts in different colours over a smooth background."""
    eye, brow = (60, 40, 30), (80, 60, 50)
    skin = ((205, 160, 140), (170, 80, 80), (180, 90, 90), (200, 155, 135))
    colors = np.array(((90, 110, 130), eye, eye, brow, brow, *skin), np.float32)
    photo = cv2.GaussianBlur(colors[polygon_labels(mesh, SIDE)], (0, 0), 1.0)
    noise = np.random.default_rng(0).standard_normal((SIDE, SIDE, 1)) * 4
    photo = np.clip(photo + noise, 0, 255)
    if grey:
        photo = np.repeat(photo.mean(2, keepdims=True), 3, 2)
    return photo.astype(np.uint8)


def make_face(
    model: LinearFaceModel,
    grey: bool = False,
    classes: np.ndarray | None = None,
    size: int = 96,
) -> SourceFace:
    mesh = mean_mesh(model)
    return make_source_face(paint_photo(mesh, grey), mesh, model, size=size, classes=classes)
