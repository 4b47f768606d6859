"""`v3recon train`: photographs and a recipe in, a file of weights out.

Stop it at any time; the same command goes on from the last checkpoint, exactly.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from v3recon.reconstruct.reconstructor import resolve_device
from v3recon.training.recipe import read_recipe
from v3recon.training.train_faces import TrainOptions, train


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit status."""
    options = vars(_parser().parse_args(argv))
    recipe, minutes = options.pop("recipe"), options.pop("minutes")
    try:
        options["device"] = resolve_device(options["device"])
        figures = train(read_recipe(recipe).scaled(minutes), TrainOptions(**options))
    except ValueError as error:
        print(f"v3recon train: {error}", file=sys.stderr)
        return 1
    print("split val, share of the box: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "v3recon train",
        description="Train a face regressor by a recipe. Stop it at any time; the same command "
        "goes on from the last checkpoint, exactly.",
    )
    add = parser.add_argument
    add("recipe", type=Path, help="TOML file, see recipes/")
    add(
        "--photos",
        type=Path,
        required=True,
        help="folder of photos; an index.csv and hand-made points are used where they are",
    )
    add("--out", type=Path, required=True, help="folder of the run")
    add("--minutes", type=float, help="length of the whole run; scales every schedule")
    add("--stop-after", type=float, help="minutes after which to save and stop")
    add("--detections", type=Path, help=".npz of detected points (default: found once, MediaPipe)")
    add("--cache", type=Path, help="folder of prepared data (default OUT/prepared)")
    add("--face-model-file", type=Path, help="file of the recipe's face model")
    add("--init-from", type=Path, help="weights.pth to start from instead of ImageNet weights")
    add("--workers", type=int, default=1, help="processes that make samples (default 1)")
    add("--save-minutes", type=float, default=5.0, help="between checkpoints (default 5)")
    add("--device", default="cpu", help="cpu or cuda")
    return parser
