"""`v3recon part-masks vote`: label a face model by hand-made masks of many photos."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from v3recon.decode import decode
from v3recon.detection.crop import crop_again
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.load import DEFAULT_FACE_MODEL, load_face_model
from v3recon.fitting.fit_landmarks import LandmarkFit, fit_landmarks
from v3recon.geometry.affine2d import invert_affine_2d
from v3recon.geometry.camera import Camera
from v3recon.io.arrays import read_npz
from v3recon.io.celebamask import labels_from_celebamask
from v3recon.io.images import read_image
from v3recon.io.label_pictures import read_label_picture
from v3recon.io.photo_files import PHOTO_SUFFIXES
from v3recon.io.photo_index import read_photo_index
from v3recon.part_masks.labels import write_labels
from v3recon.photohead import part_refinement, part_votes
from v3recon.photohead.detections import detect_photos
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.types import FaceCoeffs

DETECTED = 468
CROP_SHARE = 0.67
"""Longer side of the detected points' box over the crop's side."""
JAW_WEIGHT = 0.3
"""Of the 68 landmarks through which models without the detector's vertices are fitted."""


@dataclass(frozen=True)
class MaskedPhoto:
    """A photo, the file of its mask and the fit of the model to it (one face)."""

    photo: Path
    mask: Path
    coeffs: FaceCoeffs
    from_crop: Tensor


@dataclass
class Tally:
    """What became of the photos."""

    used: int = 0
    exchanged: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        text = f"{self.used} photos, {self.exchanged} of them with exchanged sides"
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
        return f"{text}; skipped: {reasons}" if reasons else text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the tool."""
    parser.add_argument(
        "--face-model", default=DEFAULT_FACE_MODEL, help="photohead, or the path of a model file"
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of the photos")
    parser.add_argument(
        "--masks", type=Path, required=True, help="folder of class maps (PNG) named like the photos"
    )
    parser.add_argument(
        "--detections",
        type=Path,
        help="npz of detected points: names [N] and pts [N, 468 or 478, 3], as v3recon "
        "build-face-model keeps one; made beside --out where it is absent (needs MediaPipe)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="checkpoint of a network for this model: its reconstructions vote as well as the fits",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that detect")
    parser.add_argument("--index", type=Path, help="index.csv, to vote with one split only")
    parser.add_argument("--split", default="train", help="with --index: the split that votes")
    parser.add_argument("--judge", help="with --index: the split to measure overlap on, e.g. val")
    parser.add_argument("--limit", type=int, default=0, help="photos at most, 0 = all")
    parser.add_argument("--out", type=Path, required=True, help="labels to write, .npy or .csv")


def run(args: argparse.Namespace) -> int:
    """Vote, write the labels, print what was counted."""
    model = load_face_model(args.face_model)
    pairs = find_pairs(args.photos, args.masks)
    if args.judge and not args.index:
        raise ValueError("--judge needs --index, which says what split a photo belongs to")
    splits = read_splits(args.index) if args.index else {}
    voters = [pair for pair in pairs if not splits or splits.get(pair[0].stem) == args.split]
    voters = voters[: args.limit or None]
    judges = [pair for pair in pairs if args.judge and splits.get(pair[0].stem) == args.judge]
    detections = _detections(args, [pair[0].name for pair in voters + judges])
    fits = _fitted(voters, detections, model)
    if args.weights:
        reconstructor = FaceReconstructor.from_pretrained(
            face_model=args.face_model, weights=args.weights
        )
        fits = itertools.chain(fits, _reconstructed(voters, detections, reconstructor))
    labels, tally = vote(model, fits)
    write_labels(args.out, labels)
    print(f"votes of {tally}")
    for part, name in enumerate(PART_NAMES):
        print(f"  {name:15s} {int((labels == part + 1).sum()):6d} vertices")
    if args.judge:
        overlap, tally = judge(model, labels, _fitted(judges, detections, model))
        print(f"intersection over union on {tally}")
        for name, value in zip(PART_NAMES, overlap, strict=True):
            print(f"  {name:15s} {value:.3f}")
    print(args.out)
    return 0


def vote(model: LinearFaceModel, photos: Iterator[MaskedPhoto | str]) -> tuple[np.ndarray, Tally]:
    """Labels [V] of a model from fitted photos with masks.

    Args:
        model: any face model; its mirror table is used where it has one.
        photos: fitted photos; a text instead says why a photo has to be left out.

    Raises:
        ValueError: if no photo can vote.
    """
    votes, tally, camera = np.zeros((model.vertex_count, part_votes.LABEL_COUNT)), Tally(), Camera()
    pixels = []
    for photo, labels in _readable(photos, tally):
        face = _see(photo, model, camera, labels)
        labels = _right_sides(labels, face, model, tally)
        vertex, label = part_votes.votes_of_photo(face.points_2d, face.visible, labels)
        votes[vertex, label] += 1
        pixels.append(part_refinement.pixels_of_photo(face, labels, model.faces))
    if not tally.used:
        raise ValueError(f"no photo can vote: {tally}")
    mirror = model.mirror.numpy() if len(model.mirror) else None
    vertices = model.mean_vertices().numpy()
    faces = model.faces.numpy()
    voted = part_votes.labels_from_votes(votes, vertices, faces, mirror)
    stacked = part_refinement.stack_pixels(pixels)
    return part_refinement.refine_labels(stacked, voted, faces, mirror), tally


def judge(
    model: LinearFaceModel, labels: np.ndarray, photos: Iterator[MaskedPhoto | str]
) -> tuple[np.ndarray, Tally]:
    """Mean overlap [8] of labels drawn back on fitted photos with their masks."""
    rows, tally, camera = [], Tally(), Camera()
    for photo, truth in _readable(photos, tally):
        face = _see(photo, model, camera, truth)
        truth = _right_sides(truth, face, model, tally)
        drawn = part_votes.draw_labels(face, labels, model.faces)
        rows.append(part_votes.part_overlap(drawn, truth))
    if not rows:
        raise ValueError(f"no photo to judge on: {tally}")
    return np.nanmean(rows, 0), tally


def find_pairs(photos: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Photos and masks of the same name, sorted.

    Raises:
        ValueError: if a folder is absent or there is no pair.
    """
    for folder in (photos, masks):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
    by_stem = {path.stem: path for path in sorted(masks.glob("*.png"))}
    pairs = [
        (path, by_stem[path.stem])
        for path in sorted(photos.iterdir())
        if path.suffix.lower() in PHOTO_SUFFIXES and path.stem in by_stem
    ]
    if not pairs:
        raise ValueError(f"no photo in {photos} has a mask of the same name (.png) in {masks}")
    return pairs


