"""Decoders that Pillow does not bring along: HEIF (`pillow-heif`) and JPEG XL."""

from __future__ import annotations

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")


def register_plugin(start: bytes) -> str:
    """Hand Pillow the decoder for a file that begins like this.

    Args:
        start: the first 32 bytes.

    Returns:
        "" if there is nothing to add, else why the file cannot be read and what to install.
    """
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return _register_heif()
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
        return "an AVIF photo, which this Pillow cannot read; run: pip install 'pillow>=11.3'"
    if start.startswith(_JXL_STARTS):
        return _register_jxl()
    return ""


def _register_heif() -> str:
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "an HEIF photo; run: pip install pillow-heif, or export it as JPEG"
    pillow_heif.register_heif_opener()
    return ""


def _register_jxl() -> str:
    try:
        import pillow_jxl  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "a JPEG XL photo; run: pip install pillow-jxl-plugin, or export it as JPEG"
    return ""
