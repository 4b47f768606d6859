"""The 468-point face mesh that detectors of the MediaPipe family find, as data.

Triangles, loops and mirror pairs were derived from the detector's public edge list and from the
symmetrised mean of detections; the 68 vertices were chosen against hand-made points (jaw: nearly
frontal faces only), mirror-symmetrically.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from v3recon.face_models import landmarks, parts

POINT_COUNT = 468

MIRROR_68 = np.array(landmarks.MIRROR_68)
"""`face_models.landmarks.MIRROR_68` as an array."""

MIRROR_LABELS = np.array(parts.MIRROR_LABELS, np.uint8)
"""`face_models.parts.MIRROR_LABELS` as an array."""


@dataclass(frozen=True)
class FaceMesh:
    """Topology of the detected mesh; all ids 0-based.

    Attributes:
        mean: [468, 3] symmetric mean face, x right, y up, z toward the camera, decimetres
            (0.9 between the outer eye corners).
        triangles: [852, 3]; a disc with three holes (mouth, eyes).
        mirror: [468] id of each point's mirror image.
        outline: [36] boundary of the face, in order.
        mouth: [20] inner lip loop, in order.
        right_eye, left_eye: [16] eye loops (the person's own sides), in order.
        landmarks_68: [68] point nearest to each hand-made iBUG landmark.
    """

    mean: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    outline: np.ndarray
    mouth: np.ndarray
    right_eye: np.ndarray
    left_eye: np.ndarray
    landmarks_68: np.ndarray


@cache
def load_face_mesh() -> FaceMesh:
    """The mesh from the package's data; treat it as read-only."""
    with (files("v3recon.face_models") / "data" / "detector_mesh.npz").open("rb") as stream:
        arrays = np.load(stream)
        return FaceMesh(
            **{
                key: arrays[key] if key == "mean" else arrays[key].astype(np.int64)
                for key in arrays.files
            }
        )


def estimate_pose(points: np.ndarray) -> np.ndarray:
    """Head pose of a detected mesh by the best similarity from the mean face.

    Args:
        points: [468, 3] pixels, x right, y down, z toward the camera.

    Returns:
        [3] pitch, yaw, roll in radians, convention of `geometry.rotation` (world frame, y up).
    """
    assert points.shape == (POINT_COUNT, 3), points.shape
    posed = points * np.array([1.0, -1.0, 1.0])
    mean = load_face_mesh().mean
    u, _, vt = np.linalg.svd((mean - mean.mean(0)).T @ (posed - posed.mean(0)))
    u[:, 2] *= np.sign(np.linalg.det(u @ vt))
    rotation = u @ vt  # row vectors: mean @ rotation ~ posed
    yaw = np.arctan2(-rotation[0, 2], np.hypot(rotation[0, 0], rotation[0, 1]))
    pitch = np.arctan2(rotation[1, 2], rotation[2, 2])
    roll = np.arctan2(rotation[0, 1], rotation[0, 0])
    return np.array([pitch, yaw, roll])


def rotation_between(pose: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Rotation that turns a posed face to another yaw and pitch and keeps its roll.

    D = Rz(roll) Ry(yaw) Rx(pitch - own pitch) Ry(-own yaw) Rz(-roll), because poses are
    Rz Ry Rx.

    Args:
        pose: [3] own pitch, yaw, roll, radians.
        yaw: new yaw, radians.
        pitch: new pitch, radians.

    Returns:
        [3, 3], acts on row vectors of image coordinates (x right, y down, z toward the camera).
    """
    own_pitch, own_yaw, roll = pose
    turn = _about_z(roll) @ _about_y(yaw) @ _about_x(pitch - own_pitch)
    turn = turn @ _about_y(-own_yaw) @ _about_z(-roll)
    down = np.array([1.0, -1.0, 1.0])  # the formulas hold in the world frame, y up
    return (turn * down * down[:, None]).T


def _about_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
