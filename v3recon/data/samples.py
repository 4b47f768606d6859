"""From a prepared photo to a training sample, and batches of them.

Targets are in the frame of the 224-pixel crop whatever the size of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from v3recon.data.augment import (
    AugmentSettings,
    Placement,
    change_colors,
    crop_matrix,
    draw_placement,
    resize_matrix,
)
from v3recon.data.profiling import (
    affine_map,
    build_sheet,
    profile_map,
    sample_labels,
    turn_sheet,
)
from v3recon.face_models.detector_mesh import (
    MIRROR_68,
    MIRROR_LABELS,
    load_face_mesh,
    rotation_between,
)

LABELS_NONE, LABELS_HAND, LABELS_PSEUDO, LABELS_PARSED = 0, 1, 2, 3
"""No labels; hand-made ones; polygons of the detected contours; the part parser's."""
JAW = slice(0, 17)
FAR_JAW_LEFT, FAR_JAW_RIGHT = slice(0, 8), slice(9, 17)
"""Jaw points left and right of the chin, as the viewer sees them."""
JAW_YAW_LIMIT = np.radians(20.0)
"""Hand-made jaw points of faces turned further lie on the visible rim, not on the jaw."""


@dataclass(frozen=True)
class FaceRecord:
    """One face of a prepared photo.

    Attributes:
        image: [H, W, 3] uint8 RGB region around the face.
        points: [468, 3] detected mesh, pixels of `image`, x right, y down, z toward the camera;
            NaN when the face was not detected.
        landmarks_68: [68, 3] hand-made points, z from the mesh; NaN where there are none.
        labels: [H, W] uint8 part labels 0…8, or None.
        labels_source: LABELS_NONE, LABELS_HAND, LABELS_PSEUDO or LABELS_PARSED.
        pose: [3] pitch, yaw, roll of the mesh, radians.
        source: number of the photo's source (`PreparedSet.sources`).
        name: file name of the photo.
        shape_codes: [2, K] shape coefficients of the photo and of its mirror image, if fitted.
        rotation: [3, 3] of the fit, world frame, acts on row vectors.
    """

    image: np.ndarray
    points: np.ndarray
    landmarks_68: np.ndarray
    labels: np.ndarray | None
    labels_source: int
    pose: np.ndarray
    source: int
    name: str
    shape_codes: np.ndarray | None = None
    rotation: np.ndarray | None = None

    @property
    def has_points(self) -> bool:
        """Whether the face was detected."""
        return bool(np.isfinite(self.points[0, 0]))

    @property
    def has_landmarks(self) -> bool:
        """Whether there are hand-made points."""
        return bool(np.isfinite(self.landmarks_68[30, 0]))


class Records(Protocol):
    """Anything that holds records, such as `shards.PreparedSet`."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def record(self, index: int) -> FaceRecord:
        """The record of an index."""
        ...


@dataclass(frozen=True)
class TrainingSample:
    """One augmented sample; a batch of them (tensors, B first) is a `TrainingBatch`.

    Attributes:
        image: [S, S, 3] uint8 RGB.
        points: [468, 3] crop-224 pixels; z in the same unit, toward the camera, mean 0.
        points_weight: [468] 1 where the mesh is known, else 0.
        landmarks_68: [68, 2] hand-made points, crop-224 pixels (0 where weight is 0).
        landmarks_weight: [68] 0…1.
        labels: [S, S] uint8 part labels over the crop, 0…8.
        labels_source: 0 none, 1 hand-made, 2 polygons of the detected contours, 3 parsed.
        angle: [3] pitch, yaw, roll of the turned and mirrored mesh, radians.
        profiled: 1 if turned by profiling.
        source: number of the photo's source.
        index: index of the record.
        shape_code: [K] fitted identity and expression; K = 0 where the set was not fitted.
        shape_weight: 1 where `shape_code` is known, else 0.
        rotation: [3, 3] of the fitted face in this sample, world frame, acts on row vectors.
    """

    image: np.ndarray
    points: np.ndarray
    points_weight: np.ndarray
    landmarks_68: np.ndarray
    landmarks_weight: np.ndarray
    labels: np.ndarray
    labels_source: int
    angle: np.ndarray
    profiled: int
    source: int
    index: int
    shape_code: np.ndarray
    shape_weight: float
    rotation: np.ndarray


@dataclass(frozen=True)
class TrainingBatch:
    """A batch of samples as tensors; image [B, 3, S, S] uint8; see `TrainingSample`."""

    image: Tensor
    points: Tensor
    points_weight: Tensor
    landmarks_68: Tensor
    landmarks_weight: Tensor
    labels: Tensor
    labels_source: Tensor
    angle: Tensor
    profiled: Tensor
    source: Tensor
    index: Tensor
    shape_code: Tensor
    shape_weight: Tensor
    rotation: Tensor

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same batch on another device."""
        return TrainingBatch(
            *(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self))
        )

    def __len__(self) -> int:
        return self.image.shape[0]


