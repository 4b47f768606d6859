"""Label arrays of face models: one number a vertex, 0 none, 1…8 the parts in PART_NAMES order."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.io.arrays import read_npy
from v3recon.io.atomic import replace_on_success, write_text_atomic

Labels = npt.NDArray[np.uint8]

CSV_HEADER = ("vertex", "label")


def read_labels(path: str | Path, vertex_count: int | None = None) -> Labels:
    """Read `.npy` (integers [V]) or `.csv` (columns vertex,label; every vertex once).

    Args:
        path: the file.
        vertex_count: V that is expected; default any.

    Returns:
        [V] uint8, 0…8.

    Raises:
        ValueError: if the file is unreadable or its labels are not of that form.
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: labels are read from .npy and .csv files")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return check_labels(readers[path.suffix.lower()](path), vertex_count)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None


def write_labels(path: str | Path, labels: npt.NDArray[np.integer]) -> None:
    """Write labels [V] as `.npy` (uint8) or `.csv`, by the suffix.

    Raises:
        ValueError: for another suffix or labels outside 0…8.
    """
    path = Path(path)
    labels = check_labels(labels)
    if path.suffix.lower() == ".npy":
        with replace_on_success(path) as temporary, temporary.open("wb") as file:
            np.save(file, labels, allow_pickle=False)
    elif path.suffix.lower() == ".csv":
        rows = "\n".join(f"{vertex},{label}" for vertex, label in enumerate(labels.tolist()))
        write_text_atomic(path, ",".join(CSV_HEADER) + "\n" + rows + "\n")
    else:
        raise ValueError(f"{path}: labels are written to .npy and .csv files")


def check_labels(labels: npt.NDArray, vertex_count: int | None = None) -> Labels:
    """The same labels as uint8.

    Args:
        labels: any array.
        vertex_count: expected length; default any.

    Raises:
        ValueError: if they are not [V] integers in 0…8, or of another length.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be a list of integers, not {labels.dtype} {labels.shape}")
    if vertex_count is not None and len(labels) != vertex_count:
        raise ValueError(f"{len(labels)} labels for a face model of {vertex_count} vertices")
    if len(labels) == 0:
        raise ValueError("there are no labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > len(PART_NAMES):
        raise ValueError(f"labels {low}…{high}; they must be 0 (none) to {len(PART_NAMES)}")
    return labels.astype(np.uint8)


def _read_npy(path: Path) -> npt.NDArray:
    return np.atleast_1d(read_npy(path))


def _read_csv(path: Path) -> npt.NDArray[np.int64]:
    """Rows in any order; the vertices must be exactly 0…V-1."""
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    if not rows or tuple(cell.strip() for cell in rows[0]) != CSV_HEADER:
        raise ValueError(f"the first line must be {','.join(CSV_HEADER)}")
    pairs = [row for row in rows[1:] if row]
    if any(len(row) != 2 for row in pairs):
        raise ValueError("every line must have a vertex and a label")
    table = np.array([[int(cell) for cell in row] for row in pairs], np.int64).reshape(-1, 2)
    order = np.argsort(table[:, 0], kind="stable")
    if not np.array_equal(table[order, 0], np.arange(len(table))):
        raise ValueError(f"the vertices must be 0…{len(table) - 1}, each once")
    return table[order, 1]
