"""The one file that knows pyarrow, an optional library: tables in Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from v3recon.io.atomic import replace_on_success
from v3recon.io.messages import one_line


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write a table, whole or not at all.

    Args:
        path: the file; its folder exists.
        columns: texts, numbers [N], or arrays [N, …] that become lists of numbers; NaN rows of
            these become missing values.
    """
    arrow, parquet = _library(), _library("pyarrow.parquet")
    table = {name: _column(arrow, values) for name, values in columns.items()}
    with replace_on_success(path) as temporary:
        parquet.write_table(arrow.table(table), temporary, compression="zstd")


def read_column(path: str | Path, name: str) -> list[Any]:
    """One column of a Parquet file.

    Raises:
        ValueError: if the file is damaged or has no such column.
    """
    parquet = _library("pyarrow.parquet")
    try:
        return parquet.read_table(path, columns=[name]).column(name).to_pylist()
    except Exception as error:  # its own kinds, of many bases
        raise ValueError(f"{path} has no readable column {name!r} ({one_line(error)})") from None


def _column(arrow: ModuleType, values: Sequence[Any] | np.ndarray) -> Any:
    if not isinstance(values, np.ndarray) or values.ndim == 1:
        return arrow.array(values)
    flat = values.reshape(len(values), -1)
    missing = np.isnan(flat).all(1)
    # Lists of a fixed size with gaps are refused by readers before pyarrow 26.
    ends = np.cumsum(np.where(missing, 0, flat.shape[1]))
    offsets = arrow.array(np.concatenate([[0], ends]).astype(np.int32))
    numbers = arrow.array(np.ascontiguousarray(flat[~missing]).reshape(-1))
    return arrow.ListArray.from_arrays(offsets, numbers, mask=arrow.array(missing))


def _library(name: str = "pyarrow") -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError("tables need the library pyarrow: pip install 'v3recon[batch]'") from None
    return pyarrow if name == "pyarrow" else pyarrow.parquet
