"""Results of one face: `<name>.npy` in 3DDFA_V3's layout and a small JSON twin without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from v3recon.io.atomic import replace_on_success, write_text_atomic

JSON_DECIMALS = 6


class PackedMasks:
    """Eight masks [H, W] in one byte a pixel, which unpickle as a plain (H, W, 8) uint8 array.

    The pickle names `numpy.unpackbits` and its arguments, so `np.load(..., allow_pickle=True)`
    needs nothing of this package, and the file holds an eighth of the bytes.
    """

    def __init__(self, bits: np.ndarray) -> None:
        """Keep bits [H, W] uint8; bit p of a pixel = part p."""
        assert bits.ndim == 2 and bits.dtype == np.uint8, (bits.shape, bits.dtype)
        self.bits = bits

    def unpack(self) -> np.ndarray:
        """[H, W, 8] uint8, 0 or 1."""
        function, arguments = self.__reduce__()
        return function(*arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return np.unpackbits, (self.bits[..., None], -1, 8, "little")


def write_results(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write a dict of arrays as `np.load(path, allow_pickle=True).item()` reads it.

    Args:
        path: the .npy file; its folder exists.
        values: arrays, `PackedMasks`, numbers, strings and dicts of them.
    """
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(dict(values), dtype=object), allow_pickle=True)


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write the same kind of dict as JSON, a line for each key; arrays become rounded lists."""
    lines = [
        f"{json.dumps(str(key))}: {json.dumps(_plain(value), ensure_ascii=False)}"
        for key, value in values.items()
    ]
    write_text_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        is_float = np.issubdtype(value.dtype, np.floating)
        return (value.astype(np.float64).round(JSON_DECIMALS) if is_float else value).tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return round(value, JSON_DECIMALS) if isinstance(value, float) else value
