"""`v3recon swap-faces`: faces of photos replaced by another one, or by each other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from v3recon.cli.edited_photos import EPILOG, add_common, numbered_face, run
from v3recon.cli.program import reconstructor_of

_TEXTURE_SIZE = 1024
NOTE = "Edited: faces in this picture were swapped with v3recon swap-faces"


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="v3recon swap-faces",
        description="Draw the face of one photo on the faces of others, in their pose, expression "
        "and light. Without --from the faces of each photo take each other's place. Writes "
        "NAME_swapped.png.",
        epilog=EPILOG,
    )
    parser.add_argument("--from", dest="source", type=Path, metavar="PHOTO",
                        help="of the face that is drawn (default: the next of each)")  # fmt: skip
    add_common(parser)
    return run("swap-faces", parser, _prepare, "_swapped", NOTE, argv)


def _prepare(options: argparse.Namespace) -> Callable[[Path, np.ndarray], np.ndarray]:
    """What swaps the faces of a photo."""
    from v3recon.reconstruct.edit import face_region, paint_into_photo

    model = reconstructor_of(options)
    region = face_region(model.model)
    texture = None
    if options.source is not None:
        found = model(options.source)
        source = numbered_face(found, options.from_face, options.source)
        texture = source.texture(_TEXTURE_SIZE).texture

    def swap(photo: Path, image: np.ndarray) -> np.ndarray:
        faces = model(image)
        if texture is None and len(faces) < 2:
            raise ValueError(f"shows {len(faces)} faces; swapping takes two, or --from")
        own = [face.texture(_TEXTURE_SIZE).texture for face in faces] if texture is None else []
        wanted = range(1, len(faces) + 1) if options.face is None else [options.face]
        picture = image
        for number in wanted or [1]:
            face = numbered_face(faces, number, photo)
            new = own[number % len(own)] if texture is None else texture
            picture = paint_into_photo(face, new, region, picture)
        return picture

    return swap


if __name__ == "__main__":
    sys.exit(main())
