"""Color of the skin and faces that fail, by FairFace's groups (Kärkkäinen and Joo, WACV 2021)."""

from __future__ import annotations

import math

import cv2
import numpy as np

from v3recon.evaluation.marked import entries_of, reconstruct_photos
from v3recon.evaluation.options import SkinOptions
from v3recon.evaluation.predict import load_reconstructor
from v3recon.evaluation.report import Report, Table, WorstCases, number, percent
from v3recon.face_models.parts import NOSE_LABEL, SKIN_LABEL
from v3recon.io.photo_index import read_person_labels
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.texture import make_appearance

LEAST_VERTICES = 50
"""Faces with fewer visible skin vertices inside the photo have no color to compare."""


def evaluate_skin(options: SkinOptions) -> tuple[Report, WorstCases]:
    """Score FairFace's photos; see `SkinOptions`.

    Raises:
        ValueError: for wrong usage: no such photo, missing weights, …
    """
    report = Report(f"skin by FairFace's groups, {options.photos} ({options.split})")
    labels = read_person_labels(options.photos, "fairface")
    entries = [one for one in entries_of(options, ("fairface",)) if one.file in labels]
    reconstructor = load_reconstructor(options)
    found = reconstruct_photos(reconstructor, options.photos, entries, options.batch_size, report)
    for entry, image, face in found:
        photo, drawn, albedo = skin_colors(face, image)
        person = labels[entry.file]
        report.faces.append(
            {
                "file": entry.file,
                "group": person.group,
                "gender": person.gender,
                "photo_lab": photo.tolist(),
                "drawn_lab": drawn.tolist(),
                "error": float(np.linalg.norm(drawn - photo)),
                "lightness": float((drawn - photo)[0]),
                "albedo_lightness": float(albedo[0]),
            }
        )
    missing = {name for name, _ in report.failures}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for key in ("group", "gender"):
        rows, figures[key] = [], {}
        names = sorted({getattr(labels[entry.file], key) for entry in entries})
        for name in ("all", *names):
            of_name = [e for e in entries if name in ("all", getattr(labels[e.file], key))]
            faces = [row for row in report.faces if name in ("all", row[key])]
            values = {
                "photos": len(of_name),
                "failure_rate": sum(e.file in missing for e in of_name) / max(len(of_name), 1),
                "error": _mean([row["error"] for row in faces]),
                "lightness": _mean([row["lightness"] for row in faces]),
                "photo_lightness": _mean([row["photo_lab"][0] for row in faces]),
                "albedo_lightness": _mean([row["albedo_lightness"] for row in faces]),
            }
            figures[key][name] = values
            rest = ("error", "lightness", "photo_lightness", "albedo_lightness")
            rows.append(
                (
                    name,
                    str(values["photos"]),
                    percent(values["failure_rate"], 1),
                    *(number(values[one], 1) for one in rest),
                )
            )
        header = ("", "photos", "no face %", "color error", "too light by", "photo L*", "albedo L*")
        report.tables.append(Table(f"by {key} (annotators' impression)", header, rows))
    by_group = [one["error"] for name, one in figures["group"].items() if name != "all"]
    known = [error for error in by_group if not math.isnan(error)]
    spread = max(known) - min(known) if known else math.nan
    report.figures |= {"skin": figures, "error_spread_of_groups": spread}
    report.notes.append(
        "color error: CIELAB distance of the median colors of visible skin in the photo and in "
        "the reconstruction's own colors; 2.3 is just noticeable"
    )
    return report, WorstCases(0)


def skin_colors(face: Face, image: np.ndarray) -> tuple[np.ndarray, ...]:
    """Median CIELAB color [3] of a face's visible skin: photo, lit model, albedo; NaN without."""
    appearance = make_appearance(face.batch)
    points = face.points_photo.float().cpu().numpy()
    labels = face.model.part_labels.cpu().numpy()
    height, width = image.shape[:2]
    inside = ((points >= 0) & (points <= [width - 1, height - 1])).all(1)
    chosen = inside & appearance.visible[0].cpu().numpy()
    chosen &= (labels == SKIN_LABEL) | (labels == NOSE_LABEL)
    if chosen.sum() < LEAST_VERTICES:
        return tuple(np.full(3, math.nan) for _ in range(3))
    x, y = (np.ascontiguousarray(points[chosen, i]) for i in range(2))
    photo = np.asarray(cv2.remap(image, x[None], y[None], cv2.INTER_LINEAR))[0] / 255
    drawn = appearance.colors[0].cpu().numpy()[chosen]
    albedo = face.model.albedo(face.coeffs.alb)[0].cpu().numpy()[chosen]
    return tuple(np.median(_to_lab(colors), axis=0) for colors in (photo, drawn, albedo))


def _to_lab(colors: np.ndarray) -> np.ndarray:
    """CIELAB [N, 3] of sRGB colors [N, 3], 0…1."""
    picture = np.clip(colors, 0, 1).astype(np.float32)[None]
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB))[0].astype(np.float64)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
