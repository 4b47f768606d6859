"""Pictures whose openings of eyes and mouth are known, and what is read of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v3recon.evaluation.masked import PART_GROUPS, labels_of_face
from v3recon.evaluation.openings import Openings, openings_of_labels
from v3recon.evaluation.options import ExpressionOptions
from v3recon.evaluation.predict import Case, FacePlace, Outcome, landmarks_68_of, run_cases
from v3recon.evaluation.report import Report, WorstCases, landmark_panels, parts_panels
from v3recon.face_models.bfm import five_points
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.face_models.openings import APERTURES, openings_of_points
from v3recon.io.images import read_image
from v3recon.reconstruct.faces import Face as FoundFace
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.reconstruct.segment import part_overlaps
from v3recon.reconstruct.sheet import Panel

DETECTIONS = "detections"
SAME_VERTICES = "detections, same vertices"
ORIGINS = ("points", "masks", DETECTIONS, SAME_VERTICES)
"""Where the truth of a photo is from: hand-made points or masks, or a detector of 468 points.

The 68 landmarks of PhotoHead lie where people put them; the detector's nearest points are others.
So faces with detections are read twice: at the 68 landmarks, and at the very points that the
detector saw, where the face model has them."""


@dataclass(frozen=True)
class Face:
    """One picture with its truth.

    Attributes:
        name: for people.
        group: one of `ORIGINS`, "before", or the kind of a synthetic picture.
        photo: the file.
        place: where the face is.
        openings: [3] true openings of `APERTURES`; NaN where not known.
        points: [68, 2] truth, photo pixels; None where only a mask is known.
        mask: gives the part labels [H, W]; None without a hand-made mask.
        before: name of the unedited picture; "" for photos and for unedited ones.
    """

    name: str
    group: str
    photo: Path
    place: FacePlace
    openings: Tensor
    points: Tensor | None = None
    mask: Callable[[], np.ndarray] | None = None
    before: str = ""


@dataclass
class Readings:
    """What was read from the finished faces; lists grow together.

    Attributes:
        faces: the faces.
        openings: [3] read; NaN where the truth is not known.
        overlaps: [8] IoU of the parts; NaN without a mask.
    """

    faces: list[Face] = field(default_factory=list)
    openings: list[Tensor] = field(default_factory=list)
    overlaps: list[Tensor] = field(default_factory=list)

    def add(self, face: Face, openings: Tensor, overlaps: Tensor) -> None:
        """Note one face."""
        self.faces.append(face)
        self.openings.append(openings)
        self.overlaps.append(overlaps)


def pointed_face(name: str, group: str, photo: Path, points: Tensor, **more: Any) -> Face:
    """A face with 68 points [68, 2].

    Raises:
        ValueError: if these are other points.
    """
    if points.shape != (68, 2) or not bool(points.isfinite().all()):
        raise ValueError(f"points of shape {tuple(points.shape)}, not 68 finite ones")
    points = points.double()
    place = FacePlace(torch.cat([points.amin(0), points.amax(0)]), five_points(points))
    return Face(name, group, photo, place, openings_of_points(points[None])[0], points, **more)


def read_faces(
    reconstructor: FaceReconstructor,
    faces: Sequence[Face],
    options: ExpressionOptions,
    report: Report,
    worst: WorstCases,
) -> Readings:
    """Read the openings of every face."""
    cases = [
        Case(face.name, partial(read_image, face.photo), face.place, index)
        for index, face in enumerate(faces)
    ]
    readings = Readings()
    for outcome in run_cases(cases, options, report, reconstructor):
        if outcome.face is not None:
            face = faces[outcome.case.number]
            _keep(readings, face, outcome, outcome.face, report, worst)
    return readings


def _keep(
    readings: Readings,
    face: Face,
    outcome: Outcome,
    found: FoundFace,
    report: Report,
    worst: WorstCases,
) -> None:
    """Note what was read from one picture."""
    overlaps = torch.full((len(PART_NAMES),), math.nan)
    points = landmarks_68_of(found)[1].double().cpu()
    target = labels = None
    if face.mask is not None:
        target = face.mask()
        labels = labels_of_face(found, (target.shape[0], target.shape[1])).cpu()
        overlaps = part_overlaps(labels[None], torch.tensor(target)[None])[0]
    if face.points is not None:
        read = openings_of_points(points[None], face.points[None])[0]
    else:
        assert labels is not None
        read = torch.from_numpy(openings_of_labels(labels.numpy()))
    read = torch.where(face.openings.isnan(), torch.nan, read)
    readings.add(face, read, overlaps)
    row: dict[str, Any] = {"file": face.name, "group": face.group}
    for k, aperture in enumerate(APERTURES):
        row |= {f"{aperture}, true": float(face.openings[k]), f"{aperture}, read": float(read[k])}
    if face.group == DETECTIONS and found.model.detector_points is not None:
        seen = found.model.at_detector(found.points_photo[None])[0].double().cpu()
        seen = seen[torch.from_numpy(load_face_mesh().landmarks_68)]
        assert face.points is not None
        again = openings_of_points(seen[None], face.points[None])[0]
        readings.add(replace(face, group=SAME_VERTICES), again, overlaps)
        for k, aperture in enumerate(APERTURES):
            row[f"{aperture}, same vertices"] = float(again[k])
    report.faces.append(row)
    error = float((read - face.openings).abs().nan_to_num(0).max())
    image = outcome.image
    if image is None:
        return

    def draw() -> list[Panel]:
        title = f"{100 * error:.0f} % {face.group} {Path(face.name).name}"
        if face.points is not None:
            return landmark_panels(title, image, face.points.numpy(), points.numpy())
        assert target is not None and labels is not None
        return parts_panels(title, image, target, labels.numpy())

    worst.add(error, draw)


@dataclass(frozen=True)
class Chosen:
    """Some of the readings: openings and part IoUs [N, 8]."""

    openings: Openings
    overlaps: Tensor

    @classmethod
    def of(cls, readings: Readings, chosen: Sequence[int]) -> Chosen:
        """Those with these numbers."""

        def stacked(values: list[Tensor], width: int) -> Tensor:
            return torch.stack(values) if values else torch.zeros(0, width)

        true = stacked([readings.faces[i].openings for i in chosen], len(APERTURES))
        read = stacked([readings.openings[i] for i in chosen], len(APERTURES))
        overlaps = stacked([readings.overlaps[i] for i in chosen], len(PART_NAMES))
        return cls(Openings(true, read), overlaps)

    def iou(self, group: str) -> float:
        """Mean IoU of a part group over the faces whose mask has it."""
        columns = [PART_NAMES.index(name) for name in PART_GROUPS[group]]
        return float(self.overlaps[:, columns].nanmean())
