"""A recipe of training: one file, read whole, checked, and stored with the weights it makes."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from v3recon.data.augment import AugmentSettings
from v3recon.io.messages import one_line
from v3recon.networks.face_regressor import FaceRegressorConfig
from v3recon.training.face_objective import FaceWeights
from v3recon.training.parameter_objective import CostSettings
from v3recon.training.shape_learning import ShapeSettings

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MILESTONE_FACTOR = 0.2
"""Of the learning rate from each milestone on (3DDFA_V2)."""
Schedule = tuple[tuple[float, float], ...]
"""(share of the run, value), the shares growing from 0."""


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a network, but for the photos.

    Attributes:
        seed: of all draws.
        face_model: name of the face model.
        imagenet: start the backbone from ImageNet weights (`lite0` only).
        batch_size: samples a step.
        steps: of the whole run.
        minutes: about how long it takes; `--minutes` scales the steps by it.
        learning_rate: at the start, after the warm-up.
        weight_decay: of matrices.
        warmup: share of the run.
        average: decay of the averaged weights, which are exported.
        steady_norms: share of the run from which batch norms keep their statistics, as at
            inference; rare samples (profiles) differ from the mean of a batch.
        precision: of the encoder.
        drawn_heads: how many are drawn.
        rare: how many times as often as others a photo with a closed eye or an open mouth is seen.
        pair_share: of photos followed by another of the same person.
        pixels: schedule of the input's side; held between.
        rate: schedule of the learning rate's factor; joined by lines.
        milestones: shares of the run at which the rate falls to `MILESTONE_FACTOR` of it.
        drawn: schedule of the share of drawn heads; joined by lines.
        shares: share of each source among photos.
        network, augment, weights, objective, shape: settings of these.
    """

    seed: int = 0
    face_model: str = "photohead"
    imagenet: bool = True
    batch_size: int = 64
    steps: int = 30000
    minutes: float = 540.0
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup: float = 0.01
    average: float = 0.999
    steady_norms: float = 1.0
    precision: str = "bfloat16"
    drawn_heads: int = 6000
    rare: int = 1
    pair_share: float = 0.25
    pixels: Schedule = ((0.0, 112),)
    rate: Schedule = ((0.0, 1.0), (1.0, 0.0))
    milestones: tuple[float, ...] = ()
    drawn: Schedule = ((0.0, 0.2),)
    shares: dict[str, float] = field(default_factory=lambda: {"photos": 1.0})
    network: FaceRegressorConfig = field(default_factory=FaceRegressorConfig)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    weights: FaceWeights = field(default_factory=FaceWeights)
    objective: CostSettings = field(default_factory=CostSettings)
    shape: ShapeSettings = field(default_factory=ShapeSettings)

    def __post_init__(self) -> None:
        """Check what other classes do not.

        Raises:
            ValueError: for a setting out of range.
        """
        for name in ("pixels", "rate", "drawn"):
            _check_schedule(name, getattr(self, name))
        sides = [int(side) for _, side in self.pixels]
        if any(side % 16 or side < 64 for side in sides):
            raise ValueError(f"pixels must be multiples of 16 from 64, got {sides}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {list(PRECISIONS)}, got {self.precision}")
        if self.batch_size < 2 or min(self.steps, self.rare) < 1 or self.drawn_heads < 0:
            raise ValueError("batch_size must be at least 2, steps and rare 1, drawn_heads 0")
        if not 0 <= self.average < 1 or not self.learning_rate > 0:
            raise ValueError("average must be in 0…1 and learning_rate above 0")
        if not all(0 < share < 1 for share in self.milestones):
            raise ValueError(f"milestones must be between 0 and 1, got {list(self.milestones)}")
        if self.objective.cost and self.drawn_heads == 0:
            raise ValueError(f"the cost {self.objective.cost} needs drawn_heads, got 0")
        if self.objective.cost and self.shape.rate > 0:
            raise ValueError("the face model learns by the terms of [weights], not by a cost")

    def scaled(self, minutes: float | None) -> Recipe:
        """The same recipe for a run of other length; every schedule is scaled with the steps.

        No more heads are drawn than a short run shows.
        """
        if minutes is None:
            return self
        if not minutes > 0:
            raise ValueError(f"minutes must be above 0, got {minutes}")
        steps = max(1, round(self.steps * minutes / self.minutes))
        shown = math.ceil(steps * self.batch_size * max(share for _, share in self.drawn))
        return replace(
            self, steps=steps, minutes=float(minutes), drawn_heads=min(self.drawn_heads, shown)
        )

    def sizes(self) -> list[int]:
        """Pixels of each step."""
        return [int(held(self.pixels, step / self.steps)) for step in range(self.steps)]

    def drawn_shares(self) -> list[float]:
        """Share of drawn heads of each step."""
        return [joined(self.drawn, step / self.steps) for step in range(self.steps)]

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        warm = min(1.0, (step + 1) / max(self.warmup * self.steps, 1))
        passed = sum(share <= step / self.steps for share in self.milestones)
        factor = joined(self.rate, step / self.steps) * MILESTONE_FACTOR**passed
        return self.learning_rate * warm * factor

    def to_json(self) -> dict[str, Any]:
        """JSON values, as they are stored."""
        return _plain(asdict(self))


def held(schedule: Schedule, progress: float) -> float:
    """The value of the last pair whose share is not above `progress`."""
    return [value for share, value in schedule if share <= progress][-1]


def joined(schedule: Schedule, progress: float) -> float:
    """The value between the two pairs around `progress`, on a straight line."""
    before = [pair for pair in schedule if pair[0] <= progress][-1]
    after = next((pair for pair in schedule if pair[0] > progress), None)
    if after is None:
        return float(before[1])
    along = (progress - before[0]) / (after[0] - before[0])
    return float(before[1] + along * (after[1] - before[1]))


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file.

    Raises:
        ValueError: if it cannot be read, or a setting is unknown or out of range.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read the recipe {path}: {one_line(error)}") from None
    try:
        nested = {
            "network": FaceRegressorConfig,
            "augment": AugmentSettings,
            "weights": FaceWeights,
            "objective": CostSettings,
            "shape": ShapeSettings,
        }
        for name, kind in nested.items():
            given[name] = _made(kind, given.get(name, {}), f"[{name}]")
        for name in ("pixels", "rate", "drawn"):
            if name in given:
                given[name] = tuple((float(share), float(value)) for share, value in given[name])
        return _made(Recipe, given, "the recipe")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from None


def differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two recipes as JSON values, one line each."""
    lines = []
    for key in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(key), theirs.get(key)
        if isinstance(here, dict) and isinstance(there, dict):
            lines += differences(here, there, f"{prefix}{key}.")
        elif here != there:
            lines.append(f"{prefix}{key} is {here!r} here and {there!r} in the run")
    return lines


def _made(kind: Any, given: dict[str, Any], where: str) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise ValueError(f"{where} has unknown settings {', '.join(unknown)}")
    for key, value in given.items():
        if isinstance(value, list):
            given = given | {key: tuple(value)}
    return kind(**given)


def _check_schedule(name: str, schedule: Sequence[tuple[float, float]]) -> None:
    shares = [share for share, _ in schedule]
    if not shares or shares[0] != 0 or shares != sorted(set(shares)) or shares[-1] > 1:
        raise ValueError(
            f"{name} must be pairs of shares growing from 0 to at most 1, got {shares}"
        )
    if not all(math.isfinite(value) for _, value in schedule):
        raise ValueError(f"{name} holds values that are not finite")


def _plain(value: Any) -> Any:
    """Tuples to lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
