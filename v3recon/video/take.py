"""A person over a take: one identity, filtered expression and pose, for every frame in sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from v3recon.detection.crop import CropTransform, crop_again
from v3recon.face_models.landmarks import landmark_points
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera, solve_translation
from v3recon.geometry.rotation import (
    euler_to_matrix,
    matrix_to_euler,
    matrix_to_rotation_6d,
    rotation_6d_to_matrix,
)
from v3recon.reconstruct.one_person import FRONTAL, with_one_identity
from v3recon.reconstruct.precision import full_precision
from v3recon.types import FaceCoeffs
from v3recon.video.filters import one_euro, smooth_two_sided
from v3recon.video.follow import Sighting

Smoothing = Literal["offline", "live", "none"]

MAX_GAP = 0.3
"""Seconds out of sight after which a person's movement begins anew."""

_RANGE = 5.0
"""Standard deviations that an expression coefficient ranges over: one unit of the filters."""


@dataclass(frozen=True)
class Take:
    """One person in T frames.

    Attributes:
        person: number, from 1.
        frames: [T] indices in the video.
        times: [T] seconds.
        shots: [T] number of the shot.
        coeffs: of T faces; identity and albedo are the same in all.
        crop_matrix: [T, 2, 3] float64, photo pixels to crop pixels.
        landmarks_68: [T, 68, 2] photo pixels.
        quality: [T] 0…1, see `reconstruct.quality`.
    """

    person: int
    frames: np.ndarray
    times: np.ndarray
    shots: np.ndarray
    coeffs: FaceCoeffs
    crop_matrix: Tensor
    landmarks_68: np.ndarray
    quality: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def best(self) -> int:
        """Row of the frame that shows the face best: found surely, seen from the front, large."""
        turned = np.abs(self.coeffs.angle[:, :2].numpy()).sum(1)
        size = np.ptp(self.landmarks_68, axis=1).max(1)
        return int((self.quality * np.exp(-turned / FRONTAL) * np.sqrt(size)).argmax())


def make_takes(
    sightings: Sequence[Sighting],
    model: LinearFaceModel,
    camera: Camera,
    crop_rule: dict,
    points_3d: Tensor,
    smoothing: Smoothing = "offline",
) -> list[Take]:
    """People of a video, each with one identity and without jitter.

    Args:
        sightings: of all people, in the order of frames.
        model: the face model.
        camera: camera of the crops.
        crop_rule: see `detection.crop.crop_again`.
        points_3d: [5, 3] for the five-point rule.
        smoothing: "offline" uses frames before and after (no lag), "live" those before, see
            `filters`; "none" leaves expression and pose as they were found.

    Returns:
        One take a person, by number.
    """
    people: dict[int, list[Sighting]] = {}
    for one in sightings:
        people.setdefault(one.person, []).append(one)
    takes = []
    for person in sorted(people):
        rows = people[person]
        packed = torch.from_numpy(np.stack([one.coeffs for one in rows]))
        points = np.stack([one.landmarks_68 for one in rows]).astype(np.float64)
        times = np.array([one.time for one in rows])
        quality = np.array([one.quality for one in rows])
        shots = np.array([one.shot for one in rows])
        coeffs = FaceCoeffs.from_tensor(packed, model.sizes)
        coeffs = with_one_identity(coeffs, quality.tolist())
        sigma = model.exp_sigma.numpy() if model.exp_sigma is not None else np.ones(1)
        coeffs, points = _filtered(coeffs, points, times, shots, smoothing, _RANGE * sigma)
        crops = [
            crop_again(torch.from_numpy(one), crop_rule, points_3d, camera).matrix for one in points
        ]
        matrix = torch.stack(crops)
        coeffs = _placed(coeffs, model, camera, matrix, torch.from_numpy(points))
        takes.append(
            Take(
                person=person,
                frames=np.array([one.frame for one in rows]),
                times=times,
                shots=shots,
                coeffs=coeffs,
                crop_matrix=matrix,
                landmarks_68=points.astype(np.float32),
                quality=quality,
            )
        )
    return takes


def _filtered(
    coeffs: FaceCoeffs,
    points: np.ndarray,
    times: np.ndarray,
    shots: np.ndarray,
    kind: Smoothing,
    exp_range: np.ndarray,
) -> tuple[FaceCoeffs, np.ndarray]:
    """Expression, rotation, light and landmarks filtered, each run of frames for itself."""
    if kind == "none":
        return coeffs, points
    six = matrix_to_rotation_6d(euler_to_matrix(coeffs.angle))
    size = np.ptp(points, axis=1).max(1).mean()
    flat = points.reshape(len(points), -1) / size
    signals = np.concatenate(
        [coeffs.exp.numpy() / exp_range, six.numpy(), coeffs.sh.numpy(), flat], 1
    )
    signals = signals.astype(np.float64)
    smooth = signals.copy()
    for run in runs_of(times, shots):
        if kind == "live":
            smooth[run] = one_euro(times[run], signals[run])
        else:
            smooth[run] = smooth_two_sided(times[run], signals[run])
    widths = (coeffs.exp.shape[1], 6, coeffs.sh.shape[1], flat.shape[1])
    exp, six_np, sh, flat = np.split(smooth, np.cumsum(widths)[:-1], axis=1)
    angle = matrix_to_euler(rotation_6d_to_matrix(torch.from_numpy(six_np))).float()
    exp_t, sh_t = torch.from_numpy(exp * exp_range).float(), torch.from_numpy(sh).float()
    filtered = FaceCoeffs(coeffs.id, exp_t, coeffs.alb, angle, sh_t, coeffs.trans)
    return filtered, flat.reshape(points.shape) * size


def runs_of(times: np.ndarray, shots: np.ndarray) -> list[slice]:
    """Rows without a cut and without a gap of more than `MAX_GAP` seconds between them."""
    ends = np.flatnonzero((np.diff(times) > MAX_GAP) | (np.diff(shots) != 0)) + 1
    borders = [0, *ends.tolist(), len(times)]
    return [slice(low, high) for low, high in pairwise(borders)]


def _placed(
    coeffs: FaceCoeffs, model: LinearFaceModel, camera: Camera, matrix: Tensor, points: Tensor
) -> FaceCoeffs:
    """The same faces moved so that their landmarks lie at points [T, 68, 2] of the photo."""
    translations = []
    with torch.no_grad(), full_precision():
        for start in range(0, len(coeffs), 32):
            part = slice(start, start + 32)
            some = coeffs[part]
            vertices = model.vertices(some.id, some.exp) @ euler_to_matrix(some.angle)
            ids = model.landmarks_68.expand(len(some), -1)
            rotated = landmark_points(vertices, ids)
            wanted = CropTransform(matrix[part]).to_crop(points[part].double()).float()
            translations.append(solve_translation(rotated, wanted, camera))
    return FaceCoeffs(
        coeffs.id, coeffs.exp, coeffs.alb, coeffs.angle, coeffs.sh, torch.cat(translations)
    )
