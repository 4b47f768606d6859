"""What programs that change faces in photos have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from v3recon.cli.program import add_network, run_program
from v3recon.cli.reconstruct import make_folder
from v3recon.io.images import read_image, write_edited
from v3recon.io.messages import one_line
from v3recon.io.photo_files import find_photos

if TYPE_CHECKING:
    from v3recon.reconstruct.faces import Face, Faces

EPILOG = """Exit status: 0 every photo was changed, 1 some were not, 2 wrong usage or missing files.
The pictures say in their metadata that they were edited."""


def add_common(parser: argparse.ArgumentParser) -> None:
    """Flags for photos, results and networks."""
    add = parser.add_argument
    add("-i", "--inputpath", type=Path, nargs="+", required=True, metavar="PATH",
        help="photos and folders of photos to change")  # fmt: skip
    add("-s", "--savepath", type=Path, default=Path("results"), metavar="FOLDER",
        help="for the results (default: results)")  # fmt: skip
    add("--face", type=int, metavar="N",
        help="only this face of each photo, 1 = the largest (default: all)")  # fmt: skip
    add("--from-face", type=int, default=1, metavar="N",
        help="face of --from, 1 = the largest (default: 1)")  # fmt: skip
    add("--format", choices=("png", "jpg"), default="png", help="of the pictures (default: png)")
    add_network(parser)


def numbered_face(faces: Faces, number: int, photo: Path) -> Face:
    """A face of a photo, counted from 1.

    Raises:
        ValueError: if there is none.
    """
    if not 1 <= number <= len(faces):
        shown = "no face" if not len(faces) else f"{len(faces)} faces"
        raise ValueError(f"{photo} shows {shown}, there is no face {number}")
    return faces[number - 1]


def run(
    name: str,
    parser: argparse.ArgumentParser,
    prepare: Callable[[argparse.Namespace], Callable[[Path, np.ndarray], np.ndarray]],
    ending: str,
    note: str,
    argv: list[str] | None,
) -> int:
    """Run a program that changes photos one by one; returns its exit status.

    Args:
        name: of the command.
        parser: of its flags, with those of `add_common`.
        prepare: what loads everything and gives what changes a photo; a ValueError ends the
            program.
        ending: of the pictures' names.
        note: what the pictures' metadata say.
        argv: the arguments; default those of the process.
    """

    def change_photos(options: argparse.Namespace) -> int:
        photos = find_photos(options.inputpath).photos
        make_folder(options.savepath)
        change = prepare(options)
        from v3recon.reconstruct.save import output_names

        failed = []
        for photo, stem in zip(photos, output_names(photos), strict=True):
            try:
                picture = change(photo, read_image(photo))
                write_edited(options.savepath / f"{stem}{ending}.{options.format}", picture, note)
            except Exception as error:  # one photo must not end the others
                failed.append(f"  {photo}: {one_line(error)}")
        if failed:
            print("not changed:\n" + "\n".join(failed))
        print(f"{len(photos)} photos: {len(photos) - len(failed)} changed, {len(failed)} not; "
              f"results in {options.savepath}")  # fmt: skip
        return 1 if failed else 0

    return run_program(name, parser.parse_args, change_photos, argv)
