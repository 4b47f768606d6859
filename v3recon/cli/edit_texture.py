"""`v3recon edit-texture`: parts of faces, or their colors, from another face or a picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from v3recon.cli.edited_photos import EPILOG, add_common, numbered_face, run
from v3recon.cli.program import reconstructor_of
from v3recon.io.images import read_layer

_TEXTURE_SIZE = 1024
NOTE = "Edited: parts of faces in this picture were changed with v3recon edit-texture"
FACE = "face"
PARTS = ("eyes", "brows", "nose", "lips", FACE)


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="v3recon edit-texture",
        description="Replace parts of the faces of photos by those of another face, or by a "
        "picture in texture coordinates. Writes NAME_edited.png.",
        epilog=EPILOG,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="source", type=Path, metavar="PHOTO",
                        help="of the other face")  # fmt: skip
    source.add_argument("--texture", type=Path, metavar="FILE",
                        help="square, as NAME_uv.png; transparent where nothing is")  # fmt: skip
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[FACE], metavar="PART",
                        help=f"what changes: {', '.join(PARTS)} (default: face)")  # fmt: skip
    parser.add_argument("--colors-only", action="store_true",
                        help="take the colors and keep the own detail: make-up")  # fmt: skip
    add_common(parser)
    return run("edit-texture", parser, _prepare, "_edited", NOTE, argv)


def _prepare(options: argparse.Namespace) -> Callable[[Path, np.ndarray], np.ndarray]:
    """What edits the faces of a photo."""
    from v3recon.reconstruct.edit import edit_texture, face_region, paint_into_photo, part_region

    reconstructor = reconstructor_of(options)
    model = reconstructor.model
    parts = [part for part in options.parts if part != FACE]
    region = face_region(model) if FACE in options.parts else part_region(model, parts)
    opacity = None
    if options.texture is not None:
        other, opacity = texture_for(options.texture, model.content_hash, _TEXTURE_SIZE)
    else:
        found = reconstructor(options.source)
        other = (
            numbered_face(found, options.from_face, options.source).texture(_TEXTURE_SIZE).texture
        )

    def edit(photo: Path, image: np.ndarray) -> np.ndarray:
        faces = reconstructor(image)
        picture = image
        wanted = range(1, len(faces) + 1) if options.face is None else [options.face]
        for number in wanted or [1]:
            face = numbered_face(faces, number, photo)
            own = face.texture(_TEXTURE_SIZE).texture
            new = edit_texture(
                own, other, region, model, colors_only=options.colors_only, opacity=opacity
            )
            tone = opacity is None and not options.colors_only
            picture = paint_into_photo(face, new, region, picture, tone=tone)
        return picture

    return edit


def texture_for(path: Path, model_hash: str, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A texture of a face model at a size, and its opacity.

    Args:
        path: of the picture.
        model_hash: of the face model that it must be of; a result's JSON file beside it tells.
        size: side, texels.

    Raises:
        ValueError: naming the file, if it is no square picture, or of another face model.
    """
    try:
        picture, opacity = read_layer(path)
    except ValueError as error:
        raise ValueError(f"--texture {path}: {error}") from None
    if picture.shape[0] != picture.shape[1]:
        height, width = picture.shape[:2]
        raise ValueError(f"--texture {path}: a texture is square, not {width} x {height}")
    made_for = _model_of(path)
    if made_for not in (None, model_hash):
        raise ValueError(
            f"--texture {path}: of another face model; give --face-model as when it was made"
        )
    picture = np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    if opacity is not None:
        opacity = np.asarray(cv2.resize(opacity, (size, size), interpolation=cv2.INTER_AREA))
    return picture, opacity


def _model_of(path: Path) -> str | None:
    """Hash of the face model of a result's texture, by the JSON file that lists it."""
    for file in sorted(path.parent.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if path.name in content["files"]:
                return str(content["face_model_hash"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # not of ours
    return None


if __name__ == "__main__":
    sys.exit(main())
