"""Closed eyes and open mouths: how well lids and lips are followed in photos."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from v3recon.data.mesh_detection import stored_detector
from v3recon.evaluation.expression_faces import (
    DETECTIONS,
    ORIGINS,
    Chosen,
    Face,
    Readings,
    pointed_face,
    read_faces,
)
from v3recon.evaluation.masked import place_of_mask
from v3recon.evaluation.openings import HEADER, LIMITS_NOTE, opening_rows, openings_of_labels
from v3recon.evaluation.options import ExpressionOptions
from v3recon.evaluation.predict import load_reconstructor
from v3recon.evaluation.report import Report, Table, WorstCases, percent
from v3recon.evaluation.synthetic_expressions import read_synthetic, summarize_synthetic
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.openings import CLOSED_EYE, OPEN_MOUTH
from v3recon.face_models.parts import BROW_LABELS, EYE_LABELS
from v3recon.io.celebamask import LABEL_TO_CELEBAMASK, read_celebamask
from v3recon.io.messages import one_line
from v3recon.io.photo_index import read_photo_index, read_pts

_EYE_PARTS = {
    eye: (LABEL_TO_CELEBAMASK[eye], LABEL_TO_CELEBAMASK[brow])
    for eye, brow in zip(EYE_LABELS, BROW_LABELS, strict=True)
}
"""Part label of each eye -> CelebAMask-HQ classes of that eye and its brow."""
_GLASSES = 3
_LEAST_BROW = 30
"""Pixels of a brow that prove that the eye below it could be seen."""


def evaluate_expressions(options: ExpressionOptions) -> tuple[Report, WorstCases]:
    """Score photos, synthetic pictures or both; see `ExpressionOptions`.

    Raises:
        ValueError: for wrong usage: no usable picture, missing weights, …
    """
    report = Report(f"expressions of {options.photos or ''} {options.synthetic or ''}".strip())
    worst = WorstCases(options.worst_count if options.worst else 0)
    photos = [] if options.photos is None else list(_read_photos(options, report))
    pictures = [] if options.synthetic is None else read_synthetic(options)
    reconstructor = load_reconstructor(options)
    if options.photos is not None:
        readings = read_faces(reconstructor, photos, options, report, worst)
        _summarize_photos(report, readings)
    if options.synthetic is not None:
        readings = read_faces(reconstructor, pictures, options, report, worst)
        summarize_synthetic(report, readings)
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
                yield pointed_face(entry.file, "points", photo, points)
            elif entry.file in detected:
                points = torch.from_numpy(detected[entry.file])
                yield pointed_face(entry.file, DETECTIONS, photo, points)
            else:
                yield _masked(entry.file, photo, options.photos / entry.mask)
        except ValueError as error:
            report.unusable.append((entry.file, one_line(error)))


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


def _summarize_photos(report: Report, readings: Readings) -> None:
    """Table and figures of the photos."""
    rows, figures = [], {}
    for group in ORIGINS:
        chosen = [i for i, face in enumerate(readings.faces) if face.group == group]
        if chosen:
            lines = Chosen.of(readings, chosen).openings.lines()
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
            values = Chosen.of(readings, chosen)
            shares[name] = {part: values.iou(part) for part in ("eyes", "upper lip", "lower lip")}
            parts.append((name, str(len(chosen)), *map(percent, shares[name].values())))
        header = ("IoU %", "photos", "eyes", "upper lip", "lower lip")
        report.tables.append(Table("parts of the photos with masks", header, parts))
        report.figures["photo_parts"] = shares
