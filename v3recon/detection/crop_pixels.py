"""Pixels of a crop, by OpenCV and numpy alone: what runs without torch uses it too."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt


def crop_image(image_np: np.ndarray, matrix: npt.ArrayLike, size: int) -> np.ndarray:
    """Warp a photo into a square without aliasing; reads only the region it needs.

    Shrinks by area averaging to at most twice the resolution wanted, smooths what is left over,
    then samples bilinearly. Outside of the photo is black.

    Args:
        image_np: [H, W, 3] uint8 RGB.
        matrix: [2, 3] photo pixels to pixels of the square; a similarity.
        size: of the square.

    Returns:
        [size, size, 3] uint8 RGB.
    """
    to_square = np.asarray(matrix, np.float64)
    linear = to_square[:, :2]
    scale = math.sqrt(abs(np.linalg.det(linear)))
    shrink = max(1, math.floor(1 / scale + 1e-9))
    corners = np.array([[-1, -1], [size, -1], [-1, size], [size, size]], np.float64)
    corners = (corners - to_square[:, 2]) @ np.linalg.inv(linear).T
    margin = 3 * shrink
    height, width = image_np.shape[:2]
    left, top = np.clip(np.floor(corners.min(0)) - margin, 0, [width, height]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)) + margin, 0, [width, height]).astype(int)
    if right <= left or bottom <= top:
        return np.zeros((size, size, 3), np.uint8)
    region = image_np[top:bottom, left:right]
    ratio = np.ones(2)
    if shrink > 1:
        small = (max(1, (right - left) // shrink), max(1, (bottom - top) // shrink))
        ratio = np.array([(right - left) / small[0], (bottom - top) / small[1]])
        region = cv2.resize(region, small, interpolation=cv2.INTER_AREA)
    leftover = scale * float(ratio.mean())
    if leftover < 0.95:
        sigma = 0.45 * math.sqrt(1 / leftover**2 - 1)
        region = cv2.GaussianBlur(region, (0, 0), sigma)
    # Pixel p of the region is photo pixel (p + 0.5) * ratio - 0.5 + (left, top).
    offset = linear @ (0.5 * ratio - 0.5 + [left, top]) + to_square[:, 2]
    warp = np.concatenate([linear * ratio, offset[:, None]], 1)
    return cv2.warpAffine(np.ascontiguousarray(region), warp, (size, size), flags=cv2.INTER_LINEAR)
