"""`v3recon export onnx|web FOLDER`: files that run without torch, or a page for browsers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from v3recon.cli.program import run_program

if TYPE_CHECKING:
    from v3recon.face_models.linear_face_model import LinearFaceModel
    from v3recon.networks.checkpoints import LoadedRegressor


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line.

    Raises:
        SystemExit: after --help, or with status 2 for flags that cannot be understood.
    """
    parser = argparse.ArgumentParser(
        prog="v3recon export",
        description="onnx: network, mesh decoder, detector and face model for onnxruntime, which "
        "v3recon.light.OnnxReconstructor reads without torch. web: a static page that "
        "reconstructs faces in the browser; serve the folder, photos stay in the browser.",
    )
    parser.add_argument("kind", choices=("onnx", "web"))
    parser.add_argument("folder", type=Path, help="made if absent")
    parser.add_argument("--weights", type=Path, help="a checkpoint (default: the package's)")
    parser.add_argument(
        "--face-model", help="of the checkpoint (default: the package's; web: photohead)"
    )
    calibrated = "8-bit convolutions, calibrated on the faces of these photos"
    parser.add_argument("--int8", type=Path, nargs="+", metavar="PATH", help=calibrated)
    parser.add_argument("--batch", type=int, help="faces at once (default: any number)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status (2 for wrong usage or missing files)."""
    return run_program("export", parse_arguments, _export, argv)


def write_site(
    folder: Path, *, weights: Path | None = None, face_model: str | None = None
) -> list[Path]:
    """Write the page of `export web`; returns its files.

    Args:
        folder: made if absent.
        weights: a checkpoint; default the package's.
        face_model: of the checkpoint; default PhotoHead.

    Raises:
        ValueError: as `export.web_site.export_web`.
    """
    from v3recon.export.web_site import export_web
    from v3recon.face_models.load import DEFAULT_FACE_MODEL

    loaded, model = _load(weights, face_model or DEFAULT_FACE_MODEL)
    rule = loaded.description.crop_rule
    return export_web(folder, loaded.regressor, model, rule, input_size=loaded.regressor.input_size)


def _export(options: argparse.Namespace) -> int:
    if options.batch is not None and options.batch < 1:
        raise ValueError(f"--batch: at least 1, not {options.batch}")
    if options.kind == "onnx":
        files = _write_onnx(options)
    elif options.int8 is not None or options.batch is not None:
        raise ValueError("--int8 and --batch are of `export onnx`")
    else:
        files = write_site(options.folder, weights=options.weights, face_model=options.face_model)
    for path in files:
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    return 0


def _write_onnx(options: argparse.Namespace) -> list[Path]:
    from v3recon.export.onnx_files import export_onnx

    loaded, model = _load(options.weights, options.face_model)
    files = export_onnx(
        options.folder,
        loaded.regressor,
        model,
        loaded.description.crop_rule,
        input_size=loaded.regressor.input_size,
        batch=options.batch,
    )
    if options.int8 is not None:
        from v3recon.export.int8_network import quantize_exported
        from v3recon.io.photo_files import find_photos

        quantize_exported(options.folder, find_photos(options.int8).photos)
    return files


def _load(weights: Path | None, face_model: str | None) -> tuple[LoadedRegressor, LinearFaceModel]:
    # Slow to import, and not needed to explain the flags.
    from v3recon.face_models.load import load_face_model
    from v3recon.networks.checkpoints import load_checkpoint
    from v3recon.reconstruct.assets import find_assets

    assets = find_assets(None, face_model=face_model, weights=weights)
    model = load_face_model(assets.face_model)
    return load_checkpoint(assets.weights, model), model


if __name__ == "__main__":
    sys.exit(main())
