"""Weights with a description of what they are for; the official files are read as well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.io.atomic import replace_on_success
from v3recon.io.messages import one_line
from v3recon.io.tensors import read_tensor_file
from v3recon.networks import face_regressor
from v3recon.networks.mesh_aligned import CORRECTION_COUNTS, MAX_CORRECTIONS
from v3recon.networks.regressor import ANGLE_HEAD, POOLINGS, ROTATIONS, Regressor

FORMAT = "v3recon-regressor"
FORMAT_VERSION = 2
"""1 had no weights in 8 bits."""
BYTES_FROM = 100_000
"""Elements of a matrix from which it is stored in 8 bits."""
BYTE_RANGE = 127
SCALE_SUFFIX = ".scale"
OFFICIAL_KEY = "net_recon"
OFFICIAL_INPUT_SIZE = 224
# One parameter that only this backbone has.
_OFFICIAL_BACKBONES = {
    "backbone.layer4.2.conv3.weight": "resnet50",
    "backbone.features.15.conv.7.weight": "mbnetv3",
}

MAX_SIZE = 10_000
"""No network has more coefficients of a kind or looks at more pixels a side: a guard for memory."""


@dataclass(frozen=True)
class CheckpointDescription:
    """What a checkpoint's weights are for.

    Attributes:
        backbone: "resnet50", "mbnetv3" or a timm name.
        face_model: name of the face model whose coefficients come out.
        face_model_hash: its `content_hash`; empty where unknown (official files).
        sizes: numbers of identity, expression and albedo coefficients.
        input_size: side of the crop, pixels.
        rotation: "euler" or "6d".
        pooling: "mean" or "spatial" (see `networks.regressor`).
        corrections: how often the estimate is corrected (see `networks.mesh_aligned`).
        closeups: how often close-ups then correct it.
        fine_closeups: how often close-ups of a fine map then correct it.
        crop_rule: {"name": "five_points" | "box" | …} and the rule's numbers.
        training: summary of the training, figures and command; JSON values.
        format_version: of the file.
    """

    backbone: str
    face_model: str
    face_model_hash: str
    sizes: tuple[int, int, int]
    input_size: int
    rotation: str = "euler"
    pooling: str = "mean"
    corrections: int = 0
    closeups: int = 0
    fine_closeups: int = 0
    crop_rule: dict[str, Any] = field(default_factory=lambda: {"name": "five_points"})
    training: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class LoadedRegressor:
    """A regressor in evaluation mode and its description."""

    regressor: Regressor
    description: CheckpointDescription


def save_checkpoint(
    path: str | Path,
    regressor: Regressor,
    *,
    face_model: LinearFaceModel,
    crop_rule: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write weights and their description as one file, whole or not at all.

    Args:
        path: `.pth` file to write; its folder must exist.
        regressor: the network; its other attributes go into the description.
        face_model: the model whose coefficients it gives.
        crop_rule: {"name": …, numbers …}, JSON values.
        training: JSON values; default nothing.
        half: store weights in half precision (they load as float32), the largest matrices in 8
            bits; variances of batch norms, which may be tiny or huge, stay in float32.

    Raises:
        ValueError: if sizes disagree, the description is no JSON, or weights are not finite.
        OSError: if the file cannot be written; an old file stays untouched.
    """
    if regressor.sizes != face_model.sizes:
        raise ValueError(
            f"the network gives {regressor.sizes} coefficients, the face model "
            f"{face_model.name!r} takes {face_model.sizes}"
        )
    if "name" not in crop_rule:
        raise ValueError(f"crop_rule needs a 'name', got {dict(crop_rule)}")
    description = CheckpointDescription(
        backbone=regressor.backbone_name,
        face_model=face_model.name,
        face_model_hash=face_model.content_hash,
        sizes=regressor.sizes,
        input_size=regressor.input_size,
        rotation=regressor.rotation,
        pooling=regressor.pooling,
        corrections=regressor.corrections,
        closeups=regressor.closeups,
        fine_closeups=regressor.fine_closeups,
        crop_rule=dict(crop_rule),
        training=dict(training or {}),
    )
    try:
        text = json.dumps(asdict(description), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the description must hold JSON values only: {error}") from None
    weights: dict[str, Tensor] = {}
    for key, value in regressor.state_dict().items():
        weights[key] = _stored(key, value, half)
        if half and value.ndim == 2 and value.numel() >= BYTES_FROM:
            weights |= _in_bytes(key, value)
    with replace_on_success(path) as temporary:
        torch.save({"format": FORMAT, "description": text, "weights": weights}, temporary)


def load_checkpoint(path: str | Path, model: LinearFaceModel | None = None) -> LoadedRegressor:
    """Read a checkpoint of ours or of 3DDFA_V3.

    Args:
        path: `.pth` file.
        model: the face model it will be used with; checked against the description.

    Returns:
        The regressor, on the CPU and in evaluation mode, with its description.

    Raises:
        ValueError: if the file is missing, damaged, foreign, or made for another face model.
    """
    path = Path(path)
    content = read_tensor_file(path)
    try:
        if content.get("format") == face_regressor.FORMAT:
            return _refined(content, model)
        if content.get("format") == FORMAT:
            description = _description(content)
            weights = content["weights"]
        elif isinstance(content.get(OFFICIAL_KEY), dict):
            weights = content[OFFICIAL_KEY]
            description = _official_description(weights)
        else:
            raise ValueError("not a checkpoint of v3recon or of 3DDFA_V3")
        regressor = _regressor(description, weights)
        if model is not None:
            _check_face_model(description, model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return LoadedRegressor(regressor.eval(), description)


def named_face_model(path: str | Path) -> str | None:
    """Name of the face model that a checkpoint says it is for; None where it says nothing.

    A file that cannot be read says nothing either: `load_checkpoint` tells what is wrong with it.
    """
    try:
        name = json.loads(read_tensor_file(path)["description"])["face_model"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _refined(content: dict[str, Any], model: LinearFaceModel | None) -> LoadedRegressor:
    """A network with one refiner (`networks.face_regressor`), for the same callers."""
    regressor, said = face_regressor.face_regressor_of(content)
    config = said.config
    description = CheckpointDescription(
        config.backbone,
        said.face_model,
        said.face_model_hash,
        config.sizes,
        config.input_size,
        rotation="6d",
        crop_rule=said.crop_rule,
        training=said.training,
    )
    if model is not None:
        _check_face_model(description, model)
    return LoadedRegressor(cast(Regressor, regressor), description)


def _stored(key: str, value: Tensor, half: bool) -> Tensor:
    """A parameter as it is written."""
    value = value.detach().cpu()
    if not value.is_floating_point():
        return value
    value = value.half() if half and not key.endswith("running_var") else value
    if not value.isfinite().all():
        raise ValueError(f"weights {key!r} are not finite (or too large for half precision)")
    return value


def _in_bytes(key: str, weight: Tensor) -> dict[str, Tensor]:
    """A large matrix [N, M] as 8-bit integers and one scale a row.

    Rounding moves a weight by about 1/254 of the largest of its row at most.
    """
    weight = weight.detach().cpu().float()
    scale = (weight.abs().amax(1, keepdim=True) / BYTE_RANGE).clamp(min=1e-6).half()
    rounded = (weight / scale.float()).round().clamp(-BYTE_RANGE, BYTE_RANGE)
    return {key: rounded.to(torch.int8), key + SCALE_SUFFIX: scale}


def _from_bytes(weights: dict[str, Any]) -> dict[str, Any]:
    """Stored weights with matrices of 8-bit integers multiplied out, their scales gone.

    Raises:
        ValueError: if a scale is missing or of another shape.
    """
    result = dict(weights)
    for key, value in weights.items():
        if isinstance(value, Tensor) and value.dtype == torch.int8:
            scale = result.pop(key + SCALE_SUFFIX, None)
            if not isinstance(scale, Tensor) or scale.shape != (len(value), 1):
                raise ValueError(f"the scale of weight {key!r} is missing or damaged")
            result[key] = value.float() * scale.float()
    return result


def _description(content: dict[str, Any]) -> CheckpointDescription:
    try:
        fields = json.loads(content["description"])
        version = int(fields["format_version"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"its description is malformed ({one_line(error)})") from None
    if version > FORMAT_VERSION:
        raise ValueError(
            f"has format {version}, this version of v3recon reads up to {FORMAT_VERSION}; "
            "update v3recon"
        )
    try:
        id_size, exp_size, alb_size = map(int, fields.pop("sizes"))
        input_size = int(fields.pop("input_size"))
        fields |= {name: int(fields.get(name, 0)) for name in CORRECTION_COUNTS}
        description = CheckpointDescription(
            **fields,
            sizes=(id_size, exp_size, alb_size),
            input_size=input_size,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its description is malformed ({one_line(error)})") from None
    sizes = (*description.sizes, input_size)
    if not all(0 < size <= MAX_SIZE for size in sizes):
        raise ValueError(f"its description gives sizes {sizes}, expected 1…{MAX_SIZE}")
    if not isinstance(content.get("weights"), dict):
        raise ValueError("has no weights")
    return description


def _official_description(weights: dict[str, Tensor]) -> CheckpointDescription:
    backbone = next((name for key, name in _OFFICIAL_BACKBONES.items() if key in weights), None)
    if backbone is None:
        raise ValueError("its network is neither the official resnet50 nor mbnetv3")
    try:
        counts = [len(weights[f"final_layers.{head}.bias"]) for head in range(ANGLE_HEAD + 1)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"lacks the head {error}") from None
    return CheckpointDescription(
        backbone=backbone,
        face_model="bfm",
        face_model_hash="",
        sizes=(counts[0], counts[1], counts[2]),
        input_size=OFFICIAL_INPUT_SIZE,
        training={"source": "3DDFA_V3"},
    )


def _regressor(description: CheckpointDescription, weights: dict[str, Tensor]) -> Regressor:
    """Network of the description with the weights, loaded strictly by name and shape."""
    if description.rotation not in ROTATIONS:
        raise ValueError(f"its rotation {description.rotation!r} is not known")
    if description.pooling not in POOLINGS:
        raise ValueError(f"its pooling {description.pooling!r} is not known; update v3recon")
    for name in CORRECTION_COUNTS:
        if not 0 <= getattr(description, name) <= MAX_CORRECTIONS:
            raise ValueError(f"its {name} must be 0…{MAX_CORRECTIONS}")
    regressor = _unfilled(description)
    weights = _from_bytes(weights)
    expected = regressor.state_dict()
    missing = [key for key in expected if key not in weights]
    extra = [key for key in weights if key not in expected]
    if missing or extra:
        example = (missing or extra)[0]
        raise ValueError(
            f"{len(missing)} weights of {description.backbone} are missing and {len(extra)} "
            f"are unknown, e.g. {example!r}"
        )
    for key, value in expected.items():
        found = weights[key]
        if not isinstance(found, Tensor) or found.shape != value.shape:
            shape = tuple(getattr(found, "shape", ()))
            raise ValueError(f"weight {key!r} is {shape}, expected {tuple(value.shape)}")
        if not found.isfinite().all():
            raise ValueError(f"weight {key!r} has values that are not finite")
    # The tensors themselves, which spares a copy.
    found = {key: v.float() if v.is_floating_point() else v for key, v in weights.items()}
    regressor.load_state_dict(found, assign=True)
    return regressor


def _unfilled(description: CheckpointDescription) -> Regressor:
    """Network of the description; its weights take no memory or time where that is possible."""

    def make() -> Regressor:
        return Regressor(
            description.backbone,
            description.sizes,
            description.input_size,
            description.rotation,
            description.pooling,
            description.corrections,
            description.closeups,
            description.fine_closeups,
        )

    try:
        with torch.device("meta"):
            regressor = make()
    except (RuntimeError, NotImplementedError):  # some backbones compute while they are built
        return make()
    kept = regressor.state_dict()
    unsaved = [name for name, _ in regressor.named_buffers() if name not in kept]
    return make() if unsaved else regressor


def _check_face_model(description: CheckpointDescription, model: LinearFaceModel) -> None:
    if description.face_model != model.name:
        raise ValueError(
            f"was made for the face model {description.face_model!r}, not {model.name!r}; "
            "choose the other face model or other weights"
        )
    if description.sizes != model.sizes:
        raise ValueError(
            f"gives {description.sizes} coefficients (id, exp, alb), the face model "
            f"{model.name!r} takes {model.sizes}"
        )
    if description.face_model_hash and description.face_model_hash != model.content_hash:
        raise ValueError(
            f"was made for another version of the face model {model.name!r} "
            f"({description.face_model_hash}, this one is {model.content_hash}); "
            "train again or use the model it came with"
        )
