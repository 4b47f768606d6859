"""A dict of arrays as 3DDFA_V3's scripts load it: `np.load(path, allow_pickle=True).item()`.

Numpy's own pickles name the version that wrote them (`numpy._core` is unknown before 1.26) and hold
every pixel of a mask. These name four functions that numpy has had since 1.7, and store what lies
inside of a mask's box.
"""

from __future__ import annotations

import io
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from v3recon.io.atomic import replace_on_success

_PROTOCOL = 4  # Python 3.4
_LEVEL = 6


class PlacedMask:
    """A mask [H, W, C] that is 0 outside of a box, told to unpickle as a whole float64 array."""

    def __init__(self, mask: np.ndarray, value: float | None = None) -> None:
        """Keep what is inside of the box of a mask's pixels.

        Args:
            mask: [H, W, C] uint8.
            value: what pixels other than 0 become; None = what they are.
        """
        assert mask.ndim == 3 and mask.dtype == np.uint8, (mask.shape, mask.dtype)
        self.shape, self.value = mask.shape, value
        self.box = box_of(np.asarray(mask.any(2)))
        top, left, bottom, right = self.box
        self.inside = np.ascontiguousarray(mask[top:bottom, left:right])

    def __reduce__(self) -> tuple[Any, ...]:
        top, left, bottom, right = self.box
        height, width, _ = self.shape
        around = ((top, height - bottom), (left, width - right), (0, 0))
        whole = _Call(np.pad, self.inside, around, "constant")
        if self.value is None:
            return np.array, (whole, "f8")
        return np.where, (whole, self.value, 0.0)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of the pixels of a mask [H, W]; bottom and right are exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def write_reference_npy(path: str | Path, values: Mapping[str, np.ndarray | PlacedMask]) -> None:
    """Write a dict, whole or not at all.

    Args:
        path: the .npy file; its folder exists.
        values: arrays of numbers and masks.

    Raises:
        ValueError: naming a key whose numbers are not finite.
    """
    for key, value in values.items():
        if isinstance(value, np.ndarray) and not np.isfinite(value).all():
            raise ValueError(f"{key} has values that are not finite")
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        buffer = io.BytesIO()
        _Pickler(buffer, _PROTOCOL).dump(_Call(np.array, dict(values), "O"))
        file.write(buffer.getvalue())


class _Call:
    """What unpickles as the result of a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class _Pickler(pickle.Pickler):
    """Arrays become `numpy.array(numpy.ndarray(shape, type, unpacked bytes))`."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, np.ndarray):
            return NotImplemented
        data = _Call(zlib.decompress, zlib.compress(obj.tobytes(), _LEVEL))
        return np.array, (_Call(np.ndarray, obj.shape, obj.dtype.str, data),)
