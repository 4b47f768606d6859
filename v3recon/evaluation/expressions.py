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
    LIP_LABELS,
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

APERTURES = ("right eye", "left eye", "mouth")
DETECTIONS = "detections"
SAME_VERTICES = "detections, same vertices"
ORIGINS = ("points", "masks", DETECTIONS, SAME_VERTICES)
"""Where the truth of a photo is from: hand-made points or masks, or a detector of 468 points.

The 68 landmarks of PhotoFace lie where people put them; the detector's nearest points are others
(on the mean face the eyes are open by 0.29 of their width at the former, by 0.27 at the latter).
So faces with detections are read twice: at the 68 landmarks, and at the very vertices that the
detector saw, where the face model has them."""
CLOSED_EYE = 0.15
"""Opening over width below which an eye counts as closed; ordinary eyes have 0.2 to 0.35."""
OPEN_MOUTH = 0.2
"""Gap of the lips over the mouth's width above which a mouth counts as open."""
LEAST_CHANGE = 0.05
"""Smaller true changes of an opening say nothing about the response."""
_EYES, _MOUTH = slice(0, 2), slice(2, 3)
LINES = {
    "closed eyes": (_EYES, -math.inf, CLOSED_EYE),
    "open eyes": (_EYES, CLOSED_EYE, math.inf),
    "open mouths": (_MOUTH, OPEN_MOUTH, math.inf),
    "other mouths": (_MOUTH, -math.inf, OPEN_MOUTH),
}
"""Lines of a report -> which of `APERTURES`, and the range [low, high) of their true openings."""

_CORNERS = ((36, 39), (42, 45), (60, 64))
_PAIRS = (((37, 41), (38, 40)), ((43, 47), (44, 46)), ((61, 67), (62, 66), (63, 65)))
_WIDTHS = ((36, 39), (42, 45), (48, 54))
_UP_LIP, _DOWN_LIP = LIP_LABELS
_EYE_PARTS = {
    eye: (LABEL_TO_CELEBAMASK[eye], LABEL_TO_CELEBAMASK[brow])
    for eye, brow in zip(EYE_LABELS, BROW_LABELS, strict=True)
}
"""Part label of each eye -> CelebAMask-HQ classes of that eye and its brow."""
_GLASSES = 3
_LEAST_BROW = 30
"""Pixels of a brow that prove that the eye below it could be seen."""
_MIDDLE = 0.5
"""Share of the width, around its middle, over which a mask's heights are averaged."""


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
    report.notes.append(
        f"openings over the true width; an eye counts as closed below {CLOSED_EYE:.0%}, a mouth "
        f"as open above {OPEN_MOUTH:.0%}; 'as such': the prediction is on the same side of it"
    )
    return report, worst


def openings_of_points(points: Tensor, target: Tensor | None = None) -> Tensor:
    """Openings of `APERTURES` [B, 3] by 68 points; crossed lids and lips are below zero.

    Args:
        points: [B, 68, 2] any pixels, y down.
        target: [B, 68, 2] points whose widths to divide by; default the same.
    """
    assert points.shape[1:] == (68, 2), points.shape
    widths = points if target is None else target
    found = []
    for corners, pairs, ends in zip(_CORNERS, _PAIRS, _WIDTHS, strict=True):
        along = points[:, corners[1]] - points[:, corners[0]]
        across = torch.stack([-along[:, 1], along[:, 0]], 1)
        across = across / across.norm(dim=1, keepdim=True).clamp(min=1e-9)
        gaps = [((points[:, low] - points[:, up]) * across).sum(1) for up, low in pairs]
        width = (widths[:, ends[1]] - widths[:, ends[0]]).norm(dim=1).clamp(min=1e-9)
        found.append(torch.stack(gaps).mean(0) / width)
    return torch.stack(found, 1)


def openings_of_labels(labels: np.ndarray) -> np.ndarray:
    """Openings of `APERTURES` [3] by a label map [H, W] 0…8 of an upright face.

    An absent eye is closed; without both lips the mouth is not known (NaN).
    """
    found = []
    for label in (1, 2):
        heights = (labels == label).sum(0)
        found.append(_middle_mean(heights, heights > 0))
    upper, lower = labels == _UP_LIP, labels == _DOWN_LIP
    if not (upper.any() and lower.any()):
        return np.array([*found, math.nan])
    rows = np.arange(len(labels))[:, None]
    end = np.where(upper, rows, -1).max(0)
    start = np.where(lower, rows, len(labels)).min(0)
    both = upper.any(0) & lower.any(0)
    gap = np.where(both, np.maximum(start - end - 1, 0), 0)
    return np.array([*found, _middle_mean(gap, upper.any(0) | lower.any(0))])


def response(true_change: Tensor, read_change: Tensor) -> float:
    """Slope of read on true changes [N] through the origin; NaN where nothing changes."""
    chosen = (true_change.abs() > LEAST_CHANGE) & read_change.isfinite()
    wanted = true_change[chosen]
    if not len(wanted):
        return math.nan
    return float((wanted * read_change[chosen]).sum() / (wanted**2).sum())


