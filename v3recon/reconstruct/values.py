"""Values of one face: `<name>.npy` in 3DDFA_V3's layout and a small JSON twin without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.reconstruct.faces import LANDMARK_SETS, Face
from v3recon.reconstruct.segment import Parts
from v3recon.reconstruct.texture import Appearance

JSON_DECIMALS = 6


@dataclass(frozen=True)
class OutputChoice:
    """Which outputs are written.

    Attributes:
        landmarks: names of LANDMARK_SETS.
        seg: eight part masks.
        seg_visible: label map of the visible parts.
        model_texture: OBJ with the model's own colours.
        extracted_texture: OBJs with the photo's colours.
        texture_size: side of the texture picture, texels.
    """

    landmarks: tuple[str, ...] = tuple(LANDMARK_SETS)
    seg: bool = True
    seg_visible: bool = True
    model_texture: bool = True
    extracted_texture: bool = True
    texture_size: int = 1024


class PackedMasks:
    """Eight masks [H, W] in one byte a pixel, which unpickle as a plain (H, W, 8) uint8 array.

    The pickle names `numpy.unpackbits` and its arguments, so `np.load(..., allow_pickle=True)`
    needs nothing of this package, and the file holds an eighth of the bytes.
    """

    def __init__(self, bits: np.ndarray) -> None:
        """Keep bits [H, W] uint8; bit p of a pixel = part p."""
        assert bits.ndim == 2 and bits.dtype == np.uint8, (bits.shape, bits.dtype)
        self.bits = bits

    def unpack(self) -> np.ndarray:
        """[H, W, 8] uint8, 0 or 1."""
        function, arguments = self.__reduce__()
        return function(*arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return np.unpackbits, (self.bits[..., None], -1, 8, "little")


def write_results(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write a dict of arrays as `np.load(path, allow_pickle=True).item()` reads it.

    Args:
        path: the .npy file; its folder exists.
        values: arrays, `PackedMasks`, numbers, strings and dicts of them.
    """
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(dict(values), dtype=object), allow_pickle=True)


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write the same kind of dict as JSON, a line for each key; arrays become rounded lists."""
    lines = [
        f"{json.dumps(str(key))}: {json.dumps(_plain(value), ensure_ascii=False)}"
        for key, value in values.items()
    ]
    write_text_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        is_float = np.issubdtype(value.dtype, np.floating)
        return (value.astype(np.float64).round(JSON_DECIMALS) if is_float else value).tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return round(value, JSON_DECIMALS) if isinstance(value, float) else value


def face_values(face: Face, choice: OutputChoice) -> dict[str, Any]:
    """The small results: landmarks, coefficients, pose, camera, crop, detection.

    Keys `ldm68 ldm106 ldm106_2d ldm134` are as in 3DDFA_V3's file.
    """
    values: dict[str, Any] = {
        key: to_numpy(getattr(face, LANDMARK_SETS[key])) for key in choice.landmarks
    }
    values |= {
        "face_model": face.model.name,
        "coeffs": {
            key: to_numpy(getattr(face.coeffs, key)[0])
            for key in ("id", "exp", "alb", "angle", "sh", "trans")
        },
        "angle_degrees": to_numpy(face.angle_degrees),
        "camera": asdict(face.camera),
        "crop_matrix": face.crop.matrix.numpy(),
        "image_size": list(face.image_size),
    }
    if face.detection is not None:
        points = face.detection.points
        values["detection"] = {
            "box": face.detection.box.numpy(),
            "score": face.detection.score,
            "points": None if points is None else points.numpy(),
        }
    return values


def face_arrays(
    face: Face,
    choice: OutputChoice,
    parts: Parts | None,
    appearance: Appearance,
) -> dict[str, Any]:
    """The large results: vertices, visibility, and 3DDFA_V3's `seg_visible` and `seg`."""
    arrays: dict[str, Any] = {
        "vertices": to_numpy(face.vertices),
        "points_2d": to_numpy(face.points_photo),
        "visible": appearance.visible[0].cpu().numpy(),
    }
    if parts is not None and choice.seg_visible:
        arrays["seg_visible"] = parts.labels[..., None]
    if parts is not None and choice.seg:
        arrays["seg"] = PackedMasks(parts.part_bits)
    return arrays


def to_numpy(values: torch.Tensor) -> np.ndarray:
    """On the CPU, float32."""
    return values.detach().float().cpu().numpy()
