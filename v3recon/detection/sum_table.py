"""Averages over rectangles of a picture, by OpenCV and numpy alone.

All views of a photo are read from one table of sums (Crow, SIGGRAPH 1984), whatever their number
and scale. Their cells are those of adaptive average pooling.
"""

from __future__ import annotations

import cv2
import numpy as np


class SumTable:
    """A picture's sums over the rectangles that begin in its corner."""

    def __init__(self, picture: np.ndarray) -> None:
        """Sum up.

        Args:
            picture: [H, W, 3] uint8, of at most 8 million pixels (sums are 32 bits wide).
        """
        self.size = (picture.shape[0], picture.shape[1])
        self._sums = cv2.integral(np.ascontiguousarray(picture), sdepth=cv2.CV_32S)

    def resized(self, height: int, width: int) -> np.ndarray:
        """The whole picture in another size, [h, w, 3] float32."""
        top, bottom = _cells(0, self.size[0], height)
        left, right = _cells(0, self.size[1], width)
        rows = np.take(self._sums, bottom, 0)
        rows -= np.take(self._sums, top, 0)
        sums = np.take(rows, right, 1)
        sums -= np.take(rows, left, 1)
        return _averages(sums, (bottom - top)[:, None] * (right - left))

    def views(self, corners: np.ndarray, size: int) -> np.ndarray:
        """Rectangles as squares.

        Args:
            corners: [N, 4] whole left, top, right, bottom (exclusive), inside, not empty.
            size: side s of the squares.

        Returns:
            [N, s, s, 3] float32.
        """
        left, right = _cells(corners[:, 0, None], corners[:, 2, None], size)
        top, bottom = _cells(corners[:, 1, None], corners[:, 3, None], size)
        top, bottom = top[:, :, None], bottom[:, :, None]
        left, right = left[:, None], right[:, None]
        sums = self._sums[bottom, right] - self._sums[top, right]
        sums -= self._sums[bottom, left] - self._sums[top, left]
        return _averages(sums, (bottom - top) * (right - left))


def _cells(low: int | np.ndarray, high: int | np.ndarray, count: int) -> tuple:
    """First and end of each of `count` cells between two edges."""
    side, number = np.subtract(high, low), np.arange(count)
    return low + number * side // count, low - (-(number + 1) * side // count)


def _averages(sums: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Sums [..., 3] over areas [...], float32."""
    over = (1 / area).astype(np.float32)[..., None]
    return np.multiply(sums, over, dtype=np.float32, casting="unsafe")
