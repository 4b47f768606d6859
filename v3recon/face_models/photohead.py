"""The embedded open head model, see docs/photohead.md."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v3recon.face_models.albedo_texture import AlbedoTexture
from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.face_models.file_arrays import (
    faces_of_parts,
    float_tensor,
    index_tensor,
    sparse_operator,
)
from v3recon.face_models.linear_face_model import (
    FaceModelData,
    LinearFaceModel,
    SurfacePoints,
)
from v3recon.io.arrays import read_npz
from v3recon.io.messages import one_line

FORMAT_VERSION = 1
_REQUIRED = (
    "format_version",
    "mean_shape",
    "id_basis",
    "exp_basis",
    "expression_names",
    "exp_sigma",
    "albedo_mean",
    "albedo_fine",
    "albedo_fine_unit",
    "albedo_coarse",
    "albedo_coarse_unit",
    "faces",
    "part_labels",
    "group_labels",
    "landmarks_68",
    "landmarks_106",
    "landmarks_134",
    "contour_lines",
    "uv_coords",
    "mirror",
    "detector_vertices",
    "detector_weights",
    "subdivision_data",
    "subdivision_indices",
    "subdivision_indptr",
)
_NAMED = {
    "eyes_closed": ("eyeBlinkLeft", "eyeBlinkRight"),
    "left_eye_closed": ("eyeBlinkLeft",),
    "right_eye_closed": ("eyeBlinkRight",),
    "mouth_open": ("jawOpen",),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "brows_raised": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "frown": ("browDownLeft", "browDownRight"),
    "pucker": ("mouthPucker",),
}
_NAMED |= {
    "neutral": (),
    "mouth_round": ("mouthFunnel",),
    "corners_down": ("mouthFrownLeft", "mouthFrownRight"),
    "jaw_left": ("jawLeft",),
    "jaw_right": ("jawRight",),
    "left_smile": ("mouthSmileLeft",),
    "right_smile": ("mouthSmileRight",),
    "left_brow_raised": ("browOuterUpLeft",),
    "right_brow_raised": ("browOuterUpRight",),
    "smile_open": ("mouthSmileLeft", "mouthSmileRight", "jawOpen"),
    "mouth_open_eyes_closed": ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight"),
}
_PARTIAL = {"jawOpen": 0.6}
"""Weight of a shape in a named expression where the whole is more than people do."""


def load_photohead(path: str | Path | None = None) -> LinearFaceModel:
    """Load a PhotoHead file (`.npz` without pickles).

    Args:
        path: a file made by `v3recon build-face-model`; default the one in the package.

    Raises:
        ValueError: if the file is absent, unreadable or not a PhotoHead model.
    """
    data = read_photohead(path)
    try:
        return LinearFaceModel(data)
    except (ValueError, RuntimeError, IndexError) as error:  # RuntimeError: of sparse operators
        raise ValueError(f"{path or 'the model'} is damaged ({one_line(error)})") from None


def packaged_file() -> AbstractContextManager[Path]:
    """The PhotoHead file in the package, a path while the context is open."""
    return resources.as_file(resources.files("v3recon.face_models") / "data" / "photohead.npz")


def read_photohead(path: str | Path | None = None) -> FaceModelData:
    """The contents of a PhotoHead file; see `load_photohead`."""
    if path is None:
        with packaged_file() as default:
            return _read(default)
    return _read(Path(path))


def _read(path: Path) -> FaceModelData:
    return model_data(read_npz(path), str(path))


def model_data(arrays: dict[str, np.ndarray], path: str = "the model") -> FaceModelData:
    """The contents of a PhotoHead file from its arrays.

    Args:
        arrays: as `v3recon.photohead` makes them.
        path: what an error message calls them.

    Raises:
        ValueError: if an array is missing or of another version.
    """
    missing = [key for key in _REQUIRED if key not in arrays]
    if missing:
        raise ValueError(f"{path} is not a PhotoHead model: it lacks {', '.join(missing)}")
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
    uv_coords = float_tensor(arrays["uv_coords"])
    albedo = read_albedo_texture(arrays)
    mean_albedo, alb_basis = albedo.at(uv_coords)
    labels = torch.from_numpy(arrays["part_labels"].astype(np.uint8))
    names = tuple(str(name) for name in arrays["expression_names"])
    bounds = torch.full((len(names), 2), torch.inf)
    bounds[:, 0] = -torch.inf
    bounds[: len(ARKIT_NAMES)] = torch.tensor([0.0, 1.0])
    return FaceModelData(
        name="photohead",
        mean_shape=float_tensor(arrays["mean_shape"]),
        id_basis=float_tensor(arrays["id_basis"]),
        exp_basis=float_tensor(arrays["exp_basis"]),
        mean_albedo=mean_albedo,
        alb_basis=alb_basis,
        faces=faces,
        part_labels=labels,
        part_faces=faces_of_parts(faces, labels),
        landmarks_68=index_tensor(arrays["landmarks_68"]),
        landmarks_106=index_tensor(arrays["landmarks_106"]),
        landmarks_134=index_tensor(arrays["landmarks_134"]),
        contour_lines=tuple(line[line >= 0] for line in index_tensor(arrays["contour_lines"])),
        uv_coords=uv_coords,
        subdivision=sparse_operator(arrays, "subdivision", len(arrays["mean_shape"])),
        named_expressions=_named_expressions(names),
        mirror=index_tensor(arrays["mirror"]),
        exp_names=names,
        exp_sigma=float_tensor(arrays["exp_sigma"]),
        exp_bounds=bounds,
        detector_points=SurfacePoints(
            index_tensor(arrays["detector_vertices"]), float_tensor(arrays["detector_weights"])
        ),
        group_labels=torch.from_numpy(arrays["group_labels"].astype(np.uint8)),
        albedo_texture=albedo,
    )


def read_albedo_texture(arrays: dict[str, np.ndarray]) -> AlbedoTexture:
    """The albedo of a PhotoHead file in texture space."""
    return AlbedoTexture(
        mean=torch.from_numpy(np.ascontiguousarray(arrays["albedo_mean"].transpose(2, 0, 1))),
        fine=torch.from_numpy(arrays["albedo_fine"]),
        fine_unit=float_tensor(arrays["albedo_fine_unit"]),
        coarse=torch.from_numpy(arrays["albedo_coarse"]),
        coarse_unit=float_tensor(arrays["albedo_coarse_unit"]),
    )


def _named_expressions(names: tuple[str, ...]) -> dict[str, Tensor]:
    """Common expressions as ARKit weights."""
    result = {}
    for name, shapes in _NAMED.items():
        weights = torch.zeros(len(names))
        for shape in shapes:
            weights[names.index(shape)] = _PARTIAL.get(shape, 1.0)
        result[name] = weights
    return result
