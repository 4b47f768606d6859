"""A plain reader of .glb files for tests: every accessor as an array, sparse ones filled in."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

_KINDS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk, lengths checked."""
    data = path.read_bytes()
    magic, version, total = struct.unpack_from("<4sII", data)
    assert (magic, version, total) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and length % 4 == 0
    document = json.loads(data[20 : 20 + length])
    size, kind = struct.unpack_from("<I4s", data, 20 + length)
    binary = data[28 + length :]
    assert kind == b"BIN\0" and size == len(binary) == document["buffers"][0]["byteLength"]
    return document, binary


def values_of(document: dict[str, Any], binary: bytes, number: int) -> np.ndarray:
    """One accessor as [N] or [N, C]."""
    accessor = document["accessors"][number]
    width = _WIDTHS[accessor["type"]]
    count = accessor["count"] * width
    values = np.zeros(count, _KINDS[accessor["componentType"]])
    if "bufferView" in accessor:
        values = _view(document, binary, accessor["bufferView"], values.dtype, count)
    values = values.reshape(-1, width).copy()
    if "sparse" in accessor:
        sparse = accessor["sparse"]
        kind = _KINDS[sparse["indices"]["componentType"]]
        rows = _view(document, binary, sparse["indices"]["bufferView"], kind, sparse["count"])
        assert (np.diff(rows.astype(int)) > 0).all()
        filled = sparse["count"] * width
        view = sparse["values"]["bufferView"]
        values[rows] = _view(document, binary, view, values.dtype, filled).reshape(-1, width)
    if "min" in accessor:
        np.testing.assert_allclose(values.min(0), accessor["min"], rtol=1e-6)
        np.testing.assert_allclose(values.max(0), accessor["max"], rtol=1e-6)
    return values[:, 0] if width == 1 else values


def shown_corners(document: dict[str, Any], binary: bytes, weights: list[float]) -> np.ndarray:
    """[F, 3, 3] corners of all parts' triangles with morph targets at weights."""
    corners = []
    for primitive in document["meshes"][0]["primitives"]:
        position = values_of(document, binary, primitive["attributes"]["POSITION"])
        for weight, target in zip(weights, primitive["targets"], strict=True):
            position = position + weight * values_of(document, binary, target["POSITION"])
        corners.append(position[values_of(document, binary, primitive["indices"]).reshape(-1, 3)])
    return np.concatenate(corners)


def _view(document: dict, binary: bytes, number: int, kind: Any, count: int) -> np.ndarray:
    view = document["bufferViews"][number]
    assert view["byteOffset"] % 4 == 0
    assert view["byteLength"] == count * np.dtype(kind).itemsize
    return np.frombuffer(binary, kind, count, view["byteOffset"])
