"""Train a regressor; one readable loop (the program behind `train.py` and `v3recon train`).

One process:     python train.py mbnetv3 --prepared prepared --out runs/mbnetv3
Two processes:   torchrun --nproc_per_node 2 train.py mbnetv3 --prepared prepared --out runs/x
A look first:    python train.py mbnetv3 --prepared prepared --out runs/x --dry-run

Stop it at any time; the same command goes on from the last checkpoint, exactly.
"""

from __future__ import annotations

import copy
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from v3recon._fast.memory import keep_freed_memory
from v3recon.data.augment import BOX_FACTOR, AugmentSettings
from v3recon.data.samples import (
    EpochSampler,
    Records,
    TrainingBatch,
    TrainingDataset,
    collate,
    to_float_image,
)
from v3recon.data.shards import JoinedSets, PreparedSet, hand_marked
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.networks.checkpoints import (
    CheckpointDescription,
    load_checkpoint,
    save_checkpoint,
)
from v3recon.networks.mesh_aligned import set_points
from v3recon.networks.regressor import Regressor, start_from
from v3recon.training.checkpoint import RunState, load_state, save_state, update_average
from v3recon.training.config import PRESETS, TermWeights, TrainConfig, config_to_json, save_config
from v3recon.training.distributed import (
    Workers,
    average,
    broadcast,
    join_workers,
    leave_workers,
)
from v3recon.training.logging import LOGGER, RunLog
from v3recon.training.objective import TrainingFace, make_training_face, training_loss
from v3recon.training.rebase import rebase_heads
from v3recon.training.validate import validate
from v3recon.types import FaceCoeffs

STATE_FILE = "last.pt"
WEIGHTS_FILE = "regressor.pth"
RATE_SCALE = "rate_scale"
"""Key of a parameter group: its rate as a share of the learning rate."""


