"""Photographs in, pictures out: 8-bit sRGB arrays [H, W, 3], row 0 on top."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import cv2
import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from v3recon._fast.png import encode_png
from v3recon.io._image_plugins import register_plugin
from v3recon.io.atomic import replace_on_success
from v3recon.io.messages import one_line

MAX_PIXELS = 178_956_970
"""Larger photos are refused: their files may be decompression bombs (Pillow's own limit)."""

RAW_SUFFIXES = tuple(
    f".{name}" for name in "3fr arw cr2 cr3 crw dng erf nef nrw orf pef raf raw rw2 srw x3f".split()
)
"""Files of camera sensors; decoders of other formats find only a small preview in them."""

# Only these decoders are tried, whatever the suffix: some others start external programs.
_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM"),
    *("HEIF", "JXL"),  # of plug-ins
)
_ORIENTATION = 0x0112
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax'
    '-ns#"><rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" Iptc4xmpExt:DigitalSourceType='
    '"http://cv.iptc.org/newscodes/digitalsourcetype/composite"><dc:description><rdf:Alt>'
    '<rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></dc:description></rdf:Description>'
    "</rdf:RDF></x:xmpmeta>"
)
_MAX_TAGS = 500
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}
"""EXIF's orientation to what turns the stored picture upright."""

_STRIP = 512  # rows converted at a time, so that memory holds one copy of a photo in Pillow's form
_MAX_PROFILE = 1 << 23  # bytes; printers' profiles have up to 3 MB
_GREY_ENDS = (1023, 4095, 16383, 65535)
_SHALLOW = 63  # the largest byte that is left of 14 bits stored in 16


def read_image(path: str | Path) -> np.ndarray:
    """Read a photo as a viewer shows it: upright, in sRGB, transparency over white.

    EXIF's orientation is obeyed and color profiles are converted. Grey, palette, CMYK and 16-bit
    photos are converted; of several frames the first is taken. Values of 10, 12 or 14 bits stored
    in 16 are told by their maximum.

    Args:
        path: the file.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        ValueError: with a one-line reason without the file's name, if the file is not a whole,
            readable photo of at most `MAX_PIXELS` pixels.
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large photos and odd tags
            with _open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                deep = _is_deep(image)
                image.load()  # first: once it failed, a second try gives what there is
                orientation = _orientation(image)
                picture = _to_srgb(image)
        if deep and picture.max(initial=0) <= _SHALLOW:
            picture = _read_deep(path, picture)
        upright = _UPRIGHT.get(orientation)
        return picture if upright is None else upright(picture).copy(order="C")
    except UnidentifiedImageError:
        raise ValueError("not a photo in a format that can be read") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS / 1e6:.0f} megapixels; make it smaller") from None
    except MemoryError:
        raise ValueError("not enough memory to read the photo") from None
    except _UnreadableError:
        raise
    except Exception as error:  # decoders raise a dozen kinds for damaged files
        raise ValueError(f"damaged or unreadable photo ({one_line(error)})") from None
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # a plug-in written in Rust that gave up
            raise
        raise ValueError("damaged or unreadable photo") from None


def read_layer(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a picture that is laid over another one.

    Returns:
        [H, W, 3] uint8 RGB, and its opacity [H, W] float32 0…1, None where it is opaque.

    Raises:
        ValueError: as `read_image`.
    """
    path = Path(path)
    picture = read_image(path)  # refuses what is no picture, or too large
    try:
        with _open(path) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                return picture, None
            layer = np.array(image.convert("RGBA"))
    except (OSError, ValueError) as error:
        raise ValueError(f"damaged or unreadable photo ({one_line(error)})") from None
    return layer[..., :3], (layer[..., 3] / np.float32(255)).astype(np.float32)


