"""Faces that a user says are in a photo: boxes or landmarks in text or JSON files.

Text holds numbers, separated by blanks or commas, `#` begins a comment:
  four a line: boxes, left top right bottom;
  two a line, 5 or 68 lines: landmarks of one face (Deep3D's `.txt`);
  a count, then lines `number left right top bottom`: 3DDFA's `.bbox`.
iBUG's `.pts` holds 68 points of one face and counts pixels from 1.
JSON holds a face or a list of faces; a face is [left, top, right, bottom], a list of 5 or 68
points, or {"box": …, "points": …} with one or both. All in photo pixels, x right, y down.
One file for many photos: JSON {"photo.jpg": faces, …}, or text lines `photo.jpg left top right
bottom`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from v3recon.io.messages import one_line
from v3recon.io.photo_index import read_pts

BESIDE = "beside"
"""Stands for the folder of each photo."""

_ENDINGS = (".json", ".txt", ".pts", ".bbox")
_POINT_COUNTS = (5, 68)
_MAX_BYTES = 1 << 24
_MAX_FACES = 10_000


@dataclass(frozen=True, eq=False)
class GivenFace:
    """A face by its box, its landmarks, or both; photo pixels, x right, y down.

    Attributes:
        box: left, top, right, bottom; None where points are all there is.
        points: [5, 2] eye centers, nose tip, mouth corners, the viewer's left first, or [68, 2] of
            iBUG; None where the box is all there is.
    """

    box: tuple[float, float, float, float] | None = None
    points: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what is neither."""
        if self.box is None and self.points is None:
            raise ValueError("a face without box and points")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (all(map(math.isfinite, self.box)) and right > left and bottom > top):
                raise ValueError(f"a box is left, top, right, bottom, not {_said(self.box)}")
        if self.points is not None:
            if self.points.shape not in [(count, 2) for count in _POINT_COUNTS]:
                raise ValueError(f"points are 5 or 68 pairs, not {list(self.points.shape)}")
            if not np.isfinite(self.points).all():
                raise ValueError("a point is not finite")


@dataclass(frozen=True)
class GivenFaces:
    """What a user gave for many photos.

    Attributes:
        folder: of a file a photo; None = beside each photo.
        table: faces by photo's name, of one file; None where there are files a photo.
        path: of that file.
    """

    folder: Path | None = None
    table: dict[str, tuple[GivenFace, ...]] | None = None
    path: Path | None = None

    def of(self, photo: Path) -> tuple[GivenFace, ...] | None:
        """Faces of a photo; None where nothing is given for it.

        Raises:
            ValueError: naming the file, if it cannot be read.
        """
        if self.table is not None:
            names = (str(photo), photo.as_posix(), photo.name, photo.stem)
            return next((self.table[name] for name in names if name in self.table), None)
        folder = photo.parent if self.folder is None else self.folder
        for name in (photo.name, photo.stem):
            for ending in _ENDINGS:
                path = folder / f"{name}{ending}"
                if path.is_file():
                    return read_faces(path)
        return None


def open_given_faces(where: str | Path) -> GivenFaces:
    """Faces given in a folder, beside the photos, or in one file.

    Args:
        where: "beside", a folder with `photo.jpg.json`, `photo.json`, `.txt`, `.pts` or `.bbox`, or
            a file for all photos.

    Raises:
        ValueError: if there is no such folder or file, or the file cannot be read.
    """
    path = Path(where)
    if str(where) == BESIDE and not path.exists():
        return GivenFaces()
    if path.is_dir():
        return GivenFaces(folder=path)
    if not path.is_file():
        raise ValueError(f"boxes: {path}: no such file or folder; or say '{BESIDE}'")
    text = _text_of(path)
    try:
        table = _json_table(text) if path.suffix.lower() == ".json" else _text_table(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"boxes: {path}: {one_line(error)}") from None
    return GivenFaces(table=table, path=path)


