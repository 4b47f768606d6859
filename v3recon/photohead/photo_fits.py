"""Fits of the head to the detected points of photographs, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from v3recon.decode import decode
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.fitting.fit_landmarks import fit_landmarks
from v3recon.geometry.camera import Camera, project
from v3recon.photohead.detector_points import POINT_COUNT
from v3recon.types import FaceCoeffs

NOISE = 0.03
"""Standard deviation of a detected point, decimeters, for what is learned from photographs: the
statistics of heads decide more than single points do."""
MAX_ERROR = 0.05
"""Fits with a larger root-mean-square distance (share of the face's size) are left out."""
_BATCH = 400
_FACE_PIXELS = 120.0


@dataclass(frozen=True)
class PhotoFits:
    """Fitted faces of N photographs.

    Attributes:
        coeffs: coefficients in the crop's camera; albedo and light are zero.
        rotation: [N, 3, 3] for row vectors.
        to_crop: [N, 2, 3] the photo's pixels to crop pixels.
        error: [N] root-mean-square distance over the face's size, the root of width times height.
        residual: [N, 468, 2] detected minus projected, decimeters at the point's depth, x right,
            y up.
    """

    coeffs: FaceCoeffs
    rotation: Tensor
    to_crop: Tensor
    error: Tensor
    residual: Tensor

    @property
    def angles(self) -> np.ndarray:
        """Pitch, yaw, roll [N, 3], degrees."""
        return np.degrees(self.coeffs.angle.numpy())


def fit_photos(
    points: np.ndarray,
    model: LinearFaceModel,
    people: Sequence[str] | None = None,
    noise: float = NOISE,
) -> PhotoFits:
    """Fit the head to detections in the picture plane; their depth is not used.

    Args:
        points: [N, 468 or more, 3] detected points, pixels, x right, y down.
        model: the head, with `detector_points`.
        people: who each photo shows; photos of a person share their identity.
        noise: standard deviation of a point, decimeters.
    """
    camera = Camera()
    order = (
        np.arange(len(points)) if people is None else np.argsort(np.array(people), kind="stable")
    )
    batches = _batches(order, None if people is None else np.array(people)[order])
    parts = []
    for chosen in tqdm(batches, desc="fits", unit="batch", disable=len(batches) < 3):
        flat = torch.from_numpy(np.ascontiguousarray(points[chosen, :POINT_COUNT, :2])).float()
        numbers = None
        if people is not None:
            numbers = torch.from_numpy(np.unique(np.array(people)[chosen], return_inverse=True)[1])
        parts.append(_fit(flat, model, camera, numbers, noise))
    back = torch.from_numpy(np.argsort(np.concatenate(batches), kind="stable"))
    joined = [torch.cat([part[field] for part in parts])[back] for field in range(5)]
    return PhotoFits(FaceCoeffs.from_tensor(joined[0], model.sizes), *joined[1:])


def _batches(order: np.ndarray, people: np.ndarray | None) -> list[np.ndarray]:
    """Consecutive photos, a person's never in two batches."""
    starts = list(range(0, len(order), _BATCH))
    if people is not None:
        for place, start in enumerate(starts[1:], 1):
            while 0 < start < len(people) and people[start] == people[start - 1]:
                start += 1
            starts[place] = start
    ends = [*starts[1:], len(order)]
    return [order[a:b] for a, b in zip(starts, ends, strict=True) if b > a]


def _fit(
    flat: Tensor,
    model: LinearFaceModel,
    camera: Camera,
    people: Tensor | None,
    noise: float,
) -> tuple[Tensor, ...]:
    low, high = flat.amin(1), flat.amax(1)
    scale = _FACE_PIXELS / (high - low).amax(1)
    to_crop = flat.new_zeros(len(flat), 2, 3)
    to_crop[:, 0, 0] = to_crop[:, 1, 1] = scale
    middle = camera.image_size - 1 - camera.center
    to_crop[:, :, 2] = flat.new_tensor([camera.center, middle]) - scale[:, None] * (low + high) / 2
    with torch.no_grad():
        fit = fit_landmarks(
            flat, model, camera, to_crop=to_crop, people=people, noise=noise, iterations=6
        )
        decoded = decode(fit.coeffs, model, camera, rotation=fit.rotation)
        assert model.detector_points is not None
        places = model.detector_points.of(decoded.vertices)
        target = flat * scale[:, None, None] + to_crop[:, None, :, 2]
        missing = target - project(places, camera)
        distance = (camera.distance - places[..., 2:]) / camera.focal
        residual = missing * distance * flat.new_tensor([1.0, -1.0])
        size = scale * (high - low).prod(1).sqrt()
    return fit.coeffs.to_tensor(), fit.rotation, to_crop, fit.error / size, residual


def pixel_control(fits: PhotoFits, model: LinearFaceModel) -> np.ndarray:
    """Control vertices [N, Vc, 3] in each photo: pixels, x right, y up (minus row), z nearer."""
    camera = Camera()
    with torch.no_grad():
        shape = model.control_vertices(fits.coeffs.id, fits.coeffs.exp)
        world = shape @ fits.rotation + fits.coeffs.trans[:, None]
        crop = project(world, camera)
        scale = fits.to_crop[:, 0, 0][:, None, None]
        flat = (crop - fits.to_crop[:, None, :, 2]) / scale
        per_unit = camera.focal / (camera.distance - fits.coeffs.trans[:, 2])[:, None, None] / scale
        depth = (world[..., 2:] - fits.coeffs.trans[:, None, 2:]) * per_unit
    return torch.cat([flat[..., :1], -flat[..., 1:], depth], 2).numpy()
