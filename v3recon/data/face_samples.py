"""From photos and drawn heads to batches of training samples, computed in loader workers.

Targets are in the frame of the 224-pixel crop whatever the size of the network's input. Every
sample depends on (seed, step, slot) alone, so a resumed run sees what an unbroken one would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from v3recon.data.augment import (
    CROP_SIZE,
    AugmentSettings,
    Placement,
    change_colors,
    crop_matrix,
    draw_placement,
    occlude,
    resize_matrix,
)
from v3recon.data.draw_heads import DrawnHeads
from v3recon.data.face_table import CURVE_POINTS, FaceTable
from v3recon.face_models.detector_mesh import MIRROR_68, POINT_COUNT, load_face_mesh
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.fitting.part_targets import PART_SIDE, no_parts, part_aims
from v3recon.io.celebamask import CLASS_NAMES, read_celebamask
from v3recon.networks.encoder import MIRROR_SEEN, SEEN_NAMES

HAIR, GLASSES, OCCLUDER = (SEEN_NAMES.index(name) for name in ("hair", "glasses", "occluder"))
NOT_LABELED = 255
_MIRROR_SEEN = np.array(MIRROR_SEEN, np.uint8)
DRAWN = "drawn"
"""Name of the drawn heads among the sources of a batch."""


@dataclass(frozen=True)
class FaceBatch:
    """B samples; of one sample the same names without B, as arrays.

    Attributes:
        image: [B, 3, S, S] uint8 RGB ([S, S, 3] of a sample).
        detected, detected_weight: [B, 468, 2] and [B, 468], crop pixels.
        marked, marked_weight: [B, 68, 2] and [B, 68].
        loose: [B] 1 where the marked points have a common shift of their own.
        curve, curve_weight, curve_left: [B, 9, 2], [B], [B]: points on the jaw line.
        seen: [B, S / 2, S / 2] uint8, what each place shows, `NOT_LABELED` where not known.
        part_statistics: [B, 8, 3, A] distances of masks from `part_anchors`, crop pixels.
        part_present: [B, 8] 1 where the photo has a mask and the part is on it.
        subject: [B] int64, number of the person; -1 for drawn heads.
        truth: [B, K] exact coefficients of drawn heads: id, exp, alb, sh.
        rotation, trans: [B, 3, 3] and [B, 3] of drawn heads.
        truth_weight: [B] 1 for drawn heads.
    """

    image: Tensor
    detected: Tensor
    detected_weight: Tensor
    marked: Tensor
    marked_weight: Tensor
    loose: Tensor
    curve: Tensor
    curve_weight: Tensor
    curve_left: Tensor
    seen: Tensor
    part_statistics: Tensor
    part_present: Tensor
    subject: Tensor
    truth: Tensor
    rotation: Tensor
    trans: Tensor
    truth_weight: Tensor

    def __len__(self) -> int:
        return self.image.shape[0]

    def to(self, device: torch.device | str) -> FaceBatch:
        """The same batch on another device."""
        return FaceBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


Sample = dict[str, np.ndarray]


@dataclass(frozen=True)
class Slot:
    """One sample to draw: where from, and the random numbers it is drawn with."""

    source: str
    row: int
    seed: tuple[int, int, int]
    size: int


class BatchPlan(Sampler[list[Slot]]):
    """Which samples make which batch: sources by share, then any of their photos.

    Slots that fall on a source of pairs are followed, by `pair_share`, by another photo of the
    same person.
    """

    def __init__(
        self,
        rows: Mapping[str, np.ndarray],
        subjects: np.ndarray,
        shares: Mapping[str, float],
        *,
        batch_size: int,
        seed: int,
        sizes: Sequence[int],
        drawn_shares: Sequence[float],
        start_step: int = 0,
        pair_share: float = 0.0,
    ) -> None:
        """Set up; `sizes` and `drawn_shares` give each step's pixels and share of drawn heads.

        Args:
            rows: rows of each source; `DRAWN` those of the drawn heads.
            subjects: [N] person of each row of photos.
            shares: share of each source among photos; sources without rows are passed over.
            batch_size: samples of a batch.
            seed: of all draws.
            sizes: [steps] pixels.
            drawn_shares: [steps].
            start_step: first step to deliver.
            pair_share: of photos with another photo of the same person.

        Raises:
            ValueError: if no source has both rows and a share.
        """
        self.names = [name for name in shares if len(rows.get(name, ())) and shares[name] > 0]
        if not self.names:
            raise ValueError(f"no photos of the sources {list(shares)}")
        weights = np.array([shares[name] for name in self.names])
        self.weights = weights / weights.sum()
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.sizes, self.drawn_shares, self.start_step = sizes, drawn_shares, start_step
        self.pair_share = pair_share
        self.subjects = subjects
        order = np.argsort(subjects, kind="stable")
        starts = np.flatnonzero(np.r_[True, subjects[order][1:] != subjects[order][:-1]])
        self.people = {subjects[order[k[0]]]: k for k in np.split(order, starts[1:])}

    def __len__(self) -> int:
        return len(self.sizes) - self.start_step

    def __iter__(self) -> Iterator[list[Slot]]:
        for step in range(self.start_step, len(self.sizes)):
            yield self.batch(step)

    def batch(self, step: int) -> list[Slot]:
        """The slots of a step."""
        rng = np.random.Generator(np.random.SFC64([self.seed, step]))
        chosen: list[tuple[str, int]] = []
        drawn = self.rows.get(DRAWN, np.zeros(0, np.int64))
        while len(chosen) < self.batch_size:
            if len(drawn) and rng.random() < self.drawn_shares[step]:
                chosen.append((DRAWN, int(rng.choice(drawn))))
                continue
            name = self.names[int(rng.choice(len(self.names), p=self.weights))]
            row = int(rng.choice(self.rows[name]))
            chosen.append((name, row))
            others = self.people[self.subjects[row]]
            if len(others) > 1 and rng.random() < self.pair_share:
                chosen.append((name, int(rng.choice(others[others != row]))))
        size = self.sizes[step]
        return [
            Slot(name, row, (self.seed, step, slot), size)
            for slot, (name, row) in enumerate(chosen[: self.batch_size])
        ]


class FaceSamples(Dataset[Sample]):
    """Samples of photos and drawn heads by `Slot`."""

    def __init__(
        self,
        photos: Path,
        table: FaceTable,
        settings: AugmentSettings,
        heads: DrawnHeads | None,
        coefficients: int,
    ) -> None:
        """Keep what samples are drawn from; nothing is read yet.

        Args:
            photos: folder of the photos.
            table: what is known of them.
            settings: of augmentation; its size is each slot's.
            heads: drawn heads.
            coefficients: K, id, exp, alb and sh together.
        """
        self.photos, self.table, self.settings, self.heads = photos, table, settings, heads
        self.coefficients = coefficients
        self.person = np.unique(table.subject, return_inverse=True)[1]

    def __getitem__(self, slot: Slot) -> Sample:
        cv2.setNumThreads(0)
        rng = np.random.Generator(np.random.SFC64(list(slot.seed)))
        settings = replace(self.settings, size=slot.size)
        if slot.source == DRAWN:
            assert self.heads is not None
            return drawn_sample(self.heads, slot.row, rng, settings)
        return self.photo_sample(slot.row, rng, settings)

    def photo_sample(self, row: int, rng: np.random.Generator, settings: AugmentSettings) -> Sample:
        """One augmented sample of a photo."""
        placement = draw_placement(rng, settings)
        sample = self.place(row, placement, settings.size)
        image = sample["image"]
        if rng.random() < settings.occlude:
            image, hidden = occlude(image, rng)
            half = hidden[1::2, 1::2]
            labeled = sample["seen"] != NOT_LABELED
            sample["seen"] = np.where(half & labeled, OCCLUDER, sample["seen"]).astype(np.uint8)
        sample["image"] = change_colors(image, rng, replace(settings, occlude=0.0))
        return sample

    def place(self, row: int, placement: Placement, size: int) -> Sample:
        """The sample of a chosen placement, colors unchanged.

        Raises:
            ValueError: if the photo or its mask cannot be read.
        """
        table = self.table
        path = self.photos / str(table.file[row])
        photo = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if photo is None:
            raise ValueError(f"cannot read the photo {path}")
        matrix = crop_matrix(table.frame_points(row).astype(np.float64), placement)
        image = _warp(photo, matrix, size, cv2.BORDER_REPLICATE)
        seen = np.full((size // 2, size // 2), NOT_LABELED, np.uint8)
        statistics, present = no_parts()
        if table.mask[row]:
            classes = read_celebamask(self.photos / str(table.mask[row])).classes
            of_mask = np.diag([photo.shape[1] / classes.shape[1]] * 2 + [1.0])
            labels = seen_of_classes(classes)
            seen, parts = (
                cv2.warpAffine(
                    labels, resize_matrix(matrix, side) @ of_mask, (side, side),
                    flags=cv2.INTER_NEAREST,
                )
                for side in (size // 2, PART_SIDE)
            )  # fmt: skip
            if placement.flip:
                parts = _MIRROR_SEEN[np.asarray(parts, np.uint8)]
            statistics, present = part_aims(np.asarray(parts), CROP_SIZE)
        detected, weight = _to_crop(table.detected[row], matrix), table.detected_weight[row]
        marked, marked_weight = _to_crop(table.marked[row], matrix), table.marked_weight[row]
        curve, left = _to_crop(table.curve[row], matrix), bool(table.curve_left[row])
        if placement.flip:
            mirror = load_face_mesh().mirror
            detected, weight = detected[mirror], weight[mirror]
            marked, marked_weight = marked[MIRROR_68], marked_weight[MIRROR_68]
            seen = np.where(seen == NOT_LABELED, seen, _MIRROR_SEEN[np.minimum(seen, OCCLUDER)])
            left = not left
        return {
            "image": image,
            "detected": np.nan_to_num(detected).astype(np.float32),
            "detected_weight": weight.astype(np.float32),
            "marked": np.nan_to_num(marked).astype(np.float32),
            "marked_weight": marked_weight.astype(np.float32),
            "loose": np.float32(table.loose[row]),
            "curve": np.nan_to_num(curve).astype(np.float32),
            "curve_weight": np.float32(np.isfinite(curve).all()),
            "curve_left": np.array(left),
            "seen": seen.astype(np.uint8),
            "part_statistics": statistics,
            "part_present": present,
            "subject": np.int64(self.person[row]),
            "truth": np.zeros(self.coefficients, np.float32),
            "rotation": np.eye(3, dtype=np.float32),
            "trans": np.zeros(3, np.float32),
            "truth_weight": np.float32(0),
        }  # pyright: ignore[reportReturnType]


def drawn_sample(
    heads: DrawnHeads, row: int, rng: np.random.Generator, settings: AugmentSettings
) -> Sample:
    """One drawn head with other colors and something before it."""
    size = settings.size
    image = cv2.resize(heads.image[row], (size, size), interpolation=cv2.INTER_AREA)
    seen = cv2.resize(heads.seen[row], (size // 2,) * 2, interpolation=cv2.INTER_NEAREST)
    if rng.random() < settings.occlude:
        image, hidden = occlude(image, rng)
        seen = np.where(hidden[1::2, 1::2] & (seen != NOT_LABELED), OCCLUDER, seen)
    statistics, present = no_parts()
    return {
        "image": change_colors(image, rng, replace(settings, occlude=0.0)),
        "detected": heads.detected[row],
        "detected_weight": np.ones(POINT_COUNT, np.float32),
        "marked": heads.marked[row],
        "marked_weight": np.ones(68, np.float32),
        "loose": np.float32(0),
        "curve": np.zeros((CURVE_POINTS, 2), np.float32),
        "curve_weight": np.float32(0),
        "curve_left": np.array(False),
        "seen": seen.astype(np.uint8),
        "part_statistics": statistics,
        "part_present": present,
        "subject": np.int64(-1),
        "truth": heads.truth[row],
        "rotation": heads.rotation[row],
        "trans": heads.trans[row],
        "truth_weight": np.float32(1),
    }  # pyright: ignore[reportReturnType]


def seen_of_classes(classes: np.ndarray) -> np.ndarray:
    """CelebAMask-HQ's classes as numbers of `networks.encoder.SEEN_NAMES`, [H, W] uint8."""
    return _SEEN_OF_CLASS[classes]


