"""Truer meshes for photos that people have marked: refit the detected points to masks and points.

python -m v3recon.training.refine_points --prepared prepared --out refined

The detector's brows overlap with hand-made masks by 56 %, its lips by 72 and 75 %. Here the face
model is fitted to each photo with a hand-made mask or hand-made points: detected points, part
re-projection distance, hand-made points and a prior together, started from the network's own
estimate. Its points replace the detected ones in a copy of the prepared set, so that dense points
teach what the masks show.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from v3recon.data.augment import Placement, crop_matrix
from v3recon.data.samples import (
    LABELS_HAND,
    LABELS_PARSED,
    FaceRecord,
    TrainingBatch,
    collate,
    place_sample,
    to_float_image,
)
from v3recon.data.shards import Shard, hand_marked, open_shard, shard_folders
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.load import load_face_model
from v3recon.face_models.parts import BROW_LABELS, NOSE_LABEL, SKIN_LABEL
from v3recon.geometry.camera import Camera
from v3recon.geometry.rotation import axis_angle_to_matrix, matrix_to_euler
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.networks.regressor import Regressor
from v3recon.reconstruct.assets import find_assets
from v3recon.training.logging import LOGGER
from v3recon.training.objective import (
    PARTS_MAX_YAW,
    Posed,
    TrainingFace,
    landmark_errors,
    make_training_face,
    part_aim,
    part_losses,
    pose_rows,
)
from v3recon.types import FaceCoeffs

DEPTH_WEIGHT = 0.3
LANDMARK_WEIGHT = 2.0
PART_WEIGHT = 0.015
POINTS_WEIGHT = 0.3
"""Of the detected points, beside what people marked."""
SHAPE_RATE, POSE_RATE = 0.05, 0.003
"""First step sizes of Adam for coefficients and for pose (radians, decimetres)."""
PARSED_REACH = 0.04
"""Decimetres from brows and nose within which points of photos with parsed masks are moved; from
there to twice as far the shift fades."""
MAX_SHIFT = 0.12
"""Mean distance of refined from detected points, over the width between the outer eye corners,
above which a refit is another face, or a mask that is wrong; the detected points stay."""


@dataclass(frozen=True)
class RefineConfig:
    """Replace the detected points of marked photos by those of a refit."""

    prepared: Path
    """Folder written by `v3recon prepare`; it is not changed."""
    out: Path
    """Folder to write: a copy (large files are hard links) with other points."""
    weights: Path | None = None
    """Checkpoint to start from; default the weights in the package."""
    split: str = "train"
    """Split to refine; the others are copied."""
    steps: int = 100
    """Steps of the refit."""
    parsed: bool = False
    """Also refit photos whose mask is the part parser's, and move their brows and noses."""
    prior: float = 0.005
    """Weight of a squared shape coefficient (in standard deviations)."""
    batch_size: int = 64
    """Faces that are refitted together."""
    input_size: int = 160
    """Side of the masks that are fitted to, pixels; the network's own crop has its own size."""


