"""Configuration of a training run: one dataclass, and presets that were tried."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from v3recon.io.atomic import write_text_atomic
from v3recon.networks.mesh_aligned import CORRECTION_COUNTS, MAX_CORRECTIONS


@dataclass(frozen=True)
class TermWeights:
    """Weights of the training terms; 0 switches a term off. Distances are in crop pixels."""

    points: float = 1.0
    """Mean absolute error of the 468 detected points, image plane."""
    depth: float = 0.3
    """The same along the optical axis, centred per face."""
    landmarks: float = 1.0
    """Hand-made 68 points, with the jaw marched to the visible contour."""
    gaps: float = 0.0
    """Offsets between pairs of points across lids, lips and brows: how far they are open."""
    wpdc: float = 0.0
    """Weighted parameter distance (3DDFA): needs fitted coefficients in the prepared set."""
    vdc: float = 0.0
    """Vertex distance (3DDFA) to the fitted coefficients."""
    parts: float = 0.0
    """Part re-projection distance (3DDFA_V3, PRDL) to hand-made masks."""
    parsed: float = 0.0
    """Weight of masks of the part parser against hand-made ones within `parts`, `named`."""
    named: float = 0.0
    """Cross-entropy of the parts that the fine map names (`--fine-closeups`)."""
    marked: float = 0.3
    """Weight within `points` and `gaps` of detected points on photos with hand-made points or
    masks, which know better; 1 for a set whose points were refined (`training.refine_points`)."""
    photometric: float = 0.0
    """Colour at visible vertices; trains albedo and light."""
    coefficients: float = 1e-3
    """Squared shape coefficients, in standard deviations."""
    albedo: float = 1e-3
    """Squared albedo coefficients, in standard deviations."""
    light: float = 1e-2
    """Deviation of the three colours' light from their mean (Deep3D's gamma loss)."""


TRAINABLE = ("all", "corrections", "fine-map")
"""What a run may be told to train."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run is made of; saved beside its checkpoints."""

    prepared: Path
    """Folder written by `v3recon prepare`."""
    synthetic: Path | None = None
    """A second such folder, of pictures by `v3recon synthesize`."""
    synthetic_share: float = 0.15
    """Share of samples drawn from it."""
    out: Path = Path("runs/train")
    """Where checkpoints, TensorBoard logs and the configuration go."""
    backbone: str = "mbnetv3"
    """mbnetv3, resnet50, or any timm model name."""
    face_model: str = "photoface"
    """photoface, or the path of an official face_model.npy."""
    input_size: int = 112
    """Side of the network's input, pixels."""
    pooling: str = "mean"
    """mean (as the official networks) or spatial: the heads see the last feature map as well."""
    corrections: int = 0
    """How often the estimate is corrected where its mesh lies in finer feature maps."""
    closeups: int = 0
    """How often close-ups of its points then correct it (MobileNet, ResNet)."""
    fine_closeups: int = 0
    """How often close-ups of a map made for them correct it at last; needs close-ups."""
    train_only: str = "all"
    """all; corrections (with close-ups); or fine-map, the map that fine close-ups read: the rest
    stays as it is, which is twice as fast."""
    frozen_blocks: int = 0
    """First blocks of a MobileNet's backbone that stay as they are (the first four are a fifth of
    a step's work)."""
    init_from: Path | None = None
    """Start from the weights of this checkpoint."""
    init_face_model: Path | None = None
    """The face model that `init_from` was trained for, if it is not `face_model`: coefficients
    are carried over to the new basis."""
    steps: int = 30_000
    """Optimiser steps in all."""
    batch_size: int = 64
    """Global batch, over all processes."""
    micro_batch: int = 64
    """Faces per forward pass and per batch-norm group; must divide batch_size / processes."""
    learning_rate: float = 1.5e-3
    """Peak learning rate of AdamW."""
    trunk_rate: float = 1.0
    """Rate of backbone and heads as a share of it; corrections learn at the full rate."""
    freeze_norms: bool = False
    """Keep the backbone's batch-norm statistics: for weights that have learned already, and
    small micro-batches."""
    weight_decay: float = 0.02
    """Decoupled weight decay, on matrices only."""
    warmup: int = 300
    """Steps of linear warm-up."""
    decay: float = 0.4
    """Last part of the run over which the rate falls to zero along a cosine."""
    clip_norm: float = 5.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Decay of the moving average of the weights; the average is what is saved and validated."""
    curriculum: float = 0.0
    """First part of the run trained on points, coefficients and vertices only."""
    profiled: float = 0.65
    """Share of samples that are rotated to larger yaw (face profiling)."""
    roll_sigma: float = 14.0
    """Standard deviation of the rotation in the image plane, degrees."""
    far: float = 0.0
    """Share of samples whose crop misses the face as badly as a detector's box may."""
    labelled: float = 0.35
    """Share of samples drawn from photos with hand-made points or masks."""
    weights: TermWeights = field(default_factory=TermWeights)
    """Weights of the terms."""
    seed: int = 0
    """Seed of everything."""
    workers: int = 1
    """Data-loader processes per training process."""
    threads: int = 0
    """CPU threads per training process; 0 = torch's choice."""
    precision: str = "float32"
    """float32 or bfloat16 (autocast; meant for CUDA)."""
    device: str = "auto"
    """auto, cpu or cuda."""
    log_every: int = 50
    """Steps between log lines."""
    checkpoint_every: int = 500
    """Steps between checkpoints (the last is resumed automatically)."""
    validate_every: int = 2000
    """Steps between validations."""
    dry_run: bool = False
    """Two steps and one validation, to see that everything works."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, not {self.precision!r}")
        if self.train_only not in TRAINABLE:
            raise ValueError(f"train_only must be one of {TRAINABLE}, not {self.train_only!r}")
        for name in CORRECTION_COUNTS:
            if not 0 <= getattr(self, name) <= MAX_CORRECTIONS:
                raise ValueError(f"{name} must lie in 0…{MAX_CORRECTIONS}")
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide batch_size {self.batch_size}"
            )
        shares = "trunk_rate decay curriculum profiled far labelled synthetic_share"
        for name in shares.split():
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0…1, not {getattr(self, name)}")
        if not 32 <= self.input_size <= 512:
            raise ValueError(f"input_size must lie in 32…512, not {self.input_size}")


def config_to_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    values = dataclasses.asdict(config)
    return json.loads(json.dumps(values, default=str))


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the configuration as JSON, atomically."""
    write_text_atomic(path, json.dumps(config_to_json(config), indent=2) + "\n")