@dataclass(frozen=True)
class Turn:
    """New yaw and pitch of a profiled face, radians, and depth of the background rings."""

    yaw: float
    pitch: float
    push: float = 0.85


def draw_turn(pose: np.ndarray, rng: np.random.Generator, settings: AugmentSettings) -> Turn | None:
    """Draw whether and how far a face is turned: only toward larger |yaw|, keeping its side."""
    if rng.random() >= settings.profile:
        return None
    pitch, yaw = float(pose[0]), float(pose[1])
    low = min(max(abs(yaw), np.radians(settings.min_yaw)), np.radians(settings.max_yaw))
    side = np.sign(yaw) if abs(yaw) > np.radians(8.0) else rng.choice([-1.0, 1.0])
    sigma = settings.pitch_sigma * (3.0 if rng.random() < settings.pitch_wide else 1.0)
    return Turn(
        yaw=float(side * rng.uniform(low, np.radians(settings.max_yaw))),
        pitch=float(pitch + np.radians(sigma) * np.clip(rng.standard_normal(), -2.5, 2.5)),
        push=float(rng.uniform(0.6, 1.1)),
    )


def draw_sample(
    record: FaceRecord, rng: np.random.Generator, settings: AugmentSettings, index: int = 0
) -> TrainingSample:
    """Draw one augmented sample of a photo.

    Args:
        record: the prepared photo.
        rng: source of all randomness.
        settings: what may be drawn.
        index: index of the record, passed through.
    """
    turn = draw_turn(record.pose, rng, settings) if record.has_points else None
    placement = draw_placement(rng, settings)
    sample = place_sample(record, placement, turn, settings.size, index)
    image = change_colors(sample.image, rng, settings)
    return TrainingSample(
        image, *(getattr(sample, f.name) for f in fields(sample) if f.name != "image")
    )


