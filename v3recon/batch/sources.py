"""Which photos a run is of: folders, patterns, tar files, lists."""

from __future__ import annotations

import glob
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from v3recon.batch.parquet import read_column
from v3recon.io.images import read_image
from v3recon.io.messages import one_line
from v3recon.io.photo_files import PHOTO_SUFFIXES, find_photos

_MAX_MEMBER = 1 << 29  # bytes of a photo in a tar file


@dataclass(frozen=True)
class Item:
    """A photo: a file, or a member of a tar file.

    Attributes:
        path: the file.
        offset: where the member's bytes begin in it; -1 for a file of its own.
        size: bytes of the member.
        member: its name in the tar file.
    """

    path: str
    offset: int = -1
    size: int = 0
    member: str = ""

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.path}/{self.member}" if self.member else self.path


def list_items(sources: Sequence[str]) -> list[Item]:
    """All photos, each once, in an order that is the same at every call.

    Args:
        sources: photos, folders (searched recursively), patterns with * or ?, `.tar` files (a
            WebDataset's too, not compressed), and lists: `.parquet` with a column `path`, or `.txt`
            with a path a line.

    Raises:
        ValueError: if a source is missing, cannot be read, or there is no photo.
    """
    items: dict[str, Item] = {}
    for source in sources:
        for item in _items_of(source):
            items.setdefault(item.name, item)
    if not items:
        raise ValueError(f"no photos in {', '.join(sources)}")
    return list(items.values())


def read_item(item: Item) -> np.ndarray:
    """A photo [H, W, 3] uint8 RGB.

    Raises:
        ValueError: saying why it cannot be read.
    """
    if item.offset < 0:
        return read_image(item.path)
    try:
        with open(item.path, "rb") as file:
            file.seek(item.offset)
            data = file.read(item.size)
    except OSError as error:
        raise ValueError(f"{item.path} cannot be read ({one_line(error)})") from None
    suffix = PurePosixPath(item.member).suffix
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, f"photo{suffix}")
        photo.write_bytes(data)
        return read_image(photo)


def _items_of(source: str) -> list[Item]:
    suffix = Path(source).suffix.lower()
    if any(letter in source for letter in "*?[") and not Path(source).exists():
        found = sorted(glob.glob(source, recursive=True))
        if not found:
            raise ValueError(f"{source}: no file is like that")
        return [item for one in found for item in _items_of(one)]
    if suffix == ".tar" and Path(source).is_file():
        return _members(source)
    if suffix == ".parquet" and Path(source).is_file():
        return [Item(path) for path in read_column(source, "path")]
    if suffix == ".txt" and Path(source).is_file():
        lines = Path(source).read_text(encoding="utf-8").splitlines()
        return [Item(line.strip()) for line in lines if line.strip()]
    return [Item(str(path)) for path in find_photos([source]).photos]


def _members(path: str) -> list[Item]:
    """Photos of a tar file; their bytes are read where they lie."""
    try:
        with tarfile.open(path, "r:") as archive:
            return [
                Item(path, member.offset_data, member.size, member.name)
                for member in archive
                if member.isreg()
                and member.size <= _MAX_MEMBER
                and PurePosixPath(member.name).suffix.lower() in PHOTO_SUFFIXES
            ]
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{path} is not a plain tar file ({one_line(error)})") from None