def read_splits(index: Path) -> dict[str, str]:
    """Split of each photo of an index.csv, by the name of its file without suffix."""
    entries = read_photo_index(index.parent, index)
    return {Path(entry.file).stem: entry.split for entry in entries}


def read_detections(path: Path) -> dict[str, np.ndarray]:
    """Detected points [P, 3] of each photo, by the name of its file without suffix."""
    try:
        file = read_npz(path, ("names", "pts"))
    except ValueError as error:
        raise ValueError(f"{path} is no file of detections (names, pts): {error}") from error
    names, points = file["names"], file["pts"]
    if points.ndim != 3 or points.shape[1] < DETECTED or len(names) != len(points):
        raise ValueError(f"{path}: pts is {points.shape}, not ({len(names)}, {DETECTED}…, 3)")
    return {Path(str(name)).stem: row for name, row in zip(names, points, strict=True)}


def _detections(args: argparse.Namespace, names: list[str]) -> dict[str, np.ndarray]:
    """Known points, or those of a detector run over the photos."""
    if args.detections is not None and args.detections.is_file():
        return read_detections(args.detections)
    cache = args.detections or args.out.with_suffix(".detections.npz")
    found = detect_photos(args.photos, names, cache, args.workers)
    return {Path(name).stem: row for name, row in zip(found.names, found.points, strict=True)}


