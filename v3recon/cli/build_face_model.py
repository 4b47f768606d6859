"""`v3recon build-face-model`: PhotoHead from the template, the scans' statistics and photographs.

The steps and the figures are in docs/photohead.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from v3recon.io.atomic import replace_on_success
from v3recon.photohead.build import build_head, read_material


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = _parse(argv)
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {text}", flush=True)

    try:
        if not args.out.parent.is_dir():
            raise ValueError(f"the folder {args.out.parent} does not exist")
        cache = args.detections or args.out.with_suffix(".detections.npz")
        material = read_material(args.photos, args.head, cache, args.workers, say)
        arrays = build_head(material, say)
        with replace_on_success(args.out) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
    except ValueError as error:
        print(f"build-face-model: {error}", file=sys.stderr)
        return 2
    size = args.out.stat().st_size / 1e6
    print(f"wrote {args.out} ({size:.1f} MB) in {(time.monotonic() - start) / 60:.1f} minutes")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="v3recon build-face-model", description=__doc__)
    parser.add_argument(
        "--photos", type=Path, required=True, help="folder of photographs with index.csv"
    )
    parser.add_argument(
        "--head",
        type=Path,
        required=True,
        help="folder of ict_facekit.npz, ict_facekit_indices.json and bfm_68_points_mm.csv",
    )
    parser.add_argument("--out", type=Path, required=True, help="face model to write, .npz")
    parser.add_argument(
        "--detections", type=Path, help="where detected points are kept (default: beside --out)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that detect")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
