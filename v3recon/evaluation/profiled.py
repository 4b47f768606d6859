"""Prepared photos turned to large yaws: how far the predicted 68 points are away.

The pictures are made as in training (`data.profiling`), the yaws are those of
`data.samples.ProfiledValidation`; the same wider picture serves the ground-truth crop, the
detector and the teacher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from v3recon.data.augment import BOX_FACTOR, CROP_SIZE, Placement
from v3recon.data.mesh_detection import MeshDetector, mediapipe_detector
from v3recon.data.regions import REGION_FACTOR
from v3recon.data.samples import ProfiledValidation, place_sample
from v3recon.data.shards import PreparedSet
from v3recon.evaluation.landmark_scores import FIXED, MARCHED, failure_table
from v3recon.evaluation.nme import box_size, normalized_mean_error
from v3recon.evaluation.options import ProfiledOptions
from v3recon.evaluation.predict import (
    Case,
    FacePlace,
    Outcome,
    landmarks_68_of,
    load_reconstructor,
    predict_cases,
)
from v3recon.evaluation.report import Report, Table, WorstCases, landmark_panels, percent
from v3recon.face_models.bfm import five_points
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.landmarks import INNER_51

SAME_FACE = 0.5
"""A teacher's face further off than this, over the face's size, is another one."""


@dataclass(frozen=True)
class TurnedPhoto:
    """One turned picture.

    Attributes:
        image: [S, S, 3] uint8 RGB.
        points: [68, 2] where the landmarks are, pixels of `image`.
        hand_made: whether hand-made points rode along, which stand for all but a hidden jaw.
    """

    image: np.ndarray
    points: Tensor
    hand_made: bool


def evaluate_profiled(options: ProfiledOptions) -> tuple[Report, WorstCases]:
    """Score prepared photos turned to large yaws; see `ProfiledOptions`.

    Raises:
        ValueError: for wrong usage: nothing prepared, missing weights, no teacher, …
    """
    low, high = options.yaw
    report = Report(f"{options.prepared} ({options.split}) turned to {low:g}-{high:g} degrees")
    photos = ProfiledValidation(
        PreparedSet(options.prepared, options.split), options.size, options.yaw, options.seed
    )
    count = min(len(photos), options.limit or len(photos))
    teacher = mediapipe_detector() if options.teacher else None
    reconstructor = load_reconstructor(options)
    worst = WorstCases(options.worst_count if options.worst else 0)
    # One batch at a time: pictures are drawn, used for everything, and dropped.
    rows, taught = [], []
    with tqdm(total=count, unit="photo", disable=None) as progress:
        for start in range(0, count, options.batch_size):
            numbers = range(start, min(start + options.batch_size, count))
            drawn = {number: turned_photo(photos, number) for number in numbers}
            cases = [_case(photos, number, photo) for number, photo in drawn.items()]
            for outcome in predict_cases(reconstructor, cases, options):
                rows.append(_score(outcome, drawn[outcome.case.number], report, worst))
            if teacher is not None:
                taught += [_teach(teacher, photo) for photo in drawn.values()]
            progress.update(len(numbers))
    _summarize(report, rows, taught)
    return report, worst


def turned_photo(photos: ProfiledValidation, index: int) -> TurnedPhoto:
    """Draw a photo turned, with all of the surroundings that `prepare` has stored.

    Args:
        photos: which photos, how they are turned and the side of the picture.
        index: which of them.
    """
    number = photos.indices[index]
    wide = Placement(scale=BOX_FACTOR / REGION_FACTOR)
    record = photos.records.record(number)
    sample = place_sample(record, wide, photos.turn(index), photos.size, number)
    known = torch.from_numpy(sample.landmarks_weight > 0)
    mesh = torch.from_numpy(sample.points[load_face_mesh().landmarks_68, :2])
    points = torch.where(known[:, None], torch.from_numpy(sample.landmarks_68), mesh).double()
    # The crop frame's pixel edges are the picture's.
    return TurnedPhoto(
        sample.image, (points + 0.5) * (photos.size / CROP_SIZE) - 0.5, bool(known.any())
    )


def _case(photos: ProfiledValidation, number: int, photo: TurnedPhoto) -> Case:
    name = photos.records.record(photos.indices[number]).name
    place = FacePlace(
        torch.cat([photo.points.amin(0), photo.points.amax(0)]), five_points(photo.points)
    )
    return Case(name, lambda: photo.image, place, number)


def _score(outcome: Outcome, photo: TurnedPhoto, report: Report, worst: WorstCases) -> dict:
    """Figures of one picture; NaN where there is no face."""
    name, face, target = outcome.case.name, outcome.face, photo.points
    row = {"file": name, "hand_made": photo.hand_made, FIXED: math.nan, MARCHED: math.nan}
    row["inner 51"] = math.nan
    short = name.rsplit("/", 1)[-1]
    if face is None:
        report.failures.append((name, outcome.failure))
        worst.add(
            math.inf,
            lambda: landmark_panels(f"failed: {short}", photo.image, target.numpy(), None),
        )
        return row
    fixed, marched = (points.double().cpu() for points in landmarks_68_of(face))
    size = box_size(target[None])
    for key, points in ((FIXED, fixed), (MARCHED, marched)):
        row[key] = float(normalized_mean_error(points[None], target[None], size))
    inner = normalized_mean_error(fixed[None, INNER_51], target[None, INNER_51], size)
    row["inner 51"] = float(inner)
    title = f"{100 * row[FIXED]:.1f} % {short}"
    worst.add(
        row[FIXED], lambda: landmark_panels(title, photo.image, target.numpy(), fixed.numpy())
    )
    return row


def _teach(teacher: MeshDetector, photo: TurnedPhoto) -> tuple[float, float]:
    """NME of the detector's own 68 and inner 51 points; NaN where it does not find the face."""
    index = load_face_mesh().landmarks_68
    meshes = teacher(Path("turned"), "turned", photo.image)
    target = photo.points[None]
    size = box_size(target)
    best = (math.nan, math.nan)
    for mesh in meshes:
        points = torch.from_numpy(mesh[index, :2]).double()[None]
        error = float(normalized_mean_error(points, target, size))
        if error < SAME_FACE and not error >= best[0]:
            inner = normalized_mean_error(points[:, INNER_51], target[:, INNER_51], size)
            best = (error, float(inner))
    return best


