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

from v3recon.evaluation.expressions import APERTURES, CLOSED_EYE, OPEN_MOUTH

DRAWS = 4000
EYES, MOUTH = APERTURES[:2], APERTURES[2:]
SHUT = 0.1
"""Most eyes below `CLOSED_EYE` are narrow and show some of the eyeball; below this few do."""
LINES = {
    "closed eyes": (EYES, -np.inf, CLOSED_EYE),
    f"eyes below {SHUT:.0%}": (EYES, -np.inf, SHUT),
    "open eyes": (EYES, CLOSED_EYE, np.inf),
    "open mouths": (MOUTH, OPEN_MOUTH, np.inf),
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
        for how in ("read", "same vertices"):
            for line, (apertures, low, high) in LINES.items():
                sums = np.array(
                    [_sums(first, second, n, apertures, how, low, high) for n in chosen]
                )
                if sums[:, 2].sum() > 1:
                    _show(f"{line}, {group}" + (", same" if how != "read" else ""), sums)


def _sums(
    first: dict[str, dict],
    second: dict[str, dict],
    name: str,
    apertures: tuple[str, ...],
    how: str,
    low: float,
    high: float,
) -> tuple[float, float, int]:
    """Errors of both and number of the openings of a photo whose true one is in [low, high)."""
    errors = []
    for aperture in apertures:
        true = first[name][f"{aperture}, true"]
        read = [report[name].get(f"{aperture}, {how}") for report in (first, second)]
        if true is not None and None not in read and low <= true < high:
            errors.append([abs(value - true) for value in read])
    a, b = np.sum(errors, 0) if errors else (0.0, 0.0)
    return a, b, len(errors)


def _show(title: str, sums: np.ndarray) -> None:
    """Print a line for [N, 3] sums of photos."""
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
