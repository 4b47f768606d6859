"""Shape against head scans, millimeters: as NoW and REALY measure it, always beside the mean face.

Like NoW (Sanyal et al., CVPR 2019): a similarity by seven landmarks, iterated closest points, then
the distance from the scan's points around the nose to the reconstructed surface; once with the
scale free and once with the reconstruction's own size. Like REALY (Chai et al., ECCV 2022): nose,
mouth, forehead and cheeks aligned each by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from v3recon.evaluation.drawn_heads import DrawnHead, draw_random_heads
from v3recon.evaluation.error_pictures import error_panels, write_curves
from v3recon.evaluation.options import GeometryOptions
from v3recon.evaluation.predict import (
    Case,
    FacePlace,
    load_reconstructor,
    predict_cases,
)
from v3recon.evaluation.report import NO_FACE, Report, Table, WorstCases, number
from v3recon.evaluation.scan_fit import fit_to_points, mean_vertices, neutral_vertices
from v3recon.evaluation.surface import (
    LEAST_COSINE,
    Similarity,
    Surface,
    align,
    similarity_of,
    vertex_normals,
)
from v3recon.face_models.bfm import five_points
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.io.images import read_image
from v3recon.io.messages import one_line
from v3recon.io.photo_files import list_photos
from v3recon.io.scan import SCAN_SUFFIXES, SEVEN_OF_68, Scan, read_scan
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.reconstructor import FaceReconstructor

MEAN, FIT, ONE_VIEW, ALL_VIEWS, OTHER = (
    "mean face",
    "fit to the scan",
    "one photo",
    "photos averaged",
    "given mesh",
)
NOW_FACTOR, NOW_UP = 1.4, 0.3
"""NoW's region: a ball around the point `NOW_UP` of the way from below the nose to between the
eyes, its radius `NOW_FACTOR` times the mean of the nose's height and the distance of the outer eye
corners."""
REGIONS = ("nose", "mouth", "forehead", "cheek")
MOUTH_MARGIN_MM = 8.0
"""The mouth's region reaches so far beside the mouth's corners."""
LEAST_POINTS = 200


@dataclass(frozen=True)
class Distances:
    """Errors of one shape against one scan, millimeters of the scan.

    Attributes:
        scan: its name.
        kind: one of the module's names: the mean, a fit, …
        name: of the photo or mesh.
        scaled: [N] from the scan's points to the shape, scale free.
        metric: [N] the same with the shape's own size.
        regions: mean error of each of `REGIONS`, aligned by itself; NaN where it is not seen.
    """

    scan: str
    kind: str
    name: str
    scaled: np.ndarray
    metric: np.ndarray
    regions: np.ndarray


@dataclass(frozen=True)
class _Subject:
    """A scan with what is measured on it.

    Attributes:
        scan: the scan, with seven points.
        chosen: ids [N] of the vertices that are measured.
        normals: [N, 3] of the scan there.
        region: [N] 0 none, r + 1 = `REGIONS`.
        shapes: (kind, name, surface, its seven points) of everything that is compared.
    """

    scan: Scan
    chosen: np.ndarray
    normals: np.ndarray
    region: np.ndarray
    shapes: list[tuple[str, str, Surface, np.ndarray]] = field(default_factory=list)


def evaluate_geometry(options: GeometryOptions) -> tuple[Report, WorstCases]:
    """Score shapes against scans; see `GeometryOptions`.

    Raises:
        ValueError: for wrong usage: no scan, missing weights, …
    """
    report = Report(f"geometry of {options.scans or f'{options.drawn} drawn heads'}")
    reconstructor = load_reconstructor(options)
    model = reconstructor.model
    regions = model_regions(model)
    worst = WorstCases(options.worst_count if options.worst else 0)
    found: list[Distances] = []
    sources, total = _sources(options, model, report)
    for scan, drawn in tqdm(sources, total=total, unit="scan", disable=None):
        try:
            subject = _prepare(scan, model, regions, options)
            _add_photos(subject, drawn, reconstructor, options, report)
            _add_meshes(subject, options, report)
        except ValueError as error:
            report.unusable.append((scan.name, one_line(error)))
            continue
        for shape in subject.shapes:
            one, errors, moved = _measure(subject, *shape)
            found.append(one)
            if one.kind != MEAN:
                title = f"{scan.name}: {one.name}, median {np.median(one.scaled):.2f} mm"
                worst.add(
                    float(np.median(one.scaled)),
                    lambda t=title, e=errors, m=moved, s=subject: error_panels(
                        t, m, s.scan.faces, s.chosen, e
                    ),
                )
    if not found:
        raise ValueError("no scan could be measured: " + "; ".join(r for _, r in report.unusable))
    _summarize(report, found)
    if options.curve is not None:
        write_curves(
            options.curve, {kind: _pooled(found, kind, "scaled") for kind in _kinds(found)}
        )
        report.notes.append(f"cumulative errors: {options.curve}")
    return report, worst


def model_regions(model: LinearFaceModel) -> np.ndarray:
    """REALY's four regions on a face model's vertices: [V] 0 none, r + 1 = `REGIONS`.

    The nose is the model's own part; the mouth is what lies below the nose and between the mouth's
    corners, chin included; the forehead is skin and brows above the brows' lower ends; the cheeks
    are the skin beside nose and mouth, below the eyes.
    """
    mean = mean_vertices(model)
    points = mean[model.landmarks_68.cpu().numpy()]
    labels = model.part_labels.cpu().numpy()
    x, y = mean[:, 0], mean[:, 1]
    part = {name: labels == number + 1 for number, name in enumerate(PART_NAMES)}
    lips = part["up_lip"] | part["down_lip"]
    brows = part["right_eyebrow"] | part["left_eyebrow"]
    below_nose, below_eyes = y < points[33, 1], y < points[[40, 41, 46, 47], 1].min()
    within = np.abs(x - points[[48, 54], 0].mean()) < (
        np.abs(points[54, 0] - points[48, 0]) / 2 + MOUTH_MARGIN_MM
    )
    mouth = lips | (part["skin"] & below_nose & within)
    forehead = brows | (part["skin"] & (y > points[[17, 21, 22, 26], 1].mean()))
    cheek = part["skin"] & below_eyes & ~mouth
    region = np.zeros(len(mean), np.uint8)
    for value, mask in enumerate((part["nose"], mouth, forehead, cheek), 1):
        region[mask & (region == 0)] = value
    return region


def now_ball(points_7: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle [3] and radius of NoW's region by seven points [7, 3]."""
    bridge, base = points_7[1:3].mean(0), points_7[4]
    height = float(np.linalg.norm(bridge - base))
    width = float(np.linalg.norm(points_7[0] - points_7[3]))
    return base + NOW_UP * (bridge - base), NOW_FACTOR * (width + height) / 2


