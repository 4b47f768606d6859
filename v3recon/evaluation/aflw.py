"""AFLW's hand-made points (Köstinger et al. 2011; 68 with visibility: Kumar et al., CVPR 2020).

Errors are over the root of the area of the box of all marked points of the face.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from v3recon.evaluation.landmark_scores import error_table
from v3recon.evaluation.marked import Seen, reconstruct_marked, show_worst
from v3recon.evaluation.openings import HEADER, LIMITS_NOTE, Openings, opening_rows
from v3recon.evaluation.options import AflwFacesOptions
from v3recon.evaluation.report import Report, Table, WorstCases
from v3recon.face_models.landmarks import INNER_51
from v3recon.face_models.openings import openings_of_points
from v3recon.io.photo_index import VISIBLE

POINTS_21: tuple[tuple[int, ...], ...] = (
    *((17,), (19,), (21,), (22,), (24,), (26,)),
    *((36,), (36, 37, 38, 39, 40, 41), (39,), (42,), (42, 43, 44, 45, 46, 47), (45,)),
    *((), (31,), (30,), (35,), ()),
    *((48,), (62, 66), (54,), (8,)),
)
"""Which iBUG points' mean is the same place as each of AFLW's 21; none at the ear lobes."""
LEAST_POINTS = 6
"""Faces with fewer visible inner points are left out of that table."""
_EYE_POINTS, _MOUTH_POINTS = ((36, 42), (42, 48)), (48, 68)


def evaluate_aflw(options: AflwFacesOptions) -> tuple[Report, WorstCases]:
    """Score AFLW's faces; see `AflwFacesOptions`.

    Raises:
        ValueError: for wrong usage: no such photo, missing weights, …
    """
    report = Report(f"AFLW faces of {options.photos} ({options.split})")
    worst = WorstCases(options.worst_count if options.worst else 0)
    yaw, rows, inner, true, read = [], [], [], [], []
    for seen in reconstruct_marked(options, "aflw", report):
        hand, size = seen.marked.hand, seen.marked.size
        target = torch.from_numpy(hand.points_68)
        visible = torch.from_numpy(hand.visibility == VISIBLE)
        errors = {
            "21 points": _mean(error_21(seen) / size),
            "21 points, shift-free": _mean(error_21(seen, shift_free=True) / size),
            "68 marked, jaw on outline": _mean((seen.outline - target).norm(dim=1) / size),
            "68 marked, 3D points": _mean((seen.fixed - target).norm(dim=1) / size),
            "visible inner": math.nan,
        }
        chosen = visible.clone()
        chosen[: INNER_51.start] = False
        if int(chosen.sum()) >= LEAST_POINTS:
            error = shift_free_error(seen.fixed[chosen], target[chosen])
            errors["visible inner"] = float(error.mean()) / size
            show_worst(worst, seen, errors["visible inner"], target[chosen], seen.fixed[chosen])
        yaw.append(hand.yaw)
        rows.append(errors)
        inner.append(int(chosen.sum()))
        openings = openings_of_points(target[None])[0]
        openings[~_apertures_seen(visible)] = math.nan
        true.append(openings)
        read.append(openings_of_points(seen.fixed[None], target[None])[0])
        report.faces.append({"file": seen.marked.entry.file, "yaw": hand.yaw, **errors})
    _summarize(report, torch.tensor(yaw).double(), rows)
    if true:
        lines = Openings(torch.stack(true), torch.stack(read)).lines()
        table = Table(
            "eyes and mouths all of whose points are visible", HEADER, opening_rows(lines)
        )
        report.tables.append(table)
        report.figures["openings"] = lines
        report.notes.append(LIMITS_NOTE)
    return report, worst


def error_21(seen: Seen, *, shift_free: bool = False) -> Tensor:
    """Distance [21] of the points to AFLW's own, pixels; NaN where a point has no counterpart."""
    hand = seen.marked.hand
    assert hand.points_21 is not None
    target = torch.from_numpy(hand.points_21)
    found = torch.stack(
        [
            seen.fixed[list(index)].mean(0) if index else seen.fixed.new_full((2,), math.nan)
            for index in POINTS_21
        ]
    )
    offset = found - target
    if shift_free:
        known = offset.isfinite().all(1)
        offset = offset - offset[known].mean(0)
    return offset.norm(dim=1)


def shift_free_error(points: Tensor, target: Tensor) -> Tensor:
    """Distances [N] of points [N, 2] after their common shift is taken out."""
    offset = points - target
    return (offset - offset.mean(0)).norm(dim=1)


def _apertures_seen(visible: Tensor) -> Tensor:
    """Whether all points of both eyes and of the mouth are visible, [3]."""
    ranges = (*_EYE_POINTS, _MOUTH_POINTS)
    return torch.stack([visible[low:high].all() for low, high in ranges])


def _mean(values: Tensor) -> float:
    """Mean of the known values; NaN of none."""
    return float(values[values.isfinite()].mean()) if bool(values.isfinite().any()) else math.nan


def _summarize(report: Report, yaw: Tensor, rows: list[dict[str, float]]) -> None:
    """NME by yaw of each kind of points; each over the faces that have them."""
    figures, table = {}, None
    for name in rows[0] if rows else ():
        error = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        known = error.isfinite()
        part, one = error_table("NME by AFLW's own yaw", {name: error[known]}, yaw[known])
        figures |= one
        if table is None:
            table = part
        else:
            table.rows.extend(part.rows[:-1])
    if table is not None:
        table.rows.append(table.rows.pop(1))  # the numbers of photos of the first line, last
        report.tables.append(table)
    report.figures["nme"] = figures
    report.notes += [
        "21 points as 3DDFA measures them, without the ear lobes; by the box of all marked points",
        "visible inner: points 17-67 that are seen, each face's common shift taken out, because "
        "the mark-up's own place in the picture is known to about 1 % of the box only",
    ]