def refine_set(config: RefineConfig) -> tuple[int, int]:
    """Write the copy; returns how many photos were refitted and how many of them were kept.

    Raises:
        ValueError: if there is nothing to refine, or `out` exists.
    """
    folders = shard_folders(config.prepared, config.split)
    if config.out.exists():
        raise ValueError(f"{config.out} exists already; give another --out")
    model = load_face_model("photoface")
    weights = config.weights or find_assets(None).weights
    regressor = load_checkpoint(weights, model).regressor.eval()
    face = make_training_face(model)
    temporary = config.out.with_name(config.out.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(config.prepared, temporary, copy_function=_link)
    tried = kept = 0
    for folder in tqdm(folders, unit="shard", disable=None):
        shard = open_shard(folder)
        points = np.array(shard.arrays["points"])
        marked = _marked_rows(shard, config.parsed)
        for start in range(0, len(marked), config.batch_size):
            rows = marked[start : start + config.batch_size]
            refined, good = refine_records(
                [shard.record(row) for row in rows], regressor, face, config
            )
            points[rows[good]] = refined[good]
            tried, kept = tried + len(rows), kept + int(good.sum())
        if len(marked):
            target = temporary / config.split / folder.name / "points.npy"
            target.unlink()  # it is a link to the original
            np.save(target, points)
    temporary.rename(config.out)
    return tried, kept


def _marked_rows(shard: Shard, parsed: bool) -> np.ndarray:
    """Rows of a shard with a mesh and a hand-made mask or points, or a parsed mask if wanted."""
    sources = shard.arrays["labels_source"]
    marked = hand_marked(sources, shard.arrays["landmarks_68"])
    if parsed:
        marked = marked | (np.asarray(sources) == LABELS_PARSED)
    return np.flatnonzero(marked & np.isfinite(shard.arrays["points"][:, 0, 0]))


def refine_records(
    records: list[FaceRecord], regressor: Regressor, face: TrainingFace, config: RefineConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Refit records.

    Args:
        records: with a mesh.
        regressor: gives the start.
        face: rows of its face model, PhotoFace.
        config: steps, prior, sizes.

    Returns:
        points [B, 468, 3] in pixels of the records' images as `FaceRecord.points`, and [B] bool
        which are to be believed.
    """
    camera = Camera()

    def batch_of(size: int) -> TrainingBatch:
        return collate([place_sample(record, Placement(), None, size) for record in records])

    with torch.no_grad():
        coeffs, rotation = regressor.predict(to_float_image(batch_of(regressor.input_size)))
    batch = batch_of(config.input_size)
    posed = refit(coeffs, rotation, batch, face, camera, config)
    plane = posed.points_2d[:, face.detector]
    scale = camera.focal / camera.distance
    found = torch.cat([plane, scale * posed.vertices[:, face.detector, 2:]], 2).numpy()
    width = np.linalg.norm(np.asarray(batch.points[:, 33, :2] - batch.points[:, 263, :2]), axis=1)
    shift = np.linalg.norm(found[..., :2] - batch.points[..., :2].numpy(), axis=2).mean(1)
    landmarks = np.stack([record.landmarks_68 for record in records])
    hand = hand_marked(batch.labels_source.numpy(), landmarks)
    share = np.where(hand[:, None], 1.0, parsed_shares(face)[None])[..., None]
    found = share * found + (1 - share) * _centred_like(batch.points.numpy(), found)
    refined = np.stack(
        [_to_region(points, record) for points, record in zip(found, records, strict=True)]
    )
    good = (shift < MAX_SHIFT * width) & np.isfinite(refined).all((1, 2))
    return refined.astype(np.float32), good


def parsed_shares(face: TrainingFace) -> np.ndarray:
    """How much [468] of a refit to a parsed mask each point takes over: 1 at brows and nose."""
    points = face.mean[face.detector]
    labels = [label - 1 for label in (*BROW_LABELS, NOSE_LABEL)]
    rows = face.parts[labels].flatten()
    near = torch.cdist(points, face.mean[rows[rows >= 0]]).amin(1)
    return (2 - near / PARSED_REACH).clamp(0, 1).numpy().astype(np.float64)


def _centred_like(points: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Detected points [B, 468, 3] with the mean depth of the refitted ones."""
    moved = points.astype(np.float64)
    moved[..., 2] += (found[..., 2] - moved[..., 2]).mean(1, keepdims=True)
    return moved


def refit(
    coeffs: FaceCoeffs,
    rotation: Tensor,
    batch: TrainingBatch,
    face: TrainingFace,
    camera: Camera,
    config: RefineConfig,
) -> Posed:
    """Minimise the terms over shape and pose of each face; returns the posed rows."""
    turn = torch.zeros(len(batch), 3)
    free = [value.detach().clone() for value in (coeffs.id, coeffs.exp, turn, coeffs.trans)]
    for value in free:
        value.requires_grad_(True)
    rates = (SHAPE_RATE, POSE_RATE)
    optimizer = torch.optim.Adam(
        [{"params": free[:2], "lr": rates[0]}, {"params": free[2:], "lr": rates[1]}]
    )
    trusted = (LABELS_HAND, LABELS_PARSED) if config.parsed else (LABELS_HAND,)
    usable = torch.isin(batch.labels_source, torch.tensor(trusted))
    usable = usable & (batch.angle[:, 1].abs() < PARTS_MAX_YAW)
    masked = usable.nonzero()[:, 0]
    labels = batch.labels[masked]
    labels = labels.masked_fill(labels == SKIN_LABEL, 0)  # its border is hair
    aim = part_aim(labels, camera, rotation) if len(masked) else None

    def pose() -> tuple[FaceCoeffs, Posed]:
        turned = rotation @ axis_angle_to_matrix(free[2])
        angle = matrix_to_euler(turned).detach()
        now = replace(coeffs, id=free[0], exp=free[1], trans=free[3], angle=angle)
        return now, pose_rows(now, turned, face, camera)

    for step in range(config.steps):
        now, posed = pose()
        loss = _distance(now, posed, batch, face, camera)
        loss = loss + config.prior * (now.id.square().sum() + now.exp.square().sum())
        if aim is not None:
            loss = loss + PART_WEIGHT * part_losses(posed, masked, face, aim).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - (step + 1) / config.steps)
    with torch.no_grad():
        return pose()[1]


def _distance(
    coeffs: FaceCoeffs, posed: Posed, batch: TrainingBatch, face: TrainingFace, camera: Camera
) -> Tensor:
    """Distance to detected and to hand-made points, summed over faces."""
    flat = (posed.points_2d[:, face.detector] - batch.points[..., :2]).abs().sum(-1)
    depth = posed.vertices[:, face.detector, 2] * camera.focal / camera.distance
    depth = (depth - depth.mean(1, keepdim=True) - batch.points[..., 2]).abs()
    detected = (flat * face.detector_weights).mean(1) + DEPTH_WEIGHT * depth.mean(1)
    hand = landmark_errors(posed, coeffs, batch, face).mean(1)
    return (POINTS_WEIGHT * detected + LANDMARK_WEIGHT * hand).sum()


def _to_region(points: np.ndarray, record: FaceRecord) -> np.ndarray:
    """Points [468, 3] of the plain crop in pixels of the record's image, depth as detected."""
    detected = record.points.astype(np.float64)
    box = record.landmarks_68 if record.has_landmarks else detected[load_face_mesh().landmarks_68]
    matrix = crop_matrix(box[:, :2].astype(np.float64), Placement())
    plane = (points[:, :2] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    depth = (points[:, 2] - points[:, 2].mean()) / scale + detected[:, 2].mean()
    return np.concatenate([plane, depth[:, None]], 1)


def _link(source: str, target: str) -> None:
    """Hard link where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def main(argv: list[str] | None = None) -> int:
    """Program: 0 on success, 2 for a set that cannot be refined."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(RefineConfig, args=argv, description=__doc__)
    try:
        tried, kept = refine_set(config)
    except (ValueError, OSError) as error:
        LOGGER.error("%s", error)
        return 2
    LOGGER.info("%s: %d photos refitted, %d believed", config.out, tried, kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
