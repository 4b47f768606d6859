"""Pictures whose pixels are classes: palette or grey PNG."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from v3recon.io.atomic import replace_on_success
from v3recon.io.images import MAX_PIXELS
from v3recon.io.messages import one_line

PALETTE = (
    *((0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204)),
    *((0, 255, 255), (255, 204, 204), (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0)),
    *((0, 0, 153), (0, 0, 204), (255, 51, 153), (0, 204, 204), (0, 51, 0), (255, 153, 51)),
    (0, 204, 0),
)
"""Colors of label pictures, by value."""


def write_label_picture(path: str | Path, classes: np.ndarray) -> None:
    """Write classes [H, W] uint8 as a palette PNG, whole or not at all; its folder exists."""
    picture = Image.fromarray(classes)
    picture.putpalette(np.array(PALETTE, np.uint8).tobytes())
    with replace_on_success(path) as temporary:
        picture.save(temporary, "PNG")


def read_label_picture(path: str | Path) -> np.ndarray:
    """The classes of a palette or single-channel PNG.

    Args:
        path: the file.

    Returns:
        [H, W] uint8; palette pictures give the palette's indices, not its colors.

    Raises:
        ValueError: naming the file, if it is missing, damaged or another kind of picture.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG",)) as picture:
                mode, size = picture.mode, picture.width * picture.height
                if mode in ("P", "L") and size <= MAX_PIXELS:
                    return np.array(picture, np.uint8)
    except Exception as error:  # the decoder raises half a dozen kinds for damaged files
        reason = type(error).__name__ if "identify" in str(error) else one_line(error)
        raise ValueError(f"{path}: cannot be read as a PNG ({reason})") from None
    what = f"mode {mode}, expected palette or grey" if size <= MAX_PIXELS else f"{size} pixels"
    raise ValueError(f"{path}: a PNG of {what}")
