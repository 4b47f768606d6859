"""Values of one face: `<name>.npy` as 3DDFA_V3 has it, all of them in `<name>.npz` and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import v3recon
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.io.reference_npy import PlacedMask, box_of
from v3recon.reconstruct.faces import LANDMARK_SETS, Face
from v3recon.reconstruct.quality import DOUBTFUL
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
        seg_seen: what the photo really shows, with hair, glasses and other things before the face.
        model_texture: OBJ with the model's own colours.
        extracted_texture: OBJs with the photo's colours.
        texture_size: side of the texture picture, texels.
        glb: one .glb file with texture and morph targets.
        usd: one .usdz file with texture and blend shapes.
        front: OBJ and PLY meshes are of the unposed head, not as it stands before the camera.
        mask: texels of the OBJ's picture that the photo does not show are black, not completed.
        also: names of `file_kinds.FILE_KINDS`, files as other programs write them.
    """

    landmarks: tuple[str, ...] = tuple(LANDMARK_SETS)
    seg: bool = True
    seg_visible: bool = True
    seg_seen: bool = True
    model_texture: bool = True
    extracted_texture: bool = True
    texture_size: int = 1024
    glb: bool = False
    usd: bool = False
    front: bool = False
    mask: bool = False
    also: tuple[str, ...] = ()


def write_json(
    path: str | Path, values: Mapping[str, Any], *, decimals: int = JSON_DECIMALS
) -> None:
    """Write a dict as JSON, a line for each key; arrays become rounded lists, NaN becomes null."""
    lines = [f"{_json(str(key))}: {_json(_plain(item, decimals))}" for key, item in values.items()]
    write_text_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _json(value: Any) -> str:
    """One value; letters that no UTF-8 can hold, of undecodable file names, are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text


def _plain(value: Any, decimals: int = JSON_DECIMALS) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, decimals) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), decimals)
    if isinstance(value, list | tuple):
        return [_plain(item, decimals) for item in value]
    if isinstance(value, float):
        return round(value, decimals) if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def face_origin(
    face: Face, choice: OutputChoice, photo: str, number: int, count: int, settings: Mapping
) -> dict[str, Any]:
    """Where a face's values come from: the first keys of its JSON file.

    Args:
        face: the face.
        choice: which outputs were asked for.
        photo: the photo as the user named it.
        number: of the face in the photo, from 1.
        count: faces of the photo.
        settings: of the program, JSON values.
    """
    return {
        "v3recon": v3recon.__version__,
        "photo": photo,
        "face": number,
        "faces": count,
        "quality": face.quality,
        "doubtful": bool(face.quality < DOUBTFUL),
        "versions": {"numpy": np.__version__, "torch": torch.__version__},
        "face_model": face.model.name,
        "face_model_hash": face.model.content_hash,
        "settings": {**asdict(choice), **settings},
    }


def face_values(face: Face, choice: OutputChoice) -> dict[str, Any]:
    """The small results: landmarks, coefficients, pose, camera, crop, detection.

    Keys `ldm68 ldm106 ldm106_2d ldm134` are as in 3DDFA_V3's file.
    """
    values: dict[str, Any] = {
        key: to_numpy(getattr(face, LANDMARK_SETS[key])) for key in choice.landmarks
    }
    values |= {
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


def reference_values(face: Face, choice: OutputChoice, parts: Parts | None) -> dict[str, Any]:
    """What `<name>.npy` holds: 3DDFA_V3's six keys with its types and shapes.

    `ldm68 ldm106 ldm106_2d ldm134` are float32 [N, 2] in photo pixels, `seg_visible` float64
    [H, W, 1] with labels 0…8, `seg` float64 [H, W, 8] with 0 and 255; those that were chosen.
    """
    values: dict[str, Any] = {
        key: to_numpy(getattr(face, LANDMARK_SETS[key])) for key in choice.landmarks
    }
    if parts is not None and choice.seg_visible:
        values["seg_visible"] = PlacedMask(parts.labels[..., None])
    if parts is not None and choice.seg:
        values["seg"] = PlacedMask(_unpacked(parts.part_bits), 255.0)
    return values


def face_arrays(
    face: Face, choice: OutputChoice, parts: Parts | None, appearance: Appearance
) -> dict[str, np.ndarray]:
    """What `<name>.npz` holds beside the origin: all numbers of a face as plain arrays.

    Coefficients are `id exp alb angle sh trans`. Masks are cut to `seg_box`, [4] top, left, bottom,
    right (exclusive) in the photo: `seg_visible` [h, w] uint8 labels 0…8, `seg_bits` [h, w] uint8,
    bit p of a pixel = part p.
    """
    arrays = {key: to_numpy(getattr(face, LANDMARK_SETS[key])) for key in choice.landmarks}
    arrays |= {
        key: to_numpy(getattr(face.coeffs, key)[0])
        for key in ("id", "exp", "alb", "angle", "sh", "trans")
    }
    arrays |= {
        "angle_degrees": to_numpy(face.angle_degrees),
        "crop_matrix": face.crop.matrix.numpy(),
        "image_size": np.array(face.image_size),
        "vertices": to_numpy(face.vertices),
        "points_photo": to_numpy(face.points_photo),
        "visible": appearance.visible[0].cpu().numpy(),
        "quality": np.array(face.quality),
        "visibility_68": to_numpy(face.visibility_68),
    }
    if face.seen is not None and choice.seg_seen:
        arrays["seen"] = face.seen.argmax(0).to(torch.uint8).cpu().numpy()
    if face.detection is not None:
        arrays["detection_box"] = face.detection.box.numpy()
        arrays["detection_score"] = np.array(face.detection.score)
    if parts is not None:
        box = box_of(np.logical_or(parts.labels, parts.part_bits))
        inside = np.s_[box[0] : box[2], box[1] : box[3]]
        arrays["seg_box"] = np.array(box)
        if choice.seg_visible:
            arrays["seg_visible"] = parts.labels[inside]
        if choice.seg:
            arrays["seg_bits"] = parts.part_bits[inside]
    return arrays


def write_arrays(path: str | Path, arrays: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Write arrays without pickle, with the origin as JSON text in `origin`; whole or not at all.

    Raises:
        ValueError: naming an array whose numbers are not finite, a missing quality apart.
    """
    for key, value in arrays.items():
        if key != "quality" and not np.isfinite(value).all():
            raise ValueError(f"{key} has values that are not finite")
    text = json.dumps(_plain(origin), allow_nan=False)
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, origin=np.array(text), **arrays)


def _unpacked(bits: np.ndarray) -> np.ndarray:
    """Eight masks [H, W, 8] uint8, 0 or 1, of one byte a pixel."""
    return np.unpackbits(bits[..., None], axis=-1, count=len(PART_NAMES), bitorder="little")


def to_numpy(values: torch.Tensor) -> np.ndarray:
    """On the CPU, float32."""
    return values.detach().float().cpu().numpy()
