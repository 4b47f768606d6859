"""Photographs with what people marked on them: the index of a folder, points, labels, splits.

A folder of photos has an `index.csv` with one row a photo. Hand-made points lie beside a photo as a
300-W `.pts` file, or for a whole source in one `annotations.npz` (AFLW with MERL-RAV, CFP,
webmorph). All points are returned in pixels, x right, y down, the center of the first pixel (0, 0).
Left and right are the person's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np

from v3recon.io.arrays import read_npz
from v3recon.io.messages import one_line, some_of
from v3recon.io.photo_files import list_photos
from v3recon.io.tables import read_table

INDEX_NAME = "index.csv"
SPLITS = ("train", "val", "test")
HAND = "hand"
MASK_ORIGINS: tuple[str, ...] = (HAND, "polygons", "parser")
"""What masks are made from: people; polygons of detected contours; a network."""

TEST_SHARE = MappingProxyType(
    {"aflw": (10, ("train",)), "cfp": (10, ("train",)), "fairface": (2, SPLITS)}
)
"""Source to (n, splits): one in n subjects of these splits is of the split `test`."""
VAL_SHARE = 20
"""One in so many photos of a folder without an index is of the split `val`."""

_MAX_PTS = 1 << 20  # bytes
_MAX_PIXEL = 1e6

SELF_OCCLUDED, HIDDEN, VISIBLE, NOT_STATED = 0, 1, 2, 3
"""Visibility of a landmark: turned away or behind the head itself; behind hair, glasses or a hand,
its place estimated; seen; placed by people who did not say (or not placed at all)."""


@dataclass(frozen=True)
class PhotoEntry:
    """One photo of a folder.

    Attributes:
        file: path relative to the folder, with "/".
        source: where it comes from (first folder of `file` unless the index says).
        subject: who it shows; photos of one subject are never in two splits.
        split: "train", "val" or "test".
        landmarks: path of hand-made points relative to the folder, or "".
        mask: path of a CelebAMask-HQ label picture relative to the folder, or "".
        mask_from: what the mask was made from, one of `MASK_ORIGINS`.
    """

    file: str
    source: str
    subject: str
    split: str
    landmarks: str = ""
    mask: str = ""
    mask_from: str = HAND


@dataclass(frozen=True)
class HandPoints:
    """What people marked on one photo, pixels, first pixel (0, 0).

    Attributes:
        points_68: [68, 2] float64 in iBUG's order, NaN where not marked. CFP's and webmorph's
            points are put where they are the same place.
        visibility: [68] uint8, `SELF_OCCLUDED` … `NOT_STATED`.
        points_21: [21, 2] AFLW's own, NaN where not marked.
        points_30: [30, 2] CFP's of the visible half.
        points_189: [189, 2] webmorph's.
        side: which half of the person CFP's points are on, "right" or "left", else "".
        yaw: AFLW's coarse yaw, degrees, positive toward the image's left; NaN if not known.
        residual: AFLW: median distance of the common points of its two mark-ups, pixels, or NaN.
        shift_sigma: AFLW: standard error of the shift per axis with which the 68 points were put
            into this picture, pixels; 0 where the points were made in it.
        scale_exact: whether the scale with which they were put there is exact.
    """

    points_68: np.ndarray
    visibility: np.ndarray
    points_21: np.ndarray | None = None
    points_30: np.ndarray | None = None
    points_189: np.ndarray | None = None
    side: str = ""
    yaw: float = float("nan")
    residual: float = float("nan")
    shift_sigma: float = 0.0
    scale_exact: bool = True

    @property
    def complete(self) -> bool:
        """Whether each of the 68 points has a place."""
        return bool(np.isfinite(self.points_68).all())


@dataclass(frozen=True)
class PersonLabels:
    """What annotators said of the person, "" where they did not; impressions, not measurements.

    Attributes:
        group: FairFace's `race`, webmorph's `ethnicity`.
        gender: as in the file.
        age: years, or FairFace's range such as "20-29".
    """

    group: str
    gender: str
    age: str


def read_photo_index(
    folder: Path, index: Path | None = None, usable: Container[str] | None = None
) -> list[PhotoEntry]:
    """Photos of a folder, sorted by file.

    Args:
        folder: the photos.
        index: CSV with a column `file` and optionally `source, subject, split, landmarks, mask,
            mask_from`; default `index.csv` in the folder. Without one every photo in the folder
            and below is taken, with a `.pts` beside it as its points, and one in `VAL_SHARE` is of
            the split `val`, by its name.
        usable: files of which something is known beside a `.pts`; without an index at least one
            of them is of the split `val`. Default all.

    Returns:
        The photos; the split of each is that of the index except for the `test` ones
        (`TEST_SHARE`).

    Raises:
        ValueError: if there is no photo, or the index is unusable.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if index is None and (folder / INDEX_NAME).is_file():
        index = folder / INDEX_NAME
    entries = _read_rows(index) if index is not None else _scan(folder, usable)
    if not entries:
        raise ValueError(f"no photos in {index or folder}")
    return sorted(entries, key=lambda entry: entry.file)


