"""What a benchmark says: tables for people, JSON for programs, a picture of the worst cases."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from v3recon.io.images import write_png
from v3recon.reconstruct.draw import overlay_labels
from v3recon.reconstruct.sheet import (
    Panel,
    contact_sheet,
    panel_image,
    panel_labels,
    panel_matrix,
    to_panel,
)
from v3recon.reconstruct.values import write_json

NO_FACE = "no face found"
"""Reason of a failure that is a result of the detector, not an error."""
MAX_LISTED = 20
"""Names that are printed for each reason; the JSON file has all."""
TRUTH_COLOR = (40, 220, 70)
PREDICTION_COLOR = (255, 70, 60)
LINE_COLOR = (250, 220, 60)
PANEL = 256
"""Side of one picture, pixels."""

_FIXED_BITS = 4


@dataclass(frozen=True)
class Table:
    """A small table; every row is as long as the header."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        text = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([self.title, text[0], rule, *text[1:]])


@dataclass
class Report:
    """What a benchmark found.

    Attributes:
        title: one line.
        tables: for people.
        figures: the same and more, JSON values.
        notes: what a reader of the figures must know.
        failures: photo and reason: the face was not found or not finished; part of the score.
        unusable: photo and reason: no valid annotation, or not readable; not in the score.
        faces: one row of figures for each scored face.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    unusable: list[tuple[str, str]] = field(default_factory=list)
    faces: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """Exit status: 1 if a photo could not be used or not finished, else 0.

        A face that the detector did not find is a result, not an error.
        """
        crashed = any(reason != NO_FACE for _, reason in self.failures)
        return 1 if self.unusable or crashed else 0

    def __str__(self) -> str:
        blocks = [self.title, *map(str, self.tables)]
        for title, items in (
            ("failures, counted in the score", self.failures),
            ("unusable, not in the score", self.unusable),
        ):
            if items:
                blocks.append(f"{title}: {len(items)}\n" + _grouped(items))
        if self.notes:
            blocks.append("\n".join(f"note: {note}" for note in self.notes))
        return "\n\n".join(blocks)

    def write_json(self, path: Path, options: dict[str, Any]) -> None:
        """Write everything; the file appears whole or not at all.

        Args:
            path: the file; its folder exists.
            options: how the program was called.
        """
        content = {
            "title": self.title,
            "options": options,
            **self.figures,
            "notes": self.notes,
            "failures": [{"file": name, "reason": reason} for name, reason in self.failures],
            "unusable": [{"file": name, "reason": reason} for name, reason in self.unusable],
            "faces": self.faces,
        }
        write_json(path, _finite(content))


class WorstCases:
    """Keeps the pictures of the worst faces seen so far."""

    def __init__(self, count: int) -> None:
        """Keep the pictures of `count` faces; 0 keeps none."""
        self.count = count
        self._heap: list[tuple[float, int, list[Panel]]] = []
        self._order = itertools.count()

    def add(self, badness: float, draw: Callable[[], list[Panel]]) -> None:
        """Offer a face; its pictures are drawn only if it is among the worst."""
        if not self.count or (len(self._heap) == self.count and badness <= self._heap[0][0]):
            return
        push = heapq.heappush if len(self._heap) < self.count else heapq.heapreplace
        push(self._heap, (badness, next(self._order), draw()))

    def write(self, path: Path) -> bool:
        """Write the picture, the worst first; False if there is nothing to show."""
        if not self._heap:
            return False
        cases = [panels for _, _, panels in sorted(self._heap, key=lambda item: -item[0])]
        sheet = contact_sheet([panel for case in cases for panel in case], 6, PANEL)
        write_png(path, sheet)
        return True


def landmark_panels(
    title: str, image: np.ndarray, target: np.ndarray, points: np.ndarray | None
) -> list[Panel]:
    """A face with its ground-truth points in green, predicted ones in red and lines between.

    Args:
        title: over the picture.
        image: [H, W, 3] the photo.
        target: [N, 2] photo pixels.
        points: [N, 2] photo pixels; None where the face was not found.
    """
    matrix = panel_matrix(target, (image.shape[0], image.shape[1]), PANEL)
    picture = panel_image(image, matrix, PANEL).copy()
    marks: list[tuple[np.ndarray, tuple[int, int, int]]] = [(target, TRUTH_COLOR)]
    if points is not None:
        marks.append((points, PREDICTION_COLOR))
        ends = [_fixed_point(to_panel(one, matrix)) for one in (target, points)]
        for start, end in zip(*ends, strict=True):
            cv2.line(picture, start, end, LINE_COLOR, 1, cv2.LINE_AA, shift=_FIXED_BITS)
    for one, color in marks:
        for center in _fixed_point(to_panel(one, matrix)):
            cv2.circle(picture, center, 1 << _FIXED_BITS, color, -1, cv2.LINE_AA, _FIXED_BITS)
    return [Panel(_short(title), picture)]


def parts_panels(
    title: str, image: np.ndarray, target: np.ndarray, labels: np.ndarray | None
) -> list[Panel]:
    """A face with its hand-made parts, and with the predicted ones.

    Args:
        title: over the first picture.
        image: [H, W, 3] the photo, or a copy of the masks' size.
        target: [H, W] labels 0…8.
        labels: [H, W] labels 0…8; None where the face was not found.
    """
    rows, columns = np.nonzero(target)
    places = np.stack([columns, rows], 1).astype(float)
    matrix = panel_matrix(places, (image.shape[0], image.shape[1]), PANEL)
    picture = panel_image(image, matrix, PANEL)
    panels = []
    for name, one in ((_short(title), target), ("predicted", labels)):
        shown = np.zeros((PANEL, PANEL), np.uint8)
        if one is not None:
            shown = panel_labels(one.astype(np.uint8), matrix, PANEL)
        panels.append(Panel(name, overlay_labels(picture, shown)))
    return panels


def percent(value: float, places: int = 2) -> str:
    """A share as a percentage, "-" where there is none."""
    return "-" if math.isnan(value) else f"{100 * value:.{places}f}"


def number(value: float, places: int = 2) -> str:
    """A number, "-" where there is none."""
    return "-" if math.isnan(value) else f"{value:.{places}f}"


def _grouped(items: Sequence[tuple[str, str]]) -> str:
    """Photos by reason, the most frequent first."""
    names: dict[str, list[str]] = {}
    for name, reason in items:
        names.setdefault(reason, []).append(name)
    lines = []
    for reason, count in Counter(reason for _, reason in items).most_common():
        shown = ", ".join(names[reason][:MAX_LISTED])
        more = ", …" if count > MAX_LISTED else ""
        lines.append(f"  {count}  {reason}: {shown}{more}")
    return "\n".join(lines)


def _short(title: str, length: int = 38) -> str:
    """A title that stays over its picture."""
    return title if len(title) <= length else f"{title[: length - 3]}..."


def _fixed_point(points: np.ndarray) -> list[tuple[int, int]]:
    """Points [N, 2] in OpenCV's fixed-point pixels."""
    limited = np.clip(points, -1000, 1000 + PANEL)  # far away is off the picture anyway
    return [(int(x), int(y)) for x, y in np.round(limited * (1 << _FIXED_BITS))]


def _finite(value: Any) -> Any:
    """The same values with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
