"""`v3recon build-face-model`: PhotoFace from a folder of photographs.

Detections, alignment, statistics, dense mesh, parts, landmarks, contour lines, texture
coordinates, albedo: see docs/photoface.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v3recon.face_models.photoface import FORMAT_VERSION
from v3recon.fitting.photoface import appearance
from v3recon.fitting.photoface.alignment import Aligned, align, head_angles, pose_weights
from v3recon.fitting.photoface.control_shape import ControlFit
from v3recon.fitting.photoface.detections import Detections, detect_photos, tessellation
from v3recon.fitting.photoface.shape_space import ShapeSpace, build_shape_space
from v3recon.fitting.photoface.subdivision import Subdivided, subdivide
from v3recon.fitting.photoface.topology import (
    DETECTOR_POINTS,
    ControlTopology,
    make_topology,
)
from v3recon.io.atomic import replace_on_success
from v3recon.io.photo_files import PHOTO_SUFFIXES
from v3recon.io.tables import read_table

ROUNDS = 3
MAX_ANGLE = 28.0
"""Photos turned farther than this (yaw or pitch, degrees) do not shape the model."""
_CHUNK = 512


@dataclass(frozen=True)
class PhotoEntry:
    """One photo of the index.

    Attributes:
        name: file relative to the folder of photos.
        subject: who is shown.
        split: "train" is learned from; anything else is held out.
        landmarks: hand-made points relative to the folder, or empty.
        mask: hand-made mask relative to the folder, or empty.
    """

    name: str
    subject: str
    split: str
    landmarks: str
    mask: str


@dataclass(frozen=True)
class BuiltShape:
    """What the detections alone give."""

    topology: ControlTopology
    dense: Subdivided
    control: ControlFit
    aligned: Aligned
    space: ShapeSpace


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = _parse(argv)
    start = time.monotonic()
    try:
        entries = read_index(args.photos, args.index)
        training = [entry for entry in entries if entry.split == "train"]
        print(f"{len(entries)} photos, {len(training)} to learn from")
        cache = args.detections or args.out.with_suffix(".detections.npz")
        if not args.out.parent.is_dir():
            raise ValueError(f"the folder {args.out.parent} does not exist")
        names = [entry.name for entry in training]
        found = detect_photos(args.photos, names, cache, args.workers)
        _report(found)
        arrays = build_arrays(args.photos, training, found)
        with replace_on_success(args.out) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
    except ValueError as error:
        print(f"build-face-model: {error}", file=sys.stderr)
        return 2
    size = args.out.stat().st_size / 1e6
    print(f"wrote {args.out} ({size:.1f} MB) in {(time.monotonic() - start) / 60:.1f} minutes")
    return 0


def read_index(photos: Path, index: Path | None) -> list[PhotoEntry]:
    """The photos to use, sorted by name.

    Args:
        photos: folder of the photos.
        index: CSV with the column `file` and, if known, `subject`, `split`, `landmarks`, `mask`;
            default `index.csv` in the folder, else every photo below it counts as training.

    Raises:
        ValueError: if the folder or the index cannot be used.
    """
    if not photos.is_dir():
        raise ValueError(f"{photos} is not a folder")
    if index is None and (photos / "index.csv").is_file():
        index = photos / "index.csv"
    if index is None:
        files = [path for path in photos.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES]
        names = sorted(path.relative_to(photos).as_posix() for path in files)
        entries = [PhotoEntry(name, Path(name).stem, "train", "", "") for name in names]
    else:
        entries = _read_csv(index)
    if not entries:
        raise ValueError(f"no photos in {index or photos}")
    return sorted(entries, key=lambda entry: entry.name)


def build_shape(points: np.ndarray, subjects: np.ndarray) -> BuiltShape:
    """Topology, alignment and shape space from detections.

    Args:
        points: [N, 468, 3] x right, y up, z toward the camera, pixels.
        subjects: [N] names of people.
    """
    centered = points - points.mean(1, keepdims=True)
    upright = (centered / np.linalg.norm(centered, axis=(1, 2))[:, None, None]).mean(0)
    topology = make_topology(tessellation(), upright)
    mirror = topology.mirror[:DETECTOR_POINTS]
    aligned = align(points, mirror, np.ones(DETECTOR_POINTS), upright)
    aligned = align(points, mirror, pose_weights(aligned), aligned.mean)
    dense = subdivide(
        topology.faces, topology.mirror, topology.crease_edges, topology.corners, ROUNDS
    )[-1]
    control = ControlFit(topology, dense.operator)
    angles = head_angles(aligned.rotation)
    frontal = (np.abs(np.degrees(angles[:, :2])) < MAX_ANGLE).all(1)
    space = build_shape_space(
        aligned.points[frontal], angles[frontal, :2], subjects[frontal], mirror, control
    )
    return BuiltShape(topology, dense, control, aligned, space)


def build_arrays(
    photos: Path, entries: list[PhotoEntry], found: Detections
) -> dict[str, np.ndarray]:
    """Everything a PhotoFace file holds, see `face_models.photoface`."""
    by_name = {entry.name: entry for entry in entries}
    chosen = [by_name[name] for name in found.names]
    points = found.points[:, :DETECTOR_POINTS].astype(float) * [1.0, -1.0, 1.0]
    subjects = np.array([entry.subject for entry in chosen], dtype=str)
    shape = build_shape(points, subjects)
    for name, value in shape.space.figures.items():
        print(f"  {name} {value:.3g}")
    operator = shape.dense.operator
    mesh = appearance.DenseMesh(
        operator @ shape.space.mean, shape.dense.faces, operator, shape.dense.mirror
    )
    training = _training_faces(photos, chosen, found.points, points, shape)
    return {
        **shape_arrays(shape),
        **appearance.learn_appearance(training, mesh),
    }


def shape_arrays(shape: BuiltShape) -> dict[str, np.ndarray]:
    """The arrays of a PhotoFace file that describe shape."""
    operator = shape.dense.operator
    space = shape.space
    figures = space.figures
    return {
        "format_version": np.array(FORMAT_VERSION),
        "mean_shape": space.mean.astype(np.float32),
        "id_basis": space.id_basis.astype(np.float32),
        "exp_basis": space.exp_basis.astype(np.float32),
        "faces": shape.dense.faces.astype(np.uint16),
        "mirror": shape.dense.mirror.astype(np.int32),
        "subdivision_data": operator.data.astype(np.float32),
        "subdivision_indices": operator.indices.astype(np.uint16),
        "subdivision_indptr": operator.indptr.astype(np.int32),
        "expression_names": np.array(list(space.named), dtype=str),
        "expression_coeffs": np.stack(list(space.named.values())).astype(np.float32),
        "control_faces": shape.topology.faces.astype(np.int32),
        "control_mirror": shape.topology.mirror.astype(np.int32),
        "control_outline": shape.topology.outline.astype(np.int32),
        "figure_names": np.array(list(figures), dtype=str),
        "figure_values": np.array(list(figures.values()), dtype=np.float64),
    }


def _training_faces(
    photos: Path,
    entries: list[PhotoEntry],
    detected: np.ndarray,
    points: np.ndarray,
    shape: BuiltShape,
) -> list[appearance.TrainingFace]:
    angles = np.degrees(head_angles(shape.aligned.rotation))
    faces = []
    for start in range(0, len(entries), _CHUNK):
        part = slice(start, start + _CHUNK)
        control = shape.control.solve(points[part].transpose(1, 2, 0)).transpose(2, 0, 1)
        for entry, raw, vertices, angle in zip(
            entries[part], detected[part], control, angles[part], strict=True
        ):
            faces.append(
                appearance.TrainingFace(
                    photo=photos / entry.name,
                    subject=entry.subject,
                    points=raw,
                    control=vertices.astype(np.float32),
                    yaw=float(angle[1]),
                    pitch=float(angle[0]),
                    landmarks=photos / entry.landmarks if entry.landmarks else None,
                    mask=photos / entry.mask if entry.mask else None,
                )
            )
    return faces


def _read_csv(index: Path) -> list[PhotoEntry]:
    rows = read_table(index)
    if not rows or not rows[0].get("file"):
        raise ValueError(f"{index} needs a column `file` and at least one photo")
    return [
        PhotoEntry(
            name=row["file"],
            subject=row.get("subject") or Path(row["file"]).stem,
            split=row.get("split") or "train",
            landmarks=row.get("landmarks") or "",
            mask=row.get("mask") or "",
        )
        for row in rows
    ]


def _report(found: Detections) -> None:
    print(f"{len(found.names)} faces; {len(found.faceless)} photos without one", end="")
    print(f", {len(found.unreadable)} unreadable" if found.unreadable else "")
    for name, reason in list(found.unreadable.items())[:10]:
        print(f"  {name}: {reason}", file=sys.stderr)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="v3recon build-face-model", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument(
        "--index",
        type=Path,
        help="CSV: file, subject, split, landmarks, mask (default: in --photos)",
    )
    parser.add_argument("--out", type=Path, required=True, help="face model to write, .npz")
    parser.add_argument(
        "--detections", type=Path, help="where detected points are kept (default: beside --out)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that detect")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
