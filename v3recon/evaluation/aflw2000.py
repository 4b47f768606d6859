"""AFLW2000-3D (Zhu et al., CVPR 2016): 68 points in three yaw bins, and pose errors.

Coordinates in its files count from 1, as Matlab does; `--first-pixel` says so. Its angles follow
another convention than ours, see `nme.rotation_from_300wlp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from v3recon.evaluation.landmark_scores import (
    FIXED,
    GIVEN,
    MARCHED,
    Annotated,
    Scored,
    add_failures,
    check_points,
    error_table,
    failure_table,
    predict_landmarks,
    read_points_file,
    score_predictions,
)
from v3recon.evaluation.nme import (
    YAW_BINS,
    angle_errors,
    box_size,
    normalized_mean_error,
    rotation_distance,
    rotation_from_300wlp,
    rotation_to_300wlp,
    yaw_bin,
)
from v3recon.evaluation.options import AflwOptions
from v3recon.evaluation.report import Report, Table, WorstCases, number
from v3recon.face_models.landmarks import INNER_51
from v3recon.geometry.similarity import solve_similarity
from v3recon.io.mat import read_mat
from v3recon.io.messages import one_line

CONVENTION_LIMIT = 20.0
"""Median disagreement of annotated points and angles that is still put down to noise, degrees."""
POSE_LIMIT = 99.0
"""Pose errors are usually reported on the photos whose three angles are all below it, degrees."""


@dataclass(frozen=True)
class AflwAnnotation:
    """The content of one .mat file.

    Attributes:
        points: [68, 3] as stored: x, y from the first pixel = 1, y down; z toward the camera.
        angle: [3] pitch, yaw, roll, radians, 300W-LP's convention.
    """

    points: np.ndarray
    angle: np.ndarray


def evaluate_aflw2000(options: AflwOptions) -> tuple[Report, WorstCases]:
    """Score the benchmark; see `AflwOptions`.

    Raises:
        ValueError: for wrong usage: no photo, a points file of another length, …
    """
    truth = "its own points" if options.points is None else f"points of {options.points.name}"
    report = Report(f"AFLW2000-3D in {options.root}, {truth}")
    photos = _list_photos(options.root)[: options.limit or None]
    others = _points_of_option(options.points, len(photos), options)
    predictions = _points_of_option(options.predictions, len(photos), options)
    items, angles, stored, kept = [], [], [], []
    for index, photo in enumerate(tqdm(photos, unit="file", desc="read", disable=None)):
        try:
            annotation = read_annotation(photo.with_suffix(".mat"))
            points = annotation.points[:, :2] if others is None else others[index]
            check_points(points)
        except ValueError as error:
            report.unusable.append((photo.name, one_line(error)))
            continue
        kept.append(index)
        angles.append(annotation.angle)
        stored.append(annotation.points)
        place = torch.from_numpy(points - options.first_pixel)
        yaw = float(np.degrees(annotation.angle[1]))
        items.append(Annotated(photo.name, photo, place, yaw))
    if not items:
        raise ValueError(f"no photo of {options.root} has a usable .mat, e.g. {report.unusable[0]}")
    worst = WorstCases(options.worst_count if options.worst else 0)
    if predictions is not None:
        scored = score_predictions(items, predictions[kept], options.first_pixel, worst)
        definitions = (GIVEN,)
    else:
        scored = predict_landmarks(items, options, worst, FIXED)
        definitions = (FIXED, MARCHED)
    add_failures(report, scored, len(items))
    _summarize_points(report, scored, definitions)
    pose = {item.name: torch.from_numpy(angle) for item, angle in zip(items, angles, strict=True)}
    if predictions is None:
        _summarize_pose(report, scored, pose)
    _check_convention(report, stored, angles)
    return report, worst


_MAX_ANNOTATION = 1 << 20


def read_annotation(path: Path) -> AflwAnnotation:
    """Read one .mat file.

    Raises:
        ValueError: if it is missing, damaged, or lacks something.
    """
    if not path.is_file():
        raise ValueError("no .mat file")
    try:
        content = read_mat(path, ["pt3d_68", "Pose_Para"], max_bytes=_MAX_ANNOTATION)
    except ValueError as error:
        raise ValueError(f"its .mat cannot be read ({one_line(error)})") from None
    points = content["pt3d_68"].astype(np.float64)
    angle = content["Pose_Para"].astype(np.float64).reshape(-1)[:3]
    if points.shape != (3, 68) or angle.shape != (3,):
        raise ValueError(f"its .mat holds pt3d_68 {points.shape} and Pose_Para {angle.shape}")
    if not np.isfinite(points).all() or not np.isfinite(angle).all():
        raise ValueError("annotated points or angles are not finite")
    return AflwAnnotation(np.ascontiguousarray(points.T), angle)


def _list_photos(root: Path) -> list[Path]:
    """The folder's .jpg files in name order, the order of the points files."""
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder")
    photos = sorted(path for path in root.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not photos:
        raise ValueError(f"no .jpg files in {root}")
    return photos


def _points_of_option(path: Path | None, count: int, options: AflwOptions) -> np.ndarray | None:
    """Points [N, 68, 2] of a file with one entry for each photo, as stored."""
    if path is None:
        return None
    points = read_points_file(path, options.limit)
    if len(points) != count:
        raise ValueError(
            f"{path} holds points of {len(points)} photos, {options.root} has {count} .jpg files; "
            "they must be in the photos' name order"
        )
    return points


def _summarize_points(report: Report, scored: Scored, definitions: tuple[str, ...]) -> None:
    """Errors by bin of the annotated yaw."""
    target = scored.target()
    size = box_size(target)
    yaw = torch.tensor([item.yaw or 0.0 for item in scored.items], dtype=torch.float64)
    errors = {
        f"68, {name}": normalized_mean_error(scored.predicted(name), target, size)
        for name in definitions
    }
    inner = scored.predicted(definitions[0])[:, INNER_51]
    errors["inner 51"] = normalized_mean_error(inner, target[:, INNER_51], size)
    title = "normalised mean error by sqrt(w h) of the ground-truth box (bins by annotated yaw)"
    table, report.figures["nme"] = error_table(title, errors, yaw)
    failed_yaw = torch.tensor([item.yaw or 0.0 for item, _ in scored.failed])
    counts = torch.bincount(yaw_bin(failed_yaw), minlength=3).tolist()
    table.rows.append(("failures", *map(str, counts), "", "", str(sum(counts))))
    report.figures["failures_by_bin"] = dict(zip(YAW_BINS, counts, strict=True))
    report.tables.append(table)
    headline = next(iter(errors))
    table, report.figures["large_errors"] = failure_table(
        errors[headline], len(scored.failed), headline
    )
    report.tables.append(table)
    report.figures["headline"] = {"definition": headline, **report.figures["nme"][headline]}
    report.notes.append(
        f"headline: mean of bins of '{headline}'; std is over the three bins, divided by 3"
    )
    for index, item in enumerate(scored.items):
        row = {"file": item.name, "yaw": float(yaw[index])}
        report.faces.append(row | {name: float(error[index]) for name, error in errors.items()})


def _summarize_pose(report: Report, scored: Scored, pose: dict[str, Tensor]) -> None:
    """Errors of pitch, yaw and roll in the benchmark's own convention."""
    if not scored.items:
        return
    target = torch.stack([pose[item.name] for item in scored.items])
    rotation = scored.rotation()
    found = torch.rad2deg(rotation_to_300wlp(rotation))
    truth = torch.rad2deg(target)
    error = angle_errors(found, truth)
    turn = rotation_distance(rotation, rotation_from_300wlp(target))
    usual = (truth.abs() <= POSE_LIMIT).all(1)
    rows, figures = [], {}
    for name, chosen in (
        ("all", torch.ones_like(usual)),
        (f"all angles within {POSE_LIMIT:.0f}", usual),
    ):
        if not chosen.any():
            continue
        pitch, yaw, roll = error[chosen].mean(0).tolist()
        values = {
            "pitch": pitch,
            "yaw": yaw,
            "roll": roll,
            "mean": (pitch + yaw + roll) / 3,
            "rotation": float(turn[chosen].mean()),
        }
        figures[name] = values | {"photos": int(chosen.sum())}
        rows.append((name, *map(number, values.values()), str(int(chosen.sum()))))
    header = ("degrees", "pitch", "yaw", "roll", "mean of three", "rotation", "photos")
    report.tables.append(Table("mean absolute pose error (300W-LP's angles)", header, rows))
    report.figures["pose_error_degrees"] = figures
    for row, angle, one in zip(report.faces, found.tolist(), error.tolist(), strict=True):
        row |= {"angle": angle, "angle_error": one}


def _check_convention(
    report: Report, stored: list[np.ndarray], angles: list[np.ndarray], count: int = 64
) -> None:
    """Say whether the annotated 3D points turn as the annotated angles say.

    The rotation from the points of the most frontal photo to those of another must be that
    between their angles; otherwise the signs in the files are not those expected.
    """
    if len(stored) < 2:
        return
    points = torch.from_numpy(np.stack(stored)) * torch.tensor([1.0, -1.0, 1.0])
    angle = torch.from_numpy(np.stack(angles))
    rotation = rotation_from_300wlp(angle)
    first = int(angle.abs().sum(1).argmin())
    chosen = torch.linspace(0, len(points) - 1, min(count, len(points))).long()
    start = points[first].expand(len(chosen), -1, -1)
    fitted = solve_similarity(start, points[chosen])[1]
    expected = rotation[first].transpose(-1, -2) @ rotation[chosen]
    median = float(rotation_distance(fitted, expected).median())
    report.figures["convention_check_degrees"] = median
    if median > CONVENTION_LIMIT:
        report.notes.append(
            f"annotated 3D points and angles disagree by {median:.0f} degrees (median): the files "
            "have other signs of angles or depth than expected; do not trust the pose errors"
        )
