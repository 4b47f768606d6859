"""Weights with a description of what they are for: our own files and the official ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.io.tensors import read_tensor_file
from v3recon.networks import face_regressor
from v3recon.networks.face_regressor import FaceRegressor, face_regressor_of
from v3recon.networks.regressor import ANGLE_HEAD, Regressor

OFFICIAL_KEY = "net_recon"
OFFICIAL_INPUT_SIZE = 224
# One parameter that only this backbone has.
_OFFICIAL_BACKBONES = {
    "backbone.layer4.2.conv3.weight": "resnet50",
    "backbone.features.15.conv.7.weight": "mbnetv3",
}


@dataclass(frozen=True)
class CheckpointDescription:
    """What a checkpoint's weights are for.

    Attributes:
        backbone: "resnet50", "mbnetv3", "lite0" or a timm name.
        face_model: name of the face model whose coefficients come out.
        face_model_hash: its `content_hash`; empty where unknown (official files).
        sizes: numbers of identity, expression and albedo coefficients.
        input_size: side of the crop, pixels.
        crop_rule: {"name": "five_points" | "box" | …} and the rule's numbers.
        training: summary of the training, figures and command; JSON values.
    """

    backbone: str
    face_model: str
    face_model_hash: str
    sizes: tuple[int, int, int]
    input_size: int
    crop_rule: dict[str, Any] = field(default_factory=lambda: {"name": "five_points"})
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedRegressor:
    """A regressor in evaluation mode and its description."""

    regressor: Regressor | FaceRegressor
    description: CheckpointDescription


def load_checkpoint(path: str | Path, model: LinearFaceModel | None = None) -> LoadedRegressor:
    """Read a checkpoint of ours, of 3DDFA_V3 or of Deep3D.

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
            loaded = _own(content)
        elif isinstance(content.get(OFFICIAL_KEY), dict):
            weights = content[OFFICIAL_KEY]
            description = _official_description(weights)
            loaded = LoadedRegressor(_official(description, weights).eval(), description)
        else:
            raise ValueError("not a checkpoint of this version of v3recon or of 3DDFA_V3")
        if model is not None:
            _check_face_model(loaded.description, model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return loaded


def named_face_model(path: str | Path) -> str | None:
    """Name of the face model that a checkpoint says it is for; None where it says nothing.

    A file that cannot be read says nothing either: `load_checkpoint` tells what is wrong with it.
    """
    try:
        name = json.loads(read_tensor_file(path)["description"])["face_model"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _own(content: dict[str, Any]) -> LoadedRegressor:
    regressor, said = face_regressor_of(content)
    description = CheckpointDescription(
        said.config.backbone, said.face_model, said.face_model_hash, said.config.sizes,
        said.config.input_size, said.crop_rule, said.training,
    )  # fmt: skip
    return LoadedRegressor(regressor.eval(), description)


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


def _official(description: CheckpointDescription, weights: dict[str, Tensor]) -> Regressor:
    """Network of the description with the weights, loaded strictly by name and shape."""
    with torch.device("meta"):  # takes no memory and no time
        regressor = Regressor(description.backbone, description.sizes, description.input_size)
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
