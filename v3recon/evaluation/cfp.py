"""CFP's profiles (Sengupta et al., WACV 2016): 21 fixed points of the visible half."""

from __future__ import annotations

import torch

from v3recon.evaluation.marked import reconstruct_marked, show_worst
from v3recon.evaluation.options import CfpOptions
from v3recon.evaluation.report import Report, Table, WorstCases, number, percent

GROUPS = {
    "brow": (17, 19, 21, 22, 24, 26),
    "eye": (*range(36, 48),),
    "nose": (*range(27, 36),),
    "mouth": (*range(48, 68),),
}
"""Fixed points of either half by what they are on, iBUG."""


def evaluate_cfp(options: CfpOptions) -> tuple[Report, WorstCases]:
    """Score profile photos; see `CfpOptions`.

    Raises:
        ValueError: for wrong usage: no such photo, missing weights, …
    """
    report = Report(f"CFP profiles of {options.photos} ({options.split})")
    worst = WorstCases(options.worst_count if options.worst else 0)
    errors, yaw = [], []
    for seen in reconstruct_marked(options, "cfp", report):
        target = torch.from_numpy(seen.marked.hand.points_68)
        known = target.isfinite().all(1)
        height = float(seen.marked.known[:, 1].amax() - seen.marked.known[:, 1].amin())
        error = (seen.fixed - target).norm(dim=1) / height
        errors.append(error)
        yaw.append(float(seen.face.angle_degrees[1]))
        mean = float(error[known].mean())
        row = {"file": seen.marked.entry.file, "side": seen.marked.hand.side, "error": mean}
        report.faces.append(row | {"predicted_yaw": yaw[-1]})
        show_worst(worst, seen, mean, target[known], seen.fixed[known])
    if not errors:
        return report, worst
    all_errors = torch.stack(errors)
    each = all_errors.nanmean(1)
    groups = {name: float(all_errors[:, index].nanmean()) for name, index in GROUPS.items()}
    figures = {
        "mean": float(each.mean()),
        "median": float(each.median()),
        "above_10_percent": float((each > 0.1).double().mean()),
        "groups": groups,
        "predicted_yaw_median": float(torch.tensor(yaw).abs().median()),
    }
    report.figures["cfp"] = figures
    header = ("% of height", "mean", "median", *groups, "> 10 %", "|yaw| read")
    values = (figures["mean"], figures["median"], *groups.values(), figures["above_10_percent"])
    cells = (*map(percent, values), number(figures["predicted_yaw_median"], 0))
    title = f"21 fixed points of {len(each)} profiles, by the height of all 30 points' box"
    report.tables.append(Table(title, header, [("profiles", *cells)]))
    return report, worst