_VERTICES = TermWeights()
_FULL = TermWeights(landmarks=2.0, gaps=2.0, parts=1.5e-2, parsed=0.5, photometric=2.0, light=2.0)
# Colours teach albedo and light, which are not corrected.
_CORRECTIONS = replace(_FULL, parts=4.5e-2, photometric=0.0, light=0.0)
_NAMES = TermWeights(
    points=0.0,
    depth=0.0,
    landmarks=0.0,
    parsed=0.5,
    named=1.0,
    coefficients=0.0,
    albedo=0.0,
    light=0.0,
)
# Beside terms of twenty, named parts need this much to be heard.
_FINE = replace(_CORRECTIONS, gaps=5.0, named=15.0)
_NONE = Path("prepared")
_LATE = TrainConfig(
    prepared=_NONE,
    out=Path("runs/corrections"),
    pooling="spatial",
    corrections=2,
    closeups=3,
    train_only="corrections",
    input_size=160,
    weights=_CORRECTIONS,
    profiled=0.35,
    labelled=0.45,
    roll_sigma=10.0,
    far=0.02,
    steps=4800,
    warmup=50,
    decay=0.75,
    learning_rate=1.3e-3,
    ema=0.998,
)
PRESETS: dict[str, tuple[str, TrainConfig]] = {
    "mbnetv3": (
        "the shipped small network, from scratch on the CPU",
        TrainConfig(
            prepared=_NONE,
            out=Path("runs/mbnetv3"),
            pooling="spatial",
            corrections=2,
            input_size=128,
            weights=_FULL,
            curriculum=0.5,
            profiled=0.5,
            labelled=0.45,
        ),
    ),
    "vertices": (
        "detected meshes and hand-made points only: the first stage of a staged run",
        TrainConfig(prepared=_NONE, out=Path("runs/vertices"), weights=_VERTICES, decay=0.0),
    ),
    "parameters": (
        "3DDFA's way: weighted parameters, then vertices; needs a set prepared with fits",
        TrainConfig(
            prepared=_NONE,
            out=Path("runs/parameters"),
            weights=TermWeights(points=0.0, depth=0.0, wpdc=1.0, vdc=1e-2),
        ),
    ),
    "refine": (
        "second stage: part masks and colours, from the weights of a first stage",
        TrainConfig(
            prepared=_NONE,
            out=Path("runs/refine"),
            pooling="spatial",
            corrections=2,
            input_size=128,
            weights=_FULL,
            profiled=0.4,
            labelled=0.45,
            roll_sigma=12.0,
            steps=8_000,
            warmup=100,
            learning_rate=1e-3,
            decay=0.9,
        ),
    ),
    "corrections": (
        "only the corrections learn, twice as fast; from the weights of another run",
        _LATE,
    ),
    "fine-map": (
        "before fine close-ups: only the map that they read learns, from masks; ten minutes",
        replace(
            _LATE,
            out=Path("runs/fine-map"),
            fine_closeups=2,
            train_only="fine-map",
            weights=_NAMES,
            profiled=0.1,
            labelled=0.5,
            far=0.0,
            steps=700,
            warmup=20,
            decay=0.9,
            learning_rate=4e-3,
            ema=0.98,
        ),
    ),
    "fine": (
        "after it: all corrections learn, fine close-ups too, half as fast",
        replace(
            _LATE,
            out=Path("runs/fine"),
            fine_closeups=2,
            weights=_FINE,
            labelled=0.5,
            steps=3200,
            warmup=100,
            decay=0.9,
            learning_rate=7e-4,
        ),
    ),
    "resnet50": (
        "the large network, meant for a GPU",
        TrainConfig(
            prepared=_NONE,
            out=Path("runs/resnet50"),
            backbone="resnet50",
            input_size=224,
            weights=_FULL,
            curriculum=0.5,
            steps=60_000,
            learning_rate=6e-4,
            precision="bfloat16",
            workers=12,
        ),
    ),
}
