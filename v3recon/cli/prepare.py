"""`v3recon prepare`: photos to labels that other programs train on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from v3recon.cli.program import add_network, reconstructor_of, run_program
from v3recon.cli.reconstruct import EXIT_STATUSES, make_folder, print_lists
from v3recon.io.images import read_image
from v3recon.io.messages import one_line
from v3recon.io.photo_files import find_photos
from v3recon.io.tables import write_table

KINDS = "landmarks,masks,params,positions"
LIST = "list.csv"
NO_FACE = "no face found"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line.

    Raises:
        SystemExit: after --help, or with status 2 for flags that cannot be understood.
    """
    parser = argparse.ArgumentParser(
        prog="v3recon prepare",
        description="Label the faces of photos for programs that learn from them: landmarks (.txt, "
        ".pts), part masks with CelebAMask-HQ's classes (.png), parameters (.npz), position maps "
        f"(.npy), and {LIST} with a line for each face.",
        epilog=EXIT_STATUSES,
    )
    add = parser.add_argument
    add("-i", "--inputpath", type=Path, nargs="+", default=[Path("examples")], metavar="PATH",
        help="photos and folders of photos (default: examples)")  # fmt: skip
    add("-s", "--savepath", type=Path, default=Path("labels"), metavar="FOLDER",
        help="for the labels (default: labels)")  # fmt: skip
    add("--only", default=KINDS, metavar="KINDS", help=f"some of {KINDS} (default: all)")
    add("--fit", action="store_true", help="fit each face to its photo first (v3recon fit)")
    add_network(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    return run_program("prepare", parse_arguments, _prepare, argv)


def _prepare(options: argparse.Namespace) -> int:
    # Slow to import, and not needed to explain the flags.
    from v3recon.data.face_labels import COLUMNS, chosen_kinds, write_labels, write_map_files
    from v3recon.fitting.fit_photo import fit
    from v3recon.reconstruct.save import face_name, output_names

    kinds = chosen_kinds(options.only)
    own = (options.savepath / "masks").resolve()
    photos = [path for path in find_photos(options.inputpath).photos
              if own not in path.resolve().parents]  # fmt: skip
    make_folder(options.savepath)
    model = reconstructor_of(options)
    names = dict(zip(photos, output_names(photos), strict=True))
    rows: list[dict[str, str]] = []
    lacks_map_files = "positions" in kinds
    for path in tqdm(photos, unit="photo", disable=None):
        found: list[dict[str, str]] = []
        try:
            faces = list(model(read_image(path)))
            faces = fit(faces).faces if faces and options.fit else faces
            for number, face in enumerate(faces, 1):
                if lacks_map_files:
                    write_map_files(options.savepath, face)
                    lacks_map_files = False
                name = face_name(names[path], number)
                found.append(write_labels(options.savepath, name, face, kinds, str(path), number))
            rows += found or [{"photo": str(path), "face": "0", "problem": NO_FACE}]
        except Exception as error:  # one photo must not end the others
            rows.append({"photo": str(path), "face": "0", "problem": one_line(error)})
    write_table(options.savepath / LIST, COLUMNS, rows)
    return _report(len(photos), rows, options.savepath)


def _report(photos: int, rows: list[dict[str, str]], savepath: Path) -> int:
    """Say what was found and what was not; the exit status."""
    faceless = [row["photo"] for row in rows if row.get("problem") == NO_FACE]
    failed = [f"{row['photo']}: {row['problem']}" for row in rows
              if row.get("problem") not in (None, NO_FACE)]  # fmt: skip
    print_lists((f"{NO_FACE} in", faceless), ("failed", failed))
    count = len(rows) - len(faceless) - len(failed)
    print(f"{photos} photos: {count} faces labeled, {savepath / LIST}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
