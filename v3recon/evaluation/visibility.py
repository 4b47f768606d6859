"""Landmarks that are hidden, told from those that are seen, by AFLW's flags."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from v3recon.evaluation.marked import reconstruct_marked
from v3recon.evaluation.options import VisibilityOptions
from v3recon.evaluation.predict import load_reconstructor
from v3recon.evaluation.ranking import area_under_curve
from v3recon.evaluation.report import Report, Table, WorstCases, number
from v3recon.face_models.landmarks import INNER_51
from v3recon.io.photo_index import HIDDEN, SELF_OCCLUDED, VISIBLE
from v3recon.reconstruct.faces import Face

KINDS: dict[str, tuple[int, ...]] = {
    "turned away": (SELF_OCCLUDED,),
    "covered": (HIDDEN,),
    "both": (SELF_OCCLUDED, HIDDEN),
}
"""What is told from visible points: hidden by the head itself; by hair, glasses, hands; either."""
POINTS = {"all 68": slice(0, 68), "inner 51": INNER_51, "jaw": slice(0, INNER_51.start)}


def evaluate_visibility(options: VisibilityOptions) -> tuple[Report, WorstCases]:
    """Score visibilities; see `VisibilityOptions`.

    Raises:
        ValueError: for wrong usage: no such photo, missing weights, …
    """
    report = Report(f"visibility of AFLW's points, {options.photos} ({options.split})")
    scores, truth, reads_occluders = [], [], False
    reconstructor = load_reconstructor(options)
    for seen in reconstruct_marked(options, "aflw", report, reconstructor):
        (face,) = reconstructor.finished([seen.image], [seen.face])
        score, reads_occluders = landmark_visibility(face)
        scores.append(score.numpy())
        truth.append(seen.marked.hand.visibility)
    if not scores:
        return report, WorstCases(0)
    score, flags = np.stack(scores), np.stack(truth)
    rows, figures = [], {}
    for kind, values in KINDS.items():
        areas, hidden = {}, np.isin(flags, values)
        for name, part in POINTS.items():
            seen_scores = score[:, part][flags[:, part] == VISIBLE]
            areas[name] = area_under_curve(seen_scores, score[:, part][hidden[:, part]])
        figures[kind] = areas
        rows.append((kind, str(int(hidden.sum())), *(number(area, 3) for area in areas.values())))
    rows.append(("visible", str(int((flags == VISIBLE).sum())), *("" for _ in POINTS)))
    header = ("told from visible points", "points", *(f"AUC {name}" for name in POINTS))
    report.tables.append(Table("visibility of landmarks, area under the curve", header, rows))
    report.figures["visibility_auc"] = figures
    report.figures["reads_occluders"] = reads_occluders
    if not reads_occluders:
        report.notes.append(
            "the reconstruction says nothing about occluders: scores are of the shape alone, how "
            "far each point faces the camera"
        )
    return report, WorstCases(0)


def landmark_visibility(face: Face) -> tuple[Tensor, bool]:
    """Visibility [68] of the landmarks, more is more visible; and whether it knows occluders."""
    return face.visibility_68.double().cpu(), face.seen is not None
