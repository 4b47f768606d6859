"""State of a training run in one file, from which it goes on exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from v3recon.io.messages import one_line
from v3recon.io.tensors import read_tensor_file, write_tensor_file
from v3recon.networks.face_regressor import FaceRegressor
from v3recon.training.shape_learning import LearnedShape

FORMAT = "v3recon-training-run"
FORMAT_VERSION = 2


@dataclass
class RunState:
    """What changes during a run.

    Attributes:
        step: steps done.
        network: being trained.
        averaged: moving average of its weights, of the same class.
        optimizer: AdamW over the network's parameters and the offsets of the face model.
        shape, averaged_shape: the same of a face model that learns; None of one that does not.
    """

    step: int
    network: FaceRegressor
    averaged: FaceRegressor
    optimizer: torch.optim.Optimizer
    shape: LearnedShape | None = None
    averaged_shape: LearnedShape | None = None


def save_run(path: Path, state: RunState, recipe: dict[str, Any], inputs: dict[str, str]) -> None:
    """Write a run's state.

    Raises:
        OSError: if the file cannot be written; an old file stays untouched.
    """
    text = json.dumps({"version": FORMAT_VERSION, "recipe": recipe, "inputs": inputs})
    content = {
        "format": FORMAT,
        "description": text,
        "step": state.step,
        "weights": state.network.state_dict(),
        "average": state.averaged.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    if state.shape is not None and state.averaged_shape is not None:
        content["shape"] = state.shape.state_dict()
        content["averaged_shape"] = state.averaged_shape.state_dict()
    write_tensor_file(path, content)


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
        if int(description["version"]) < FORMAT_VERSION:
            raise ValueError("made by an older version of v3recon; use another --out")
        int(content["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from None
    return content, description


def restore_run(content: dict[str, Any], state: RunState) -> None:
    """Put a file's contents into a run that was just built.

    Raises:
        ValueError: if they are of another network.
    """
    try:
        state.network.load_state_dict(content["weights"])
        state.averaged.load_state_dict(content["average"])
        state.optimizer.load_state_dict(content["optimizer"])
        if state.shape is not None and state.averaged_shape is not None:
            state.shape.load_state_dict(content["shape"])
            state.averaged_shape.load_state_dict(content["averaged_shape"])
        state.step = int(content["step"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the state is of another network ({one_line(error)})") from None
