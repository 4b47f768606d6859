"""Photos with hand-made 68 points: how far the predicted ones are away."""

from __future__ import annotations

import torch
from torch import Tensor

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
    mean_or_nan,
    predict_landmarks,
    read_points_file,
    score_predictions,
)
from v3recon.evaluation.nme import (
    box_size,
    inter_ocular_distance,
    normalized_mean_error,
)
from v3recon.evaluation.options import LandmarkOptions
from v3recon.evaluation.report import Report, WorstCases
from v3recon.face_models.landmarks import INNER_51
from v3recon.geometry.rotation import matrix_to_euler
from v3recon.io.messages import one_line
from v3recon.io.photo_index import read_photo_index, read_pts


def evaluate_landmarks(options: LandmarkOptions) -> tuple[Report, WorstCases]:
    """Score the photos of a folder; see `LandmarkOptions`.

    Raises:
        ValueError: for wrong usage: no photo with points, missing weights, …
    """
    report = Report(f"landmarks of {options.root} ({options.split})")
    items = _read_annotations(options, report)
    worst = WorstCases(options.worst_count if options.worst else 0)
    if options.predictions is not None:
        points = read_points_file(options.predictions, options.limit)
        scored = score_predictions(items, points, 1, worst)
        definitions = (GIVEN,)
        yaw = None
    else:
        scored = predict_landmarks(items, options, worst, MARCHED)
        definitions = (MARCHED, FIXED)
        yaw = torch.rad2deg(matrix_to_euler(scored.rotation()))[:, 1]
    add_failures(report, scored, len(items))
    _summarize(report, scored, definitions, yaw)
    return report, worst


def _read_annotations(options: LandmarkOptions, report: Report) -> list[Annotated]:
    """The photos that have points; those with unusable points go to the report."""
    entries = read_photo_index(options.root, options.index)
    if options.split != "all":
        entries = [entry for entry in entries if entry.split == options.split]
    # The points of other sources than .pts files are scored by benchmarks of their own.
    entries = [one for one in entries if one.landmarks.endswith(".pts")][: options.limit or None]
    if not entries:
        raise ValueError(f"no photo of {options.root} ({options.split}) has .pts points")
    items = []
    for entry in entries:
        try:
            points = read_pts(options.root / entry.landmarks)
            if points.shape != (68, 2):
                raise ValueError(f"{entry.landmarks} has {len(points)} points, not 68")
            check_points(points)
        except ValueError as error:
            report.unusable.append((entry.file, one_line(error)))
            if options.predictions is not None:
                raise ValueError(
                    f"{entry.file}: {one_line(error)}; --predictions need all photos usable"
                ) from None
            continue
        items.append(Annotated(entry.file, options.root / entry.file, torch.from_numpy(points)))
    return items


def _summarize(
    report: Report, scored: Scored, definitions: tuple[str, ...], yaw: Tensor | None
) -> None:
    """Tables and figures of the finished faces."""
    target = scored.target()
    sizes = {"box": box_size(target), "eye corners": inter_ocular_distance(target)}
    errors = {}
    for size_name, size in sizes.items():
        for definition in definitions:
            points = scored.predicted(definition)
            errors[f"68, {definition}, by {size_name}"] = normalized_mean_error(
                points, target, size
            )
        inner = scored.predicted(definitions[0])[:, INNER_51]
        errors[f"inner 51, by {size_name}"] = normalized_mean_error(
            inner, target[:, INNER_51], size
        )
    by = "no yaw known" if yaw is None else "bins by predicted yaw"
    table, report.figures["nme"] = error_table(f"normalised mean error ({by})", errors, yaw)
    report.tables.append(table)
    headline = next(iter(errors))
    table, report.figures["large_errors"] = failure_table(
        errors[headline], len(scored.failed), headline
    )
    report.tables.append(table)
    report.figures["headline"] = {
        "nme_68": mean_or_nan(errors[headline]),
        "nme_inner": mean_or_nan(errors["inner 51, by box"]),
        "definition": headline,
    }
    if MARCHED in definitions:
        report.notes.append(
            f"headline: '{headline}': hand-made jaw points lie on the outline that is seen"
        )
    for index, item in enumerate(scored.items):
        row: dict = {"file": item.name}
        if yaw is not None:
            row["yaw"] = float(yaw[index])
        row |= {name: float(error[index]) for name, error in errors.items()}
        report.faces.append(row)
