"""Faces at places that a user gave instead of a detector."""

from __future__ import annotations

from dataclasses import replace

import torch

from v3recon.detection.crop import (
    CropTransform,
    crop_again,
    crop_of_detection,
    crop_of_five_points,
)
from v3recon.face_models.bfm import five_points
from v3recon.geometry.camera import Camera
from v3recon.io.given_faces import GivenFace
from v3recon.types import Detection

USUAL_FIVE_POINTS = ((0.26, 0.375), (0.74, 0.375), (0.5, 0.58), (0.31, 0.755), (0.69, 0.755))
"""MTCNN's five points in its boxes, in widths and heights: medians of 80 photos, made symmetric."""

_LEAST_INSIDE = 0.1
"""Share of a face's box that must lie in the photo."""


def given_detection(given: GivenFace, image_size: tuple[int, int]) -> Detection:
    """A face that a user gave, as a detector would say it; score 1.

    Args:
        given: the face.
        image_size: (H, W) of the photo.

    Raises:
        ValueError: if the face lies outside of the photo, or its points fall together.
    """
    points = None if given.points is None else torch.from_numpy(given.points).float()
    if given.box is not None:
        box = torch.tensor(given.box)
    else:
        assert points is not None
        box = torch.cat([points.amin(0), points.amax(0)])
        if not (box[2:] - box[:2] > 0).all():
            raise ValueError("the points of the face fall together")
    height, width = image_size
    left, top, right, bottom = box.tolist()
    across, down = min(right, width) - max(left, 0), min(bottom, height) - max(top, 0)
    inside = max(0.0, across) * max(0.0, down)
    if not inside >= _LEAST_INSIDE * max((right - left) * (bottom - top), 1e-9):
        said = ", ".join(f"{value:.0f}" for value in box.tolist())
        raise ValueError(f"the box {said} lies outside of the photo ({width} x {height})")
    if points is not None and len(points) == 68:
        points = five_points(points)
    return Detection(box, 1.0, points)


def crop_of_given(
    given: GivenFace, detection: Detection, rule: dict, points_3d: torch.Tensor, camera: Camera
) -> CropTransform:
    """The first crop of a face that a user gave, by a network's rule.

    A box is taken for one of a detector, with 68 points the crop is that of landmarks already
    found. Five points alone are the five-point rule's own, or say where a detector's box would be.

    Args:
        given: the face.
        detection: the same, see `given_detection`.
        rule: see `detection.crop.crop_of_detection`.
        points_3d: [5, 3] for the five-point rule.
        camera: camera of the crop.

    Raises:
        ValueError: if points fall together.
    """
    if given.points is not None and len(given.points) == 68:
        return crop_again(torch.from_numpy(given.points), rule, points_3d, camera)
    if rule.get("name") == "box":
        if given.box is None and detection.points is not None:
            detection = replace(detection, box=_usual_box(detection.points))
        return crop_of_detection(detection, rule, points_3d, camera)
    points = detection.points
    if points is None:
        low, high = detection.box[:2], detection.box[2:]
        points = low + torch.tensor(USUAL_FIVE_POINTS) * (high - low)
    return crop_of_five_points(points.double(), points_3d, camera)


def _usual_box(points: torch.Tensor) -> torch.Tensor:
    """The box [4] in which five points [5, 2] lie as they do on average, of their least squares."""
    usual = torch.tensor(USUAL_FIVE_POINTS).to(points)
    apart = usual - usual.mean(0)
    size = ((points - points.mean(0)) * apart).sum(0) / apart.square().sum(0)
    size = size.abs().clamp(min=float(size.abs().max()) / 2)  # a profile's eyes are close together
    low = points.mean(0) - usual.mean(0) * size
    return torch.cat([low, low + size])
