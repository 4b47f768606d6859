"""State of a run: written atomically, resumed exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from v3recon.io.atomic import replace_on_success

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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a readable training state ({error})") from error
    except Exception as error:  # torch raises pickle.UnpicklingError for foreign content
        raise ValueError(f"{path}: not a training state of v3recon") from error
    if not isinstance(content, dict) or content.get("version") != STATE_VERSION:
        raise ValueError(f"{path}: not a training state of this version of v3recon")
    return RunState(
        content["step"],
        content["regressor"],
        content["average"],
        content["optimizer"],
        content["config"],
    )


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
