"""`v3recon part-masks`: show, transfer, import, export or vote the part masks of face models."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import torch

from v3recon.part_masks.labels import read_labels, write_labels


def main(argv: list[str] | None = None) -> int:
    """Run one of the tools; 0 = done, 1 = failed, 2 = wrong usage or missing assets."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(with_vote=argv[:1] == ["vote"])
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    try:
        return arguments.run(arguments)
    except ValueError as error:
        print(f"v3recon part-masks: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"v3recon part-masks: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


def _parser(with_vote: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="v3recon part-masks", description=__doc__)
    tools = parser.add_subparsers(metavar="TOOL", required=True)

    show = tools.add_parser("show", help="draw the parts: front, both sides, legend")
    _add_model(show)
    show.add_argument("--labels", type=Path, help="show these labels instead of the model's own")
    show.add_argument("--size", type=int, default=384, help="side of each view, pixels")
    show.add_argument("--out", type=Path, required=True, help="PNG to write")
    show.set_defaults(run=_show)

    export = tools.add_parser("export", help="write a model's labels to .npy or .csv")
    _add_model(export)
    export.add_argument("--out", type=Path, required=True, help=".npy or .csv to write")
    export.set_defaults(run=_export)

    bring = tools.add_parser("import", help="write a copy of a model file with other labels")
    _add_model(bring)
    bring.add_argument("--labels", type=Path, required=True, help=".npy or .csv, one per vertex")
    bring.add_argument("--out", type=Path, required=True, help="model file to write")
    bring.set_defaults(run=_import)

    transfer = tools.add_parser("transfer", help="labels of one BFM cut to another")
    transfer.add_argument("--labels", type=Path, required=True, help=".npy or .csv of either cut")
    transfer.add_argument("--indices", type=Path, required=True, help="indices_A_B.npy")
    transfer.add_argument("--from-model", help="model of the labels, and")
    transfer.add_argument(
        "--to-model", help="model of the result: fill vertices without counterpart by position"
    )
    transfer.add_argument("--out", type=Path, required=True, help=".npy or .csv to write")
    transfer.set_defaults(run=_transfer)

    vote = tools.add_parser("vote", help="label a model by hand-made masks of many photos")
    if with_vote:
        module = importlib.import_module("v3recon.part_masks.vote")
        module.add_arguments(vote)
        vote.set_defaults(run=module.run)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--face-model", default="photohead", help="photohead, or the path of a model file"
    )


def _show(arguments: argparse.Namespace) -> int:
    from v3recon.face_models.load import load_face_model
    from v3recon.io.images import write_png
    from v3recon.part_masks.show import draw_parts, masks_with_labels

    if not 64 <= arguments.size <= 4096:
        raise ValueError(f"--size {arguments.size}: give 64 to 4096 pixels")
    model = load_face_model(arguments.face_model)
    masks = None
    if arguments.labels is not None:
        labels = read_labels(arguments.labels, model.vertex_count)
        masks = masks_with_labels(model, torch.from_numpy(labels))
    write_png(arguments.out, draw_parts(model, masks, arguments.size))
    return _done(arguments.out)


def _export(arguments: argparse.Namespace) -> int:
    from v3recon.face_models.load import load_face_model

    model = load_face_model(arguments.face_model)
    write_labels(arguments.out, model.part_labels.numpy())
    return _done(arguments.out)


def _import(arguments: argparse.Namespace) -> int:
    from v3recon.face_models.photohead import packaged_file
    from v3recon.part_masks.relabel import relabel_model_file

    source = Path(arguments.face_model)
    if arguments.face_model == "photohead":
        with packaged_file() as source:
            relabel_model_file(source, arguments.labels, arguments.out)
    else:
        relabel_model_file(source, arguments.labels, arguments.out)
    return _done(arguments.out)


def _transfer(arguments: argparse.Namespace) -> int:
    from v3recon.part_masks.transfer import read_indices, transfer_labels

    labels = read_labels(arguments.labels)
    pairs, count_a, count_b = read_indices(arguments.indices)
    if len(labels) not in (count_a, count_b):
        raise ValueError(
            f"{arguments.labels} has {len(labels)} labels; {arguments.indices.name} links meshes "
            f"of {count_a} and {count_b} vertices"
        )
    forward = len(labels) == count_a
    pairs, target = (pairs, count_b) if forward else (pairs[:, ::-1], count_a)
    shapes = _mean_shapes(arguments.from_model, arguments.to_model)
    write_labels(arguments.out, transfer_labels(labels, pairs, target, *shapes))
    return _done(arguments.out)


def _mean_shapes(from_model: str | None, to_model: str | None) -> tuple:
    """Mean shapes [V, 3] of both models, or nothing."""
    from v3recon.face_models.load import load_face_model

    if from_model is None and to_model is None:
        return ()
    if from_model is None or to_model is None:
        raise ValueError("give both --from-model and --to-model, or neither")
    shapes = []
    for name in (from_model, to_model):
        model = load_face_model(name)
        shapes.append(model.mean_vertices().numpy())
    return tuple(shapes)


def _done(path: Path) -> int:
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
