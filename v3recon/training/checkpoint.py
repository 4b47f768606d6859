"""State of a run: written atomically, resumed exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from v3recon.io.atomic import replace_on_success
from v3recon.io.tensors import read_tensor_file

STATE_VERSION = 1


@dataclass(frozen=True)
class RunState:
    """What resuming needs; random numbers are derived from (seed, step), so none are stored.

    Attributes:
        step: optimiser steps done.
        regressor: the weights being trained.
        average: their moving average.
        optimizer: AdamW's state.
        config: the configuration as JSON values.
    """

    step: int
    regressor: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    config: dict[str, Any]


def save_state(path: Path, state: RunState) -> None:
    """Write a run's state; the old file stays whole until the new one is.

    Raises:
        OSError: for a full disk or an unwritable folder; the old file is untouched.
    """
    content = {
        "version": STATE_VERSION,
        "step": state.step,
        "regressor": state.regressor,
        "average": state.average,
        "optimizer": state.optimizer,
        "config": state.config,
    }
    with replace_on_success(path) as temporary:
        torch.save(content, temporary)


def load_state(path: Path) -> RunState:
    """Read a run's state.

    Raises:
        ValueError: if the file is broken or is not a run's state.
    """
    content = read_tensor_file(path)
    if content.get("version") != STATE_VERSION:
        raise ValueError(f"{path}: not a training state of this version of v3recon")
    try:
        parts = {name: content[name] for name in ("regressor", "average", "optimizer", "config")}
        step = int(content["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged training state ({error})") from None
    if step < 0 or not all(isinstance(part, dict) for part in parts.values()):
        raise ValueError(f"{path}: damaged training state")
    return RunState(step, **parts)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Exponential moving average of weights; buffers of batch norm are averaged alike."""
    for mean, value in zip(
        average.state_dict().values(), module.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
