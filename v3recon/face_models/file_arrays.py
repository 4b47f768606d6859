"""Arrays of open model files as tensors."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import PART_NAMES


def faces_of_parts(faces: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Triangles whose three vertices share a part; those across a border belong to none."""
    corner = labels[faces]
    inside = (corner == corner[:, :1]).all(1)
    return tuple(faces[inside & (corner[:, 0] == part + 1)] for part in range(len(PART_NAMES)))


def sparse_operator(arrays: dict[str, np.ndarray], prefix: str, columns: int) -> Tensor:
    """The CSR matrix of `prefix`_data, _indices and _indptr."""
    indptr = arrays[f"{prefix}_indptr"].astype(np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")  # torch says beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(indptr),
            torch.from_numpy(arrays[f"{prefix}_indices"].astype(np.int64)),
            torch.from_numpy(arrays[f"{prefix}_data"].astype(np.float32)),
            size=(len(indptr) - 1, columns),
            check_invariants=True,
        )


def float_tensor(array: np.ndarray) -> Tensor:
    """The array in single precision."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def index_tensor(array: np.ndarray) -> Tensor:
    """The array as 64-bit integers."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