def _fitted(
    pairs: list[tuple[Path, Path]], detections: dict[str, np.ndarray], model: LinearFaceModel
) -> Iterator[MaskedPhoto | str]:
    """Fit the model to each detected face."""
    camera = Camera()
    known = model.detector_points is not None
    detector_model = model if known else load_face_model(DEFAULT_FACE_MODEL)
    for photo, mask in tqdm(pairs, unit="photo"):
        if photo.stem not in detections:
            yield "without a detected face"
            continue
        points = torch.from_numpy(detections[photo.stem][None, :DETECTED])
        to_crop = _to_crop(points[..., :2], camera)
        fit = fit_landmarks(points, detector_model, camera, to_crop=to_crop)
        if model is not detector_model:
            fit = _fit_through_68(fit.coeffs, detector_model, model, camera)
        yield MaskedPhoto(photo, mask, fit.coeffs, invert_affine_2d(to_crop))


def _reconstructed(
    pairs: list[tuple[Path, Path]],
    detections: dict[str, np.ndarray],
    reconstructor: FaceReconstructor,
) -> Iterator[MaskedPhoto | str]:
    """Let a network reconstruct each detected face, cropped around its detected points."""
    landmarks = load_face_mesh().landmarks_68
    for photo, mask in tqdm(pairs, unit="photo"):
        if photo.stem not in detections:
            yield "without a detected face"
            continue
        try:
            image = read_image(photo)
        except ValueError:
            yield "with an unreadable mask or photo"
            continue
        points = torch.from_numpy(detections[photo.stem][landmarks, :2])
        crop = crop_again(
            points, reconstructor.crop_rule, reconstructor.points_3d, reconstructor.camera
        )
        face = reconstructor.reconstruct_crops([image], [crop])[0]
        yield MaskedPhoto(photo, mask, face.coeffs, crop.inverse_matrix[None].float())


def _fit_through_68(
    coeffs: FaceCoeffs, source: LinearFaceModel, model: LinearFaceModel, camera: Camera
) -> LandmarkFit:
    """Fit a model to the 68 landmarks of another one's fit (both in crop pixels)."""
    decoded = decode(coeffs, source, camera)
    index = source.landmarks_68
    depth = decoded.vertices[:, index, 2:] * camera.focal / camera.distance
    points = torch.cat([decoded.points_2d[:, index], depth], 2)
    weights = torch.ones(68)
    weights[:17] = JAW_WEIGHT
    return fit_landmarks(points, model, camera, index=model.landmarks_68, weights=weights)


def _to_crop(points_2d: Tensor, camera: Camera) -> Tensor:
    """[B, 2, 3] photo pixels to crop pixels: the points' box in the middle."""
    low, high = points_2d.amin(1), points_2d.amax(1)
    scale = CROP_SHARE * camera.image_size / (high - low).amax(1)
    matrix = torch.zeros(len(points_2d), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale
    matrix[:, :, 2] = (camera.image_size - 1) / 2 - scale[:, None] * (low + high) / 2
    return matrix


def _readable(
    photos: Iterator[MaskedPhoto | str], tally: Tally
) -> Iterator[tuple[MaskedPhoto, np.ndarray]]:
    """Photos with their label maps; the others are counted by reason."""
    for photo in photos:
        if isinstance(photo, str):
            tally.skipped[photo] += 1
            continue
        try:
            mask = read_label_picture(photo.mask)
            with Image.open(photo.photo) as image:
                size = (image.height, image.width)
        except (OSError, ValueError, SyntaxError):
            tally.skipped["with an unreadable mask or photo"] += 1
            continue
        if mask.shape[:2] != size:
            tally.skipped["with a mask of another size"] += 1
            continue
        try:
            labels = labels_from_celebamask(mask)
        except ValueError:
            tally.skipped["with unknown classes in the mask"] += 1
            continue
        tally.used += 1
        yield photo, labels


def _see(
    photo: MaskedPhoto, model: LinearFaceModel, camera: Camera, labels: np.ndarray
) -> part_votes.SeenFace:
    size = (labels.shape[0], labels.shape[1])
    return part_votes.see_face(photo.coeffs, model, camera, photo.from_crop, size)


def _right_sides(
    labels: np.ndarray, face: part_votes.SeenFace, model: LinearFaceModel, tally: Tally
) -> np.ndarray:
    """The label map with its sides exchanged where they contradict the fitted face."""
    eyes = part_votes.eye_middles(face.points_2d, model.landmarks_68.numpy())
    labels, exchanged = part_votes.repair_sides_by_eyes(labels, *eyes)
    tally.exchanged += exchanged
    return labels
