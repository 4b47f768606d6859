"""Predicted and annotated 68 points of many photos: collecting them, tables of their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from v3recon.evaluation.nme import (
    LARGE_ERROR,
    YAW_BINS,
    BinnedError,
    bin_errors,
    box_size,
    normalized_mean_error,
)
from v3recon.evaluation.options import EvaluateOptions
from v3recon.evaluation.predict import (
    Case,
    FacePlace,
    Outcome,
    landmarks_68_of,
    load_reconstructor,
    predict_cases,
)
from v3recon.evaluation.report import (
    NO_FACE,
    Report,
    Table,
    WorstCases,
    landmark_panels,
    percent,
)
from v3recon.face_models.bfm import five_points
from v3recon.io.arrays import read_npy
from v3recon.io.images import read_image
from v3recon.reconstruct.sheet import Panel

FIXED, MARCHED, GIVEN = "3D points", "jaw on outline", "predictions"
"""Definitions of the predicted points: the model's fixed vertices; the jaw marched to the visible
outline, which is what hand-made points in photos follow; or points from a file."""


@dataclass(frozen=True)
class Annotated:
    """One photo with its ground truth.

    Attributes:
        name: for people.
        photo: the file.
        points: [68, 2] photo pixels, first pixel 0.
        yaw: annotated yaw, degrees; None where it is not annotated.
    """

    name: str
    photo: Path
    points: Tensor
    yaw: float | None = None


@dataclass
class Scored:
    """Annotated faces that were finished, with what was predicted; lists grow together.

    Attributes:
        items: the annotations.
        points: definition -> predicted [68, 2], photo pixels.
        angles: predicted pitch, yaw, roll, radians, ours; None for points from a file.
        failed: annotation and reason of the others.
        outside: photos with annotated points outside of the picture.
    """

    items: list[Annotated] = field(default_factory=list)
    points: dict[str, list[Tensor]] = field(default_factory=dict)
    rotations: list[Tensor] = field(default_factory=list)
    failed: list[tuple[Annotated, str]] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def target(self) -> Tensor:
        """Ground truth [N, 68, 2] of the finished faces."""
        return _stack([item.points for item in self.items], (68, 2))

    def predicted(self, definition: str) -> Tensor:
        """Predicted points [N, 68, 2] of one definition."""
        return _stack(self.points.get(definition, []), (68, 2))

    def rotation(self) -> Tensor:
        """Predicted rotations [N, 3, 3] for row vectors."""
        return _stack(self.rotations, (3, 3))


def predict_landmarks(
    items: Sequence[Annotated], options: EvaluateOptions, worst: WorstCases, headline: str
) -> Scored:
    """Run the network on every annotated photo.

    Args:
        items: the photos.
        options: weights, crop and the like.
        worst: gets the pictures.
        headline: definition by which faces are called bad.

    Raises:
        ValueError: if the network cannot be loaded.
    """
    reconstructor = load_reconstructor(options)
    cases = [
        Case(
            item.name,
            partial(read_image, item.photo),
            FacePlace(
                torch.cat([item.points.amin(0), item.points.amax(0)]), five_points(item.points)
            ),
            index,
        )
        for index, item in enumerate(items)
    ]
    scored = Scored()
    outcomes = predict_cases(reconstructor, cases, options)
    for outcome in tqdm(outcomes, total=len(cases), unit="photo", disable=None):
        _keep(scored, items[outcome.case.number], outcome, worst, headline)
    return scored


def score_predictions(
    items: Sequence[Annotated], points: np.ndarray, first_pixel: int, worst: WorstCases
) -> Scored:
    """Somebody else's points instead of a network's.

    Args:
        items: the photos in name order.
        points: [N, 68, 2] in the pixels of the annotation files, NaN where there is no face.
        first_pixel: coordinate of the first pixel in those files.
        worst: gets the pictures.

    Raises:
        ValueError: if there are not as many predictions as photos.
    """
    if len(points) != len(items):
        raise ValueError(
            f"there are {len(points)} predictions for {len(items)} annotated photos; "
            "they must be in the photos' name order, NaN where no face was found"
        )
    scored = Scored(points={GIVEN: []})
    for item, one in zip(items, torch.from_numpy(points - first_pixel), strict=True):
        if not bool(one.isfinite().all()):
            scored.failed.append((item, NO_FACE))
            worst.add(math.inf, partial(_panels_of_file, item, None, "failed:"))
            continue
        scored.items.append(item)
        scored.points[GIVEN].append(one)
        error = _error(one, item.points)
        worst.add(error, partial(_panels_of_file, item, one, f"{100 * error:.1f} %"))
    return scored


def read_points_file(path: Path, limit: int = 0) -> np.ndarray:
    """A .npy file (N, 2 or 3, 68) as [N, 68, 2] float64, in the file's own pixels.

    Args:
        path: the file.
        limit: only so many from the start; 0 = all.

    Raises:
        ValueError: if it is not such a file.
    """
    points = read_npy(path)
    if points.dtype.kind not in "iuf":
        raise ValueError(f"{path}: holds {points.dtype}, expected numbers")
    if points.ndim != 3 or points.shape[1] not in (2, 3) or points.shape[2] != 68:
        raise ValueError(f"{path}: holds {points.shape}, expected (N, 2, 68)")
    points = points[: limit or None, :2].astype(np.float64)
    return np.ascontiguousarray(points.transpose(0, 2, 1))


def error_table(title: str, errors: dict[str, Tensor], yaw: Tensor | None) -> tuple[Table, dict]:
    """A table of mean errors in percent by yaw bin, and the same as JSON values.

    Args:
        title: over the table.
        errors: row name -> [N].
        yaw: [N] degrees; None where it is not known, then there are no bins.
    """
    if yaw is None:
        rows = [
            (name, percent(mean_or_nan(error)), str(len(error))) for name, error in errors.items()
        ]
        figures = {name: {"mean": mean_or_nan(error)} for name, error in errors.items()}
        return Table(title, ("NME %", "all", "photos"), rows), figures
    binned = {name: bin_errors(error, yaw) for name, error in errors.items()}
    counts = next(iter(binned.values())).counts
    names = ("yaw <= 30", "30-60", "> 60")
    header = ("NME %", *names, "mean of bins", "std", "all photos")
    rows = [
        (
            name,
            *map(percent, one.bins),
            percent(one.mean),
            percent(one.std),
            percent(one.plain),
        )
        for name, one in binned.items()
    ]
    rows.append(("photos", *map(str, counts), "", "", str(sum(counts))))
    return Table(title, header, rows), {name: binned_json(one) for name, one in binned.items()}


def binned_json(error: BinnedError) -> dict:
    """JSON values of a `BinnedError`; shares, not percent."""
    return {
        "bins": dict(zip(YAW_BINS, error.bins, strict=True)),
        "counts": dict(zip(YAW_BINS, error.counts, strict=True)),
        "mean_of_bins": error.mean,
        "std": error.std,
        "std_sample": error.std_sample,
        "mean": error.plain,
    }


def add_failures(report: Report, scored: Scored, total: int) -> None:
    """Count faces that were not found or finished, and points outside of photos."""
    report.failures += [(item.name, reason) for item, reason in scored.failed]
    report.figures["photos"] = total
    report.figures["scored"] = len(scored.items)
    report.figures["failures"] = len(scored.failed)
    report.figures["failure_rate"] = len(scored.failed) / total if total else math.nan
    if scored.outside:
        report.figures["points_outside_photo"] = len(scored.outside)
        report.notes.append(
            f"{len(scored.outside)} photos have annotated points outside of the picture; scored "
            f"all the same, e.g. {scored.outside[0]}"
        )


def failure_table(error: Tensor, failed: int, definition: str) -> tuple[Table, dict]:
    """How many faces are missing, and how many missing or far off, of all annotated ones."""
    total = len(error) + failed
    far = int((error > LARGE_ERROR).sum()) + failed
    rows = [
        ("not found or not finished", str(failed), percent(failed / max(total, 1))),
        (f"the same or NME > {LARGE_ERROR:.0%}", str(far), percent(far / max(total, 1))),
    ]
    table = Table(f"failures of {total} photos ({definition})", ("", "photos", "%"), rows)
    return table, {"count": far, "rate": far / max(total, 1), "limit": LARGE_ERROR}


def check_points(points: np.ndarray) -> None:
    """Raise ValueError for points that give no size to divide by."""
    if not np.isfinite(points).all():
        raise ValueError("annotated points are not finite")
    if not np.ptp(points, axis=0).min() > 0:
        raise ValueError("annotated points fall together")


def _keep(
    scored: Scored, item: Annotated, outcome: Outcome, worst: WorstCases, headline: str
) -> None:
    """Note what became of one photo."""
    image, face = outcome.image, outcome.face
    if image is not None:
        limit = torch.tensor([image.shape[1], image.shape[0]]) - 0.5
        if bool(((item.points < -0.5) | (item.points > limit)).any()):
            scored.outside.append(item.name)
    if face is None:
        scored.failed.append((item, outcome.failure))
        if image is not None:
            title = f"failed: {Path(item.name).name}"
            worst.add(math.inf, lambda: landmark_panels(title, image, item.points.numpy(), None))
        return
    fixed, marched = (points.double().cpu() for points in landmarks_68_of(face))
    scored.items.append(item)
    scored.points.setdefault(FIXED, []).append(fixed)
    scored.points.setdefault(MARCHED, []).append(marched)
    scored.rotations.append(face.decoded.rotation[0].double().cpu())
    shown = marched if headline == MARCHED else fixed
    error = _error(shown, item.points)
    if image is not None:
        title = f"{100 * error:.1f} % {Path(item.name).name}"
        worst.add(error, lambda: landmark_panels(title, image, item.points.numpy(), shown.numpy()))


def _panels_of_file(item: Annotated, points: Tensor | None, title: str) -> list[Panel]:
    """The panels of a photo that has not been read yet; grey if it cannot be."""
    try:
        image = read_image(item.photo)
    except ValueError:
        width, height = (item.points.amax(0) + 2).clamp(min=1).long().tolist()
        image = np.full((height, width, 3), 128, np.uint8)
    shown = None if points is None else points.numpy()
    return landmark_panels(f"{title} {item.photo.name}", image, item.points.numpy(), shown)


def _error(points: Tensor, target: Tensor) -> float:
    """NME by the box of one face [68, 2]."""
    target = target[None].double()
    return float(normalized_mean_error(points[None].double(), target, box_size(target)))


def mean_or_nan(values: Tensor) -> float:
    """Mean of [N] values; NaN of none."""
    return float(values.mean()) if len(values) else math.nan


def _stack(tensors: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    return torch.stack(tensors).double() if tensors else torch.zeros(0, *shape).double()
