"""The model card of weights: every benchmark on one split, as a short Markdown page."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from v3recon.evaluation.aflw import evaluate_aflw
from v3recon.evaluation.aflw2000 import evaluate_aflw2000
from v3recon.evaluation.cfp import evaluate_cfp
from v3recon.evaluation.geometry import evaluate_geometry
from v3recon.evaluation.identity import evaluate_identity
from v3recon.evaluation.landmarks import evaluate_landmarks
from v3recon.evaluation.options import (
    AflwFacesOptions,
    AflwOptions,
    CardOptions,
    CfpOptions,
    EvaluateOptions,
    GeometryOptions,
    IdentityOptions,
    LandmarkOptions,
    PartOptions,
    SkinOptions,
    VisibilityOptions,
)
from v3recon.evaluation.parts import evaluate_parts
from v3recon.evaluation.predict import load_reconstructor
from v3recon.evaluation.report import Report, Table, WorstCases
from v3recon.evaluation.skin import evaluate_skin
from v3recon.evaluation.visibility import evaluate_visibility
from v3recon.io.atomic import write_text_atomic
from v3recon.io.photo_index import read_photo_index
from v3recon.reconstruct.assets import find_assets

MASKS = ("celebamask/images", "celebamask/masks")
"""Where the masked photos lie in the folder of photos."""


@dataclass(frozen=True)
class Line:
    """One line of a card.

    Attributes:
        what: the measure, with its unit.
        path: keys of the benchmark's JSON figures, one for each value that is shown.
        factor: 100 for shares that are shown in percent.
        places: decimals.
        count: key of the number of faces, photos or pairs.
    """

    what: str
    path: tuple[str, ...]
    factor: float = 100.0
    places: int = 2
    count: str = "scored"


@dataclass(frozen=True)
class Part:
    """One benchmark of the card.

    Attributes:
        name: of the benchmark.
        data: what it is measured on.
        source: of the index; "" where it needs no row.
        options: makes its options for a split.
        run: the benchmark.
        lines: what the card shows.
    """

    name: str
    data: str
    source: str
    options: Callable[[str], EvaluateOptions]
    run: Callable[[Any], tuple[Report, WorstCases]]
    lines: tuple[Line, ...]


def _each(path: str, *keys: str) -> tuple[str, ...]:
    """Paths of several figures below one."""
    return tuple(f"{path}/{key}" for key in keys)


_BINS = ("0-30", "30-60", "60-90")
_YAWS = "by yaw ≤ 30 / 30–60 / > 60"
_SKIN = "skin/group/all"
_LINES: dict[str, tuple[Line, ...]] = {
    "landmarks": (
        Line("68 points, jaw on outline, % of the box", ("headline/nme_68",)),
        Line("inner 51, %", ("headline/nme_inner",)),
    ),
    "parts": (
        Line(
            "IoU eyes / brows / upper lip / lower lip / nose",
            _each("iou_groups", "eyes", "brows", "upper lip", "lower lip", "nose"),
            *(1.0, 3),
        ),
    ),
    "aflw": (
        Line(f"21 points {_YAWS}, % of the box", _each("nme/21 points/bins", *_BINS)),
        Line("the same, mean of bins, %", ("nme/21 points/mean_of_bins",)),
        Line(f"visible inner, shift-free, {_YAWS}, %", _each("nme/visible inner/bins", *_BINS)),
        *(
            Line(
                f"{name}: true / read too open by / error, of the width",
                _each(f"openings/{name}", "true", "bias", "error"),
                *(1.0, 3, f"openings/{name}/count"),
            )
            for name in ("closed eyes", "open eyes", "open mouths")
        ),
    ),
    "cfp": (Line("21 fixed points of profiles, % of the height", ("cfp/mean",)),),
    "visibility": (
        Line(
            "landmarks turned away / covered told from visible ones, AUC",
            ("visibility_auc/turned away/all 68", "visibility_auc/covered/all 68"),
            *(1.0, 3),
        ),
    ),
    "identity": (
        Line("same person or another, AUC", ("identity/cosine/auc",), 1.0, 3, "pairs"),
        Line("own photo ranked first, %", ("identity/cosine/rank_1",), 100.0, 0, "pairs"),
    ),
    "skin": (
        Line("no face found, %", (f"{_SKIN}/failure_rate",), 100.0, 1, f"{_SKIN}/photos"),
        Line("color error of the skin, CIELAB", (f"{_SKIN}/error",), 1.0, 1, f"{_SKIN}/photos"),
        Line("the same, worst less best group", ("error_spread_of_groups",), 1.0, 1, "-"),
    ),
    "geometry": (
        Line(
            "one photo / photos averaged / mean face / best fit, mm (median)",
            tuple(
                f"geometry_mm/{kind}/scaled/median"
                for kind in ("one photo", "photos averaged", "mean face", "fit to the scan")
            ),
            *(1.0, 2, "scans"),
        ),
    ),
    "aflw2000": (
        Line(f"68 3D points {_YAWS}, %", _each("headline/bins", *_BINS)),
        Line("the same, mean of bins, %", ("headline/mean_of_bins",)),
        Line("inner 51, mean of bins, %", ("nme/inner 51/mean_of_bins",)),
    ),
}


def evaluate_card(options: CardOptions) -> tuple[Report, WorstCases]:
    """Run every benchmark for which there are photos and write the card; see `CardOptions`.

    Raises:
        ValueError: for wrong usage: no photos, missing weights, …
    """
    report = Report(f"model card ({options.split})")
    present = {(e.source, e.split) for e in read_photo_index(options.photos, options.index)}
    rows = []
    parts = tqdm(_parts(options), unit="benchmark", disable=None)
    for part in parts:
        split = options.split
        sources = part.source.split("+") if part.source else []
        if sources and not any((source, split) in present for source in sources):
            split = "val"
            if not any((source, split) in present for source in sources):
                report.notes.append(f"{part.name}: no photos of {part.source}")
                continue
        parts.set_description(part.name)
        one, _ = part.run(part.options(split))
        report.figures[part.name] = one.figures
        report.failures += [(f"{part.name}: {name}", why) for name, why in one.failures]
        report.unusable += [(f"{part.name}: {name}", why) for name, why in one.unusable]
        data = f"{part.data}, {split}" if sources else part.data
        rows += [(data, line.what, *_cells(line, one.figures)) for line in part.lines]
    header = ("data", "measure", "value", "number")
    report.tables.append(Table("figures", header, rows))
    if options.out is not None:
        write_text_atomic(options.out, card_text(_weights_rows(options), rows, report.notes))
        report.notes.append(f"card: {options.out}")
    return report, WorstCases(0)


def card_text(
    about: Sequence[tuple[str, str]], rows: Sequence[tuple[str, ...]], notes: Sequence[str]
) -> str:
    """The Markdown of a card.

    Args:
        about: what the weights are, name and value.
        rows: data, measure, value, number; a repeated data cell is left empty.
        notes: sentences below the table.
    """
    lines = [f"# {about[0][1]}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in about[1:]]
    lines += ["", "| data | measure | value | number |", "|---|---|---|---|"]
    before = ""
    for data, *rest in rows:
        lines.append(f"| {'' if data == before else data} | {' | '.join(rest)} |")
        before = data
    lines += ["", *(f"- {note}" for note in (*notes, *_FIXED_NOTES)), ""]
    return "\n".join(lines)


_FIXED_NOTES = (
    "Made by `v3recon evaluate card`; measures are those of docs/evaluation.md. Where a source has "
    "no photos in the split, its `val` photos are used, by which the weights may have been chosen.",
    "Trained on photographs of public research collections (docs/photohead.md names their terms); "
    "groups of people are annotators' impressions.",
    "Not for telling who somebody is, nor for decisions about people.",
)


def _parts(options: CardOptions) -> list[Part]:
    """The benchmarks in the card's order."""
    shared = {f.name: getattr(options, f.name) for f in fields(EvaluateOptions)}
    shared |= {"json": None, "worst": None}
    photos = {"photos": options.photos, "index": options.index}
    index = options.index or options.photos / "index.csv"
    images, masks = (options.photos / name for name in MASKS)

    def part(name: str, data: str, source: str, kind: type, run: Callable, **more: Any) -> Part:
        return Part(
            *(name, data, source, lambda split: kind(**shared, **more, split=split), run),
            _LINES[name],
        )

    marked = {"root": options.photos, "index": options.index}
    masked = {"images": images, "masks": masks, "index": index}
    parts = [
        part("landmarks", "Helen, AFW", "helen+afw", LandmarkOptions, evaluate_landmarks, **marked),
        part("parts", "CelebAMask-HQ", "celebamask", PartOptions, evaluate_parts, **masked),
        part("aflw", "AFLW", "aflw", AflwFacesOptions, evaluate_aflw, **photos),
        part("visibility", "AFLW", "aflw", VisibilityOptions, evaluate_visibility, **photos),
        part("cfp", "CFP", "cfp", CfpOptions, evaluate_cfp, **photos),
        part("identity", "LFW", "lfw", IdentityOptions, evaluate_identity, **photos),
        part("skin", "FairFace", "fairface", SkinOptions, evaluate_skin, **photos),
    ]
    if options.scans is not None or options.drawn:
        geometry = GeometryOptions(
            **shared, scans=options.scans, photos=options.scan_photos, drawn=options.drawn
        )
        data = "heads drawn from the face model" if options.scans is None else "head scans"
        lines = _LINES["geometry"]
        parts.append(Part("geometry", data, "", lambda _: geometry, evaluate_geometry, lines))
    if options.aflw2000 is not None:
        aflw2000 = AflwOptions(**shared, root=options.aflw2000, points=options.aflw2000_points)
        lines = _LINES["aflw2000"]
        data = "AFLW2000-3D"
        parts.append(Part("aflw2000", data, "", lambda _: aflw2000, evaluate_aflw2000, lines))
    return parts


