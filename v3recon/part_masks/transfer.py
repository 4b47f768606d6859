"""Part labels from one cut of a mesh to another.

The official assets link the four BFM cuts by files `indices_A_B.npy`, A and B vertex counts, ids
from 0. Their layout is not documented, so the three that make sense are told apart by shape and
range: [B] ids of A (vertex b of the small cut is vertex indices[b] of the large one), [A] ids of
B with -1 where there is none, and [N, 2] pairs.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from v3recon.io.arrays import read_npy
from v3recon.part_masks.labels import Labels, check_labels

Pairs = npt.NDArray[np.int64]


def read_indices(path: str | Path) -> tuple[Pairs, int, int]:
    """Read an `indices_A_B.npy` file.

    Returns:
        pairs [N, 2] of corresponding vertices (of A, of B), and the counts A and B.

    Raises:
        ValueError: if the name does not hold A and B or the contents do not fit them.
    """
    path = Path(path)
    match = re.fullmatch(r"indices_(\d+)_(\d+)\.npy", path.name)
    if match is None:
        raise ValueError(f"{path}: the name must be indices_A_B.npy with A and B vertex counts")
    indices = read_npy(path)
    try:
        return pairs_of(indices, int(match[1]), int(match[2])), int(match[1]), int(match[2])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def pairs_of(indices: npt.NDArray, count_a: int, count_b: int) -> Pairs:
    """Corresponding vertices [N, 2] (of A, of B) of an index array in any of the three layouts.

    Raises:
        ValueError: if it fits none.
    """
    if not np.issubdtype(indices.dtype, np.number) or not (indices == np.floor(indices)).all():
        raise ValueError("the indices must be whole numbers")
    indices = indices.astype(np.int64)
    if indices.ndim == 2 and 1 in indices.shape:
        indices = indices.reshape(-1)
    if indices.ndim == 2 and indices.shape[1] == 2:
        pairs = indices
    elif indices.ndim == 1 and len(indices) == count_b and indices.max(initial=0) < count_a:
        pairs = np.stack([indices, np.arange(count_b)], 1)
    elif indices.ndim == 1 and len(indices) == count_a and indices.max(initial=0) < count_b:
        pairs = np.stack([np.arange(count_a), indices], 1)
    else:
        raise ValueError(
            f"indices of shape {indices.shape} with values up to {indices.max(initial=0)} link no "
            f"meshes of {count_a} and {count_b} vertices"
        )
    pairs = pairs[(pairs >= 0).all(1)]  # -1: no counterpart
    if len(pairs) and (pairs.max(0) >= [count_a, count_b]).any():
        raise ValueError(f"vertex ids up to {pairs.max(0)}, counts are {count_a} and {count_b}")
    return pairs


def transfer_labels(
    labels: Labels,
    pairs: Pairs,
    target_count: int,
    source_shape: npt.NDArray | None = None,
    target_shape: npt.NDArray | None = None,
) -> Labels:
    """Carry labels to another cut.

    Args:
        labels: [Vs] of the source cut.
        pairs: [N, 2] corresponding vertices (source, target).
        target_count: Vt.
        source_shape: [Vs, 3] mean shape; with both shapes, target vertices without a counterpart
            take the label of the nearest source vertex, else 0.
        target_shape: [Vt, 3] mean shape, same frame.

    Returns:
        [Vt] uint8.

    Raises:
        ValueError: if a target vertex has source counterparts with different labels, or the
            lengths disagree.
    """
    labels = check_labels(labels)
    if len(pairs) and pairs[:, 0].max() >= len(labels):
        raise ValueError(f"a vertex id {pairs[:, 0].max()} for {len(labels)} labels")
    given = labels[pairs[:, 0]]
    result = np.zeros(target_count, np.uint8)
    result[pairs[:, 1]] = given
    if (result[pairs[:, 1]] != given).any():
        raise ValueError("vertices with several counterparts of different labels; not transferable")
    missing = np.setdiff1d(np.arange(target_count), pairs[:, 1])
    if len(missing) and source_shape is not None and target_shape is not None:
        if len(source_shape) != len(labels) or len(target_shape) != target_count:
            raise ValueError(
                f"mean shapes of {len(source_shape)} and {len(target_shape)} vertices for "
                f"{len(labels)} and {target_count} labels"
            )
        _, nearest = KDTree(source_shape).query(target_shape[missing])
        result[missing] = labels[nearest]
    return result


def transfer_nearest(
    labels: Labels, source_shape: npt.NDArray, target_shape: npt.NDArray
) -> Labels:
    """Labels of the nearest source vertices, for meshes in one frame without an index file."""
    no_pairs = np.zeros((0, 2), np.int64)
    return transfer_labels(labels, no_pairs, len(target_shape), source_shape, target_shape)