class Packed(nn.Module):
    """The regressor as DistributedDataParallel wants it: tensors in, tensors out."""

    def __init__(self, regressor: Regressor) -> None:
        """Wrap; the parameters stay the regressor's."""
        super().__init__()
        self.regressor = regressor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Packed coefficients [B, K], rotation [B, 3, 3] and the named parts if there are."""
        coeffs, rotation, logits = self.regressor.predict_with_parts(image)
        # The loss sees the matrix; angles have no finite gradient at 90 degrees of yaw.
        coeffs = replace(coeffs, angle=coeffs.angle.detach())
        return coeffs.to_tensor(), rotation, logits


def learning_rate(step: int, config: TrainConfig) -> float:
    """Warm-up, plateau, cosine to zero."""
    warm = min(1.0, (step + 1) / max(config.warmup, 1))
    start = config.steps * (1 - config.decay)
    if step < start:
        return config.learning_rate * warm
    progress = min((step - start) / max(config.steps - start, 1), 1.0)
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))


def weights_at(step: int, config: TrainConfig) -> TermWeights:
    """Curriculum: vertices and coefficients first, then everything (as 3DDFA and V3 do)."""
    if step >= config.curriculum * config.steps:
        return config.weights
    return replace(config.weights, parts=0.0, photometric=0.0)


def make_optimizer(regressor: Regressor, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases and batch-norm scales are not decayed, the trunk may learn more slowly."""
    late = {id(p) for part in regressor.correctors for p in part.parameters()}
    groups = []
    for is_late, scale in ((False, config.trunk_rate), (True, 1.0)):
        trained = [
            p for p in regressor.parameters() if p.requires_grad and (id(p) in late) == is_late
        ]
        matrices = [p for p in trained if p.ndim > 1]
        vectors = [p for p in trained if p.ndim <= 1]
        groups += [
            {"params": matrices, "weight_decay": config.weight_decay, RATE_SCALE: scale},
            {"params": vectors, "weight_decay": 0.0, RATE_SCALE: scale},
        ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def record_repeats(records: PreparedSet, share: float) -> np.ndarray:
    """How often each record comes in an epoch, so that `share` of samples have hand-made targets.

    Returns:
        [N] integers of at least 1.
    """
    marked = hand_marked(records.column("labels_source"), records.column("landmarks_68"))
    count, other = int(marked.sum()), int((~marked).sum())
    if share <= 0 or count == 0 or other == 0:
        return np.ones(len(marked), np.int64)
    times = max(1, round(share / max(1 - share, 1e-3) * other / count))
    return np.where(marked, times, 1)


def joined_repeats(repeats: np.ndarray, count: int, share: float) -> np.ndarray:
    """Repeats of a joined set, so that about `share` of the samples come from its second part.

    Args:
        repeats: [N] of the first part alone.
        count: records of the second part, M.
        share: 0…1; a share of 0 leaves the second part out, of 1 the first.

    Returns:
        [N + M] integers.
    """
    if share >= 1:
        return np.concatenate([np.zeros_like(repeats), np.ones(count, np.int64)])
    times = share / (1 - share) * repeats.sum() / count  # of each record of the second part
    if 0 < times < 1:
        repeats, times = repeats * round(1 / times), 1.0
    return np.concatenate([repeats, np.full(count, round(times), np.int64)])


def training_records(config: TrainConfig) -> tuple[PreparedSet | JoinedSets, np.ndarray]:
    """The records to draw from and how often each comes in an epoch, [N]."""
    photos = PreparedSet(config.prepared, "train")
    repeats = record_repeats(photos, config.labelled)
    if config.synthetic is None:
        return photos, repeats
    pictures = PreparedSet(config.synthetic, "train")
    repeats = joined_repeats(repeats, len(pictures), config.synthetic_share)
    return JoinedSets(photos, pictures), repeats


def batches(
    records: Records,
    repeats: np.ndarray,
    config: TrainConfig,
    workers: Workers,
    start_step: int,
) -> Iterator[TrainingBatch]:
    """Endless batches of this process from `start_step` on, the same after every restart."""
    settings = AugmentSettings(
        size=config.input_size,
        profile=config.profiled,
        roll_sigma=config.roll_sigma,
        far=config.far,
    )
    sampler = EpochSampler(
        len(records),
        config.batch_size,
        seed=config.seed,
        start_step=start_step,
        rank=workers.rank,
        world_size=workers.size,
        repeats=repeats.tolist(),
    )
    loader = DataLoader(
        TrainingDataset(records, settings, config.seed),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=config.workers,
        worker_init_fn=_calm_worker,
        prefetch_factor=4 if config.workers else None,
        persistent_workers=config.workers > 0,
        pin_memory=workers.device.type == "cuda",
    )
    return iter(loader)


def _calm_worker(_: int) -> None:
    """One thread per loader process: they share the cores with the network."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends them


def train_step(
    network: nn.Module,
    regressor: Regressor,
    batch: TrainingBatch,
    loss_of: Callable[
        [FaceCoeffs, Tensor, Tensor | None, TrainingBatch], tuple[Tensor, dict[str, Tensor]]
    ],
    config: TrainConfig,
    workers: Workers,
) -> dict[str, float]:
    """Gradients of one global batch, in micro-batches.

    Batch norm sees one micro-batch at a time, each starting from the same running statistics,
    which are averaged afterwards: the result does not depend on how the micro-batches are spread
    over processes.

    Raises:
        FloatingPointError: if a term is not finite; its name is in the message.
    """
    count = len(batch) // config.micro_batch
    buffers = [b for name, b in regressor.named_buffers() if "running_" in name]  # batch norms
    before = [b.clone() for b in buffers]
    collected = [torch.zeros_like(b) for b in buffers]
    values: dict[str, float] = {}
    for number in range(count):
        part = slice_batch(batch, slice(number * config.micro_batch, None), config.micro_batch)
        for buffer, start in zip(buffers, before, strict=True):
            buffer.copy_(start)
        last = number == count - 1
        synced = isinstance(network, DistributedDataParallel)
        if synced:
            network.require_backward_grad_sync = last
        image = to_float_image(part).contiguous(memory_format=torch.channels_last)
        mixed = config.precision == "bfloat16"
        with torch.autocast(workers.device.type, torch.bfloat16, enabled=mixed):
            packed, rotation, logits = network(image)
        coeffs = FaceCoeffs.from_tensor(packed.float(), regressor.sizes)
        loss, terms = loss_of(coeffs, rotation.float(), logits, part)
        for name, value in {"total": loss.detach(), **terms}.items():
            number_ = float(value)
            if not math.isfinite(number_):
                raise FloatingPointError(f"the loss term {name!r} is {number_}")
            values[name] = values.get(name, 0.0) + number_ / count
        (loss / count).backward()
        for total, buffer in zip(collected, buffers, strict=True):
            total += buffer / count
    for buffer, total in zip(buffers, collected, strict=True):
        buffer.copy_(total)
    average(buffers, workers)
    shared = torch.tensor(list(values.values()), device=workers.device)
    average([shared], workers)
    return dict(zip(values, shared.tolist(), strict=True))


def slice_batch(batch: TrainingBatch, where: slice, count: int) -> TrainingBatch:
    """`count` samples of a batch from the start of `where`."""
    chosen = slice(where.start, where.start + count)
    return TrainingBatch(**{name: value[chosen] for name, value in vars(batch).items()})


def start_regressor(config: TrainConfig, model: LinearFaceModel) -> Regressor:
    """A fresh regressor, or one that starts from a checkpoint's weights."""
    torch.manual_seed(config.seed)
    regressor = Regressor(
        config.backbone,
        model.sizes,
        config.input_size,
        rotation="6d",
        pooling=config.pooling,
        corrections=config.corrections,
        closeups=config.closeups,
        fine_closeups=config.fine_closeups,
    )
    if regressor.aligned is not None:
        set_points(regressor.aligned, model)
    if config.init_from is not None:
        loaded = load_checkpoint(config.init_from)
        check_transfer(config, loaded.description, model)
        try:
            start_from(regressor, loaded.regressor)
        except ValueError as error:
            raise ValueError(f"{config.init_from}: {error}") from None
        if config.init_face_model is not None:
            rebase_heads(regressor, load_face_model(str(config.init_face_model)), model)
    if config.frozen_blocks:
        blocks = getattr(regressor.backbone, "features", None)
        if not isinstance(blocks, nn.Sequential) or not 0 < config.frozen_blocks <= len(blocks):
            raise ValueError(
                f"--frozen-blocks {config.frozen_blocks}: not so many blocks in a row in"
                f" {config.backbone}"
            )
        blocks[: config.frozen_blocks].requires_grad_(False)
    if config.train_only != "all":
        regressor.requires_grad_(False)
        for part in trained_correctors(regressor, config):
            part.requires_grad_(True)
    return regressor


def trained_correctors(regressor: Regressor, config: TrainConfig) -> list[nn.Module]:
    """What learns of the parts that correct the estimate.

    Raises:
        ValueError: if only they are to learn and there are none.
    """
    if config.train_only == "fine-map":
        if regressor.fine_map is None:
            raise ValueError("--train-only fine-map needs --fine-closeups N")
        return [regressor.fine_map]
    if config.train_only == "corrections" and not regressor.correctors:
        raise ValueError("--train-only corrections needs --corrections N")
    return regressor.correctors


def set_training_mode(regressor: Regressor, config: TrainConfig) -> None:
    """Training mode, but batch norms of parts that are not trained keep their statistics."""
    regressor.train(config.train_only == "all")
    if config.freeze_norms:
        regressor.backbone.eval()
    for part in trained_correctors(regressor, config):
        part.train()


def check_transfer(
    config: TrainConfig, description: CheckpointDescription, model: LinearFaceModel
) -> None:
    """Refuse a start from weights that were made for something else.

    Raises:
        ValueError: if backbone, rotation or face model differ.
    """
    if description.backbone != config.backbone:
        raise ValueError(
            f"{config.init_from} is a {description.backbone}; start it with"
            f" --backbone {description.backbone}"
        )
    if description.rotation != "6d":
        raise ValueError(f"{config.init_from} gives Euler angles; training needs a 6d rotation")
    if config.init_face_model is None and description.face_model_hash != model.content_hash:
        raise ValueError(
            f"{config.init_from} was trained for another {description.face_model} (hash"
            f" {description.face_model_hash}, here {model.content_hash}); give that model's file"
            " with --init-face-model and its coefficients are carried over"
        )


def describe(config: TrainConfig, step: int, figures: dict[str, float]) -> dict[str, object]:
    """The training summary that travels with the weights."""
    return {
        "recipe": config_to_json(config),
        "step": step,
        "validation": {
            name: round(value, 4) for name, value in figures.items() if math.isfinite(value)
        },
    }


def save_weights(
    path: Path,
    regressor: Regressor,
    model: LinearFaceModel,
    summary: dict[str, object],
    half: bool = False,
) -> None:
    """Write the regressor with its description (see `networks.checkpoints`)."""
    save_checkpoint(
        path,
        regressor,
        face_model=model,
        crop_rule={"name": "box", "scale": BOX_FACTOR},
        training=summary,
        half=half,
    )


def train(config: TrainConfig) -> int:  # noqa: C901  (one loop to be read top to bottom)
    """Run, or go on with, a training; returns the exit status."""
    keep_freed_memory()
    workers = join_workers(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.batch_size % (config.micro_batch * workers.size):
        raise ValueError(
            f"batch_size {config.batch_size} is not a multiple of micro_batch"
            f" {config.micro_batch} x {workers.size} processes"
        )
    if config.dry_run:
        config = replace(config, steps=2, log_every=1, checkpoint_every=2, validate_every=2)
    model = load_face_model(config.face_model)
    records, repeats = training_records(config)
    held_out = PreparedSet(config.prepared, "val")
    face: TrainingFace = make_training_face(model).to(workers.device)
    regressor = start_regressor(config, model).to(workers.device)
    regressor.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = make_optimizer(regressor, config)
    mean_regressor = copy.deepcopy(regressor)
    step = 0
    state_path = config.out / STATE_FILE
    config.out.mkdir(parents=True, exist_ok=True)
    if state_path.is_file():
        state = load_state(state_path)
        regressor.load_state_dict(state.regressor)
        mean_regressor.load_state_dict(state.average)
        optimizer.load_state_dict(state.optimizer)
        step = state.step
        if workers.is_first:
            LOGGER.info("going on from step %d of %s", step, state_path)
    broadcast(regressor.state_dict().values(), workers)
    network: nn.Module = Packed(regressor)
    if workers.size > 1:
        network = DistributedDataParallel(network, broadcast_buffers=False)
    if workers.is_first:
        save_config(config, config.out / "config.json")
    log = RunLog(config.out, workers.is_first)
    stream = batches(records, repeats, config, workers, step)
    camera = Camera()
    started, start_step = time.monotonic(), step
    figures: dict[str, float] = {}

    def keep(step: int) -> None:
        if workers.is_first:
            state = RunState(
                step,
                regressor.state_dict(),
                mean_regressor.state_dict(),
                optimizer.state_dict(),
                config_to_json(config),
            )
            save_state(state_path, state)

    try:
        while step < config.steps:
            batch = next(stream).to(workers.device)
            weights = weights_at(step, config)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config) * group[RATE_SCALE]
            set_training_mode(regressor, config)

            def loss_of(
                coeffs: FaceCoeffs,
                rotation: Tensor,
                logits: Tensor | None,
                part: TrainingBatch,
                weights: TermWeights = weights,
            ) -> tuple[Tensor, dict[str, Tensor]]:
                return training_loss(coeffs, rotation, part, face, weights, camera, logits)

            values = train_step(network, regressor, batch, loss_of, config, workers)
            nn.utils.clip_grad_norm_(regressor.parameters(), config.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            # A young average follows faster, so that early checkpoints are not random weights.
            update_average(mean_regressor, regressor, min(config.ema, step / (step + 10)))
            if step % config.log_every == 0 and workers.is_first:
                rate = (step - start_step) * config.batch_size / (time.monotonic() - started)
                log.scalars(step, "train", {**values, "samples_per_second": rate})
                shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
                LOGGER.info("step %6d of %d  %.0f/s  %s", step, config.steps, rate, shown)
            if step % config.checkpoint_every == 0 or step == config.steps:
                keep(step)
            due = step % config.validate_every == 0 or step == config.steps
            if due and workers.is_first:
                figures = validate(
                    mean_regressor, model, held_out, workers.device, config.input_size
                )
                log.scalars(step, "validation", figures)
                shown = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
                LOGGER.info("step %6d validation  %s", step, shown)
                summary = describe(config, step, figures)
                save_weights(config.out / WEIGHTS_FILE, mean_regressor, model, summary)
    except FloatingPointError as error:
        LOGGER.error(
            "step %d: %s. Nothing was updated with it; the last good checkpoint is %s. Lower the"
            " learning rate, or look at the data of this step.",
            step,
            error,
            state_path,
        )
        return 1
    except KeyboardInterrupt:
        keep(step)
        if workers.is_first:
            LOGGER.info("stopped at step %d; the same command goes on from there", step)
        return 130
    finally:
        log.close()
        leave_workers(workers)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Program: parse, train, report problems in one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    cli = tyro.extras.overridable_config_cli(PRESETS, prog="train.py", args=argv)
    try:
        return train(cli)
    except (ValueError, OSError) as error:
        LOGGER.error("%s", error)
        return 2 if isinstance(error, ValueError) else 1


if __name__ == "__main__":
    sys.exit(main())
