"""A small part parser: refines the polygons of a detected mesh to what hand-made masks show.

It sees the upright crop and the polygons drawn through the mesh's contours, so it only has to
learn where hand-made masks differ from them: brows, lids, nostrils, hair over the forehead. A few
minutes on one core train it from some hundred masks, since its backbone has learned faces before.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from v3recon.data.augment import (
    AugmentSettings,
    Placement,
    change_colors,
    crop_matrix,
    draw_placement,
    resize_matrix,
)
from v3recon.data.regions import polygon_labels
from v3recon.data.samples import (
    LABELS_HAND,
    FaceRecord,
    Records,
    TrainingSample,
    place_sample,
)
from v3recon.data.shards import PreparedSet
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.load import load_face_model
from v3recon.io.atomic import replace_on_success
from v3recon.io.messages import one_line
from v3recon.io.tensors import read_tensor_file
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.networks.feature_pyramid import FeaturePyramid, block, enlarge
from v3recon.networks.fine_map import CLASS_WEIGHTS, CLASSES, STRIDES
from v3recon.networks.mesh_aligned import feature_levels
from v3recon.networks.regressor import make_backbone
from v3recon.reconstruct.assets import find_assets

SIZE = 160
"""Side of the crop that the parser works on, pixels."""
DECODER_RATE, BACKBONE_RATE = 3e-3, 5e-4
"""Peak learning rates; the backbone knows faces already."""
DRAW = AugmentSettings(
    size=SIZE, profile=0.0, roll_sigma=5.0, scale=(0.92, 1.1), shift=0.025, grey=0.05,
    noise=0.15, blur=0.15, low_resolution=0.15, jpeg=0.1, occlude=0.15,
)  # fmt: skip
"""Augmentation of the parser's training."""


class PartParser(nn.Module):
    """A feature pyramid on a face network's backbone, joined by RGB and polygons at half the size.

    forward(image [B, 3, S, S] in 0…1, polygons [B, S, S] labels 0…8) -> logits [B, 9, S, S].
    The polygons enter as one-hot planes, 2 x 2 pixels stacked, and are what an untrained parser
    gives back.
    """

    def __init__(self, width: int = 48, narrow: int = 40) -> None:
        super().__init__()
        self.backbone, _ = make_backbone("mbnetv3")
        self.levels, widths = feature_levels(self.backbone, STRIDES)
        self.pyramid = FeaturePyramid(widths[1:], width)
        self.join = block(width + widths[0] + 4 * (3 + CLASSES), narrow, 1)
        self.fine = nn.Sequential(block(narrow, narrow), block(narrow, narrow))
        self.head = nn.Conv2d(narrow, 4 * CLASSES, 1)

    def train(self, mode: bool = True) -> PartParser:
        """Training mode; the backbone's batch norms keep their statistics: batches are small."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, image: Tensor, polygons: Tensor) -> Tensor:
        """Logits [B, 9, S, S]; S divisible by 32."""
        planes = functional.one_hot(polygons.long(), CLASSES).permute(0, 3, 1, 2).to(image)
        _, maps = cast(Any, self.backbone).forward_intermediates(image, indices=self.levels)
        x = enlarge(self.pyramid(maps[1:]))
        near = functional.pixel_unshuffle(torch.cat([image - 0.5, planes], 1), 2)
        x = self.fine(self.join(torch.cat([x, maps[0], near], 1)))
        return functional.pixel_shuffle(self.head(x), 2) + 2 * planes


def upright(record: FaceRecord) -> Placement:
    """The placement that takes the head's roll out."""
    return Placement(roll=-float(record.pose[2]))


def parser_input(sample: TrainingSample) -> tuple[Tensor, Tensor]:
    """Image [3, S, S] in 0…1 and polygons [S, S] of a sample."""
    size = sample.image.shape[0]
    points = (sample.points + 0.5) * size / 224 - 0.5
    image = torch.from_numpy(sample.image).permute(2, 0, 1).float() / 255
    return image, torch.from_numpy(polygon_labels(points, size))


