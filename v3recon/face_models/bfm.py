"""The official 3DDFA_V3 face model, `face_model.npy`: a pickled dict, read without trusting it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import PART_NAMES, FaceModelData, LinearFaceModel
from v3recon.face_models.restricted_pickle import read_pickled_dict
from v3recon.io.mat import read_mat
from v3recon.io.messages import some_of

Arrays = dict[str, Any]

CONTOUR_LINES = 33
_FAR = 1e4  # decimetres; no face is that large
LANDMARK_SETS = {"ldm68": 68, "ldm106": 106, "ldm134": 134}


def load_bfm(path: str | Path) -> LinearFaceModel:
    """Load the official face model with part masks (or any dict of the same layout).

    Any number of vertices and coefficients; float32 or float64, int32 or int64, lists or
    object arrays. Nothing in the file can run code: see `restricted_pickle`.

    Args:
        path: `face_model.npy`.

    Returns:
        The model, named "bfm"; albedo is divided by 255.

    Raises:
        ValueError: if the file is missing, not such a file, or a key is missing or malformed.
    """
    arrays = read_pickled_dict(path)  # its errors name the path
    try:
        return bfm_from_arrays(arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def bfm_from_arrays(arrays: Arrays) -> LinearFaceModel:
    """Face model of a dict in the layout of `face_model.npy`.

    Args:
        arrays: the 14 keys of docs/conventions.md; others are ignored.

    Returns:
        The model, named "bfm".

    Raises:
        ValueError: naming the key that is missing or malformed and what was expected.
    """
    mean_shape = _points(arrays, "u")
    vertex_count = len(mean_shape)
    faces = _indices(arrays, "tri", vertex_count, columns=3)
    face_count = len(faces)
    part_labels, part_faces = _parts(arrays, vertex_count)
    parallel = _lists(arrays, "parallel", CONTOUR_LINES)
    landmarks = {
        key: _indices(arrays, key, vertex_count, length=length)
        for key, length in LANDMARK_SETS.items()
    }
    return LinearFaceModel(
        FaceModelData(
            name="bfm",
            mean_shape=mean_shape,
            id_basis=_basis(arrays, "id", vertex_count),
            exp_basis=_basis(arrays, "exp", vertex_count),
            mean_albedo=_points(arrays, "u_alb", vertex_count) / 255,
            alb_basis=_basis(arrays, "alb", vertex_count) / 255,
            faces=faces,
            # Faces are counted from 0 and the row is filled up with F, an appended zero normal.
            vertex_faces=_indices(arrays, "point_buf", face_count + 1, rows=vertex_count),
            part_labels=part_labels,
            part_faces=part_faces,
            landmarks_68=landmarks["ldm68"],
            landmarks_106=landmarks["ldm106"],
            landmarks_134=landmarks["ldm134"],
            contour_lines=tuple(
                _index_tensor(f"parallel[{i}]", line, vertex_count)
                for i, line in enumerate(parallel)
            ),
            uv_coords=_uv(arrays, vertex_count),
        )
    )


def load_similarity_landmarks(path: str | Path) -> Tensor:
    """The five 3D points of the five-point crop, from `similarity_Lm3D_all.mat`.

    Args:
        path: the official file; `lm` holds 68 landmarks.

    Returns:
        [5, 3] eyes, nose, mouth corners, viewer's left first; model frame, decimetres.

    Raises:
        ValueError: if the file is missing or malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; it is part of the official 3DDFA_V3 assets")
    points = read_mat(path, ["lm"])["lm"]
    if points.shape != (68, 3) or not (np.abs(points) < _FAR).all():
        raise ValueError(f"{path}: 'lm' is {points.dtype} {points.shape}, expected (68, 3) numbers")
    return five_points(torch.from_numpy(points.astype(np.float32)))


def five_points(landmarks_68: Tensor) -> Tensor:
    """Eye centres, nose tip and mouth corners of 68 landmarks, viewer's left first.

    The eyes are the means of their two corners, as in 3DDFA_V3's crop.

    Args:
        landmarks_68: [..., 68, D].

    Returns:
        [..., 5, D].
    """
    assert landmarks_68.shape[-2] == 68, landmarks_68.shape
    point = landmarks_68.unbind(-2)
    left_of_image = (point[36] + point[39]) / 2
    right_of_image = (point[42] + point[45]) / 2
    return torch.stack([left_of_image, right_of_image, point[30], point[48], point[54]], -2)


def _value(arrays: Arrays, key: str) -> Any:
    if key not in arrays:
        raise ValueError(f"key {key!r} is missing; found: {some_of(arrays)}")
    return arrays[key]


