"""What programs share: usage, errors, interruption, and the flags that choose a network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from v3recon.cli.reconstruct import INTERRUPTED
from v3recon.io.messages import say_anything

if TYPE_CHECKING:
    from v3recon.reconstruct.reconstructor import FaceReconstructor

GOES_ON = "interrupted; the same command goes on from here"
"""What a program says that goes on where it was stopped."""


def run_program(
    name: str,
    parse: Callable[[list[str] | None], argparse.Namespace],
    run: Callable[[argparse.Namespace], int],
    argv: list[str] | None,
    *,
    interrupted: str = "interrupted",
) -> int:
    """Run a program; its exit status, 2 for wrong usage, 130 when it was interrupted.

    Args:
        name: of the command, for messages.
        parse: arguments to options; ends the program after --help or for flags that cannot be
            understood.
        run: options to the status.
        argv: the arguments; default those of the process.
        interrupted: what is said when it was.
    """
    say_anything()
    try:
        options = parse(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return run(options)
    except ValueError as error:
        print(f"v3recon {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED


def add_network(parser: argparse.ArgumentParser) -> None:
    """Flags that choose a face model and a network; `reconstructor_of` reads them."""
    add = parser.add_argument
    add("--face-model", metavar="NAME",
        help="photohead, bfm, or a file, instead of the assets'")  # fmt: skip
    add("--assets", metavar="FOLDER", help="official assets, or a checkpoint")
    add("--weights", metavar="FILE", help="a checkpoint, instead of the assets'")
    add("--backbone", choices=("resnet50", "mbnetv3"), help="where assets have both")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, … (default: cuda if there is one)")


def reconstructor_of(
    options: argparse.Namespace, *, max_faces: int | None = None
) -> FaceReconstructor:
    """The reconstructor of the flags of `add_network`.

    Raises:
        ValueError: if a file is missing or malformed.
    """
    from v3recon.reconstruct.reconstructor import FaceReconstructor  # slow to import

    return FaceReconstructor.from_pretrained(
        options.assets, face_model=options.face_model, weights=options.weights,
        backbone=options.backbone, device=options.device, max_faces=max_faces,
    )  # fmt: skip
