"""Which files of a folder are photographs, and which are left out and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from v3recon.io.images import RAW_SUFFIXES

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx"),
    *(".ppm", ".pgm", ".pnm", ".psd", *RAW_SUFFIXES),
)
"""What counts as a photo in a folder. Some need a plug-in or are never read: `read_image` says so,
so that none is passed over in silence."""

RESULT_MARK = '"v3recon"'
"""The first key of the JSON file that stands beside results of this program."""

# Suffixes that other files of photo collections have; they are not opened to see what they are.
_NO_PHOTO = frozenset(
    ".csv .txt .pts .mat .npy .npz .json .jsonl .xml .xmp .aae .md .html .py .sh .pth .pt .onnx "
    ".zip .tar .gz .7z .rar .pdf .doc .docx .obj .mtl .ply .glb .mp4 .mov .avi .mkv .webm "
    ".mp3 .wav .db .ini .log .yaml .yml .toml .thm".split()
)
_STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"\xff\x0a",
)


@dataclass(frozen=True)
class PhotoFiles:
    """Photos found.

    Attributes:
        photos: without repetition, sorted within each folder.
        results: pictures left out because this program or 3DDFA_V3 wrote them.
    """

    photos: list[Path]
    results: list[Path]


def find_photos(paths: Sequence[str | Path]) -> PhotoFiles:
    """Photos named by files and folders; folders are searched recursively, links followed.

    A file that is named is taken whatever it is. In folders those with one of `PHOTO_SUFFIXES` in
    any case are, and files of another suffix or none that begin as a photo does. Hidden files
    and folders are skipped, and so are pictures beside the results that they belong to (see
    `is_result`), so that results may be kept beside the photos. A folder that cannot be opened is
    listed like a photo: reading it says why.

    Args:
        paths: files or folders.

    Raises:
        ValueError: if a path does not exist, or there is no photo at all.
    """
    photos: dict[Path, Path] = {}
    results: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            for photo in _walk(path):
                where = results if is_result(photo) else photos
                where.setdefault(photo.resolve(), photo)
        elif path.exists() or path.is_symlink():
            photos.setdefault(path.resolve(), path)
        else:
            raise ValueError(f"{path}: no such file or folder")
    if not photos:
        named = ", ".join(map(str, paths))
        reason = f" but the {len(results)} pictures of earlier results" if results else ""
        raise ValueError(f"no photos in {named}{reason} (.jpg .png .webp .tif .heic …)")
    return PhotoFiles(list(photos.values()), list(results.values()))


def list_photos(paths: Sequence[str | Path]) -> list[Path]:
    """The photos of `find_photos`."""
    return find_photos(paths).photos


def is_photo(path: Path) -> bool:
    """Whether a file of a folder is taken for a photo, by its suffix or, else, its first bytes."""
    suffix = path.suffix.lower()
    if suffix in PHOTO_SUFFIXES:
        return True
    if suffix in _NO_PHOTO or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return False
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    is_heif = start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"avif")
    return start.startswith(_STARTS) or is_webp or is_heif


def is_result(picture: Path) -> bool:
    """Whether a picture was written beside a `.npy` or `.json` of results, told by their content.

    `me.png` and `me_uv.png` belong to `me.npy` if that holds a pickled dict, as 3DDFA_V3's files
    and ours do, or to `me.json` if its first key is `RESULT_MARK`.
    """
    if picture.suffix.lower() != ".png":
        return False
    stem = picture.stem
    while stem:
        beside = picture.with_name(stem)
        if _begins(Path(f"{beside}.npy"), b"\x93NUMPY", b"'descr': '|O'"):
            return True
        if _begins(Path(f"{beside}.json"), b"{", RESULT_MARK.encode()):
            return True
        stem = stem.rpartition("_")[0]
    return False


def _begins(path: Path, start: bytes, then: bytes = b"") -> bool:
    try:
        with path.open("rb") as file:
            data = file.read(128)
    except OSError:
        return False
    return data.startswith(start) and then in data


def _walk(folder: Path) -> Iterator[Path]:
    """Photos below a folder in the order of their names, and folders that cannot be opened."""
    closed: list[Path] = []
    seen: set[Path] = set()
    walk = os.walk(
        folder, followlinks=True, onerror=lambda error: closed.append(Path(error.filename))
    )
    for root, folders, files in walk:
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = Path(root).resolve()
        if real in seen:  # a link back to a folder that was visited
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(files):
            if not name.startswith(".") and is_photo(Path(root, name)):
                yield Path(root, name)
    yield from closed
