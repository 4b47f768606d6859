"""What lies in a folder of photographs: photos, points beside them, masks, and their index."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from v3recon.data.part_targets import repair_sides
from v3recon.face_models.parts import labels_from_celebamask
from v3recon.io.images import PHOTO_SUFFIXES

MASK_ORIGINS: tuple[str, ...] = ("hand", "polygons", "parser")
"""What masks are made from: people; polygons of detected contours; the part parser."""


@dataclass(frozen=True)
class PhotoEntry:
    """One photo to prepare.

    Attributes:
        file: path relative to the folder.
        source: where it comes from (first folder of `file` unless the index says).
        split: "train" or "val".
        landmarks: path of hand-made points relative to the folder, or "".
        mask: path of a CelebAMask-HQ label picture relative to the folder, or "".
        mask_from: what the mask was made from, one of `MASK_ORIGINS`.
    """

    file: str
    source: str
    split: str
    landmarks: str = ""
    mask: str = ""
    mask_from: str = "hand"


def list_photos(folder: Path, index: Path | None = None) -> list[PhotoEntry]:
    """Photos of a folder, sorted by name.

    Args:
        folder: the photos.
        index: CSV with a column `file` and optionally `source, split, landmarks, mask,
            mask_from`; default `index.csv` in the folder where there is one, else every photo in
            the folder and below, with `.pts` beside a photo as its points.

    Raises:
        ValueError: if there is no photo, or the index is unusable.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if index is None and (folder / "index.csv").is_file():
        index = folder / "index.csv"
    entries = _read_index(index) if index is not None else _scan(folder)
    if not entries:
        raise ValueError(f"no photos ({', '.join(PHOTO_SUFFIXES)}) in {folder}")
    return sorted(entries, key=lambda entry: entry.file)


def _read_index(index: Path) -> list[PhotoEntry]:
    try:
        with index.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the index {index}: {error}") from error
    if rows and "file" not in rows[0]:
        raise ValueError(f"the index {index} has no column 'file', only {list(rows[0])}")
    entries = []
    for row in rows:
        split = row.get("split") or "train"
        if split not in ("train", "val"):
            raise ValueError(f"{index}: split {split!r} of {row['file']} is not train or val")
        origin = row.get("mask_from") or "hand"
        if origin not in MASK_ORIGINS:
            raise ValueError(f"{index}: mask_from {origin!r} of {row['file']} is unknown")
        source = row.get("source") or _source(Path(row["file"]))
        entries.append(
            PhotoEntry(
                row["file"],
                source,
                split,
                row.get("landmarks") or "",
                row.get("mask") or "",
                origin,
            )
        )
    return entries


def _scan(folder: Path) -> list[PhotoEntry]:
    entries = []
    for path in folder.rglob("*"):
        if path.suffix.lower() not in PHOTO_SUFFIXES or not path.is_file():
            continue
        file = path.relative_to(folder)
        points = file.with_suffix(".pts")
        has_points = (folder / points).is_file()
        entries.append(
            PhotoEntry(file.as_posix(), _source(file), "train", points.as_posix() * has_points)
        )
    return entries


def _source(file: Path) -> str:
    return file.parts[0] if len(file.parts) > 1 else "photos"


def read_pts(path: Path) -> np.ndarray:
    """Points of a 300-W `.pts` file (its first pixel is 1) as [N, 2] float64, first pixel 0.

    Raises:
        ValueError: if the file is not such a file.
    """
    try:
        body = path.read_text().split("{", 1)[1].split("}", 1)[0]
        points = np.array([line.split()[:2] for line in body.strip().splitlines()], np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(f"points of shape {points.shape}")
    except (OSError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is not a readable .pts file ({error})") from error
    return points - 1


def read_part_mask(path: Path) -> np.ndarray:
    """A CelebAMask-HQ label picture as part labels [H, W] uint8, 0…8.

    Raises:
        ValueError: if it cannot be read or holds no part at all.
    """
    # Palette indices are the classes: the decoder must not expand them to colours.
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            classes = np.asarray(picture, np.uint8) if picture.mode in ("P", "L") else None
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a PNG ({error})") from error
    if classes is None:
        raise ValueError(f"{path} is not a palette or single-channel PNG")
    try:
        labels = repair_sides(labels_from_celebamask(classes))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not labels.any():
        raise ValueError(f"{path} holds no face part (classes {np.unique(classes).tolist()})")
    return labels