def image_of_pillow(image: Image.Image) -> np.ndarray:
    """A picture of Pillow's as `read_image` gives a file: upright, in sRGB, over white.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    picture = _to_srgb(image)
    upright = _UPRIGHT.get(_orientation(image))
    return picture if upright is None else upright(picture).copy(order="C")


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


def write_png_16(path: str | Path, values: np.ndarray) -> None:
    """Write a 16-bit grey picture [H, W] uint16, whole or not at all.

    Raises:
        ValueError: if that is not what it is.
    """
    if values.ndim != 2 or values.dtype != np.uint16 or not values.size:
        raise ValueError(f"a 16-bit picture is [H, W] uint16, not {values.dtype} {values.shape}")
    with replace_on_success(path) as temporary:
        Image.fromarray(values).save(temporary, "PNG")


def write_edited(path: str | Path, image: np.ndarray, note: str) -> None:
    """Write a picture that says in its metadata that it was edited, whole or not at all.

    The note is in EXIF's description and, as the IPTC's digital source type "composite", in XMP;
    PNG files also have it as text.

    Args:
        path: .png, .jpg or .jpeg; its folder exists.
        image: [H, W, 3] uint8 RGB.
        note: what was done, one line of ASCII.

    Raises:
        ValueError: for another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{path}: pictures are written as .png, .jpg or .jpeg")
    exif = Image.Exif()
    exif[_DESCRIPTION], exif[_SOFTWARE] = note, "v3recon"
    xmp = _XMP.format(escape(note))
    options: dict[str, Any] = {"exif": exif}
    if suffix == ".png":
        texts = PngInfo()
        texts.add_text("Description", note)
        texts.add_itxt("XML:com.adobe.xmp", xmp)
        options |= {"format": "PNG", "pnginfo": texts}
    else:
        options |= {"format": "JPEG", "quality": 95, "subsampling": 0, "xmp": xmp.encode("utf-8")}
    with replace_on_success(path) as temporary:
        Image.fromarray(image).save(temporary, **options)


def encode_jpeg(image: np.ndarray, quality: int = 92) -> bytes:
    """A JPEG file of a picture [H, W, 3] uint8 RGB; quality 1…95, colours at full resolution."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality, subsampling=0, optimize=True)
    return data.getvalue()


class _UnreadableError(ValueError):
    """A reason that is complete as it stands."""


def _check_file(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise ValueError("a link to a file that is not there")
    if path.is_dir():
        raise ValueError("a folder, or one that cannot be opened")
    if not path.is_file():
        raise ValueError("no such file")
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    if path.suffix.lower() in RAW_SUFFIXES:
        raise ValueError("a camera's raw file; export it as JPEG or PNG")


def _open(path: Path) -> Image.Image:
    """The file in Pillow's hands; plug-ins are looked for where it has no decoder."""
    Image.init()
    try:
        return Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        with path.open("rb") as file:
            start = file.read(32)
        advice = register_plugin(start)
        if advice:
            raise _UnreadableError(advice) from None
        return Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN])


def _is_deep(image: Image.Image) -> bool:
    """Whether a color photo is stored with 16 bits, of which Pillow keeps the upper eight."""
    tiles = getattr(image, "tile", None) or []
    return image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in tiles)


def _read_deep(path: Path, shallow: np.ndarray) -> np.ndarray:
    """A 16-bit color photo that uses the lower bits only."""
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    deep = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if deep is None or deep.dtype != np.uint16 or deep.shape != shallow.shape:
        return shallow
    return _GreyRange.of(float(deep.min()), float(deep.max()), whole=True).apply(deep[..., ::-1])


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation 1…8; 1 where the tag is absent or makes no sense.

    Only this one tag is looked at: others of a type that the standard forbids are common.
    """
    exif = image.info.get("exif")
    found = _orientation_of(exif) if isinstance(exif, bytes) else None
    if found is not None:
        return found
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        value = value[0] if isinstance(value, tuple | list | bytes) else value
        return int(float(value))
    except Exception:  # tags can be damaged in any way, and the photo be sound
        return 1


def _orientation_of(exif: bytes) -> int | None:
    """The tag's value in a block of EXIF, whatever the types of others; None if it is not there."""
    exif = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if exif[:2] == b"II" else "big"
    start = int.from_bytes(exif[4:8], order)
    for number in range(min(int.from_bytes(exif[start : start + 2], order), _MAX_TAGS)):
        at = start + 2 + 12 * number
        if int.from_bytes(exif[at : at + 2], order) == _ORIENTATION:
            kind = int.from_bytes(exif[at + 2 : at + 4], order)
            width = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}.get(kind)  # whole numbers
            return None if width is None else int.from_bytes(exif[at + 8 : at + 8 + width], order)
    return None


