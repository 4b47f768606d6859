"""The pose of a face drawn into its photo: a box around the head and its axes."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import torch
from torch import Tensor

from v3recon.geometry.camera import project
from v3recon.reconstruct.draw import Color, Image
from v3recon.reconstruct.faces import Face

AXIS_COLORS: tuple[Color, Color, Color] = ((230, 40, 40), (40, 200, 60), (60, 110, 255))
"""RGB of the head's x (the person's left), y (up) and z (forward)."""

_BOX: Color = (255, 200, 60)
_REAR: Color = (150, 110, 20)
_AXIS_LENGTH = 1.3  # of half of the box's width
_SHARE = 160  # of a face's width that a line's is


def draw_pose(face: Face, image: Image | None = None) -> Image:
    """The photo with the box and the axes of a face.

    The box is that of the face's own vertices (all, where the model has no parts) in the unposed
    head; its side toward the camera is bright. Axes start at its middle.

    Args:
        face: the face.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it.

    Returns:
        [H, W, 3] uint8 RGB, a copy.
    """
    drawn = face.batch.photo(image).copy()
    corners, axes = pose_box(face), pose_axes(face)
    width = max(1, round(float(np.ptp(corners, axis=0).max()) / _SHARE))
    edges = [
        (a, b) for a, b in itertools.combinations(range(8), 2) if (a ^ b).bit_count() == 1
    ]  # corners that differ in one axis
    for a, b in sorted(edges, key=lambda edge: min(edge) & 1):  # rear edges first
        front = a & b & 1
        _line(drawn, corners[a], corners[b], _BOX if front else _REAR, width + front)
    for end, color in zip(axes[1:], AXIS_COLORS, strict=True):
        _line(drawn, axes[0], end, color, 2 * width)
    return drawn


def pose_box(face: Face) -> np.ndarray:
    """Corners [8, 2] of the box in the photo; bits of a corner's number: 4 x, 2 y, 1 z (front)."""
    low, high = _extent(face)
    ends = torch.stack([low, high])
    corners = [
        torch.stack([ends[n >> 2 & 1, 0], ends[n >> 1 & 1, 1], ends[n & 1, 2]]) for n in range(8)
    ]
    return _in_photo(face, torch.stack(corners))


def pose_axes(face: Face) -> np.ndarray:
    """Places [4, 2] in the photo: the box's middle, and the ends of the axes x, y and z."""
    low, high = _extent(face)
    middle = (low + high) / 2
    length = _AXIS_LENGTH * (high - low)[0] / 2
    ends = middle + length * torch.eye(3).to(middle)
    return _in_photo(face, torch.cat([middle[None], ends]))


def _extent(face: Face) -> tuple[Tensor, Tensor]:
    """Least and greatest coordinates [3] of the unposed face."""
    own = face.model.part_labels > 0
    vertices = face.decoded.model_vertices[0]
    vertices = vertices[own] if own.any() else vertices
    return vertices.amin(0), vertices.amax(0)


def _in_photo(face: Face, points: Tensor) -> np.ndarray:
    """Points [N, 3] of the model frame in the photo [N, 2]."""
    posed = points @ face.decoded.rotation[0] + face.coeffs.trans
    return face.crop.from_crop(project(posed, face.camera)).double().cpu().numpy()


def _line(image: Image, start: np.ndarray, end: np.ndarray, color: Color, width: int) -> None:
    """A smooth line drawn into a picture; places are clipped to what OpenCV can hold."""
    bits = 4
    ends = [np.rint((1 << bits) * np.clip(p, -1e5, 1e5)).astype(int).tolist() for p in (start, end)]
    cv2.line(image, ends[0], ends[1], color, width, cv2.LINE_AA, bits)
