"""The embedded open face model, see docs/photoface.md."""

from __future__ import annotations

import warnings
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import PART_NAMES, FaceModelData, LinearFaceModel
from v3recon.io.arrays import read_npz
from v3recon.io.messages import one_line

FORMAT_VERSION = 1
_REQUIRED = (
    "format_version",
    "mean_shape",
    "id_basis",
    "exp_basis",
    "mean_albedo",
    "alb_basis",
    "faces",
    "part_labels",
    "landmarks_68",
    "landmarks_106",
    "landmarks_134",
    "contour_lines",
    "uv_coords",
    "mirror",
    "expression_names",
    "expression_coeffs",
    "subdivision_data",
    "subdivision_indices",
    "subdivision_indptr",
)


def load_photoface(path: str | Path | None = None) -> LinearFaceModel:
    """Load a PhotoFace file (`.npz` without pickles).

    Args:
        path: a PhotoFace file; default the one in the package.

    Raises:
        ValueError: if the file is absent, unreadable or not a PhotoFace model.
    """
    data = read_photoface(path)
    try:
        return LinearFaceModel(data)
    except (ValueError, RuntimeError, IndexError) as error:  # RuntimeError: of sparse operators
        raise ValueError(f"{path or 'the model'} is damaged ({one_line(error)})") from None


def read_photoface(path: str | Path | None = None) -> FaceModelData:
    """The contents of a PhotoFace file; see `load_photoface`."""
    if path is None:
        source = resources.files("v3recon.face_models") / "data" / "photoface.npz"
        with resources.as_file(source) as default:
            return _read(Path(default))
    return _read(Path(path))


def _read(path: Path) -> FaceModelData:
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise ValueError(f"cannot read the face model {error}") from None
    missing = [key for key in _REQUIRED if key not in arrays]
    if missing:
        raise ValueError(f"{path} is not a PhotoFace model: it lacks {', '.join(missing)}")
    version = arrays["format_version"].tolist()
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {one_line(version)}, this version reads {FORMAT_VERSION}; "
            "rebuild it with `v3recon build-face-model`"
        )
    try:
        return _to_data(arrays)
    except (KeyError, ValueError, RuntimeError, IndexError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error)})") from None


def _to_data(arrays: dict[str, np.ndarray]) -> FaceModelData:
    faces = _index(arrays["faces"])
    labels = torch.from_numpy(arrays["part_labels"].astype(np.uint8))
    names = [str(name) for name in arrays["expression_names"]]
    expressions = _float(arrays["expression_coeffs"])
    return FaceModelData(
        name="photoface",
        mean_shape=_float(arrays["mean_shape"]),
        id_basis=_float(arrays["id_basis"]),
        exp_basis=_float(arrays["exp_basis"]),
        mean_albedo=_float(arrays["mean_albedo"]),
        alb_basis=_float(arrays["alb_basis"]),
        faces=faces,
        part_labels=labels,
        part_faces=_part_faces(faces, labels),
        landmarks_68=_index(arrays["landmarks_68"]),
        landmarks_106=_index(arrays["landmarks_106"]),
        landmarks_134=_index(arrays["landmarks_134"]),
        contour_lines=tuple(line[line >= 0] for line in _index(arrays["contour_lines"])),
        uv_coords=_float(arrays["uv_coords"]),
        subdivision=_operator(arrays, "subdivision", len(arrays["mean_shape"])),
        albedo_subdivision=(
            _operator(arrays, "albedo_subdivision", len(arrays["mean_albedo"]))
            if "albedo_subdivision_data" in arrays
            else None
        ),
        named_expressions=dict(zip(names, expressions, strict=True)),
        mirror=_index(arrays["mirror"]),
    )


def _part_faces(faces: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Triangles whose three vertices share a part; those across a border belong to none."""
    corner = labels[faces]
    inside = (corner == corner[:, :1]).all(1)
    return tuple(faces[inside & (corner[:, 0] == part + 1)] for part in range(len(PART_NAMES)))


def _operator(arrays: dict[str, np.ndarray], prefix: str, columns: int) -> Tensor:
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


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _index(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