def _to_srgb(image: Image.Image) -> np.ndarray:
    """Any mode of Pillow's as [H, W, 3] uint8, strip by strip."""
    width, height = image.size
    to_8_bit = None
    if image.mode.startswith(("I", "F")):
        low, high = _extrema(image)
        to_8_bit = _GreyRange.of(low, high, whole=not image.mode.startswith("F")).apply
    profile = _Profile(image)
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        strip = image.crop((0, top, width, min(top + _STRIP, height)))
        strip.info = image.info  # transparency
        if to_8_bit is not None:
            strip = Image.fromarray(to_8_bit(np.array(strip)))
        out[top : top + _STRIP] = np.asarray(_strip_to_rgb(strip, profile))
    return out


def _strip_to_rgb(strip: Image.Image, profile: _Profile) -> Image.Image:
    transparent = strip.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    if transparent or (strip.mode != "P" and "transparency" in strip.info):
        rgba = strip.convert("RGBA")
    elif strip.mode == "P":
        rgba = strip.convert("RGBA" if "transparency" in strip.info else "RGB")
    else:
        return profile.convert(strip)
    if rgba.mode == "RGB":
        return profile.convert(rgba)
    colors = profile.convert(rgba.convert("RGB"))
    background = Image.new("RGB", colors.size, "white")
    background.paste(colors, mask=rgba.getchannel("A"))
    return background


class _Profile:
    """A photo's color profile; without one, or with one that is damaged, colors are sRGB."""

    def __init__(self, image: Image.Image) -> None:
        data = image.info.get("icc_profile")
        self._source: ImageCms.ImageCmsProfile | None = None
        self._transforms: dict[str, ImageCms.ImageCmsTransform | None] = {}
        if not isinstance(data, bytes) or not 128 <= len(data) <= _MAX_PROFILE:
            return
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(data))
            name = ImageCms.getProfileDescription(source).lower()
        except Exception:  # of the profile's parser; the picture is sound
            return
        if "srgb" not in name or "linear" in name:
            self._source = source

    def convert(self, image: Image.Image) -> Image.Image:
        """A picture of any mode without transparency as RGB."""
        mode = image.mode if image.mode in ("L", "RGB", "CMYK", "LAB") else "RGB"
        if self._source is not None and mode not in self._transforms:
            try:
                self._transforms[mode] = ImageCms.buildTransform(
                    self._source,
                    ImageCms.createProfile("sRGB"),
                    mode,
                    "RGB",
                    ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
            except ImageCms.PyCMSError:  # a profile of another kind of pixels, or damaged
                self._transforms[mode] = None
        transform = self._transforms.get(mode)
        picture = image if image.mode == mode else image.convert(mode)
        if transform is None:
            return picture.convert("RGB")
        converted = ImageCms.applyTransform(picture, transform)
        return picture.convert("RGB") if converted is None else converted


@dataclass(frozen=True)
class _GreyRange:
    """The value that becomes 255; 0 stays 0."""

    full: float

    @classmethod
    def of(cls, low: float, high: float, *, whole: bool) -> _GreyRange:
        """The range that values between these two are of.

        Whole numbers are of 10, 12, 14 or 16 bits; those below 256 are of 8 where they differ, and
        a very dark picture of 16 where they do not. Floats end at 1, 255 or 65535.
        """
        if not whole:
            return cls(next((end for end in (1, 255) if high <= end), max(65535.0, high)))
        if high <= 255:
            return cls(255.0 if high - low >= 16 else 65535.0)
        return cls(next((float(end) for end in _GREY_ENDS if high <= end), high))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values as 0…255 uint8."""
        values = np.nan_to_num(values.astype(np.float32))
        return (values * (255 / self.full)).round().clip(0, 255).astype(np.uint8)


def _extrema(image: Image.Image) -> tuple[float, float]:
    """Smallest and largest finite value of a one-channel picture; 0 where there is none."""
    low, high = np.inf, -np.inf
    for top in range(0, image.height, _STRIP):
        values = np.array(image.crop((0, top, image.width, min(top + _STRIP, image.height))))
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else (0.0, 0.0)
