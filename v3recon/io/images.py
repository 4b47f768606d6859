"""Photographs in, pictures out: 8-bit RGB arrays [H, W, 3], row 0 on top."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from v3recon.io.atomic import replace_on_success
from v3recon.io.messages import one_line
from v3recon.io.png import encode_png

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 178_956_970
"""Larger photos are refused: their files may be decompression bombs (Pillow's own limit)."""

# Only these decoders are tried, whatever the suffix: some others start external programs.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def read_image(path: str | Path) -> np.ndarray:
    """Read a photo as a viewer shows it: EXIF rotation obeyed, transparency over white.

    Grey, palette, CMYK and 16-bit photos are converted; of several frames the first is taken.

    Args:
        path: the file.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        ValueError: with a one-line reason, if the file is not a whole, readable photo of at most
            `MAX_PIXELS` pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError("no such file")
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large photos and odd tags
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                image.load()  # first: once it failed, a second try gives what there is
                turn = _TURNS.get(_orientation(image))
                upright = image if turn is None else image.transpose(turn)
                return np.array(_to_rgb(upright))
    except UnidentifiedImageError:
        raise ValueError("not a photo in a format that can be read") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS / 1e6:.0f} megapixels; make it smaller") from None
    except MemoryError:
        raise ValueError("not enough memory to read the photo") from None
    except Exception as error:  # decoders raise a dozen kinds for damaged files
        raise ValueError(f"damaged or unreadable photo ({one_line(error)})") from None


def list_photos(paths: Sequence[str | Path]) -> list[Path]:
    """Photos named by files and folders; folders are searched recursively.

    A file that is named is taken whatever its suffix; in folders those of `PHOTO_SUFFIXES` in any
    case are. Hidden files are skipped, and so are folders that hold results of this program
    (`name/name.npy`), so that results may be kept beside the photos.

    Args:
        paths: files or folders.

    Returns:
        Files without repetition, sorted within each folder.

    Raises:
        ValueError: if a path does not exist, or there is no photo at all.
    """
    photos: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found: Iterator[Path] | list[Path] = _walk(path)
        elif path.exists():
            found = [path]
        else:
            raise ValueError(f"{path}: no such file or folder")
        for photo in found:
            photos.setdefault(photo.resolve(), photo)
    if not photos:
        kinds = " ".join(PHOTO_SUFFIXES)
        raise ValueError(f"no photos ({kinds}) in {', '.join(map(str, paths))}")
    return list(photos.values())


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write an 8-bit picture, whole or not at all.

    Args:
        path: the file; its folder exists.
        image: [H, W, 3] uint8 RGB or [H, W] uint8 grey.

    Raises:
        ValueError: if that is not what it is.
    """
    data = encode_png(image)
    with replace_on_success(path) as temporary:
        temporary.write_bytes(data)


def _walk(folder: Path) -> Iterator[Path]:
    """Photos below a folder in the order of their names."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not Path(root, name, f"{name}.npy").is_file()
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in PHOTO_SUFFIXES:
                yield Path(root, name)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation 1…8; 1 where the tag is absent or makes no sense.

    Only this one tag is looked at: others of a type that the standard forbids are common.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        value = value[0] if isinstance(value, tuple | list) else value
        return int(float(value))
    except Exception:  # tags can be damaged in any way, and the photo be sound
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as RGB."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bit(np.array(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Grey values of 16 or 32 bits or float as 0…255; float's range is told from its maximum."""
    is_float = np.issubdtype(values.dtype, np.floating)
    values = np.nan_to_num(values.astype(np.float32))
    top = float(values.max(initial=0))
    full = next((end for end in (1, 255) if is_float and top <= end), max(65535.0, top))
    return (values * (255 / full)).round().clip(0, 255).astype(np.uint8)
