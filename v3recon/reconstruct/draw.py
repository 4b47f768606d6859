"""Pictures for people: landmarks, part colours, overlays.

Everything here takes and returns [H, W, 3] uint8 RGB and leaves its inputs alone.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

from v3recon._fast.compiled import compiled
from v3recon.face_models.parts import COVER_COLORS, LABEL_COLORS

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating]
Color = tuple[int, int, int]

LANDMARK_COLOR = (40, 220, 70)


_OUTLINE = 0.8  # pixels of dark rim around a dot, so that it shows on light skin


def draw_landmarks(
    image: Image,
    points: Points,
    color: Color = LANDMARK_COLOR,
    radius: float | None = None,
) -> Image:
    """Anti-aliased dots on a copy of a picture.

    Args:
        image: the picture.
        points: [N, 2] pixels of that picture; points that are not finite are left out.
        color: RGB 0…255.
        radius: pixels; default suits the picture's size, smaller where dots would run together.
    """
    assert points.ndim == 2 and points.shape[1] == 2, points.shape
    points = points[np.isfinite(points).all(1)]
    if radius is None:
        radius = max(1.0, min(1.9 * min(image.shape[:2]) / 224, 0.45 * _spacing(points)))
    drawn = image.copy()
    outline, dots = np.zeros((2, *image.shape[:2]), np.float32)
    _cover_discs(points, radius + _OUTLINE, outline)
    _cover_discs(points, radius, dots)
    _blend_dots(drawn, outline, dots, np.array(color, np.float32))
    return drawn


def _spacing(points: Points) -> float:
    """Usual distance from a point to the next one where they are dense; infinite for one point."""
    if len(points) < 2:
        return np.inf
    return float(np.quantile(_nearest(points), 0.3))


def overlay(image: Image, drawn: Image, mask: npt.NDArray, opacity: float = 1.0) -> Image:
    """Lay a rendering over a photo.

    Args:
        image: the photo.
        drawn: the rendering, same size.
        mask: [H, W] bool, or weights 0…1.
        opacity: of the rendering.
    """
    assert image.shape == drawn.shape and mask.shape == image.shape[:2], (drawn.shape, mask.shape)
    if mask.dtype == bool and opacity == 1:
        return np.asarray(cv2.copyTo(drawn, mask.astype(np.uint8), image.copy()), np.uint8)
    weight = opacity * mask.astype(np.float32)[..., None]
    return (image + weight * (drawn.astype(np.float32) - image) + 0.5).astype(np.uint8)


def label_colors() -> Image:
    """Colours of `networks.encoder.SEEN_NAMES`, [12, 3] RGB; label 0 is black, 1…8 are parts."""
    return np.array((*LABEL_COLORS, *COVER_COLORS), np.uint8)


def color_labels(labels: npt.NDArray[np.integer]) -> Image:
    """A label map [H, W] with values 0…11 as a picture."""
    return label_colors()[labels]


def overlay_labels(image: Image, labels: npt.NDArray[np.integer], opacity: float = 0.65) -> Image:
    """Part colours over the grey photo, so that every part stands out from its own skin colour."""
    assert labels.shape == image.shape[:2], labels.shape
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    painted = np.empty_like(image)
    _look_up(_overlay_table(opacity), labels, gray, painted)
    return painted


@functools.cache
def _overlay_table(opacity: float) -> Image:
    """What `overlay_labels` paints: [12 labels, 256 grey levels, 3]."""
    level = np.arange(256, dtype=np.float32)[None, :, None]
    table = (1 - opacity) * level + opacity * label_colors()[:, None].astype(np.float32)
    table[0] = 0.8 * level[0]
    return np.round(table).astype(np.uint8)


@compiled()
def _nearest(points):
    """Distance from each point to the next one."""
    nearest = np.full(len(points), np.inf, points.dtype)
    for i in range(len(points)):
        for j in range(i):
            distance = np.hypot(points[i, 0] - points[j, 0], points[i, 1] - points[j, 1])
            nearest[i] = min(nearest[i], distance)
            nearest[j] = min(nearest[j], distance)
    return nearest


@compiled()
def _cover_discs(points, radius, cover):
    """How much of each pixel [H, W] discs around the points cover, 0…1."""
    height, width = cover.shape
    reach = int(np.ceil(radius + 1))
    for i in range(len(points)):
        x, y = points[i, 0], points[i, 1]
        if not (-reach <= x and x < width + reach and -reach <= y and y < height + reach):
            continue  # so that a place far away stays a whole number
        left, top = int(np.floor(x)) - reach, int(np.floor(y)) - reach
        for row in range(max(top, 0), min(top + 2 * reach + 2, height)):
            for column in range(max(left, 0), min(left + 2 * reach + 2, width)):
                share = radius + 0.5 - np.hypot(column - x, row - y)
                cover[row, column] = max(cover[row, column], np.float32(min(share, 1.0)))


@compiled()
def _blend_dots(image, outline, dots, color):
    """Darken the outline, then lay the colour over it."""
    height, width = outline.shape
    for row in range(height):
        for column in range(width):
            if outline[row, column] > 0:
                dark = np.float32(1) - np.float32(0.75) * outline[row, column]
                for k in range(3):
                    under = image[row, column, k] * dark
                    mixed = under + dots[row, column] * (color[k] - under)
                    image[row, column, k] = np.uint8(np.rint(mixed))


@compiled()
def _look_up(table, labels, gray, painted):
    height, width = gray.shape
    for row in range(height):
        for column in range(width):
            for k in range(3):
                painted[row, column, k] = table[labels[row, column], gray[row, column], k]
