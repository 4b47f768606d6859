"""Closed eyes and open mouths: how well lids and lips are followed, in photos and synthetic ones.

The opening of an eye is the mean distance of its two pairs of lid points, across the line of its
corners, over their distance; that of a mouth the same of its three inner pairs. In masks it is the
mean height of the eye, or of what lies between the lips, over the width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from v3recon.data.face_mesh import load_face_mesh
from v3recon.data.mesh_detection import stored_detector
from v3recon.evaluation.openings import (
    APERTURES,
    CLOSED_EYE,
    HEADER,
    LIMITS_NOTE,
    OPEN_MOUTH,
    Openings,
    opening_rows,
    openings_of_labels,
    openings_of_points,
    response,
)
from v3recon.evaluation.options import ExpressionOptions
from v3recon.evaluation.parts import (
    PART_GROUPS,
    labels_of_face,
    place_of_mask,
)
from v3recon.evaluation.predict import (
    Case,
    FacePlace,
    Outcome,
    landmarks_68_of,
    load_reconstructor,
    predict_cases,
)
from v3recon.evaluation.report import (
    Report,
    Table,
    WorstCases,
    landmark_panels,
    number,
    parts_panels,
    percent,
)
from v3recon.face_models.bfm import five_points
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.face_models.parts import (
    BROW_LABELS,
    EYE_LABELS,
)
from v3recon.io.arrays import read_npz
from v3recon.io.celebamask import (
    LABEL_TO_CELEBAMASK,
    read_celebamask,
    read_classes,
)
from v3recon.io.images import read_image
from v3recon.io.messages import one_line
from v3recon.io.photo_index import read_photo_index, read_pts
from v3recon.reconstruct.faces import Reconstruction
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.reconstruct.segment import part_overlaps
from v3recon.reconstruct.sheet import Panel

DETECTIONS = "detections"
SAME_VERTICES = "detections, same vertices"
ORIGINS = ("points", "masks", DETECTIONS, SAME_VERTICES)
"""Where the truth of a photo is from: hand-made points or masks, or a detector of 468 points.