def _sources(
    options: GeometryOptions, model: LinearFaceModel, report: Report
) -> tuple[Iterator[tuple[Scan, DrawnHead | None]], int]:
    """Scans that can be read, or drawn heads, and how many there are."""
    if options.scans is None:
        heads = draw_random_heads(model, options.drawn, options.views, options.seed)
        return ((_scan_of(head, model), head) for head in heads), options.drawn
    if options.scans.is_dir():
        paths = sorted(p for p in options.scans.iterdir() if p.suffix.lower() in SCAN_SUFFIXES)
    else:
        paths = [options.scans]
    if not paths:
        raise ValueError(f"no scans ({', '.join(SCAN_SUFFIXES)}) in {options.scans}")
    paths = paths[: options.limit or None]

    def read() -> Iterator[tuple[Scan, None]]:
        for path in paths:
            try:
                scan = read_scan(path, unit=options.unit)
            except ValueError as error:
                report.unusable.append((path.name, one_line(error)))
                continue
            report.notes.append(f"{path.name}: in {scan.unit} ({scan.unit_reason})")
            yield scan, None

    return read(), len(paths)


def _scan_of(head: DrawnHead, model: LinearFaceModel) -> Scan:
    points = head.vertices[model.landmarks_68.cpu().numpy()][list(SEVEN_OF_68)]
    faces = model.faces.cpu().numpy()
    return Scan(head.name, head.vertices, faces, points, "mm", "drawn from the face model")