def _cells(line: Line, figures: Mapping[str, Any]) -> tuple[str, str]:
    """Value and number of a line; "-" where the figures lack it."""
    values = [_at(figures, path) for path in line.path]
    shown = [
        "-" if value is None or math.isnan(value) else f"{line.factor * value:.{line.places}f}"
        for value in values
    ]
    count = _at(figures, line.count)
    return " / ".join(shown), "-" if count is None else f"{int(count)}"


def _at(figures: Mapping[str, Any], path: str) -> float | None:
    value: Any = figures
    for key in path.split("/"):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return float(value)


def _weights_rows(options: CardOptions) -> list[tuple[str, str]]:
    """Title and facts of the weights file."""
    assets = find_assets(options.assets, face_model=options.face_model, weights=options.weights)
    reconstructor = load_reconstructor(options)
    content = assets.weights.read_bytes()
    count = sum(weight.numel() for weight in reconstructor.regressor.parameters())
    model = reconstructor.model
    return [
        ("title", Path(assets.weights).stem),
        ("file", f"{assets.weights.name}, {len(content) / 1e6:.1f} MB"),
        ("SHA-256", f"`{hashlib.sha256(content).hexdigest()}`"),
        ("parameters", f"{count / 1e6:.2f} million"),
        ("input", f"{reconstructor.regressor.input_size} pixels"),
        ("face model", f"{model.name} (`{model.content_hash}`), {model.vertex_count:,} vertices"),
    ]