def _middle_mean(heights: np.ndarray, present: np.ndarray) -> float:
    """Mean of [W] heights over the middle of the present columns, over their width."""
    columns = np.flatnonzero(present)
    if not len(columns):
        return 0.0
    first, width = int(columns[0]), int(columns[-1]) - int(columns[0]) + 1
    cut = int(width * (1 - _MIDDLE) / 2)
    return float(heights[first + cut : first + width - cut].mean()) / width


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
class Openings:
    """Openings of many faces: true and read ones, [N, 3], and part IoUs [N, 8]."""

    true: Tensor
    read: Tensor
    overlaps: Tensor

    @classmethod
    def of(cls, readings: Readings, chosen: Sequence[int]) -> Openings:
        """Of some of the readings."""
        count = len(chosen)
        return cls(
            torch.stack([readings.faces[i].openings for i in chosen])
            if count
            else torch.zeros(0, 3),
            torch.stack([readings.openings[i] for i in chosen]) if count else torch.zeros(0, 3),
            torch.stack([readings.overlaps[i] for i in chosen]) if count else torch.zeros(0, 8),
        )

    def line(self, columns: slice, low: float, high: float) -> dict[str, float]:
        """Figures of the eyes or mouths whose true opening is in [low, high)."""
        true, read = self.true[:, columns].flatten(), self.read[:, columns].flatten()
        chosen = (true >= low) & (true < high) & read.isfinite()
        true, read = true[chosen], read[chosen]
        if not len(true):
            return {"count": 0, "error": math.nan, "bias": math.nan, "as_such": math.nan}
        return {
            "count": len(true),
            "true": float(true.mean()),
            "error": float((read - true).abs().mean()),
            "bias": float((read - true).mean()),
            "as_such": float(((read >= low) & (read < high)).double().mean()),
        }

    def lines(self) -> dict[str, dict[str, float]]:
        """Figures of closed and other eyes, open and other mouths."""
        return {name: self.line(*line) for name, line in LINES.items()}

    def iou(self, group: str) -> float:
        """Mean IoU of a part group over the faces whose mask has it."""
        columns = [PART_NAMES.index(name) for name in PART_GROUPS[group]]
        return float(self.overlaps[:, columns].nanmean())


_HEADER = ("opening, % of width", "number", "true", "read", "mean error", "as such %")


def _rows(lines: dict[str, dict[str, float]], suffix: str) -> list[tuple[str, ...]]:
    return [
        (
            f"{name}{suffix}",
            str(line["count"]),
            percent(line["true"], 1),
            percent(line["true"] + line["bias"], 1),
            percent(line["error"], 1),
            percent(line["as_such"], 0),
        )
        for name, line in lines.items()
        if line["count"]
    ]


def _summarize_photos(report: Report, readings: Readings) -> None:
    """Table and figures of the photos."""
    rows, figures = [], {}
    for group in ORIGINS:
        chosen = [i for i, face in enumerate(readings.faces) if face.group == group]
        if chosen:
            lines = Openings.of(readings, chosen).lines()
            rows += _rows(lines, f", by {group}")
            figures[group] = lines
    report.tables.append(Table("photos", _HEADER, rows))
    report.figures["photos"] = figures
    masked = [i for i, face in enumerate(readings.faces) if face.group == "masks"]
    if masked:
        is_open = [bool(readings.faces[i].openings[2] >= OPEN_MOUTH) for i in masked]
        parts, shares = [], {}
        for name, wanted in (("open mouths", True), ("other mouths", False)):
            chosen = [i for i, flag in zip(masked, is_open, strict=True) if flag == wanted]
            values = Openings.of(readings, chosen)
            shares[name] = {part: values.iou(part) for part in ("eyes", "upper lip", "lower lip")}
            parts.append((name, str(len(chosen)), *map(percent, shares[name].values())))
        header = ("IoU %", "photos", "eyes", "upper lip", "lower lip")
        report.tables.append(Table("parts of the photos with masks", header, parts))
        report.figures["photo_parts"] = shares


def _summarize_synthetic(report: Report, readings: Readings) -> None:
    """Tables and figures of the synthetic pictures."""
    number_of = {face.name: i for i, face in enumerate(readings.faces) if face.group == "before"}
    edited = [i for i, face in enumerate(readings.faces) if face.group != "before"]
    everything = Openings.of(readings, edited)
    unedited = Openings.of(readings, list(number_of.values()))
    rows = _rows(everything.lines(), "") + _rows(unedited.lines(), ", unedited")
    report.tables.append(Table("synthetic pictures", _HEADER, rows))
    figures: dict[str, Any] = {
        "edited": everything.lines(),
        "unedited": unedited.lines(),
        "kinds": {},
    }
    kinds = []
    for kind in ("all", *sorted({readings.faces[i].group for i in edited})):
        chosen = [i for i in edited if kind in ("all", readings.faces[i].group)]
        paired = [i for i in chosen if readings.faces[i].before in number_of]
        after = Openings.of(readings, paired)
        before = Openings.of(readings, [number_of[readings.faces[i].before] for i in paired])
        true, read = after.true - before.true, after.read - before.read
        values = Openings.of(readings, chosen)
        one = {
            "pictures": len(chosen),
            "eye_error": float((values.read - values.true)[:, :2].abs().nanmean()),
            "lip_error": float((values.read - values.true)[:, 2].abs().nanmean()),
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