def _prepare(
    scan: Scan, model: LinearFaceModel, regions: np.ndarray, options: GeometryOptions
) -> _Subject:
    """What is measured on a scan, and the mean and the fit to compare with."""
    mean, faces = mean_vertices(model), model.faces.cpu().numpy()
    seven = model.landmarks_68.cpu().numpy()[list(SEVEN_OF_68)]
    surface = Surface(mean, faces)
    used = np.unique(scan.faces)
    if scan.points_7 is None:
        start = _start_without_points(scan, used, surface, mean[seven])
        points = start.inverse()(mean[seven])
        scan = Scan(scan.name, scan.vertices, scan.faces, points, scan.unit, scan.unit_reason)
    else:
        start = similarity_of(scan.points_7, mean[seven])
    assert scan.points_7 is not None
    middle, radius = now_ball(scan.points_7)
    radius = options.radius or radius
    chosen = used[np.linalg.norm(scan.vertices[used] - middle, axis=1) < radius]
    if len(chosen) < LEAST_POINTS:
        raise ValueError(
            f"only {len(chosen)} vertices lie within {radius:.0f} mm of the nose; "
            "are its landmarks or its unit wrong?"
        )
    if len(chosen) > options.samples:
        picked = np.random.default_rng(0).choice(len(chosen), options.samples, replace=False)
        chosen = chosen[np.sort(picked)]
    points, normals = scan.vertices[chosen], vertex_normals(scan.vertices, scan.faces)
    fitted = fit_to_points(points, normals[chosen], model, start, with_scale=True)
    fit = Surface(fitted, faces)
    motion = align(points, normals[chosen], fit, start, with_scale=True)
    ids, weights = fit.closest(motion(points), exact=False)[1:]
    # Insides of nose and mouth lie near a region and are none of it.
    outside = ((normals[chosen] @ motion.rotation) * fit.normals(ids)).sum(1) > LEAST_COSINE
    region = np.where(outside, regions[faces[ids, weights.argmax(1)]], 0)
    subject = _Subject(scan, chosen, normals[chosen], region)
    subject.shapes.append((MEAN, MEAN, surface, mean[seven]))
    subject.shapes.append((FIT, FIT, fit, fitted[seven]))
    return subject


