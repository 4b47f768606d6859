"""Two sets of weights at closed eyes and open mouths, photo by photo, with the chance in it.

    v3recon evaluate expressions --photos PHOTOS --meshes val.npz --weights A --json a.json
    v3recon evaluate expressions --photos PHOTOS --meshes val.npz --weights B --json b.json
    python benchmarks/compare_openings.py a.json b.json

Errors of some seventy eyes scatter by chance as much as two recipes differ. Both sets see the same
photos, so their errors are compared in pairs: the range holds the change of the mean error in
95 % of draws of as many photos from these, with replacement.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from v3recon.evaluation.openings import LINES
from v3recon.face_models.openings import APERTURES

DRAWS = 4000
SHUT = 0.1
"""Most eyes below `CLOSED_EYE` are narrow and show some of the eyeball; below this few do."""
COMPARED = {
    "closed eyes": LINES["closed eyes"],
    f"eyes below {SHUT:.0%}": (*LINES["closed eyes"][:2], SHUT),
    "open eyes": LINES["open eyes"],
    "open mouths": LINES["open mouths"],
}


def main() -> None:
    """Compare two reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="report (--json) of the first weights")
    parser.add_argument("second", type=Path, help="of the second, on the same photos")
    arguments = parser.parse_args()
    first, second = (
        {row["file"]: row for row in json.loads(path.read_text(encoding="utf-8"))["faces"]}
        for path in (arguments.first, arguments.second)
    )
    names = sorted(first.keys() & second.keys())
    print(f"{len(names)} photos, of {len(first)} and {len(second)}")
    header = ("opening, % of width", "number", "first", "second", "change", "95 %")
    print("{:46} {:>6} {:>6} {:>6} {:>7} {:>14}".format(*header))
    for group in sorted({first[name]["group"] for name in names}):
        chosen = [name for name in names if first[name]["group"] == group]
        true = _openings(first, chosen, "true")
        for how, suffix in (("read", ""), ("same vertices", ", same")):
            errors = [np.abs(_openings(report, chosen, how) - true) for report in (first, second)]
            known = np.isfinite(errors).all(0)
            for line, (columns, low, high) in COMPARED.items():
                counted = (known & (true >= low) & (true < high))[:, columns]
                sums = [np.where(counted, error[:, columns], 0).sum(1) for error in errors]
                if counted.sum() > 1:
                    _show(f"{line}, {group}{suffix}", np.stack([*sums, counted.sum(1)], 1))


def _openings(report: dict[str, dict], names: list[str], what: str) -> np.ndarray:
    """[N, 3] openings of `APERTURES` of the photos; NaN where a report has none."""
    rows = [[report[name].get(f"{aperture}, {what}") for aperture in APERTURES] for name in names]
    return np.array(rows, float)


def _show(title: str, sums: np.ndarray) -> None:
    """Print a line for photos' [N, 3] sums of both errors and numbers of openings."""
    sums = sums[sums[:, 2] > 0]
    draws = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    a, b = sums[draws, 0].sum(1), sums[draws, 1].sum(1)
    low, high = np.percentile(b / a - 1, (2.5, 97.5))
    first, second, count = sums.sum(0)
    print(
        f"{title:46} {count:6.0f} {first / count:6.1%} {second / count:6.1%} "
        f"{second / first - 1:+7.0%} {low:+6.0%} {high:+6.0%}"
    )


if __name__ == "__main__":
    main()
