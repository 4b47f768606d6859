"""From the material to a PhotoHead file: the steps in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from v3recon.decode import decode
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.photohead import model_data
from v3recon.geometry.camera import Camera
from v3recon.io.photo_index import PhotoEntry, read_photo_index, read_points
from v3recon.photohead.dense_file import shape_arrays
from v3recon.photohead.detections import Detections, detect_photos
from v3recon.photohead.detector_points import SurfacePlaces, embed_detector, move_detector
from v3recon.photohead.head_albedo import ALBEDO_MODES, AlbedoPhoto, learn_head_albedo
from v3recon.photohead.head_parts import MaskedFace, vote_parts
from v3recon.photohead.landmark_sets import (
    FRONTAL,
    MODERATE_YAW,
    aims_68,
    choose_68,
    make_landmark_sets,
    marked_aims,
    outline_jaw,
)
from v3recon.photohead.photo_fits import MAX_ERROR, PhotoFits, fit_photos, pixel_control
from v3recon.photohead.photo_modes import PHOTO_MODES, learn_photo_modes
from v3recon.photohead.scan_model import read_scan_model
from v3recon.photohead.shape import HeadShape, build_shape, field_frame, read_basel_points
from v3recon.photohead.uv_atlas import unwrap_head

BASEL_POINTS = "bfm_68_points_mm.csv"
_EMBED_PHOTOS, _EMBED_ROUNDS = 1200, 4
_MODE_PHOTOS = 3000
_ALBEDO_PHOTOS = {"celebamask": 450, "fairface": 250, "webmorph": 200, "helen": 250, "afw": 50}
"""At most so many photos of each source teach albedo."""
_ALBEDO_YAW, _ALBEDO_PITCH = 20.0, 20.0
ARKIT_SIGMA = 0.25
"""Standard deviation of an ARKit weight in photographs, the prior of fits."""
_CM_PER_UNIT = 10.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Material:
    """What a head is built from.

    Attributes:
        photos: folder with `index.csv`.
        head: folder of the scan statistics and the Basel points.
        entries: photos of split `train` with a detected face, sorted.
        detected: [N, 468, 3] their points, pixels, x right, y down.
    """

    photos: Path
    head: Path
    entries: list[PhotoEntry]
    detected: np.ndarray


def read_material(photos: Path, head: Path, cache: Path, workers: int, say: Say) -> Material:
    """Read the index and detect every training photo.

    Raises:
        ValueError: if a folder lacks what is needed.
    """
    entries = [entry for entry in read_photo_index(photos) if entry.split == "train"]
    by_name = {entry.file: entry for entry in entries}
    found: Detections = detect_photos(photos, sorted(by_name), cache, workers)
    say(f"{len(entries)} photos to learn from, {len(found.names)} with a face")
    if len(found.names) < ALBEDO_MODES:
        raise ValueError(
            f"only {len(found.names)} photos with a face in {photos}; at least {ALBEDO_MODES} "
            "are needed"
        )
    kept = [by_name[name] for name in found.names]
    return Material(photos, head, kept, found.points[:, : len(load_face_mesh().mean)])


def build_head(material: Material, say: Say = print) -> dict[str, np.ndarray]:
    """All arrays of a PhotoHead file, see `face_models.photohead`.

    Args:
        material: what it is built from.
        say: receives one line a step.
    """
    shape = build_shape(material.head)
    say(f"shape: {shape.kept_variance:.2%} of the scans' variance in 80 modes")
    aims = _first_aims(shape, material.head)
    index_68 = choose_68(shape, aims)
    mesh = load_face_mesh()
    places, fixed = embed_detector(shape, mesh.mean, mesh.triangles)
    arrays = _provisional(shape, index_68, places)
    model = LinearFaceModel(model_data(arrays))
    every = _spread(len(material.entries), _EMBED_PHOTOS)
    for _ in range(_EMBED_ROUNDS):
        fits = fit_photos(material.detected[every], model)
        trust = (fits.error < MAX_ERROR).float()
        places = move_detector(
            shape, places, fixed, mesh.mirror, fits.residual, fits.rotation, trust
        )
        arrays = _provisional(shape, index_68, places)
        model = LinearFaceModel(model_data(arrays))
    say(f"detector points: fits leave {100 * float(fits.error.median()):.2f} % of the face's size")
    photo_basis, explained = _photo_modes(shape, places, material, model)
    say(f"photo modes: {explained:.0%} of what fits of several photos of a person leave over")
    arrays = {**arrays, **shape_arrays(shape, photo_basis)}
    model = LinearFaceModel(model_data(arrays))
    index_68, jaw = _refined_68(shape, index_68, aims, material, model)
    arrays |= _landmark_arrays(shape, index_68, places, jaw)
    model = LinearFaceModel(model_data(arrays))
    uv = unwrap_head(shape.template, shape.dense, shape.loops, shape.mean)
    masked = _indices(material, lambda entry: bool(entry.mask))
    fits = fit_photos(material.detected[masked], model)
    controls = pixel_control(fits, model)
    good = np.flatnonzero((fits.error < MAX_ERROR).numpy())
    parts = vote_parts(
        shape,
        [MaskedFace(material.photos / material.entries[masked[k]].mask, controls[k]) for k in good],
    )
    arrays |= {"part_labels": parts.part_labels, "group_labels": parts.group_labels}
    chosen = _albedo_photos(material, model)
    learned, figures = learn_head_albedo(shape, uv, parts.part_labels, parts.group_labels, chosen)
    say(f"albedo: {figures['photos']:.0f} photos, {figures['explained']:.1%} of their variance")
    return {**arrays, "uv_coords": uv.astype(np.float32), **learned}


def _first_aims(shape: HeadShape, head: Path) -> np.ndarray:
    scans = read_scan_model(head)
    rotation, shift = field_frame(scans, head / BASEL_POINTS)
    scanned = (scans.mean[scans.landmarks_68] @ rotation + shift) / _CM_PER_UNIT
    return aims_68(read_basel_points(head / BASEL_POINTS), scanned)


def _provisional(
    shape: HeadShape, index_68: np.ndarray, places: SurfacePlaces
) -> dict[str, np.ndarray]:
    """A complete file whose parts, albedo and photo modes say nothing yet."""
    count = len(shape.mirror)
    return {
        **shape_arrays(shape, np.zeros((*shape.mean.shape, PHOTO_MODES))),
        **_landmark_arrays(shape, index_68, places),
        "exp_sigma": np.repeat([ARKIT_SIGMA, 1.0], [52, PHOTO_MODES]).astype(np.float32),
        "part_labels": np.where(shape.surface == 0, 8, 0).astype(np.uint8),
        "group_labels": shape.surface.astype(np.uint8),
        "uv_coords": np.zeros((count, 2), np.float32),
        "albedo_mean": np.full((2, 2, 3), 150, np.uint8),
        "albedo_fine": np.zeros((ALBEDO_MODES, 3, 2, 2), np.int8),
        "albedo_fine_unit": np.ones(ALBEDO_MODES, np.float32),
        "albedo_coarse": np.zeros((0, 3, 1, 1), np.int8),
        "albedo_coarse_unit": np.ones(0, np.float32),
    }


def _landmark_arrays(
    shape: HeadShape, index_68: np.ndarray, places: SurfacePlaces, jaw: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    jaw = index_68[:17] if jaw is None else jaw
    sets = make_landmark_sets(shape, index_68, jaw, places.points)
    width = max(len(line) for line in sets.contour_lines)
    lines = np.full((len(sets.contour_lines), width), -1, np.int32)
    for row, line in zip(lines, sets.contour_lines, strict=True):
        row[: len(line)] = line
    return {
        "landmarks_68": sets.landmarks_68.astype(np.int32),
        "landmarks_106": sets.landmarks_106.astype(np.int32),
        "landmarks_134": sets.landmarks_134.astype(np.int32),
        "contour_lines": lines,
        "detector_vertices": places.vertices.astype(np.uint16),
        "detector_weights": places.weights.astype(np.float32),
    }


def _photo_modes(
    shape: HeadShape, places: SurfacePlaces, material: Material, model: LinearFaceModel
) -> tuple[np.ndarray, float]:
    """Expression modes from people with several photos."""
    subjects = np.array([entry.subject for entry in material.entries])
    names, count = np.unique(subjects, return_counts=True)
    several = np.flatnonzero(np.isin(subjects, names[count > 1]))
    several = several[_spread(len(several), _MODE_PHOTOS)]
    fits = fit_photos(material.detected[several], model, subjects[several].tolist())
    keep = (np.abs(fits.angles[:, :2]) < MODERATE_YAW).all(1)
    keep &= (fits.error < MAX_ERROR).numpy()
    return learn_photo_modes(
        shape,
        places,
        fits.residual.numpy().astype(np.float64),
        fits.rotation.numpy().astype(np.float64),
        subjects[several],
        keep,
    )


def _refined_68(
    shape: HeadShape,
    index_68: np.ndarray,
    aims: np.ndarray,
    material: Material,
    model: LinearFaceModel,
) -> tuple[np.ndarray, np.ndarray]:
    """The 68 vertices where people mark them in photographs, and the outline [17] of the face.

    The jaw among the 68 stays the Basel model's; the outline is that of Helen's and AFW's photos.
    """
    marked = _indices(material, lambda entry: entry.landmarks.endswith(".pts"))
    if not len(marked):
        return index_68, index_68[:17]
    hand = np.stack([_hand_68(material.photos, material.entries[number]) for number in marked])
    fits = fit_photos(material.detected[marked], model)
    residual = _marked_residual(fits, model, index_68, hand)
    frontal = np.isfinite(residual).all((1, 2)) & (fits.error < MAX_ERROR).numpy()
    frontal &= (np.abs(fits.angles[:, :2]) < FRONTAL).all(1)
    rotation = fits.rotation.numpy().astype(np.float64)
    jaw = outline_jaw(shape, index_68, residual[frontal], rotation[frontal])
    return choose_68(shape, marked_aims(aims)), jaw


def _marked_residual(
    fits: PhotoFits, model: LinearFaceModel, index: np.ndarray, hand: np.ndarray
) -> np.ndarray:
    """Hand-made minus projected points [N, 68, 2], decimeters, x right, y up."""
    camera = Camera()
    with torch.no_grad():
        decoded = decode(fits.coeffs, model, camera, rotation=fits.rotation)
        scale = fits.to_crop[:, 0, 0][:, None, None]
        target = torch.from_numpy(hand).float() * scale + fits.to_crop[:, None, :, 2]
        chosen = torch.from_numpy(index)
        distance = (camera.distance - decoded.vertices[:, chosen, 2:]) / camera.focal
        missing = (target - decoded.points_2d[:, chosen]) * distance
    return missing.numpy().astype(np.float64) * [1.0, -1.0]


def _hand_68(photos: Path, entry: PhotoEntry) -> np.ndarray:
    points = read_points(photos, entry)
    return np.full((68, 2), np.nan) if points is None else points.points_68


def _albedo_photos(material: Material, model: LinearFaceModel) -> list[AlbedoPhoto]:
    """Nearly frontal photos of the sources with enough pixels, evenly over each source."""
    chosen: list[AlbedoPhoto] = []
    for source, limit in _ALBEDO_PHOTOS.items():
        own = _indices(material, lambda entry, source=source: entry.source == source)
        if not len(own):
            continue
        fits = fit_photos(material.detected[own], model)
        angles = np.abs(fits.angles)
        good = (angles[:, 1] < _ALBEDO_YAW) & (angles[:, 0] < _ALBEDO_PITCH)
        good &= (fits.error < MAX_ERROR).numpy()
        kept = np.flatnonzero(good)
        kept = kept[_spread(len(kept), limit)]
        controls = pixel_control(fits, model)
        for number in kept:
            entry = material.entries[own[number]]
            chosen.append(
                AlbedoPhoto(
                    photo=material.photos / entry.file,
                    mask=material.photos / entry.mask if entry.mask else None,
                    points=material.detected[own[number], :, :2],
                    control=controls[number],
                )
            )
    return chosen


def _indices(material: Material, wanted: Callable[[PhotoEntry], bool]) -> np.ndarray:
    return np.flatnonzero([wanted(entry) for entry in material.entries])


def _spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` of `count` numbers, evenly."""
    if count <= limit:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).astype(np.int64)
