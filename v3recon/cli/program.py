"""What programs that go on where they were stopped have in common: usage, errors, interruption."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from v3recon.cli.reconstruct import INTERRUPTED
from v3recon.io.messages import say_anything


def run_resumable(
    name: str,
    parse: Callable[[list[str] | None], argparse.Namespace],
    run: Callable[[argparse.Namespace], int],
    argv: list[str] | None,
) -> int:
    """Run a program; its exit status, 2 for wrong usage, 130 when it was interrupted.

    Args:
        name: of the command, for messages.
        parse: arguments to options; ends the program after --help or for flags that cannot be
            understood.
        run: options to the status.
        argv: the arguments; default those of the process.
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
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