def final_split(source: str, subject: str, split: str) -> str:
    """The split of a photo: `test` by SHA-1 of "test" + subject, else what the index says."""
    share, splits = TEST_SHARE.get(source, (0, ()))
    return "test" if split in splits and _in_share("test", subject, share) else split


def read_points(folder: Path, entry: PhotoEntry) -> HandPoints | None:
    """Hand-made points of a photo; None if it has none.

    Args:
        folder: the photos.
        entry: the photo.

    Raises:
        ValueError: if the file of points cannot be used or lacks the photo.
    """
    if not entry.landmarks:
        return None
    path = folder / entry.landmarks
    if path.suffix != ".npz":
        points = read_pts(path)
        if len(points) != 68:
            raise ValueError(f"{path} has {len(points)} points, not 68")
        return HandPoints(points, np.full(68, NOT_STATED, np.uint8))
    try:
        table = _load_annotations(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    row = table.rows.get(entry.file)
    if row is None:
        raise ValueError(f"{path} has no points of {entry.file}")
    try:
        return table.points(row)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error)})") from None


def read_pts(path: Path) -> np.ndarray:
    """Points of a 300-W `.pts` file (its first pixel is 1) as [N, 2] float64, first pixel 0.

    Raises:
        ValueError: if the file is not such a file.
    """
    try:
        if path.stat().st_size > _MAX_PTS:
            raise ValueError(f"{path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        body = text.split("{", 1)[1].split("}", 1)[0]
        lines = [line.replace(",", " ").split() for line in body.splitlines() if line.strip()]
        points = np.array([[float(x), float(y)] for x, y, *_ in lines], np.float64)
        if not len(points) or not (np.abs(points) < _MAX_PIXEL).all():
            raise ValueError(f"{len(points)} points, or one outside any photo")
    except (OSError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is not a readable .pts file ({one_line(error)})") from None
    return points - 1


def read_person_labels(folder: Path, source: str) -> dict[str, PersonLabels]:
    """File of each photo of a source to the labels of its `labels.csv`.

    Raises:
        ValueError: if there is no such file, or it lacks a column.
    """
    path = folder / source / "labels.csv"
    labels = {}
    for row in _rows_of(path):
        group = row.get("race") or row.get("ethnicity") or ""
        labels[row["file"]] = PersonLabels(group, row.get("gender") or "", row.get("age") or "")
    return labels


@dataclass(frozen=True)
class _Annotations:
    """One annotations.npz and where each photo is in it."""

    arrays: Mapping[str, np.ndarray]
    rows: Mapping[str, int]

    def points(self, row: int) -> HandPoints:
        arrays = self.arrays
        points, visibility = np.full((68, 2), np.nan), np.full(68, NOT_STATED, np.uint8)
        if "points_68" in arrays:
            return HandPoints(
                arrays["points_68"][row].astype(np.float64),
                arrays["visibility"][row].astype(np.uint8),
                points_21=arrays["points_21"][row].astype(np.float64),
                yaw=float(arrays["yaw"][row]),
                residual=float(arrays["residual"][row]),
                shift_sigma=float(arrays["shift_sigma"][row]),
                scale_exact=bool(arrays["scale_exact"][row]),
            )
        if "points_30" in arrays:
            given, side = arrays["points_30"][row].astype(np.float64), str(arrays["side"][row])
            target = arrays["ibug_right" if side == "right" else "ibug_left"]
            points[target[target >= 0]] = given[target >= 0]
            visibility[target[target >= 0]] = VISIBLE
            return HandPoints(points, visibility, points_30=given, side=side)
        given = arrays["points_189"][row].astype(np.float64)
        points[arrays["ibug_index"]] = given[arrays["webmorph_index"]]
        visibility[arrays["ibug_index"]] = VISIBLE
        return HandPoints(points, visibility, points_189=given)


_KEYS = (
    {"points_68", "visibility", "points_21", "yaw", "residual", "shift_sigma", "scale_exact"},
    {"points_30", "side", "ibug_right", "ibug_left"},
    {"points_189", "ibug_index", "webmorph_index"},
)


@lru_cache(maxsize=8)
def _load_annotations(path: Path, _modified: int) -> _Annotations:
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a file of points ({error})") from None
    if "file" not in arrays or not any(keys <= set(arrays) for keys in _KEYS):
        raise ValueError(f"{path} is not a file of points: it holds {some_of(sorted(arrays))}")
    return _Annotations(arrays, {str(name): row for row, name in enumerate(arrays["file"])})


def _rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with a column `file`."""
    try:
        rows = read_table(path)
    except ValueError as error:
        raise ValueError(f"cannot read the index {error}") from None
    if rows and "file" not in rows[0]:
        raise ValueError(f"the index {path} has no column 'file', only {some_of(rows[0])}")
    return rows


def _read_rows(index: Path) -> list[PhotoEntry]:
    entries = []
    for row in _rows_of(index):
        file = row["file"]
        where = f"{index}: {one_line(file)}"
        if not PurePosixPath(file).name:
            raise ValueError(f"{index}: a row names no file: {one_line(list(row.values()))}")
        for path in (file, row.get("landmarks") or "", row.get("mask") or ""):
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"{index}: {one_line(path)} leads out of the folder of photos")
        split = row.get("split") or "train"
        if split not in SPLITS:
            raise ValueError(f"{where}: split {one_line(split)!r} is not train, val or test")
        origin = row.get("mask_from") or HAND
        if origin not in MASK_ORIGINS:
            raise ValueError(f"{where}: mask_from {one_line(origin)!r} is unknown")
        source = row.get("source") or _source(PurePosixPath(file))
        subject = row.get("subject") or PurePosixPath(file).with_suffix("").as_posix()
        entries.append(
            PhotoEntry(
                file,
                source,
                subject,
                final_split(source, subject, split),
                row.get("landmarks") or "",
                row.get("mask") or "",
                origin,
            )
        )
    return entries


def _scan(folder: Path, usable: Container[str] | None) -> list[PhotoEntry]:
    entries = []
    for path in list_photos([folder]):
        file = PurePosixPath(path.relative_to(folder).as_posix())
        points = file.with_suffix(".pts").as_posix()
        subject = file.with_suffix("").as_posix()
        split = "val" if _in_share("val", subject, VAL_SHARE) else "train"
        points = points if (folder / points).is_file() else ""
        entries.append(PhotoEntry(file.as_posix(), _source(file), subject, split, points))
    known = [e for e in entries if usable is None or e.file in usable or e.landmarks]
    if len(known) > 1 and not any(entry.split == "val" for entry in known):
        # Few photos: the one whose hash comes first is held out, whatever the others are.
        chosen = min(known, key=lambda entry: _digest("val", entry.subject))
        entries[entries.index(chosen)] = replace(chosen, split="val")
    return entries


def _in_share(name: str, subject: str, share: int) -> bool:
    return share > 0 and _digest(name, subject) % share == 0


def _digest(name: str, subject: str) -> int:
    data = (name + subject).encode("utf-8", "surrogateescape")
    return int(hashlib.sha1(data, usedforsecurity=False).hexdigest(), 16)


def _source(file: PurePosixPath) -> str:
    return file.parts[0] if len(file.parts) > 1 else "photos"
