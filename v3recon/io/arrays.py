"""Numpy's files of foreign origin: what a header promises is checked before anything is read."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

import numpy as np

from v3recon.io.messages import one_line, some_of

MAX_BYTES = 1 << 28
"""Larger contents are refused where the caller does not expect them: a small archive may inflate
to any size."""

_Order = Literal["C", "F"]
_MAX_HEADER = 10_000
_MAX_MEMBERS = 1000
_KINDS = "biufSU"  # booleans, whole numbers, floats, bytes, text
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?[a-zA-Z][0-9]*)['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([0-9L,\s]*)\)""")


class _MalformedError(ValueError):
    """What is wrong, in one line without the file's name."""


def read_npy(path: str | Path, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read one array of numbers or text.

    Args:
        path: a `.npy` file.
        max_bytes: larger arrays are refused.

    Raises:
        ValueError: naming the file, if it is missing, damaged, too large or of another format.
    """
    path = _existing(path)
    try:
        with path.open("rb") as file:
            return _read_array(file, path.stat().st_size, max_bytes)
    except (_MalformedError, OSError) as error:
        raise ValueError(f"{path}: {error}") from None


def read_npz(
    path: str | Path, keys: Iterable[str] | None = None, *, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
    """Read arrays of numbers or text.

    Args:
        path: a `.npz` file.
        keys: which arrays, all of which must be there; default all that are.
        max_bytes: archives that inflate to more are refused.

    Raises:
        ValueError: naming the file, if it is missing, damaged, too large, of another format, or
            lacks a key.
    """
    path = _existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, max_bytes)
            wanted = list(members) if keys is None else list(keys)
            missing = [key for key in wanted if key not in members]
            if missing:
                raise _MalformedError(f"lacks the array {missing[0]!r}; found: {some_of(members)}")
            arrays = {}
            for key in wanted:
                with archive.open(members[key]) as member:
                    arrays[key] = _read_array(member, members[key].file_size, max_bytes, key)
            return arrays
    except _MalformedError as error:
        raise ValueError(f"{path}: {error}") from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a .npz file, or damaged ({one_line(error)})") from None
    except (
        *(OSError, EOFError, zlib.error, struct.error, UnicodeError, OverflowError),
        *(RuntimeError, ValueError, LookupError),  # encrypted, unknown compression, bad offsets
    ) as error:
        raise ValueError(f"{path}: damaged .npz file ({one_line(error)})") from None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return path


def _members(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Arrays of an archive by name."""
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise _MalformedError(f"holds {len(infos)} files, expected arrays")
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise _MalformedError(f"inflates to {total / 1e6:.0f} MB, which is too large")
    return {info.filename.removesuffix(".npy"): info for info in infos}


def _read_array(file: IO[bytes], size: int, max_bytes: int, key: str = "") -> np.ndarray:
    """The array of a stream of `size` bytes."""
    try:
        dtype, shape, order = _read_header(file)
        wanted = math.prod(shape) * dtype.itemsize
        if wanted > min(size, max_bytes):
            raise _MalformedError(f"promises an array {shape} of {dtype}, which is not there")
        data = file.read(wanted)
        if len(data) != wanted:
            raise _MalformedError(f"ends before its array {shape} does")
        values = _checked(np.frombuffer(bytearray(data), dtype), dtype)
        return values.reshape(shape, order=order)
    except _MalformedError as error:
        raise _MalformedError(f"array {one_line(key)!r} {error}" if key else str(error)) from None


def _read_header(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], _Order]:
    """Type, shape and order ("C" or "F") of a stream whose data come next.

    Numpy evaluates the header as Python text; here three patterns read it.
    """
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise _MalformedError("is not a .npy file")
    width = 2 if start[6:7] == b"\1" else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _MAX_HEADER:
        raise _MalformedError(f"has a header of {length} bytes; damaged")
    text = file.read(length).decode("latin1")
    descr, order, shape = _DESCR.search(text), _ORDER.search(text), _SHAPE.search(text)
    if descr is None or order is None or shape is None:
        raise _MalformedError("has a header that is no plain array of numbers")
    try:
        dtype = np.dtype(descr[1])
        sizes = tuple(int(word.strip().rstrip("L")) for word in shape[1].split(",") if word.strip())
    except (TypeError, ValueError):
        raise _MalformedError("has a damaged header") from None
    if dtype.kind not in _KINDS or dtype.itemsize < 1 or len(sizes) > 32:
        raise _MalformedError(f"holds {dtype}, expected numbers or text")
    return dtype, sizes, "F" if order[1] == "True" else "C"


def _checked(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values whose bit patterns are valid ones of their type."""
    if dtype.kind == "b":
        return values.view(np.uint8) != 0
    if dtype.kind == "U" and values.size:
        letters = values.view(np.dtype("u4").newbyteorder(dtype.byteorder))
        if letters.max() > 0x10FFFF:
            raise _MalformedError("holds text with impossible letters; damaged")
    return values
