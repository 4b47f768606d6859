"""The console command `v3recon`: subcommands, each imported only when it is used."""

from __future__ import annotations

import importlib
import sys

from v3recon.io.messages import say_anything

COMMANDS = {
    "reconstruct": ("v3recon.cli.reconstruct", "photos in, every output out (the same as demo.py)"),
    "fit": ("v3recon.cli.fit", "the same, each face fitted to the photo's pixels"),
    "track": ("v3recon.cli.track", "follow the faces of a video"),
    "batch": ("v3recon.cli.batch", "many photos to Parquet tables by several processes"),
    "view": ("v3recon.cli.view", "heads, or photos to faces, in the browser of this machine"),
    "person": ("v3recon.cli.person", "one head from several photos of a person"),
    "swap-faces": ("v3recon.cli.swap_faces", "faces of photos replaced by another one"),
    "edit-texture": (
        "v3recon.cli.edit_texture",
        "eyes, brows, nose, lips or make-up from elsewhere",
    ),
    "export": (
        "v3recon.cli.export",
        "networks as ONNX files that run without torch, or as a web page",
    ),
    "build-face-model": (
        "v3recon.cli.build_face_model",
        "build the open head model PhotoHead",
    ),
    "show-face-model": ("v3recon.cli.show_face_model", "contact sheets of a face model"),
    "part-masks": ("v3recon.cli.part_masks", "show, transfer, import, export or vote part masks"),
    "prepare": ("v3recon.cli.prepare", "photos to labels that other programs train on"),
    "train": ("v3recon.cli.train", "train a face regressor by a recipe"),
    "evaluate": (
        "v3recon.cli.evaluate",
        "benchmarks, and the model card made of them",
    ),
    "synthesize": ("v3recon.cli.synthesize", "synthetic expressions and poses with exact labels"),
}

EXTRAS = {"tyro": "train", "matplotlib": "train", "mediapipe": "prepare"}
"""Library to the extra that installs it."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; returns its exit status (2 for wrong usage)."""
    say_anything()
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: v3recon COMMAND [options]      (v3recon COMMAND --help)\n")
        for name, (_, summary) in COMMANDS.items():
            print(f"  {name:18s}{summary}")
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"v3recon: unknown command {argv[0]!r}; known: {known}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:])
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(str(error.name).split(".")[0])
        if extra is None:
            raise
        advice = f"pip install 'v3recon[{extra}]'"
        print(f"v3recon {argv[0]}: {error.name} is not installed: {advice}", file=sys.stderr)
        return 2
