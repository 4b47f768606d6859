"""A static page that reconstructs faces in the browser: networks, head and program."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from v3recon.export.half_weights import store_in_half
from v3recon.export.onnx_files import export_onnx
from v3recon.face_models.albedo_texture import AlbedoTexture
from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.parts import PART_COLORS
from v3recon.face_models.surfaces import surface_faces
from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.io.json_file import read_json
from v3recon.light.files import ABOUT, DECODER, DETECTOR, NETWORK
from v3recon.reconstruct.glb import METRES, ROUGHNESS, has_arkit_shapes

FORMAT = "v3recon-web"
PAGE, PROGRAM, RUNTIME = "index.html", "app.min.js", "ort-wasm-simd-threaded.wasm.gz"
HEAD = "head.bin.gz"
PACKED = tuple(f"{name}.gz" for name in (NETWORK, DECODER, *DETECTOR))
SITE_FILES = (PAGE, PROGRAM, RUNTIME, HEAD, *PACKED, ABOUT)
"""All files of a site; `about.json` is written last."""

_PAGES = "v3recon.view"  # its data, which no module of this layer may import


def export_web(
    folder: str | Path,
    regressor: nn.Module,
    model: LinearFaceModel,
    crop_rule: Mapping[str, Any],
    *,
    input_size: int,
) -> list[Path]:
    """Write a folder that any web server can serve as it is.

    Networks are those of `export_onnx`; large weights of network and decoder are in 16 bits, those
    of the detector are not, because its decisions would change. Large files are packed by gzip; the
    page unpacks them, so that servers need no setting.

    Args:
        folder: made if absent.
        regressor: see `export_onnx`.
        model: its face model, on the CPU, with ARKit's shapes and an albedo texture.
        crop_rule: see `export_onnx`.
        input_size: see `export_onnx`.

    Returns:
        The files, as in `SITE_FILES`.

    Raises:
        ValueError: if the model lacks shapes or texture, or as `export_onnx`.
    """
    folder = Path(folder)
    if not has_arkit_shapes(model) or model.albedo_texture is None:
        raise ValueError(
            f"the page needs a head with ARKit's shapes and a texture, which {model.name} is not; "
            "use the face model photohead"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)  # the folder is whole when it is there again
    with tempfile.TemporaryDirectory() as place:
        export_onnx(place, regressor, model, crop_rule, input_size=input_size)
        for name in (NETWORK, DECODER):
            store_in_half(Path(place) / name)
        for name in (NETWORK, DECODER, *DETECTOR):
            _pack(folder / f"{name}.gz", (Path(place) / name).read_bytes())
        about: dict[str, Any] = read_json(Path(place) / ABOUT)
    arrays = head_arrays(model, model.albedo_texture)
    listed, data = _joined(arrays)
    _pack(folder / HEAD, data)
    for name in (PAGE, PROGRAM, RUNTIME):
        source = resources.files(_PAGES) / "data" / ("app.html" if name == PAGE else name)
        with replace_on_success(folder / name) as temporary, resources.as_file(source) as path:
            shutil.copyfile(path, temporary)
    about |= {"format": FORMAT, "head": _head(model, listed)}
    about["files"] = {name: (folder / name).stat().st_size for name in SITE_FILES[:-1]}
    write_text_atomic(folder / ABOUT, json.dumps(about))
    return [folder / name for name in SITE_FILES]


def head_arrays(model: LinearFaceModel, texture: AlbedoTexture) -> dict[str, np.ndarray]:
    """What the page needs of a head beside the decoder, little-endian.

    Returns:
        `triangles` [F, 3] uint32; `triangle_surfaces` [F] uint8, places in `surface_faces`;
        `part_labels` [V] uint8, 0 none; `uv_coords` [V, 2] float32, v up; `albedo_mean`
        [3, H, W] uint8, `albedo_fine` [Kf, 3, T, T] and `albedo_coarse` [Kc, 3, T/2, T/2] int8,
        their units [K] float32, all as in `AlbedoTexture`.
    """
    surfaces = np.zeros(len(model.faces), np.uint8)
    for place, rows in enumerate(surface_faces(model).values()):
        surfaces[rows.numpy()] = place
    return {
        "triangles": model.faces.numpy().astype("<u4"),
        "triangle_surfaces": surfaces,
        "part_labels": model.part_labels.numpy().astype(np.uint8),
        "uv_coords": model.uv_coords.numpy().astype("<f4"),
        "albedo_mean": texture.mean.numpy().astype(np.uint8),
        "albedo_fine": texture.fine.numpy().astype(np.int8),
        "albedo_coarse": texture.coarse.numpy().astype(np.int8),
        "albedo_fine_unit": texture.fine_unit.numpy().astype("<f4"),
        "albedo_coarse_unit": texture.coarse_unit.numpy().astype("<f4"),
    }


def _joined(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    """Where each array lies in bytes that hold all of them, each at a multiple of eight."""
    listed: dict[str, Any] = {}
    data = bytearray()
    for name, values in arrays.items():
        listed[name] = {
            "type": values.dtype.name,
            "shape": list(values.shape),
            "offset": len(data),
        }
        data += values.tobytes()
        data += bytes(-len(data) % 8)
    return listed, bytes(data)


def _head(model: LinearFaceModel, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "metres": METRES,
        "shapes": list(ARKIT_NAMES),
        "surfaces": [{"name": name, "roughness": ROUGHNESS[name]} for name in surface_faces(model)],
        "parts": [
            {"name": name, "color": list(color)}
            for name, color in zip(PART_NAMES, PART_COLORS, strict=True)
        ],
        "vertex_count": model.vertex_count,
        "arrays": dict(arrays),
    }


def _pack(path: Path, data: bytes) -> None:
    """Write bytes packed by gzip, the same bytes every time."""
    with replace_on_success(path) as temporary:
        temporary.write_bytes(gzip.compress(data, 9, mtime=0))
