"""Photos of an index whose faces people have marked: which, where the face is, reconstructed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from v3recon.evaluation.options import IndexOptions
from v3recon.evaluation.predict import (
    Case,
    FacePlace,
    landmarks_68_of,
    run_cases,
)
from v3recon.evaluation.report import NO_FACE, Report, WorstCases, landmark_panels
from v3recon.face_models.bfm import five_points
from v3recon.io.images import read_image
from v3recon.io.messages import one_line
from v3recon.io.photo_index import HandPoints, PhotoEntry, read_photo_index, read_points
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.reconstructor import FaceReconstructor


@dataclass(frozen=True)
class MarkedFace:
    """One photo with what people marked.

    Attributes:
        entry: of the index.
        hand: its points.
        known: [N, 2] all marked points, photo pixels; their box is the face's size.
    """

    entry: PhotoEntry
    hand: HandPoints
    known: Tensor

    @property
    def size(self) -> float:
        """Root of the area of the marked points' box, pixels."""
        return float((self.known.amax(0) - self.known.amin(0)).prod().sqrt())


@dataclass(frozen=True)
class Seen:
    """A marked face that was reconstructed.

    Attributes:
        marked: the truth.
        fixed: [68, 2] fixed vertices of the face model, photo pixels.
        outline: [68, 2] the same with the jaw marched to the visible outline.
        face: everything else.
        image: [H, W, 3] the photo.
    """

    marked: MarkedFace
    fixed: Tensor
    outline: Tensor
    face: Face
    image: np.ndarray


def entries_of(options: IndexOptions, sources: Sequence[str]) -> list[PhotoEntry]:
    """Photos of the chosen split and of these sources.

    Raises:
        ValueError: if there is none.
    """
    entries = [
        entry
        for entry in read_photo_index(options.photos, options.index)
        if entry.source in sources and options.split in ("all", entry.split)
    ]
    if not entries:
        raise ValueError(
            f"{options.photos} holds no photo of {' or '.join(sources)} in the split "
            f"{options.split}"
        )
    return entries[: options.limit or None]


def reconstruct_marked(
    options: IndexOptions,
    source: str,
    report: Report,
    reconstructor: FaceReconstructor | None = None,
) -> Iterator[Seen]:
    """Every marked face of a source, reconstructed; failures and bad rows go to the report.

    Raises:
        ValueError: if no photo has usable points, or the network cannot be loaded.
    """
    faces = []
    for entry in entries_of(options, (source,)):
        try:
            faces.append(_marked(options.photos, entry))
        except ValueError as error:
            report.unusable.append((entry.file, one_line(error)))
    if not faces:
        raise ValueError(f"no photo of {source} has usable points, e.g. {report.unusable[0]}")
    report.figures["photos"] = len(faces)
    cases = [_case(options.photos, face, number) for number, face in enumerate(faces)]
    for outcome in run_cases(cases, options, report, reconstructor):
        if outcome.face is None or outcome.image is None:
            continue
        marked = faces[outcome.case.number]
        fixed, outline = (points.double().cpu() for points in landmarks_68_of(outcome.face))
        yield Seen(marked, fixed, outline, outcome.face, outcome.image)
    failed = len(report.failures)
    report.figures |= {
        "scored": len(faces) - failed,
        "failure_rate": failed / len(faces),
    }


def reconstruct_photos(
    reconstructor: FaceReconstructor,
    folder: Path,
    entries: Sequence[PhotoEntry],
    batch_size: int,
    report: Report,
) -> Iterator[tuple[PhotoEntry, np.ndarray, Face]]:
    """The middle face of photos without marks, found by the detector; failures to the report."""
    with tqdm(total=len(entries), unit="photo", disable=None) as progress:
        for start in range(0, len(entries), batch_size):
            chosen, images = [], []
            for entry in entries[start : start + batch_size]:
                try:
                    images.append(read_image(folder / entry.file))
                    chosen.append(entry)
                except ValueError as error:
                    report.unusable.append((entry.file, one_line(error)))
            found = reconstructor.reconstruct_photos(images) if images else []
            for entry, image, faces in zip(chosen, images, found, strict=True):
                if faces:
                    yield entry, image, min(faces, key=partial(_off_middle, image.shape))
                else:
                    report.failures.append((entry.file, NO_FACE))
            progress.update(len(entries[start : start + batch_size]))


def show_worst(worst: WorstCases, seen: Seen, error: float, truth: Tensor, points: Tensor) -> None:
    """Offer a face's picture with points [N, 2] beside the true ones."""
    name = seen.marked.entry.file
    title = f"{100 * error:.1f} % {Path(name).name}"
    worst.add(error, lambda: landmark_panels(title, seen.image, truth.numpy(), points.numpy()))


def _marked(folder: Path, entry: PhotoEntry) -> MarkedFace:
    """A row with its points.

    Raises:
        ValueError: if it has none, or they give no size.
    """
    hand = read_points(folder, entry)
    if hand is None:
        raise ValueError("no points")
    sets = (hand.points_68, hand.points_21, hand.points_30)
    points = np.concatenate([one for one in sets if one is not None])
    known = torch.from_numpy(points[np.isfinite(points).all(1)])
    if len(known) < 5 or not bool((known.amax(0) > known.amin(0)).all()):
        raise ValueError("fewer than five points, or they fall together")
    return MarkedFace(entry, hand, known)


def _case(folder: Path, face: MarkedFace, number: int) -> Case:
    points = torch.from_numpy(face.hand.points_68)
    five = five_points(points)
    known = bool(five.isfinite().all())
    place = FacePlace(
        torch.cat([face.known.amin(0), face.known.amax(0)]),
        five if known else None,
    )
    return Case(face.entry.file, partial(read_image, folder / face.entry.file), place, number)


def _off_middle(shape: tuple[int, ...], face: Face) -> float:
    middle = face.landmarks_68.double().mean(0).cpu()
    off = math.hypot(float(middle[0]) - shape[1] / 2, float(middle[1]) - shape[0] / 2)
    return off