def _numbers(key: str, value: Any, kind: str) -> np.ndarray:
    """Numeric array of lists or object arrays; `kind` is "f" (float32) or "i" (int64)."""
    try:
        array = np.asarray(value)
        if array.dtype.hasobject:
            nested = [np.asarray(item) for item in array.reshape(-1)]
            array = np.array(nested).reshape(*array.shape, *nested[0].shape)
        wanted = np.float32 if kind == "f" else np.int64
        converted = array.astype(wanted)
    except (ValueError, TypeError, IndexError):
        raise ValueError(f"key {key!r} is not an array of numbers") from None
    if kind == "f" and not np.isfinite(converted).all():
        raise ValueError(f"key {key!r} has values that are not finite")
    if kind == "i" and array.dtype.kind not in "iu" and not np.array_equal(array, converted):
        raise ValueError(f"key {key!r} holds {array.dtype}, expected whole numbers")
    return converted


def _points(arrays: Arrays, key: str, vertex_count: int | None = None) -> Tensor:
    """[V, 3] of a flattened (3V, 1) array."""
    array = _numbers(key, _value(arrays, key), "f")
    expected = "(3V, 1)" if vertex_count is None else f"({3 * vertex_count}, 1)"
    size_wrong = vertex_count is not None and array.size != 3 * vertex_count
    if array.size == 0 or array.size % 3 or size_wrong or max(array.shape) != array.size:
        raise ValueError(f"key {key!r} is {array.shape}, expected {expected}")
    return torch.from_numpy(array.reshape(-1, 3))


def _basis(arrays: Arrays, key: str, vertex_count: int) -> Tensor:
    """[V, 3, K] of a (3V, K) array."""
    array = _numbers(key, _value(arrays, key), "f")
    if array.ndim != 2 or array.shape[0] != 3 * vertex_count or array.shape[1] == 0:
        raise ValueError(f"key {key!r} is {array.shape}, expected ({3 * vertex_count}, K)")
    return torch.from_numpy(np.ascontiguousarray(array).reshape(vertex_count, 3, -1))


def _uv(arrays: Arrays, vertex_count: int) -> Tensor:
    """[V, 2]; a third column, which upstream's comment mentions, is ignored."""
    array = _numbers("uv_coords", _value(arrays, "uv_coords"), "f")
    if array.ndim != 2 or array.shape[0] != vertex_count or array.shape[1] not in (2, 3):
        raise ValueError(f"key 'uv_coords' is {array.shape}, expected ({vertex_count}, 2)")
    return torch.from_numpy(np.ascontiguousarray(array[:, :2]))


def _index_tensor(key: str, value: Any, count: int) -> Tensor:
    """Flat [N] int64 ids in 0…count - 1."""
    array = _numbers(key, value, "i").reshape(-1)
    if array.size and (array.min() < 0 or array.max() >= count):
        raise ValueError(f"key {key!r} has ids {array.min()}…{array.max()}, expected 0…{count - 1}")
    return torch.from_numpy(np.ascontiguousarray(array))


def _indices(
    arrays: Arrays,
    key: str,
    count: int,
    *,
    rows: int | None = None,
    columns: int | None = None,
    length: int | None = None,
) -> Tensor:
    """Ids below `count` of the wanted shape: [length], or [rows, columns]."""
    array = _numbers(key, _value(arrays, key), "i")
    if length is not None:
        if array.size != length:
            raise ValueError(f"key {key!r} is {array.shape}, expected ({length},)")
        return _index_tensor(key, array, count)
    wrong_columns = array.ndim != 2 or (columns is not None and array.shape[1] != columns)
    if wrong_columns or len(array) == 0 or (rows is not None and len(array) != rows):
        expected = f"({rows or 'F'}, {columns or 'N'})"
        raise ValueError(f"key {key!r} is {array.shape}, expected {expected}")
    return _index_tensor(key, array, count).reshape(array.shape)


def _lists(arrays: Arrays, key: str, count: int) -> list[Any]:
    value = _value(arrays, key)
    if not isinstance(value, list | tuple | np.ndarray) or len(value) != count:
        found = len(value) if isinstance(value, list | tuple | np.ndarray) else type(value).__name__
        raise ValueError(f"key {key!r} has {found} entries, expected {count} lists of vertex ids")
    return list(value)


def _parts(arrays: Arrays, vertex_count: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Label of each vertex [V] and the triangles of each part."""
    labels = torch.zeros(vertex_count, dtype=torch.uint8)
    vertex_lists = _lists(arrays, "annotation", len(PART_NAMES))
    for part, vertices in enumerate(vertex_lists):
        labels[_index_tensor(f"annotation[{part}]", vertices, vertex_count)] = part + 1
    part_faces = []
    for part, faces in enumerate(_lists(arrays, "annotation_tri", len(PART_NAMES))):
        key = f"annotation_tri[{part}]"
        array = _numbers(key, faces, "i")
        if array.size and (array.ndim != 2 or array.shape[1] != 3):
            raise ValueError(f"key {key!r} is {array.shape}, expected (k, 3)")
        part_faces.append(_index_tensor(key, array, vertex_count).reshape(-1, 3))
    return labels, tuple(part_faces)