def read_faces(path: str | Path) -> tuple[GivenFace, ...]:
    """The faces of one photo's file.

    Raises:
        ValueError: naming the file, if it cannot be understood.
    """
    path = Path(path)
    if path.suffix.lower() == ".pts":
        return (GivenFace(points=read_pts(path)),)
    text = _text_of(path)
    try:
        if path.suffix.lower() == ".json":
            return _faces_of(json.loads(text))
        return _text_faces(_rows(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"boxes: {path}: {one_line(error)}") from None


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"boxes: {path}: larger than {_MAX_BYTES >> 20} MB")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"boxes: {path}: not a text file") from None
    except OSError as error:
        raise ValueError(f"boxes: {path}: {error.strerror or error}") from None


def _rows(text: str) -> list[list[str]]:
    """Words of each line that is not empty or a comment."""
    lines = (line.split("#")[0].replace(",", " ").split() for line in text.splitlines())
    return [words for words in lines if words]


def _text_faces(rows: list[list[str]]) -> tuple[GivenFace, ...]:
    numbers = [[float(word) for word in row] for row in rows]
    sizes = {len(row) for row in numbers}
    if len(numbers) > 1 and len(numbers[0]) == 1 and {len(row) for row in numbers[1:]} == {5}:
        if numbers[0][0] != len(numbers) - 1:
            raise ValueError(f"says {numbers[0][0]:g} boxes and holds {len(numbers) - 1}")
        return tuple(_face([row[1], row[3], row[2], row[4]]) for row in numbers[1:])
    if sizes == {4}:
        return tuple(_face(row) for row in numbers)
    if sizes == {2}:
        return (_face(numbers),)
    raise ValueError("lines hold neither boxes (left top right bottom) nor points (x y)")


def _text_table(text: str) -> dict[str, tuple[GivenFace, ...]]:
    table: dict[str, tuple[GivenFace, ...]] = {}
    for words in _rows(text):
        if len(words) < 5:
            said = one_line(" ".join(words))
            raise ValueError(f"a line is 'photo left top right bottom', not {said!r}")
        name = " ".join(words[:-4])  # names may hold blanks
        try:
            face = _face([float(word) for word in words[-4:]])
        except ValueError as error:
            if not table and not any(map(_is_number, words)):
                continue  # the head of a table
            raise ValueError(f"{name}: {error}") from None
        table[name] = (*table.get(name, ()), face)
    if not table:
        raise ValueError("holds no boxes")
    return table


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _json_table(text: str) -> dict[str, tuple[GivenFace, ...]]:
    content = json.loads(text)
    if not isinstance(content, dict) or {"box", "points"} & set(content):
        raise ValueError('one file for many photos is {"photo.jpg": faces, …}')
    table = {}
    for name, faces in content.items():
        try:
            table[name] = _faces_of(faces)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return table


def _faces_of(content: Any) -> tuple[GivenFace, ...]:
    """Faces of JSON: one of them, or a list."""
    if isinstance(content, dict) or (isinstance(content, list) and _is_face(content)):
        return (_face(content),)
    if not isinstance(content, list):
        raise ValueError(f"faces are a list, not {type(content).__name__}")
    if len(content) > _MAX_FACES:
        raise ValueError(f"{len(content)} faces in a photo; at most {_MAX_FACES}")
    return tuple(map(_face, content))


def _is_face(content: list[Any]) -> bool:
    """Whether a list is a box or points, not a list of faces."""
    if len(content) == 4 and all(isinstance(one, int | float) for one in content):
        return True
    return len(content) in _POINT_COUNTS and all(
        isinstance(one, list) and len(one) == 2 for one in content
    )


def _face(content: Any) -> GivenFace:
    box = points = None
    if isinstance(content, dict):
        box, points = content.get("box"), content.get("points")
    elif isinstance(content, list) and len(content) == 4:
        box = content
    else:
        points = content
    try:
        corners = None if box is None else tuple(float(value) for value in box)
        places = None if points is None else np.array(points, np.float64)
    except (TypeError, ValueError):
        raise ValueError("a box or a point is not made of numbers") from None
    if corners is None:
        return GivenFace(None, places)
    if len(corners) != 4:
        raise ValueError(f"a box is four numbers, not {len(corners)}")
    return GivenFace((corners[0], corners[1], corners[2], corners[3]), places)


def _said(box: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in box)
