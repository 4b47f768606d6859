"""Hand-made part masks: how well the visible parts of the reconstruction lie on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from v3recon.evaluation.masked import PART_GROUPS, SKIN, labels_of_face, place_of_mask
from v3recon.evaluation.options import PartOptions
from v3recon.evaluation.predict import Case, FacePlace, Outcome, run_cases
from v3recon.evaluation.report import Report, Table, WorstCases, parts_panels, percent
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.io.celebamask import read_celebamask
from v3recon.io.images import read_image
from v3recon.io.messages import one_line
from v3recon.io.photo_files import list_photos
from v3recon.io.photo_index import read_photo_index
from v3recon.reconstruct.segment import part_overlaps
from v3recon.reconstruct.sheet import Panel

MAX_ASPECT_CHANGE = 0.02
"""A mask whose sides have another ratio than the photo's does not show the same field of view."""


@dataclass(frozen=True)
class Masked:
    """One photo with its mask.

    Attributes:
        name: for people.
        photo: the file.
        mask: the file of its classes.
        place: where the mask says that the face is.
        swapped: whether left and right are reversed in it and must be put right.
    """

    name: str
    photo: Path
    mask: Path
    place: FacePlace
    swapped: bool

    def labels(self) -> np.ndarray:
        """Part labels [H, W] uint8, 0…8, of the mask's own size; read anew each time."""
        return read_celebamask(self.mask, repair=self.swapped).labels


@dataclass
class Overlaps:
    """Intersection over union of the photos; lists grow together.

    Attributes:
        names: of the photos.
        values: [8] each; NaN where the mask lacks the part.
        found: False where the face failed and every present part counts 0.
        resized: photos whose mask has another size.
    """

    names: list[str] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)


def evaluate_parts(options: PartOptions) -> tuple[Report, WorstCases]:
    """Score the photos of a folder by the masks of another; see `PartOptions`.

    Raises:
        ValueError: for wrong usage: no photo with a mask, missing weights, …
    """
    report = Report(f"parts of {options.images} ({options.split})")
    items = _read_masks(options, report)
    worst = WorstCases(options.worst_count if options.worst else 0)
    cases = [
        Case(item.name, partial(read_image, item.photo), item.place, index)
        for index, item in enumerate(items)
    ]
    overlaps = Overlaps()
    for outcome in run_cases(cases, options, report):
        _keep(overlaps, items[outcome.case.number], outcome, report, worst)
    _summarize(report, overlaps, items)
    return report, worst


def _read_masks(options: PartOptions, report: Report) -> list[Masked]:
    """Photos with usable masks; the others go to the report."""
    for folder in (options.images, options.masks):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
    photos = list_photos([options.images])
    wanted = _names_of_split(options)
    if wanted is not None:
        photos = [photo for photo in photos if photo.name in wanted]
    masks = {path.stem: path for path in sorted(options.masks.rglob("*.png"))}
    photos = photos[: options.limit or None]
    items = []
    for photo in photos:
        name = photo.relative_to(options.images).as_posix()
        if photo.stem not in masks:
            report.unusable.append((name, "no mask"))
            continue
        mask = masks[photo.stem]
        try:
            marked = read_celebamask(mask, repair=options.sides == "repair")
        except ValueError as error:
            report.unusable.append((name, one_line(error)))
            continue
        place = place_of_mask(marked.labels)
        items.append(Masked(name, photo, mask, place, marked.repaired))
    if not items:
        raise ValueError(f"no photo of {options.images} has a usable mask in {options.masks}")
    return items


def _names_of_split(options: PartOptions) -> set[str] | None:
    """File names of the index' rows of the split; None = all photos."""
    if options.index is None:
        if options.split != "all":
            raise ValueError("--split needs --index")
        return None
    return {
        Path(entry.file).name
        for entry in read_photo_index(options.images, options.index)
        if options.split in ("all", entry.split)
    }