def place_sample(
    record: FaceRecord, placement: Placement, turn: Turn | None, size: int, index: int = 0
) -> TrainingSample:
    """The sample of a chosen placement and turn, colours unchanged.

    The photo is warped once, at twice the size, and averaged down: that is the prefilter and
    smooths the silhouette of turned faces.
    """
    points, landmarks, weights, sheet, turned = _turned_points(record, turn)
    box = landmarks if turn is None and record.has_landmarks else None
    if box is None:
        box = points[load_face_mesh().landmarks_68]
    matrix = crop_matrix(box[:, :2], placement)
    to_output = resize_matrix(matrix, 2 * size)
    if turn is None:
        source_map = affine_map(to_output, 2 * size)
    else:
        source_map = profile_map(sheet, turned, to_output, 2 * size)
    image = cv2.remap(
        record.image,
        source_map[..., 0],
        source_map[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    labels = np.zeros((size, size), np.uint8)
    if record.labels is not None:
        labels = sample_labels(record.labels, source_map)
    points, landmarks = _to_crop(points, matrix), _to_crop(landmarks, matrix)
    points[:, 2] -= points[:, 2].mean()
    pitch, yaw = (record.pose[0], record.pose[1]) if turn is None else (turn.pitch, turn.yaw)
    roll = record.pose[2] + placement.roll
    if placement.flip:
        points = points[load_face_mesh().mirror]
        landmarks, weights = landmarks[MIRROR_68], weights[MIRROR_68]
        labels = MIRROR_LABELS[labels]
        yaw, roll = -yaw, -roll
    valid = np.float32(record.has_points)
    code = np.zeros(0) if record.shape_codes is None else record.shape_codes[int(placement.flip)]
    return TrainingSample(
        image=image,
        points=np.nan_to_num(points).astype(np.float32),
        points_weight=np.full(len(points), valid, np.float32),
        landmarks_68=np.nan_to_num(landmarks[:, :2]).astype(np.float32),
        landmarks_weight=weights.astype(np.float32),
        labels=labels,
        labels_source=record.labels_source,
        angle=np.nan_to_num(np.array([pitch, yaw, roll], np.float32)),
        profiled=int(turn is not None),
        source=record.source,
        index=index,
        shape_code=np.nan_to_num(code).astype(np.float32),
        shape_weight=float(code.size > 0 and np.isfinite(code).all()),
        rotation=_carry_rotation(record, placement, turn).astype(np.float32),
    )


def _carry_rotation(record: FaceRecord, placement: Placement, turn: Turn | None) -> np.ndarray:
    """Rotation of the fitted face after turn, roll and mirroring, world frame, row vectors."""
    down = np.array([1.0, -1.0, 1.0])
    rotation = np.eye(3) if record.rotation is None else record.rotation.astype(np.float64)
    if turn is not None:
        rotation = rotation @ (
            rotation_between(record.pose, turn.yaw, turn.pitch) * down * down[:, None]
        )
    c, s = np.cos(placement.roll), np.sin(placement.roll)
    rotation = rotation @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    if placement.flip:
        across = np.array([-1.0, 1.0, 1.0])
        rotation = rotation * across * across[:, None]
    return rotation


def _turned_points(
    record: FaceRecord, turn: Turn | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points, hand-made points and their weights after the turn; sheet before and after it."""
    points = record.points.astype(np.float64)
    landmarks = record.landmarks_68.astype(np.float64)
    weights = np.isfinite(landmarks[:, 0]).astype(np.float64)
    if turn is None:
        return points, landmarks, weights, points, points
    sheet = build_sheet(points, turn.push)
    # Hand-made points ride on the sheet as additional rigid points of the face.
    turned, landmarks = turn_sheet(sheet, record.pose, turn.yaw, turn.pitch, landmarks)
    if abs(record.pose[1]) > JAW_YAW_LIMIT:
        weights[JAW] = 0
    # The jaw that turns away would be annotated on the visible rim, where it no longer is.
    weights[FAR_JAW_RIGHT if turn.yaw > 0 else FAR_JAW_LEFT] = 0
    return turned[: len(points)], landmarks, weights, sheet, turned


def _to_crop(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Photo points [N, 3] to crop pixels; z is scaled like x and y."""
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    plane = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([plane, scale * points[:, 2:]], 1)


class TrainingDataset(Dataset[TrainingSample]):
    """Samples by (seed, epoch, record): index i is record i % N in epoch i // N.

    Each sample depends on (seed, i) alone, so a resumed run repeats exactly what an unbroken
    run would have drawn, whatever the number of workers.
    """

    def __init__(self, records: Records, settings: AugmentSettings, seed: int = 0) -> None:
        """Keep the records; nothing is read yet."""
        self.records = records
        self.settings = settings
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> TrainingSample:
        epoch, record = divmod(int(index), len(self.records))
        rng = np.random.Generator(np.random.SFC64([self.seed, epoch, record]))
        return draw_sample(self.records.record(record), rng, self.settings, record)


class EpochSampler(Sampler[list[int]]):
    """Endless batches of dataset indices (epoch * N + record), shuffled anew each epoch.

    Batch number `step` of a global batch is the same for every number of processes: rank r takes
    its slice of it. `start_step` resumes.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int = 0,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        repeats: Sequence[int] | None = None,
        stop_step: int | None = None,
    ) -> None:
        """Set up the order.

        Args:
            count: number of records N.
            batch_size: global batch size, divisible by `world_size`.
            seed: of the order.
            start_step: first batch to deliver.
            rank: of this process.
            world_size: number of processes.
            repeats: [N] how often each record comes in one epoch; default once. Repeats of one
                record in an epoch are drawn differently.
            stop_step: step before which to stop; default never.
        """
        if batch_size % world_size:
            raise ValueError(f"batch size {batch_size} is not divisible by {world_size} processes")
        self.base = np.repeat(np.arange(count), 1 if repeats is None else np.asarray(repeats))
        if len(self.base) < 1:
            raise ValueError("there is nothing to train on: the set of records is empty")
        # The k-th repeat of a record within an epoch is drawn as another epoch of it.
        self.copy = np.arange(len(self.base)) - np.searchsorted(self.base, self.base)
        self.copies = int(self.copy.max()) + 1
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.start_step, self.stop_step = start_step, stop_step
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        share = self.batch_size // self.world_size
        order: dict[int, np.ndarray] = {}
        while self.stop_step is None or step < self.stop_step:
            first = step * self.batch_size + self.rank * share
            batch = []
            for position in range(first, first + share):
                epoch, place = divmod(position, len(self.base))
                if epoch not in order:
                    order = {epoch: self._order(epoch), **dict(list(order.items())[:1])}
                batch.append(int(order[epoch][place]))
            yield batch
            step += 1

    def _order(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.base))
        return (epoch * self.copies + self.copy[order]) * self.count + self.base[order]

    def __len__(self) -> int:
        stop = self.start_step if self.stop_step is None else self.stop_step
        return max(stop - self.start_step, 0)


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    """Stack samples to tensors; the image becomes [B, 3, S, S] uint8."""
    columns = {
        field.name: torch.from_numpy(
            np.stack([np.asarray(getattr(sample, field.name)) for sample in samples])
        )
        for field in fields(TrainingSample)
    }
    columns["shape_weight"] = columns["shape_weight"].float()
    columns["image"] = columns["image"].permute(0, 3, 1, 2).contiguous()
    return TrainingBatch(**columns)


def to_float_image(batch: TrainingBatch) -> Tensor:
    """The network's input [B, 3, S, S] float32 RGB in 0…1."""
    return batch.image.float() / 255


class ProfiledValidation(Dataset[TrainingSample]):
    """Deterministic profiled samples of validation photos, one per photo and no other change.

    The same seed gives the same yaw for the same record, spread evenly over the range.
    """

    def __init__(
        self,
        records: Records,
        size: int,
        yaw: tuple[float, float] = (60.0, 90.0),
        seed: int = 0,
    ) -> None:
        """Choose the records that have a mesh and draw their turns.

        Args:
            records: the validation photos.
            size: side of the network's input, pixels.
            yaw: range of |yaw|, degrees.
            seed: of the yaws.
        """
        self.records, self.size = records, size
        self.indices = [i for i in range(len(records)) if records.record(i).has_points]
        rng = np.random.default_rng(seed)
        count = len(self.indices)
        self.yaws = np.radians(yaw[0] + (yaw[1] - yaw[0]) * (rng.permutation(count) + 0.5) / count)
        self.sides = rng.choice([-1.0, 1.0], count)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> TrainingSample:
        record = self.records.record(self.indices[index])
        return place_sample(record, Placement(), self.turn(index), self.size, self.indices[index])

    def turn(self, index: int) -> Turn:
        """How the photo of an index is turned."""
        pose = self.records.record(self.indices[index]).pose
        yaw = float(pose[1])
        side = np.sign(yaw) if abs(yaw) > np.radians(8.0) else self.sides[index]
        return Turn(float(side * max(self.yaws[index], abs(yaw))), float(pose[0]))