def _start_without_points(
    scan: Scan, used: np.ndarray, surface: Surface, points: np.ndarray
) -> Similarity:
    """Align a scan that looks along +z, y up, by its foremost point, which is the nose's tip."""
    vertices = scan.vertices[used]
    tip = vertices[vertices[:, 2].argmax()]
    nose = surface.vertices[surface.vertices[:, 2].argmax()]
    middle, radius = now_ball(points)
    near = used[np.linalg.norm(vertices - tip - (middle - nose), axis=1) < 0.8 * radius]
    if len(near) < LEAST_POINTS:
        raise ValueError("it has no landmarks and does not look along +z with y up")
    near = near[:: max(1, len(near) // 5000)]
    start = Similarity(1.0, np.eye(3), nose - tip)
    pair = scan.vertices[near], vertex_normals(scan.vertices, scan.faces)[near]
    rigid = align(*pair, surface, start, with_scale=False)
    return align(*pair, surface, rigid, with_scale=True)


def _add_photos(
    subject: _Subject,
    drawn: DrawnHead | None,
    reconstructor: FaceReconstructor,
    options: GeometryOptions,
    report: Report,
) -> None:
    """Reconstruct the photos of a scan; each alone and the mean of their identities."""
    model = reconstructor.model
    seven = model.landmarks_68.cpu().numpy()[list(SEVEN_OF_68)]
    faces, identities = model.faces.cpu().numpy(), []
    if drawn is not None:
        found = _reconstruct_drawn(drawn, reconstructor, options)
    else:
        photos = _photos_of(subject.scan.name, options, report)
        found = ((name, next(iter(reconstructor(image)), None)) for name, image in photos)
    for name, face in found:
        if face is None:
            report.failures.append((name, NO_FACE))
            continue
        identities.append(face.coeffs.id)
        vertices = neutral_vertices(model, face.coeffs.id)
        subject.shapes.append((ONE_VIEW, name, Surface(vertices, faces), vertices[seven]))
    if len(identities) > 1:
        vertices = neutral_vertices(model, torch.stack(identities).mean(0))
        shape = (ALL_VIEWS, f"{len(identities)} photos", Surface(vertices, faces), vertices[seven])
        subject.shapes.append(shape)


def _reconstruct_drawn(
    drawn: DrawnHead, reconstructor: FaceReconstructor, options: GeometryOptions
) -> Iterator[tuple[str, Face | None]]:
    cases = []
    for number_, (picture, points) in enumerate(zip(drawn.pictures, drawn.landmarks, strict=True)):
        place = FacePlace(torch.cat([points.amin(0), points.amax(0)]), five_points(points))
        name = f"{drawn.name} view {number_}"
        cases.append(Case(name, lambda image=picture: image, place, number_))
    for outcome in predict_cases(reconstructor, cases, options):
        yield outcome.case.name, outcome.face


def _photos_of(
    name: str, options: GeometryOptions, report: Report
) -> Iterator[tuple[str, np.ndarray]]:
    if options.photos is None:
        return
    for path in list_photos([options.photos]):
        inside = path.relative_to(options.photos).as_posix()
        if inside.startswith(f"{name}/") or path.stem == name or path.stem.startswith(f"{name}_"):
            try:
                yield inside, read_image(path)
            except ValueError as error:
                report.unusable.append((inside, one_line(error)))


def _add_meshes(subject: _Subject, options: GeometryOptions, report: Report) -> None:
    """Meshes of other programs, with their seven points."""
    if options.meshes is None:
        return
    name = subject.scan.name
    for path in sorted(options.meshes.iterdir()):
        same = path.stem == name or path.stem.startswith(f"{name}_")
        if path.suffix.lower() not in SCAN_SUFFIXES or not same:
            continue
        try:
            mesh = read_scan(path)
            if mesh.points_7 is None:
                raise ValueError("it needs its 7 or 68 points in a file of the same name")
        except ValueError as error:
            report.unusable.append((path.name, one_line(error)))
            continue
        surface = Surface(mesh.vertices, mesh.faces)
        subject.shapes.append((OTHER, path.name, surface, mesh.points_7))


def _measure(
    subject: _Subject, kind: str, name: str, surface: Surface, points_7: np.ndarray
) -> tuple[Distances, np.ndarray, np.ndarray]:
    """Errors of one shape; also [N] signed by nothing, and the scan in the shape's frame."""
    scan = subject.scan
    assert scan.points_7 is not None
    points = scan.vertices[subject.chosen]
    start = similarity_of(scan.points_7, points_7)
    motion = align(points, subject.normals, surface, start, with_scale=True)
    scaled = surface.distance(motion(points)) / motion.scale
    rigid = similarity_of(scan.points_7, points_7, with_scale=False)
    rigid = align(points, subject.normals, surface, rigid, with_scale=False)
    metric = surface.distance(rigid(points))
    regions = np.full(len(REGIONS), np.nan)
    for number_, _ in enumerate(REGIONS):
        part = subject.region == number_ + 1
        if part.sum() >= LEAST_POINTS // 4:
            pair = points[part], subject.normals[part]
            own = align(*pair, surface, motion, with_scale=False)
            regions[number_] = surface.distance(own(points[part])).mean() / own.scale
    distances = Distances(scan.name, kind, name, scaled, metric, regions)
    return distances, scaled, motion(scan.vertices)


def _kinds(found: Sequence[Distances]) -> list[str]:
    present = {one.kind for one in found}
    return [kind for kind in (MEAN, FIT, ONE_VIEW, ALL_VIEWS, OTHER) if kind in present]


def _pooled(found: Sequence[Distances], kind: str, name: str) -> np.ndarray:
    return np.concatenate([getattr(one, name) for one in found if one.kind == kind])


def _summarize(report: Report, found: list[Distances]) -> None:
    """Tables and figures of all scans; millimeters."""
    kinds = _kinds(found)
    rows, realy, figures = [], [], {}
    base = float(np.median(_pooled(found, MEAN, "scaled")))
    for kind in kinds:
        of_kind = [one for one in found if one.kind == kind]
        values = {}
        for name in ("scaled", "metric"):
            pooled = _pooled(found, kind, name)
            values[name] = {
                "median": float(np.median(pooled)),
                "mean": float(pooled.mean()),
                "std": float(pooled.std()),
            }
        each = np.stack([one.regions for one in of_kind])
        parts = np.array(
            [c[np.isfinite(c)].mean() if np.isfinite(c).any() else np.nan for c in each.T]
        )
        values["regions"] = dict(zip(REGIONS, parts.tolist(), strict=True))
        values["regions_mean"] = float(np.nanmean(parts))
        values["over_mean_face"] = values["scaled"]["median"] / base
        values["count"] = len(of_kind)
        figures[kind] = values
        rows.append(
            (
                kind,
                str(len(of_kind)),
                *(number(values["scaled"][key]) for key in ("median", "mean", "std")),
                *(number(values["metric"][key]) for key in ("median", "mean", "std")),
                number(values["over_mean_face"]),
            )
        )
        realy.append((kind, *map(number, parts), number(values["regions_mean"])))
    header = (
        "mm",
        "shapes",
        "median",
        "mean",
        "std",
        "own size: median",
        "mean",
        "std",
        "/ mean face",
    )
    title = "scan to shape around the nose (as NoW): scale free, and in the shape's own size"
    report.tables.append(Table(title, header, rows))
    title = "mean distance by region, each aligned by itself (as REALY)"
    report.tables.append(Table(title, ("mm", *REGIONS, "mean"), realy))
    report.figures |= {"scans": len({one.scan for one in found}), "geometry_mm": figures}
    for kind in (ONE_VIEW, ALL_VIEWS, OTHER):
        if kind in figures and figures[kind]["over_mean_face"] >= 1:
            report.notes.append(f"{kind}: no better than the mean face")
    for one in found:
        report.faces.append(
            {
                "scan": one.scan,
                "kind": one.kind,
                "name": one.name,
                "median": float(np.median(one.scaled)),
                "mean": float(one.scaled.mean()),
                "median_own_size": float(np.median(one.metric)),
                "regions": dict(zip(REGIONS, one.regions.tolist(), strict=True)),
            }
        )
