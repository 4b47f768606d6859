"""Faces turned further to the side (face profiling), as files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from v3recon.decode import decode
from v3recon.face_models.detector_mesh import POINT_COUNT
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.fitting.fit_landmarks import fit_landmarks
from v3recon.geometry.camera import Camera
from v3recon.synthetic_data.profiling import build_sheet, profile_map, turn_sheet
from v3recon.synthetic_data.source_face import SkippedPhotoError, SourceFace
from v3recon.types import Decoded, FaceCoeffs

FRONTAL = np.radians(5.0)
"""Faces nearer to the front than this turn to either side."""


@dataclass(frozen=True)
class TurnRange:
    """New poses, degrees.

    Attributes:
        yaw: range of |yaw| after the turn.
        pitch: range of the change of pitch.
    """

    yaw: tuple[float, float] = (20.0, 80.0)
    pitch: tuple[float, float] = (-12.0, 12.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.yaw[0] <= self.yaw[1] <= 90:
            raise ValueError(f"yaw must be 0 <= LOW <= HIGH <= 90 degrees, got {self.yaw}")
        if not -45 <= self.pitch[0] <= self.pitch[1] <= 45:
            raise ValueError(f"pitch must be -45 <= LOW <= HIGH <= 45 degrees, got {self.pitch}")


@dataclass(frozen=True)
class TurnedFace:
    """A turned face.

    Attributes:
        source_map: [H, H, 2] canvas pixels.
        points: [468, 3] canvas pixels.
        yaw: of the mesh, radians.
        pitch: of the mesh, radians.
        coeffs: fitted to the turned points, in the crop of the photo's own fit.
        rotation: [1, 3, 3] of that fit.
        decoded: its geometry.
    """

    source_map: np.ndarray
    points: np.ndarray
    yaw: float
    pitch: float
    coeffs: FaceCoeffs
    rotation: Tensor
    decoded: Decoded


def turn_face(
    face: SourceFace, turns: TurnRange, model: LinearFaceModel, rng: np.random.Generator
) -> TurnedFace:
    """Draw a pose with a larger |yaw| and turn the face to it.

    Raises:
        SkippedPhotoError: if the face is turned beyond the range already.
    """
    own_pitch, own_yaw, _ = face.pose
    low, high = np.radians(turns.yaw)
    low = max(low, abs(own_yaw))
    if low >= high:
        raise SkippedPhotoError("turned beyond the range already")
    side = float(np.sign(own_yaw)) if abs(own_yaw) > FRONTAL else float(rng.choice([-1.0, 1.0]))
    yaw = side * rng.uniform(low, high)
    pitch = own_pitch + np.radians(rng.uniform(*turns.pitch))
    sheet = build_sheet(face.points, float(rng.uniform(0.6, 1.0)))
    turned = turn_sheet(sheet, face.pose, yaw, pitch)
    points = turned[:POINT_COUNT]
    source_map = profile_map(sheet, turned, np.eye(2, 3), face.canvas.shape[0])
    linear = np.linalg.inv(face.crop_to_canvas[:, :2])
    to_crop = np.concatenate([linear, -(linear @ face.crop_to_canvas[:, 2:])], 1)
    # The picture is turned by the detection's depth: without it, yaw is read 2 to 4 degrees short.
    fit = fit_landmarks(
        torch.from_numpy(points)[None].float(),
        model,
        to_crop=torch.from_numpy(to_crop)[None].float(),
    )
    decoded = decode(fit.coeffs, model, Camera(), fit.rotation)
    return TurnedFace(source_map, points, yaw, pitch, fit.coeffs, fit.rotation, decoded)
