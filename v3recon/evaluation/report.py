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

import numpy as np

from v3recon.io.images import write_png
from v3recon.io.results import write_json
from v3recon.visualize import (
    Panel,
    contact_sheet,
    draw_landmarks,
    overlay_labels,
    panel_image,
    panel_labels,
    panel_matrix,
    to_panel,
)

MAX_LISTED = 20
"""Names that are printed for each reason; the JSON file has all."""
TRUTH_COLOR = (40, 220, 70)
PREDICTION_COLOR = (255, 70, 60)
PANEL = 192


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
        crashed = any(reason.startswith("not finished") for _, reason in self.failures)
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
        """Keep `count` pictures; 0 keeps none."""
        self.count = count
        self._heap: list[tuple[float, int, Panel]] = []
        self._order = itertools.count()

    def add(self, badness: float, panel: Callable[[], Panel]) -> None:
        """Offer a face; its picture is drawn only if it is among the worst."""
        if not self.count or (len(self._heap) == self.count and badness <= self._heap[0][0]):
            return
        push = heapq.heappush if len(self._heap) < self.count else heapq.heapreplace
        push(self._heap, (badness, next(self._order), panel()))

    def write(self, path: Path) -> bool:
        """Write the picture, the worst first; False if there is nothing to show."""
        if not self._heap:
            return False
        panels = [panel for _, _, panel in sorted(self._heap, key=lambda item: -item[0])]
        write_png(path, contact_sheet(panels, columns=6, panel_size=PANEL))
        return True


def landmark_panel(
    title: str, image: np.ndarray, target: np.ndarray, points: np.ndarray | None
) -> Panel:
    """A face with its ground-truth points in green and predicted ones in red.

    Args:
        title: over the picture.
        image: [H, W, 3] the photo.
        target: [N, 2] photo pixels.
        points: [N, 2] photo pixels; None where the face was not found.
    """
    matrix = panel_matrix(target, (image.shape[0], image.shape[1]), PANEL)
    picture = panel_image(image, matrix, PANEL)
    picture = draw_landmarks(picture, to_panel(target, matrix), TRUTH_COLOR, 1.3)
    if points is not None:
        picture = draw_landmarks(picture, to_panel(points, matrix), PREDICTION_COLOR, 1.3)
    return Panel(title, picture)


def parts_panel(
    title: str, image: np.ndarray, target: np.ndarray, labels: np.ndarray | None
) -> Panel:
    """A face with its hand-made parts beside the predicted ones.

    Args:
        title: over the picture.
        image: [H, W, 3] the photo, or a copy of the masks' size.
        target: [H, W] labels 0…8.
        labels: [H, W] labels 0…8; None where the face was not found.
    """
    rows, columns = np.nonzero(target)
    places = np.stack([columns, rows], 1).astype(float)
    matrix = panel_matrix(places, (image.shape[0], image.shape[1]), PANEL)
    picture = panel_image(image, matrix, PANEL)
    shown = []
    for one in (target, np.zeros_like(target) if labels is None else labels):
        shown.append(overlay_labels(picture, panel_labels(one.astype(np.uint8), matrix, PANEL)))
    return Panel(title, np.concatenate(shown, 1))


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


def _finite(value: Any) -> Any:
    """The same values with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