def _keep(
    overlaps: Overlaps, item: Masked, outcome: Outcome, report: Report, worst: WorstCases
) -> None:
    """Note what became of one photo."""
    image, face, target = outcome.image, outcome.face, item.labels()
    if image is not None and image.shape[:2] != target.shape:
        change = image.shape[0] * target.shape[1] / (image.shape[1] * target.shape[0])
        if abs(change - 1) > MAX_ASPECT_CHANGE:
            report.unusable.append((item.name, "mask has other proportions than the photo"))
            return
        overlaps.resized.append(item.name)
    labels = None
    if face is not None:
        labels = labels_of_face(face, (target.shape[0], target.shape[1])).cpu()
    shown = torch.zeros(target.shape, dtype=torch.uint8) if labels is None else labels
    values = part_overlaps(shown[None], torch.from_numpy(target)[None])[0]
    overlaps.names.append(item.name)
    overlaps.values.append(values)
    overlaps.found.append(face is not None)
    if image is not None:
        mean = float(values[:SKIN].nanmean())
        badness = -math.inf if math.isnan(mean) else 1 - mean
        title = f"{100 * mean:.0f} % {Path(item.name).name}"
        map_size = (target.shape[1], target.shape[0])

        def draw() -> list[Panel]:
            small = np.asarray(cv2.resize(image, map_size, interpolation=cv2.INTER_AREA), np.uint8)
            return parts_panels(title, small, target, None if labels is None else labels.numpy())

        worst.add(badness, draw)


def _summarize(report: Report, overlaps: Overlaps, items: Sequence[Masked]) -> None:
    """Tables and figures of all photos."""
    values = torch.stack(overlaps.values) if overlaps.values else torch.zeros(0, 8)
    found = torch.tensor(overlaps.found, dtype=torch.bool)
    parts: dict[str, float] = dict(zip(PART_NAMES, values.nanmean(0).tolist(), strict=True))
    counts = (~values.isnan()).sum(0).tolist()
    parts_found: dict[str, float] = dict(
        zip(PART_NAMES, values[found].nanmean(0).tolist(), strict=True)
    )
    groups = {group: _group(parts, names) for group, names in PART_GROUPS.items()}
    groups_found = {group: _group(parts_found, names) for group, names in PART_GROUPS.items()}
    seven = _group(parts, PART_NAMES[:SKIN])
    rows = [
        (name.replace("_", " "), percent(parts[name]), percent(parts_found[name]), str(count))
        for name, count in zip(PART_NAMES, counts, strict=True)
    ]
    rows.append(
        ("mean of 7 (no skin)", percent(seven), percent(_group(parts_found, PART_NAMES[:SKIN])), "")
    )
    header = ("IoU %", "all photos", "finished ones", "photos with it")
    report.tables.append(Table("intersection over union of the visible parts", header, rows))
    report.tables.append(
        Table(
            "groups",
            ("IoU %", *groups),
            [
                ("all photos", *map(percent, groups.values())),
                ("finished ones", *map(percent, groups_found.values())),
            ],
        )
    )
    total, failed = len(found), int((~found).sum())
    skipped = {name: total - count for name, count in zip(PART_NAMES, counts, strict=True)}
    swapped = [item.name for item in items if item.swapped]
    report.figures |= {
        "photos": total,
        "scored": total - failed,
        "failures": failed,
        "failure_rate": failed / total if total else math.nan,
        "iou": parts,
        "iou_mean": seven,
        "iou_groups": groups,
        "iou_finished": parts_found,
        "iou_groups_finished": groups_found,
        "parts_absent_in_mask": skipped,
        "masks_with_sides_put_right": len(swapped),
        "masks_of_another_size": len(overlaps.resized),
    }
    report.notes.append(f"{total} photos, {failed} not found or not finished: these count IoU 0")
    absent = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in skipped.items() if n)
    if absent:
        report.notes.append(f"parts that a mask lacks are skipped: {absent}")
    if swapped:
        report.notes.append(
            f"{len(swapped)} masks had left and right exchanged and were put right "
            "(--sides as-labelled takes them as they are)"
        )
    if overlaps.resized:
        report.notes.append(
            f"{len(overlaps.resized)} masks have another size than the photo; the parts were "
            "drawn at the mask's size"
        )
    for name, one, ok in zip(overlaps.names, overlaps.values, overlaps.found, strict=True):
        report.faces.append(
            {"file": name, "finished": ok, **dict(zip(PART_NAMES, one.tolist(), strict=True))}
        )


def _group(values: dict[str, float], names: Sequence[str]) -> float:
    """Mean over parts, those without a photo left out."""
    known = [values[name] for name in names if not math.isnan(values[name])]
    return sum(known) / len(known) if known else math.nan