The 68 landmarks of PhotoFace lie where people put them; the detector's nearest points are others
(on the mean face the eyes are open by 0.29 of their width at the former, by 0.27 at the latter).
So faces with detections are read twice: at the 68 landmarks, and at the very vertices that the
detector saw, where the face model has them."""
_EYE_PARTS = {
    eye: (LABEL_TO_CELEBAMASK[eye], LABEL_TO_CELEBAMASK[brow])
    for eye, brow in zip(EYE_LABELS, BROW_LABELS, strict=True)
}
"""Part label of each eye -> CelebAMask-HQ classes of that eye and its brow."""
_GLASSES = 3
_LEAST_BROW = 30
"""Pixels of a brow that prove that the eye below it could be seen."""


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


def evaluate_expressions(options: ExpressionOptions) -> tuple[Report, WorstCases]:
    """Score photos, synthetic pictures or both; see `ExpressionOptions`.

    Raises:
        ValueError: for wrong usage: no usable picture, missing weights, …
    """
    report = Report(f"expressions of {options.photos or ''} {options.synthetic or ''}".strip())
    worst = WorstCases(options.worst_count if options.worst else 0)
    photos = [] if options.photos is None else list(_read_photos(options, report))
    pictures = [] if options.synthetic is None else _read_synthetic(options)
    reconstructor = load_reconstructor(options)
    if options.photos is not None:
        readings = _predict(reconstructor, photos, options, report, worst)
        _summarize_photos(report, readings)
    if options.synthetic is not None:
        readings = _predict(reconstructor, pictures, options, report, worst)
        _summarize_synthetic(report, readings)
    report.figures |= {
        "scored": len(report.faces),
        "failures": len(report.failures),
        "limits": {"closed_eye": CLOSED_EYE, "open_mouth": OPEN_MOUTH},
    }
    report.notes.append(LIMITS_NOTE)
    return report, worst


def _read_photos(options: ExpressionOptions, report: Report) -> Iterator[Face]:
    """Photos with points, mask or detection; unusable ones go to the report."""
    assert options.photos is not None
    entries = read_photo_index(options.photos, options.index)
    if options.split != "all":
        entries = [entry for entry in entries if entry.split == options.split]
    detect = stored_detector(list(options.meshes))
    detected: dict[str, np.ndarray] = {}
    for entry in entries:
        if not (entry.landmarks or entry.mask):
            # Stored detections need no picture.
            found = detect(options.photos / entry.file, entry.file, np.zeros((1, 1, 3), np.uint8))
            for mesh in found:
                detected[entry.file] = mesh[load_face_mesh().landmarks_68, :2]
    entries = [
        one for one in entries if one.landmarks.endswith(".pts") or one.mask or one.file in detected
    ]
    if not entries:
        raise ValueError(f"no photo of {options.photos} ({options.split}) has points or a mask")
    for entry in entries[: options.limit or None]:
        photo = options.photos / entry.file
        try:
            if entry.landmarks.endswith(".pts"):
                points = torch.from_numpy(read_pts(options.photos / entry.landmarks))
                yield _pointed(entry.file, "points", photo, points)
            elif entry.file in detected:
                points = torch.from_numpy(detected[entry.file])
                yield _pointed(entry.file, DETECTIONS, photo, points)
            else:
                yield _masked(entry.file, photo, options.photos / entry.mask)
        except ValueError as error:
            report.unusable.append((entry.file, one_line(error)))


def _pointed(name: str, group: str, photo: Path, points: Tensor, **more: Any) -> Face:
    """A face with 68 points [68, 2].

    Raises:
        ValueError: if these are other points.
    """
    if points.shape != (68, 2) or not bool(points.isfinite().all()):
        raise ValueError(f"points of shape {tuple(points.shape)}, not 68 finite ones")
    points = points.double()
    place = FacePlace(torch.cat([points.amin(0), points.amax(0)]), five_points(points))
    return Face(name, group, photo, place, openings_of_points(points[None])[0], points, **more)


def _masked(name: str, photo: Path, mask: Path) -> Face:
    """A photo with a CelebAMask-HQ mask.

    Raises:
        ValueError: if the mask cannot be used.
    """
    marked = read_celebamask(mask)
    labels, classes = marked.labels, marked.classes
    openings = openings_of_labels(labels)
    for label, (eye, brow) in _EYE_PARTS.items():
        seen = (classes == brow).sum() >= _LEAST_BROW and not (classes == _GLASSES).any()
        if not (classes == eye).any() and not seen:
            openings[label - 1] = math.nan

    def read() -> np.ndarray:
        return read_celebamask(mask).labels

    place = place_of_mask(labels)
    return Face(name, "masks", photo, place, torch.from_numpy(openings), mask=read)


def _read_synthetic(options: ExpressionOptions) -> list[Face]:
    """Edited pictures of a folder of `v3recon synthesize expressions`, and the unedited ones.

    Raises:
        ValueError: if the folder is not such a folder.
    """
    folder = options.synthetic
    assert folder is not None
    try:
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no readable manifest.jsonl ({one_line(error)})") from None
    records = [one for one in records if one.get("status") == "written" and one["kind"] != "poses"]
    if options.split != "all":
        records = [one for one in records if one["split"] == options.split]
    if not records:
        raise ValueError(f"{folder} holds no synthetic expressions ({options.split})")
    befores, edited = {}, []
    for record in records[: options.limit or None]:
        try:
            arrays = read_npz(folder / record["labels"], ("landmarks_68", "landmarks_68_before"))
            after = torch.from_numpy(arrays["landmarks_68"])
            before = torch.from_numpy(arrays["landmarks_68_before"])
            name, unedited = record["file"], record["before"]
            mask = None
            if record["mask_from"] == "hand":
                mask = partial(read_classes, folder / record["parts"])
            if unedited not in befores:
                befores[unedited] = _pointed(unedited, "before", folder / unedited, before)
            edited.append(
                _pointed(*(name, record["kind"], folder / name, after), mask=mask, before=unedited)
            )
        except (KeyError, OSError) as error:
            raise ValueError(
                f"{folder}: labels of {record.get('file')} are not usable ({one_line(error)}); "
                "run v3recon synthesize expressions again"
            ) from None
    return [*befores.values(), *edited]


def _predict(
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
    outcomes = predict_cases(reconstructor, cases, options)
    for outcome in tqdm(outcomes, total=len(cases), unit="photo", disable=None):
        face = faces[outcome.case.number]
        if outcome.face is None:
            report.failures.append((face.name, outcome.failure))
        else:
            _keep(readings, face, outcome, outcome.face, report, worst)
    return readings


def _keep(
    readings: Readings,
    face: Face,
    outcome: Outcome,
    found: Reconstruction,
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
    if face.group == DETECTIONS and found.model.name == "photoface":
        seen = found.points_2d[torch.from_numpy(load_face_mesh().landmarks_68)].double().cpu()
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
class _Chosen:
    """Some of the readings: openings and part IoUs [N, 8]."""

    openings: Openings
    overlaps: Tensor

    @classmethod
    def of(cls, readings: Readings, chosen: Sequence[int]) -> _Chosen:
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


def _summarize_photos(report: Report, readings: Readings) -> None:
    """Table and figures of the photos."""
    rows, figures = [], {}
    for group in ORIGINS:
        chosen = [i for i, face in enumerate(readings.faces) if face.group == group]
        if chosen:
            lines = _Chosen.of(readings, chosen).openings.lines()
            rows += opening_rows(lines, f", by {group}")
            figures[group] = lines
    report.tables.append(Table("photos", HEADER, rows))
    report.figures["photos"] = figures
    masked = [i for i, face in enumerate(readings.faces) if face.group == "masks"]
    if masked:
        is_open = [bool(readings.faces[i].openings[2] >= OPEN_MOUTH) for i in masked]
        parts, shares = [], {}
        for name, wanted in (("open mouths", True), ("other mouths", False)):
            chosen = [i for i, flag in zip(masked, is_open, strict=True) if flag == wanted]
            values = _Chosen.of(readings, chosen)
            shares[name] = {part: values.iou(part) for part in ("eyes", "upper lip", "lower lip")}
            parts.append((name, str(len(chosen)), *map(percent, shares[name].values())))
        header = ("IoU %", "photos", "eyes", "upper lip", "lower lip")
        report.tables.append(Table("parts of the photos with masks", header, parts))
        report.figures["photo_parts"] = shares


def _summarize_synthetic(report: Report, readings: Readings) -> None:
    """Tables and figures of the synthetic pictures."""
    number_of = {face.name: i for i, face in enumerate(readings.faces) if face.group == "before"}
    edited = [i for i, face in enumerate(readings.faces) if face.group != "before"]
    everything = _Chosen.of(readings, edited)
    unedited = _Chosen.of(readings, list(number_of.values()))
    rows = opening_rows(everything.openings.lines(), "") + opening_rows(
        unedited.openings.lines(), ", unedited"
    )
    report.tables.append(Table("synthetic pictures", HEADER, rows))
    figures: dict[str, Any] = {
        "edited": everything.openings.lines(),
        "unedited": unedited.openings.lines(),
        "kinds": {},
    }
    kinds = []
    for kind in ("all", *sorted({readings.faces[i].group for i in edited})):
        chosen = [i for i in edited if kind in ("all", readings.faces[i].group)]
        paired = [i for i in chosen if readings.faces[i].before in number_of]
        after = _Chosen.of(readings, paired)
        before = _Chosen.of(readings, [number_of[readings.faces[i].before] for i in paired])
        after, before = after.openings, before.openings
        true, read = after.true - before.true, after.read - before.read
        values = _Chosen.of(readings, chosen)
        one = {
            "pictures": len(chosen),
            "eye_error": float(
                (values.openings.read - values.openings.true)[:, :2].abs().nanmean()
            ),
            "lip_error": float((values.openings.read - values.openings.true)[:, 2].abs().nanmean()),
            "eye_response": response(true[:, :2].flatten(), read[:, :2].flatten()),
            "lip_response": response(true[:, 2], read[:, 2]),
            "iou": {part: values.iou(part) for part in ("eyes", "upper lip", "lower lip")},
        }
        figures["kinds"][kind] = one
        kinds.append(
            (
                *(kind, str(len(chosen))),
                *(percent(one["eye_error"], 1), percent(one["lip_error"], 1)),
                *(number(one["eye_response"]), number(one["lip_response"])),
                *map(percent, one["iou"].values()),
            )
        )
    header = (
        *("kind", "pictures", "eye error %", "lip error %", "eye response", "lip response"),
        *("IoU % eyes", "upper lip", "lower lip"),
    )
    report.tables.append(Table("synthetic pictures by kind", header, kinds))
    report.figures["synthetic"] = figures
    report.notes.append(
        "response: read change over true change between the unedited picture and the edited one "
        "(1: all of it); IoU: of pictures whose photo has a hand-made mask, parts they show"
    )
