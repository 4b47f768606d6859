"""Read pickled numpy arrays without running anything that the file asks for.

The unpickler knows five names of numpy and gives each a plain Python stand-in that checks what
it is handed. Not even numpy's own reconstruction runs: its C code crashes on damaged states.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_PLAIN_KINDS = "biufSU"  # booleans, whole numbers, floats, bytes, text
_OBJECT = "O"
_BYTE_ORDERS = "<>=|"
_LONGEST_LINE = 1 << 20  # bytes


class _NotAllowedError(ValueError):
    """The file holds something that is damaged or not admitted; one line says what."""


def read_pickled_dict(path: str | Path) -> dict[str, Any]:
    """Read a `.npy` file that holds one pickled dict of arrays, lists, numbers and text.

    Args:
        path: file written by `numpy.save` of a dict, by numpy 1 or 2.

    Returns:
        The dict; tuples inside have become lists.

    Raises:
        ValueError: if the file is missing, damaged, or asks for anything but numpy arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            value = _read_object(file)
    except _NotAllowedError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: damaged pickle ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds {type(value).__name__}, expected a dict of arrays")
    return value


def _read_object(file: BinaryIO) -> Any:
    """The single object inside a `.npy` file."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
    except Exception:  # numpy parses the header as Python text, and damage can be anywhere in it
        raise _NotAllowedError("not a .npy file") from None
    if not dtype.hasobject or math.prod(shape) != 1:
        raise _NotAllowedError(f"holds a {dtype} array {shape}, expected one pickled dict")
    value = _resolve(_Unpickler(_Bounded(file), encoding="latin1").load())
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value


class _Dtype:
    """Stand-in for `numpy.dtype`: plain number types and objects, no structures."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = str(name)
        self.byte_order = "="

    def __setstate__(self, state: Any) -> None:
        _, byte_order, *structure = state
        if byte_order not in _BYTE_ORDERS or any(item is not None for item in structure[:3]):
            raise _NotAllowedError("refused: the pickle holds a structured array")
        self.byte_order = byte_order

    def resolve(self) -> np.dtype:
        """The numpy type."""
        dtype = np.dtype(self.name)
        if dtype.fields is not None or dtype.kind not in _PLAIN_KINDS + _OBJECT:
            raise _NotAllowedError(f"refused: the pickle holds an array of {self.name!r}")
        return dtype.newbyteorder(self.byte_order)  # pyright: ignore[reportArgumentType]


class _Array:
    """Stand-in for an array that is being rebuilt; `resolve` gives the array."""

    def __init__(self) -> None:
        self.parts: tuple[Any, Any, Any, bool] | None = None

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran_order, data = state[-4:]
        self.parts = (data, dtype, shape, bool(fortran_order))

    def resolve(self) -> np.ndarray:
        """The array, checked against the data that is there."""
        if self.parts is None:
            raise _NotAllowedError("damaged pickle: an array without contents")
        data, dtype, shape, fortran_order = self.parts
        return _array_of(data, dtype, shape, "F" if fortran_order else "C")


class _NdArray:
    """Stand-in for the class `numpy.ndarray`, which pickles name but need not build."""


def _array_of(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """Array of raw bytes, or of a list of objects."""
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise _NotAllowedError("damaged pickle: an array without type or shape")
    kind = dtype.resolve()
    if kind.kind == _OBJECT:
        if not isinstance(data, list):
            raise _NotAllowedError("damaged pickle: an object array without objects")
        array = np.full(len(data), None, dtype=object)
        for index, item in enumerate(data):
            array[index] = _resolve(item)
    else:
        if isinstance(data, str):  # Python 2 wrote bytes as text
            data = data.encode("latin1")
        if not isinstance(data, bytes | bytearray):
            raise _NotAllowedError("damaged pickle: an array without data")
        array = np.frombuffer(data, dtype=kind).copy()
    if any(not isinstance(size, int) or size < 0 for size in shape):
        raise _NotAllowedError("damaged pickle: an array with an impossible shape")
    if math.prod(shape) != array.size:
        raise _NotAllowedError(f"damaged pickle: {array.size} values for an array of shape {shape}")
    return array.reshape(shape, order=order)  # type: ignore[call-overload]


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> np.ndarray:
    return _array_of(data, dtype, shape, order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return _array_of(data, dtype, (1,), "C")[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What old pickles call to make bytes; only the one encoding that pickle itself uses."""
    if encoding not in ("latin1", "latin-1"):
        raise _NotAllowedError(f"refused: the pickle asks for the text encoding {encoding!r}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Bounded:
    """A file that is never asked for more bytes than it has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        start = file.tell()
        self._left = file.seek(0, 2) - start
        file.seek(start)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise _NotAllowedError("damaged pickle: it ends too early")
        self._left -= size
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[:] = data
        return len(data)

    def readline(self) -> bytes:
        data = self._file.readline(_LONGEST_LINE)
        self._left -= len(data)
        return data


# Python's own class, not the compiled one: that sizes a table by numbers of the file.
class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Admits what numpy arrays, scalars, lists, tuples and dicts need, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise _NotAllowedError(
                f"refused: the pickle asks for {module}.{name}, which is no array; "
                "the file may be malicious"
            )
        return stand_in


def _resolve(value: Any) -> Any:
    """The value with every stand-in replaced by what it stands for."""
    if isinstance(value, _Array):
        return value.resolve()
    if isinstance(value, dict):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | int | float | str | bytes | None):
        return value
    raise _NotAllowedError(f"refused: the pickle holds {type(value).__name__}, which is no array")