_SEEN_OF_CLASS = np.zeros(len(CLASS_NAMES), np.uint8)
for _number, _name in enumerate(PART_NAMES):
    _SEEN_OF_CLASS[CLASS_NAMES.index(_name)] = _number + 1
for _name, _number in (("hair", HAIR), ("glasses", GLASSES), ("hat", OCCLUDER)):
    _SEEN_OF_CLASS[CLASS_NAMES.index(_name)] = _number


def collate(samples: Sequence[Sample]) -> FaceBatch:
    """Stack samples to tensors."""
    columns = {
        f.name: torch.from_numpy(np.stack([np.asarray(sample[f.name]) for sample in samples]))
        for f in fields(FaceBatch)
    }
    columns["image"] = columns["image"].permute(0, 3, 1, 2).contiguous()
    return FaceBatch(**columns)


def _warp(photo: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    """A photo in the crop, drawn at twice the size (or the photo's own) and averaged down."""
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2]))) * size / CROP_SIZE
    factor = int(np.clip(np.ceil(1 / scale), 1, 4))
    to_output = resize_matrix(matrix, factor * size)
    large = cv2.warpAffine(
        photo, to_output, (factor * size,) * 2, flags=cv2.INTER_LINEAR, borderMode=border
    )
    return large if factor == 1 else cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def _to_crop(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]
