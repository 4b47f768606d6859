"""Face models with another shape as files that `load_face_model` opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.face_models.photohead import packaged_file
from v3recon.io.arrays import read_npz
from v3recon.io.atomic import replace_on_success


def save_changed_face_model(
    path: str | Path, model: LinearFaceModel, mean: Tensor, id_basis: Tensor, exp_basis: Tensor
) -> LinearFaceModel:
    """Write a face model with another mean and other shape modes, and open it.

    Args:
        path: where to; `.npz` of an open model, `.npy` of an official one. The suffix is set.
        model: all else; loaded by `load_face_model`.
        mean: [Vc, 3] decimetres.
        id_basis: [Vc, 3, Kid].
        exp_basis: [Vc, 3, Kexp].

    Returns:
        The model of the new file, rounded as it is stored. Official models are written in the
        layout of 3DDFA_V3's `face_model.npy`, whatever their file was.

    Raises:
        ValueError: if the shapes are not those of the model, or values are not finite.
        OSError: if the file cannot be written; an old file stays untouched.
    """
    changed = {"mean_shape": mean, "id_basis": id_basis, "exp_basis": exp_basis}
    for key, value in changed.items():
        expected = tuple(getattr(model, key).shape)
        if tuple(value.shape) != expected or not bool(value.isfinite().all()):
            raise ValueError(f"{key} must be finite values {expected}, got {tuple(value.shape)}")
    new = {key: value.detach().cpu().numpy() for key, value in changed.items()}
    path = Path(path).with_suffix(".npy" if model.name == "bfm" else ".npz")
    if model.name == "bfm":
        layout = official_arrays(model)
        for key, name in (("mean_shape", "u"), ("id_basis", "id"), ("exp_basis", "exp")):
            layout[name] = new[key].reshape(layout[name].shape)
        write_official_arrays(path, layout)
    else:
        arrays = _stored(model)
        arrays |= {key: value.astype(arrays[key].dtype) for key, value in new.items()}
        write_open_arrays(path, arrays)
    return load_face_model(model.name, path)


def write_official_arrays(path: str | Path, arrays: dict[str, Any]) -> None:
    """Write the keys of 3DDFA_V3's `face_model.npy`; whole or not at all."""
    with replace_on_success(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.array(arrays, dtype=object), allow_pickle=True)


def write_open_arrays(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays of an open model's `.npz`; whole or not at all."""
    with replace_on_success(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # pyright: ignore[reportArgumentType]


def official_arrays(model: LinearFaceModel) -> dict[str, Any]:
    """The 14 keys of `face_model.npy` (docs/conventions.md) of a model without subdivision."""
    assert model.subdivision is None and model.albedo_subdivision is None, model.name
    vertices, labels = model.vertex_count, model.part_labels
    parts = range(1, len(PART_NAMES) + 1)
    return {
        "u": _columns(model.mean_shape, 1),
        "id": _columns(model.id_basis, model.sizes[0]),
        "exp": _columns(model.exp_basis, model.sizes[1]),
        "u_alb": _columns(model.mean_albedo * 255, 1),
        "alb": _columns(model.alb_basis * 255, model.sizes[2]),
        "tri": model.faces.cpu().numpy(),
        "point_buf": model.vertex_faces.cpu().numpy(),
        "uv_coords": model.uv_coords.cpu().numpy().reshape(vertices, 2),
        "ldm68": model.landmarks_68.cpu().numpy(),
        "ldm106": model.landmarks_106.cpu().numpy(),
        "ldm134": model.landmarks_134.cpu().numpy(),
        "annotation": [torch.nonzero(labels == part)[:, 0].tolist() for part in parts],
        "annotation_tri": [faces.cpu().numpy() for faces in model.part_faces],
        "parallel": [line[line >= 0].tolist() for line in model.contour_lines],
    }


def _columns(values: Tensor, count: int) -> np.ndarray:
    return values.cpu().numpy().reshape(-1, count)


def _stored(model: LinearFaceModel) -> dict[str, np.ndarray]:
    """The arrays of the file that an open model was loaded from."""
    name, file = model.source or (model.name, None)
    if file is None and Path(name).suffix == ".npz":
        file = name
    if file is not None:
        return read_npz(file)
    with packaged_file() as default:
        return read_npz(default)
