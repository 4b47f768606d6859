"""State of a training run in one small file, from which it goes on exactly.

Weights are stored in float32, what the optimizer remembers of them and their average's distance
from them in bfloat16. The running process rounds its own to the same values when it writes, so that
a run that goes on and one that is resumed are the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from v3recon.io.atomic import replace_on_success
from v3recon.io.messages import one_line
from v3recon.io.tensors import read_tensor_file
from v3recon.networks.face_regressor import FaceRegressor

FORMAT = "v3recon-training-run"
FORMAT_VERSION = 1
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class RunState:
    """What changes during a run.

    Attributes:
        step: steps done.
        network: being trained.
        averaged: moving average of its weights, of the same class.
        optimizer: AdamW over the network's parameters.
    """

    step: int
    network: FaceRegressor
    averaged: FaceRegressor
    optimizer: torch.optim.Optimizer


@torch.no_grad()
def save_run(path: Path, state: RunState, recipe: dict[str, Any], inputs: dict[str, str]) -> None:
    """Write a run's state; what was rounded is rounded in the run as well.

    Raises:
        OSError: if the file cannot be written; an old file stays untouched.
    """
    weights = {key: value.detach().cpu() for key, value in state.network.state_dict().items()}
    average = {}
    for key, value in state.averaged.state_dict().items():
        if value.is_floating_point():
            difference = torch.nan_to_num(value.cpu() - weights[key]).bfloat16()
            value.copy_(weights[key] + difference.float())
            average[key] = difference
    moments: list[dict[str, Tensor]] = []
    for parameter in _parameters(state.optimizer):
        kept = state.optimizer.state.get(parameter, {})
        for name in _MOMENTS:
            if name in kept:
                kept[name].copy_(kept[name].bfloat16().float())
        moments.append({name: kept[name].bfloat16().cpu() for name in _MOMENTS if name in kept})
    text = json.dumps({"version": FORMAT_VERSION, "recipe": recipe, "inputs": inputs})
    content = {
        "format": FORMAT,
        "description": text,
        "step": state.step,
        "weights": weights,
        "average": average,
        "moments": moments,
    }
    with replace_on_success(path) as temporary:
        torch.save(content, temporary)


def read_run(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A state file's contents and its description (`recipe`, `inputs`).

    Raises:
        ValueError: if it is no such file.
    """
    content = read_tensor_file(path)
    try:
        if content.get("format") != FORMAT:
            raise ValueError("not the state of a training run")
        description = json.loads(content["description"])
        if int(description["version"]) > FORMAT_VERSION:
            raise ValueError("made by a newer version of v3recon; update it")
        int(content["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from None
    return content, description


@torch.no_grad()
def restore_run(content: dict[str, Any], state: RunState) -> None:
    """Put a file's contents into a run that was just built.

    Raises:
        ValueError: if they are of another network.
    """
    try:
        state.network.load_state_dict(content["weights"])
        state.averaged.load_state_dict(content["weights"])
        for key, value in state.averaged.state_dict().items():
            if key in content["average"]:
                value.copy_(content["weights"][key] + content["average"][key].float())
        step = int(content["step"])
        parameters = _parameters(state.optimizer)
        for parameter, moments in zip(parameters, content["moments"], strict=True):
            if moments:
                state.optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    **{name: moments[name].float().to(parameter.device) for name in _MOMENTS},
                }
        state.step = step
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"the state is of another network ({one_line(error)})") from None


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
