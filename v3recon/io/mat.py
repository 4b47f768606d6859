"""Arrays of MATLAB 5 files.

They are read by a strict reader: damaged files cannot crash or fill memory.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy.io

from v3recon.io.atomic import replace_on_success
from v3recon.io.messages import some_of

MAX_BYTES = 1 << 29
"""Larger variables are refused: the largest one of the field's files has 69 MB."""

_COMPRESSED, _MATRIX = 15, 14
_STORED = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4"},
    **{9: "f8", 12: "i8", 13: "u8"},
}
_CLASSES = {
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"},
    **{14: "i8", 15: "u8"},
}
_CLASS_NAMES = {1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 5: "sparse"}
_COMPLEX = 0x800
_HEADER = 128
_START = 4096  # enough for a variable's type, shape and name
_MAX_DIMENSIONS = 32
_CHUNK = 1 << 20


class _MalformedError(ValueError):
    """What is wrong with the file, in one line without its name."""


@dataclass(frozen=True)
class _Variable:
    """Where a variable lies: the bytes of its matrix element follow in `source`."""

    name: str
    class_id: int
    flags: int
    shape: tuple[int, ...]


def read_mat(
    path: str | Path, names: Sequence[str], *, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
    """Read numeric arrays of a MATLAB 5 file (`save -v6` or `-v7`); others are not looked at.

    Args:
        path: the file.
        names: variables to read.
        max_bytes: variables larger than that are refused.

    Returns:
        name -> array of the variable's own type and shape (two or more dimensions).

    Raises:
        ValueError: naming the file, if it is missing, damaged, not of this format, or lacks a
            variable, or if a variable is not an array of real numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    found: dict[str, np.ndarray] = {}
    seen: list[str] = []
    try:
        with path.open("rb") as file:
            order = _byte_order(file.read(_HEADER))
            for variable, source in _variables(file, order, path.stat().st_size):
                seen.append(variable.name)
                if variable.name in names and variable.name not in found:
                    found[variable.name] = _read_values(variable, source, order, max_bytes)
                if len(found) == len(set(names)):
                    break
    except _MalformedError as error:
        raise ValueError(f"{path}: {error}") from None
    except (OSError, zlib.error, struct.error) as error:
        raise ValueError(f"{path}: damaged MATLAB file ({error})") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path}: lacks variable {missing[0]!r}; found: {some_of(seen)}")
    return found


def write_mat(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write numeric arrays as MATLAB 5 variables, whole or not at all.

    Args:
        path: the .mat file; its folder exists.
        arrays: variable to values; arrays of one dimension become rows.

    Raises:
        ValueError: naming an array whose numbers are not finite.
    """
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has values that are not finite")
    with replace_on_success(path) as temporary:
        scipy.io.savemat(str(temporary), dict(arrays), do_compression=True)


def _byte_order(header: bytes) -> str:
    """The sign numpy and struct use for the byte order of a file with this header."""
    if header.startswith(b"MATLAB 7.3"):
        raise _MalformedError("a MATLAB 7.3 file; save it again with `save -v7`")
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    if order is None or struct.unpack(f"{order}H", header[124:126])[0] >> 8 != 1:
        raise _MalformedError("not a MATLAB 5 file")
    return order


class _Plain:
    """Bytes of one element of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Inflated:
    """The same of a compressed element; never more is inflated than is read."""

    def __init__(self, source: _Plain) -> None:
        self._source, self._inflater = source, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size and not self._inflater.eof:
            data = self._inflater.unconsumed_tail or self._source.read(_CHUNK)
            part = self._inflater.decompress(data, min(size, _CHUNK))
            if not data and not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


_Source = _Plain | _Inflated


def _variables(file: BinaryIO, order: str, file_size: int) -> Iterator[tuple[_Variable, _Source]]:
    """Each variable with the source of its values; the file goes on behind it by itself."""
    while True:
        tag = file.read(8)
        if len(tag) < 8:
            return
        kind, size = struct.unpack(f"{order}II", tag)
        start = file.tell()
        if size > file_size - start:
            raise _MalformedError("damaged MATLAB file (it ends inside a variable)")
        source: _Source = _Plain(file, size)
        if kind == _COMPRESSED:
            source = _Inflated(source)
            kind, _ = struct.unpack(f"{order}II", _exactly(source, 8))
        if kind == _MATRIX and size:
            yield _read_head(source, order), source
        file.seek(start + size)


def _exactly(source: _Source, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise _MalformedError("damaged MATLAB file (it ends inside a variable)")
    return data


def _read_tag(source: _Source, order: str) -> tuple[int, int, bytes | None]:
    """Type and size of an element, and its data where they are inside the tag."""
    tag = _exactly(source, 8)
    word, size = struct.unpack(f"{order}II", tag)
    if word >> 16:
        kind, size = word & 0xFFFF, word >> 16
        if size > 4:
            raise _MalformedError("damaged MATLAB file (a short element of more than 4 bytes)")
        return kind, size, tag[4 : 4 + size]
    return word, size, None


def _read_short(source: _Source, order: str, what: str) -> tuple[int, bytes]:
    """Type and bytes of an element that belongs to a variable's head."""
    kind, size, data = _read_tag(source, order)
    if data is not None:
        return kind, data
    if size > _START:
        raise _MalformedError(f"damaged MATLAB file ({what} of {size} bytes)")
    return kind, _exactly(source, size + -size % 8)[:size]


def _read_head(source: _Source, order: str) -> _Variable:
    """Class, shape and name of a variable."""
    _, flags = _read_short(source, order, "flags")
    kind, shape = _read_short(source, order, "a shape")
    if len(flags) != 8 or kind != 5 or len(shape) % 4:
        raise _MalformedError("damaged MATLAB file (a variable without class or shape)")
    sizes = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    if not 2 <= len(sizes) <= _MAX_DIMENSIONS or min(sizes) < 0:
        raise _MalformedError(f"damaged MATLAB file (a variable of shape {sizes[:4]})")
    _, name = _read_short(source, order, "a name")
    word = struct.unpack(f"{order}I", flags[:4])[0]
    return _Variable(name.decode("latin1").rstrip("\0"), word & 0xFF, word, sizes)


def _read_values(variable: _Variable, source: _Source, order: str, max_bytes: int) -> np.ndarray:
    """The array of a variable whose head has been read."""
    name = variable.name
    if variable.class_id not in _CLASSES or variable.flags & _COMPLEX:
        what = _CLASS_NAMES.get(variable.class_id, "not an array of real numbers")
        raise _MalformedError(f"variable {name!r} is {what}, expected real numbers")
    dtype = np.dtype(_CLASSES[variable.class_id])
    count = math.prod(variable.shape)
    if count * dtype.itemsize > max_bytes:
        raise _MalformedError(f"variable {name!r} has {variable.shape}, which is too large")
    kind, size, data = _read_tag(source, order)
    if kind not in _STORED:
        raise _MalformedError(f"variable {name!r} is damaged (numbers of type {kind})")
    stored = np.dtype(order + _STORED[kind])
    if size != count * stored.itemsize:
        raise _MalformedError(
            f"variable {name!r} is damaged ({size} bytes of values for shape {variable.shape})"
        )
    values = np.frombuffer(_exactly(source, size) if data is None else data, stored)
    with np.errstate(all="ignore"):  # out of range: only damaged files store wider numbers
        return np.asarray(values.astype(dtype)).reshape(variable.shape, order="F")
