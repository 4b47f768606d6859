"""Networks, detector and face model as ONNX files that run without torch (`v3recon.light`)."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from v3recon.detection import mtcnn
from v3recon.detection._cascade import PYRAMID_STEP, THRESHOLDS, PairMax, Stage, load_stages
from v3recon.detection.crop import BOX_SCALE, BOX_SHIFT
from v3recon.detection.detect import DEFAULT_MIN_CONFIDENCE
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.light.files import (
    ABOUT,
    COEFFICIENTS,
    DECODER,
    DETECTOR,
    FORMAT_VERSION,
    LANDMARKS,
    MODEL,
    NETWORK,
)
from v3recon.types import FaceCoeffs

OPSET = 17


def export_onnx(
    folder: str | Path,
    regressor: nn.Module,
    model: LinearFaceModel,
    crop_rule: Mapping[str, Any],
    *,
    input_size: int,
    camera: Camera | None = None,
    batch: int | None = None,
) -> list[Path]:
    """Write everything that `v3recon.light` needs into a folder.

    Args:
        folder: made if absent.
        regressor: crops [B, 3, S, S] to `FaceCoeffs`; on the CPU, in evaluation mode, not packed
            by `_fast.packed_convolutions`.
        model: its face model, on the CPU.
        crop_rule: its crop rule, see `detection.crop.crop_of_detection`; a box rule.
        input_size: S.
        camera: of the crop.
        batch: faces that the network takes at once; None = any number.

    Returns:
        The files.

    Raises:
        ValueError: for the five-point rule, or if the library onnx is missing.
    """
    folder, camera = Path(folder), camera or Camera()
    if crop_rule.get("name") != "box":
        raise ValueError(
            f"crop rule {dict(crop_rule)!r} cannot be exported, only that of v3recon's own networks"
        )
    _check_library()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)  # the folder is whole when it is there again
    outputs = (*COEFFICIENTS, *LANDMARKS)
    crops = torch.rand(batch or 2, 3, input_size, input_size)
    network = _CropsToFaces(regressor, model, camera)
    _write(folder / NETWORK, network, [crops], ["image"], outputs, batch)
    zeros = FaceCoeffs.zeros(2, model.sizes)
    inputs = {name: getattr(zeros, name) for name in ("id", "exp", "angle", "trans")}
    decoder = _CoeffsToMesh(model, camera)
    _write(folder / DECODER, decoder, [*inputs.values()], [*inputs], ("vertices", "points"), None)
    for number, (name, stage) in enumerate(zip(DETECTOR, load_stages(), strict=True)):
        size = (12, 24, 48)[number]
        views = torch.zeros(2, 3, size, size) if number else torch.zeros(1, 3, 40, 50)
        named = ("score", "correction", "points")[: 3 if number == 2 else 2]
        _write(folder / name, _pooled(stage), [views], ["views"], named, None, any_size=number == 0)
    _write_model(folder / MODEL, model)
    write_text_atomic(folder / ABOUT, json.dumps(_about(model, crop_rule, camera, input_size)))
    return [folder / name for name in (NETWORK, DECODER, *DETECTOR, MODEL, ABOUT)]


class _CropsToFaces(nn.Module):
    """Crops to coefficients and landmarks in crop pixels."""

    basis: Tensor
    mean: Tensor

    def __init__(self, regressor: nn.Module, model: LinearFaceModel, camera: Camera) -> None:
        super().__init__()
        self.regressor = regressor
        self.camera = camera
        sets = [getattr(model, name) for name in LANDMARKS]
        self.counts = [len(one) for one in sets]
        mean, basis = model.shape_basis_at(torch.cat(sets))
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis.flatten(0, 1).T.contiguous())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        coeffs = self.regressor(image)
        offset = torch.cat([coeffs.id, coeffs.exp], 1) @ self.basis
        shape = self.mean + offset.unflatten(1, self.mean.shape)
        posed = shape @ euler_to_matrix(coeffs.angle) + coeffs.trans[:, None]
        landmarks = project(posed, self.camera).split(self.counts, 1)
        return *(getattr(coeffs, name) for name in COEFFICIENTS), *landmarks


class _CoeffsToMesh(nn.Module):
    """Coefficients to posed vertices and their places in the crop.

    Rows of the subdivision hold few numbers; ONNX has no sparse product, so each dense vertex
    gathers its control vertices.
    """

    mean: Tensor
    basis: Tensor
    parents: Tensor | None
    shares: Tensor | None

    def __init__(self, model: LinearFaceModel, camera: Camera) -> None:
        super().__init__()
        self.camera = camera
        basis = torch.cat([model.id_basis, model.exp_basis], -1)
        self.register_buffer("mean", model.mean_shape)
        self.register_buffer("basis", basis.flatten(0, 1).T.contiguous())
        parents, shares = (None, None)
        if model.subdivision is not None:
            parents, shares = padded_rows(model.subdivision)
        self.register_buffer("parents", parents)
        self.register_buffer("shares", shares)

    def forward(self, id: Tensor, exp: Tensor, angle: Tensor, trans: Tensor) -> tuple[Tensor, ...]:
        offset = torch.cat([id, exp], 1) @ self.basis
        shape = self.mean + offset.unflatten(1, self.mean.shape)
        if self.parents is not None and self.shares is not None:
            terms = [
                shape[:, parent] * share[:, None]
                for parent, share in zip(self.parents.T, self.shares.T, strict=True)
            ]
            shape = torch.stack(terms).sum(0)
        vertices = shape @ euler_to_matrix(angle) + trans[:, None]
        return vertices, project(vertices, self.camera)


def _pooled(stage: Stage) -> Stage:
    """A stage whose pools do not depend on the size of the picture that it was traced with."""
    for place, layer in enumerate(stage.trunk):
        if isinstance(layer, PairMax):
            stage.trunk[place] = nn.MaxPool2d(2, 2, ceil_mode=True)
    return stage


def padded_rows(operator: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [V, N] and values [V, N] of a CSR matrix, N the longest row's; filled with 0."""
    start, columns = operator.crow_indices(), operator.col_indices()
    counts = start.diff()
    place = torch.arange(int(counts.max()))
    inside = place < counts[:, None]
    entry = (start[:-1, None] + place).clamp(max=len(columns) - 1)
    return columns[entry] * inside, operator.values()[entry] * inside


