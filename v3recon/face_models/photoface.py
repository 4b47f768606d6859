"""The embedded open face model, see docs/photoface.md."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch

from v3recon.face_models.file_arrays import (
    faces_of_parts,
    float_tensor,
    index_tensor,
    sparse_operator,
)
from v3recon.face_models.linear_face_model import FaceModelData, LinearFaceModel
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
    faces = index_tensor(arrays["faces"])
    labels = torch.from_numpy(arrays["part_labels"].astype(np.uint8))
    names = [str(name) for name in arrays["expression_names"]]
    expressions = float_tensor(arrays["expression_coeffs"])
    return FaceModelData(
        name="photoface",
        mean_shape=float_tensor(arrays["mean_shape"]),
        id_basis=float_tensor(arrays["id_basis"]),
        exp_basis=float_tensor(arrays["exp_basis"]),
        mean_albedo=float_tensor(arrays["mean_albedo"]),
        alb_basis=float_tensor(arrays["alb_basis"]),
        faces=faces,
        part_labels=labels,
        part_faces=faces_of_parts(faces, labels),
        landmarks_68=index_tensor(arrays["landmarks_68"]),
        landmarks_106=index_tensor(arrays["landmarks_106"]),
        landmarks_134=index_tensor(arrays["landmarks_134"]),
        contour_lines=tuple(line[line >= 0] for line in index_tensor(arrays["contour_lines"])),
        uv_coords=float_tensor(arrays["uv_coords"]),
        subdivision=sparse_operator(arrays, "subdivision", len(arrays["mean_shape"])),
        albedo_subdivision=(
            sparse_operator(arrays, "albedo_subdivision", len(arrays["mean_albedo"]))
            if "albedo_subdivision_data" in arrays
            else None
        ),
        named_expressions=dict(zip(names, expressions, strict=True)),
        mirror=index_tensor(arrays["mirror"]),
    )
