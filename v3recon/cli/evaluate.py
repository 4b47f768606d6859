"""`v3recon evaluate BENCHMARK [options]`: how true the reconstructions are."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tyro

from v3recon.evaluation.options import (
    AflwFacesOptions,
    AflwOptions,
    CardOptions,
    CfpOptions,
    EvaluateOptions,
    ExpressionOptions,
    GeometryOptions,
    IdentityOptions,
    LandmarkOptions,
    PartOptions,
    SkinOptions,
    VisibilityOptions,
)

BENCHMARKS: dict[str, tuple[type[EvaluateOptions], str, str]] = {
    "aflw": (AflwFacesOptions, "v3recon.evaluation.aflw", "evaluate_aflw"),
    "aflw2000": (AflwOptions, "v3recon.evaluation.aflw2000", "evaluate_aflw2000"),
    "card": (CardOptions, "v3recon.evaluation.card", "evaluate_card"),
    "cfp": (CfpOptions, "v3recon.evaluation.cfp", "evaluate_cfp"),
    "expressions": (
        ExpressionOptions,
        "v3recon.evaluation.expressions",
        "evaluate_expressions",
    ),
    "geometry": (GeometryOptions, "v3recon.evaluation.geometry", "evaluate_geometry"),
    "identity": (IdentityOptions, "v3recon.evaluation.identity", "evaluate_identity"),
    "landmarks": (LandmarkOptions, "v3recon.evaluation.landmarks", "evaluate_landmarks"),
    "parts": (PartOptions, "v3recon.evaluation.parts", "evaluate_parts"),
    "skin": (SkinOptions, "v3recon.evaluation.skin", "evaluate_skin"),
    "visibility": (VisibilityOptions, "v3recon.evaluation.visibility", "evaluate_visibility"),
}
INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run a benchmark.

    Returns:
        0 when every photo was scored (faces that were not found count as failures in the score),
        1 when a photo or its annotation could not be used or a reconstruction broke, 2 for wrong
        usage or missing assets, 130 when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: v3recon evaluate BENCHMARK [options]      (BENCHMARK --help)\n")
        for name, (options_class, _, _) in BENCHMARKS.items():
            summary = (options_class.__doc__ or "").strip().splitlines()[0]
            print(f"  {name:13s}{summary}")
        return 0 if argv else 2
    if argv[0] not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        print(f"v3recon evaluate: unknown benchmark {argv[0]!r}; known: {known}", file=sys.stderr)
        return 2
    try:
        return _run(argv[0], argv[1:])
    except ValueError as error:
        print(f"v3recon evaluate: {error}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # --help, or flags that cannot be understood
        return stop.code if isinstance(stop.code, int) else 2
    except OSError as error:
        print(f"v3recon evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(name: str, argv: list[str]) -> int:
    """Run one benchmark with its flags and show what it found; its status."""
    options_class, module, function = BENCHMARKS[name]
    started = time.perf_counter()
    options = tyro.cli(options_class, args=argv, prog=f"v3recon evaluate {name}")
    for key in ("json", "worst", "curve", "out"):
        _check_writable(getattr(options, key, None))
    # Slow to import, and not needed to explain the flags.
    report, worst = getattr(importlib.import_module(module), function)(options)
    report.figures["seconds"] = time.perf_counter() - started
    print(report)
    print(f"\n{report.figures['seconds']:.1f} s")
    if options.json is not None:
        report.write_json(options.json, _plain(asdict(options)))
        print(f"figures: {options.json}")
    if options.worst is not None:
        drawn = worst.write(options.worst)
        print(f"worst cases: {options.worst}" if drawn else "worst cases: no photo could be read")
    return report.status


def _check_writable(path: Path | None) -> None:
    """Raise ValueError if a result could not be written later."""
    if path is None:
        return
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{path}: cannot write there ({reason})") from None


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [plain(one) for one in value]
        return str(value) if isinstance(value, Path) else value

    return {key: plain(value) for key, value in options.items()}


if __name__ == "__main__":
    sys.exit(main())