def _summarize(report: Report, rows: list[dict], taught: list[tuple[float, float]]) -> None:
    """Tables and figures of all pictures."""
    total = len(rows)
    columns = {
        key: torch.tensor([row[key] for row in rows], dtype=torch.float64)
        for key in (FIXED, MARCHED, "inner 51")
    }
    found = ~columns[FIXED].isnan()
    lines = [_line(f"68, {FIXED}", columns[FIXED]), _line(f"68, {MARCHED}", columns[MARCHED])]
    lines.append(_line("inner 51", columns["inner 51"]))
    report.figures |= {
        "photos": total,
        "found_rate": float(found.double().mean()),
        "nme_68": float(columns[FIXED].nanmean()),
        "nme_68_marched": float(columns[MARCHED].nanmean()),
        "nme_inner": float(columns["inner 51"].nanmean()),
    }
    if taught:
        points, inner = torch.tensor(taught, dtype=torch.float64).T
        lines += [_line("teacher 68", points), _line("teacher inner 51", inner)]
        both = found & ~points.isnan()
        lines.append(_line("ours where the teacher finds it", columns[FIXED][both]))
        report.figures["teacher"] = {
            "found_rate": float((~points.isnan()).double().mean()),
            "nme_68": float(points.nanmean()),
            "nme_inner": float(inner.nanmean()),
            "ours_where_it_finds": float(columns[FIXED][both].mean()) if both.any() else math.nan,
        }
    header = ("NME %", "mean", "median", "scored", "found %")
    report.tables.append(Table("normalised mean error by the box", header, lines))
    failed = int((~found).sum())
    table, report.figures["large_errors"] = failure_table(
        columns[FIXED][found], failed, f"68, {FIXED}"
    )
    report.tables.append(table)
    hand_made = sum(bool(row["hand_made"]) for row in rows)
    report.notes.append(
        f"truth: the detected mesh, turned; in {hand_made} pictures hand-made points, where "
        "they rode along; both in 3D, so the headline is the fixed vertices"
    )
    report.faces += rows


def _line(name: str, values: Tensor) -> tuple[str, ...]:
    known = values[~values.isnan()]
    mean = float(known.mean()) if len(known) else math.nan
    median = float(known.median()) if len(known) else math.nan
    share = len(known) / max(len(values), 1)
    return name, percent(mean), percent(median), str(len(known)), percent(share, 1)