@torch.no_grad()
def parse_record(parser: PartParser, record: FaceRecord) -> np.ndarray:
    """Part labels of a record's region by the parser, averaged with the mirror image.

    Args:
        parser: in eval mode.
        record: a face with a mesh.

    Returns:
        [H, W] uint8, 0…8.
    """
    place = upright(record)
    image, polygons = parser_input(place_sample(record, place, None, SIZE))
    swap = torch.tensor([0, 2, 1, 4, 3, 5, 6, 7, 8])
    both = (
        torch.stack([image, image.flip(2)]),
        torch.stack([polygons, swap[polygons.flip(1).long()]]),
    )
    own, mirrored = parser(*both).softmax(1)
    chances = ((own + mirrored[swap].flip(2)) / 2).numpy()
    box = (
        record.landmarks_68
        if record.has_landmarks
        else record.points[load_face_mesh().landmarks_68]
    )
    matrix = resize_matrix(crop_matrix(box[:, :2].astype(np.float64), place), SIZE)
    height, width = record.image.shape[:2]
    back = [
        cv2.warpAffine(
            plane, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        for plane in chances[1:]
    ]
    nothing = 1 - np.sum(back, axis=0)
    return np.argmax(np.stack([nothing, *back]), 0).astype(np.uint8)


def part_iou(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU [8] of the parts of two label maps; NaN where the truth lacks the part."""
    result = np.full(8, np.nan)
    for label in range(1, 9):
        a, b = labels == label, truth == label
        if b.any():
            result[label - 1] = (a & b).sum() / (a | b).sum()
    return result


def hand_labelled(records: PreparedSet) -> list[int]:
    """Indices of the faces with hand-made masks and a mesh."""
    chosen = np.flatnonzero(records.column("labels_source") == LABELS_HAND)
    return [int(i) for i in chosen if records.record(int(i)).has_points]


def train_parser(
    records: Records,
    indices: list[int],
    start: nn.Module,
    steps: int,
    seed: int = 0,
    batch: int = 12,
) -> PartParser:
    """Train a parser (cross-entropy with soft Dice, AdamW with warm-up and cosine).

    Args:
        records: prepared training photos.
        indices: those with hand-made masks.
        start: a trained backbone whose weights are copied, see `start_backbone`.
        steps: optimiser steps.
        seed: of everything.
        batch: samples per step.
    """
    torch.manual_seed(seed)
    parser = PartParser()
    parser.backbone.load_state_dict(start.state_dict())
    parser.train()
    decoder = [p for name, p in parser.named_parameters() if not name.startswith("backbone.")]
    rates = (BACKBONE_RATE, DECODER_RATE)
    optimizer = torch.optim.AdamW(
        [{"params": parser.backbone.parameters()}, {"params": decoder}], weight_decay=0.02
    )
    for step in tqdm(range(steps), desc="parser", unit="step"):
        rng = np.random.default_rng([seed, step])
        chosen = rng.choice(indices, batch)
        inputs, targets = [], []
        for index in chosen:
            record = records.record(int(index))
            drawn = draw_placement(rng, DRAW)
            place = replace(drawn, roll=drawn.roll + upright(record).roll)
            sample = place_sample(record, place, None, SIZE)
            inputs.append(
                parser_input(replace(sample, image=change_colors(sample.image, rng, DRAW)))
            )
            targets.append(torch.from_numpy(sample.labels.astype(np.int64)))
        fall = 0.5 + 0.5 * np.cos(np.pi * step / steps)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / 30) * fall
        images, polygons = (torch.stack(column) for column in zip(*inputs, strict=True))
        loss = _loss(parser(images, polygons), torch.stack(targets))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parser.parameters(), 2.0)
        optimizer.step()
    return parser.eval()


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, small parts heavier, plus soft Dice over the batch."""
    entropy = functional.cross_entropy(logits, target, torch.tensor(CLASS_WEIGHTS))
    chances = logits.softmax(1)
    truth = functional.one_hot(target, CLASSES).permute(0, 3, 1, 2).float()
    overlap = (chances * truth).sum((0, 2, 3))
    total = (chances + truth).sum((0, 2, 3))
    return entropy + (1 - (2 * overlap + 1) / (total + 1))[1:].mean()


def save_parser(path: Path, parser: PartParser, description: dict[str, object]) -> None:
    """Half-precision weights and a description, atomically."""
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in parser.state_dict().items()
    }
    with replace_on_success(path) as temporary:
        torch.save({"state": state, "description": json.dumps(description)}, temporary)


def load_parser(path: Path) -> PartParser:
    """A trained parser in eval mode.

    Raises:
        ValueError: if the file is not a parser's.
    """
    try:
        content = read_tensor_file(path)
        state = {
            key: value.float() if value.is_floating_point() else value
            for key, value in content["state"].items()
        }
        parser = PartParser()
        parser.load_state_dict(state)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a part parser ({one_line(error)})") from None
    return parser.eval()


@dataclass(frozen=True)
class ParserConfig:
    """Train the part parser on prepared photos and compare it with the polygons."""

    prepared: Path
    """Folder written by `v3recon prepare`."""
    out: Path
    """File to write."""
    weights: Path | None = None
    """Checkpoint of a regressor whose backbone is the start; default the weights in the package."""
    steps: int = 1500
    """Optimiser steps of 12 samples (two thirds of a second each on one core)."""
    seed: int = 0
    """Seed of everything."""


def compare(parser: PartParser, records: PreparedSet) -> dict[str, list[float]]:
    """Mean IoU of each part against hand-made masks: the polygons' and the parser's."""
    rows: dict[str, list[np.ndarray]] = {"polygons": [], "parser": []}
    for index in hand_labelled(records):
        record = records.record(index)
        assert record.labels is not None
        polygons = polygon_labels(record.points, record.image.shape[0])
        rows["polygons"].append(part_iou(polygons, record.labels))
        rows["parser"].append(part_iou(parse_record(parser, record), record.labels))
    return {key: _mean_known(np.stack(values)).round(4).tolist() for key, values in rows.items()}


def _mean_known(values: np.ndarray) -> np.ndarray:
    """Column means over the numbers; NaN where a column has none."""
    known = np.isfinite(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def start_backbone(weights: Path | None) -> nn.Module:
    """The backbone of a regressor for PhotoFace; default the weights in the package.

    Raises:
        ValueError: if the file is not such a checkpoint or has another backbone.
    """
    path = weights or find_assets().weights
    regressor = load_checkpoint(path, load_face_model("photoface")).regressor
    if regressor.backbone_name != "mbnetv3":
        raise ValueError(f"{path} is a {regressor.backbone_name}; the parser starts from a mbnetv3")
    return regressor.backbone


def main(argv: list[str] | None = None) -> int:
    """Train, compare, save; 0 done, 2 wrong usage."""
    try:
        config = tyro.cli(ParserConfig, args=argv, prog="python -m v3recon.data.part_parser")
        train, val = PreparedSet(config.prepared, "train"), PreparedSet(config.prepared, "val")
        indices = hand_labelled(train)
        if not indices:
            raise ValueError(f"no hand-made masks among the training photos of {config.prepared}")
        start = start_backbone(config.weights)
    except SystemExit as stop:
        return int(stop.code or 0)
    except ValueError as error:
        print(f"part parser: {error}", file=sys.stderr)
        return 2
    parser = train_parser(train, indices, start, config.steps, config.seed)
    figures = compare(parser, val)
    for name, values in figures.items():
        print(f"{name:9s}" + " ".join(f"{value:.3f}" for value in values))
    save_parser(config.out, parser, {"masks": len(indices), "iou": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