def _write(
    path: Path,
    network: nn.Module,
    inputs: Sequence[Tensor],
    names: Sequence[str],
    outputs: Sequence[str],
    batch: int | None,
    *,
    any_size: bool = False,
) -> None:
    """Write one network with names and, where it is not fixed, a free first dimension."""
    axes = {0: "batch"} | ({2: "height", 3: "width"} if any_size else {})
    free = {name: axes for name in names} | {name: {0: "batch"} for name in outputs}
    free = {} if batch else free
    options: dict[str, Any] = {"dynamic_axes": free, "opset_version": OPSET}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False  # the newer exporter takes 30 times as long
    named = {"input_names": list(names), "output_names": list(outputs)}
    with torch.no_grad(), warnings.catch_warnings(), replace_on_success(path) as temporary:
        warnings.simplefilter("ignore")
        export = cast(Any, torch.onnx.export)
        export(network.eval(), tuple(inputs), str(temporary), **named, **options)


def _write_model(path: Path, model: LinearFaceModel) -> None:
    """Write what a viewer needs of the face model beside the mesh."""
    arrays: dict[str, Any] = {
        "triangles": model.faces.numpy().astype(np.int32),
        "uv_coords": model.uv_coords.numpy(),
        "part_labels": model.part_labels.numpy(),
        "exp_names": np.array(model.exp_names, "U"),
    }
    arrays |= {name: getattr(model, name).numpy().astype(np.int32) for name in LANDMARKS}
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _about(
    model: LinearFaceModel, crop_rule: Mapping[str, Any], camera: Camera, input_size: int
) -> dict[str, Any]:
    return {
        "format": "v3recon-onnx",
        "format_version": FORMAT_VERSION,
        "face_model": model.name,
        "face_model_hash": model.content_hash,
        "sizes": list(model.sizes),
        "input_size": input_size,
        "camera": asdict(camera),
        "crop_rule": dict(crop_rule) | {"box_shift": list(BOX_SHIFT), "box_scale": BOX_SCALE},
        "detector": {
            "min_face_size": mtcnn.MIN_FACE_SIZE,
            "max_side": mtcnn.MAX_SIDE,
            "min_confidence": DEFAULT_MIN_CONFIDENCE["mtcnn"],
            "thresholds": list(THRESHOLDS),
            "pyramid_step": PYRAMID_STEP,
        },
    }


def _check_library() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ValueError("exporting needs the library onnx: pip install 'v3recon[onnx]'") from None
