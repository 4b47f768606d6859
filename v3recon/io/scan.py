"""Head scans in: a mesh in millimeters and the landmarks that somebody put on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from v3recon.io._trimesh import load_triangles
from v3recon.io.arrays import read_npy, read_npz
from v3recon.io.messages import one_line

SCAN_SUFFIXES = (".obj", ".ply", ".glb", ".stl", ".npz")
POINT_SUFFIXES = (".txt", ".csv", ".npy")
UNITS = MappingProxyType({"mm": 1.0, "cm": 10.0, "dm": 100.0, "m": 1000.0})
"""Millimeters in each unit."""
SEVEN_OF_68 = (36, 39, 42, 45, 33, 48, 54)
"""The seven points of NoW (Sanyal et al., CVPR 2019) among iBUG's 68: eye corners from the person's
right to the left, below the nose, mouth corners right and left."""

EYE_CORNERS_MM = 90.0
"""Usual distance of the outer eye corners, which tells the unit."""
DIAGONAL_MM = 350.0
"""Usual diagonal of a scan's box, face alone to head with neck: tells the unit without points."""
MAX_UNIT_FACTOR = (1.6, 2.6)
"""Largest factor from the usual size, with points and without, that is still a face."""
MAX_OFF_SURFACE_MM = 20.0
"""Landmarks farther off the nearest vertex are of another mesh, or in another unit."""


@dataclass(frozen=True)
class Scan:
    """One scan.

    Attributes:
        name: of its file, without suffix.
        vertices: [V, 3] float64, millimeters.
        faces: [F, 3] int64.
        points_7: [7, 3] of `SEVEN_OF_68`, millimeters; None where the scan came without points.
        unit: what the file's numbers were taken to be, a key of `UNITS`.
        unit_reason: how that was told.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    points_7: np.ndarray | None
    unit: str
    unit_reason: str


def read_scan(path: Path, *, points: Path | None = None, unit: str | None = None) -> Scan:
    """Read a scan, and its landmarks.

    Args:
        path: OBJ, PLY, STL, GLB (the library trimesh reads them), or `.npz` with `vertices`
            [V, 3] and `faces` [F, 3].
        points: 7 or 68 points in the scan's own numbers, one a line (`.txt`, `.csv`) or `.npy`
            [N, 3]; default the file of the same name beside the scan, if there is one.
        unit: one of `UNITS`; default told from the distance of the outer eye corners, or without
            points from the size of the scan.

    Raises:
        ValueError: naming the file and what is wrong: no triangle, not finite, landmarks off the
            scan, no unit that makes it a face.
    """
    vertices, faces = _load(path)
    if not len(faces):
        raise ValueError(f"{path} holds {len(vertices)} points and no triangle; scans need both")
    bad = int((~np.isfinite(vertices).all(1)).sum())
    if bad:
        raise ValueError(f"{path}: {bad} of {len(vertices)} vertices are not finite")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(
            f"{path}: triangles name vertices {faces.min()}…{faces.max()}, there are "
            f"{len(vertices)}"
        )
    if points is None:
        beside = [path.with_suffix(suffix) for suffix in POINT_SUFFIXES]
        points = next((one for one in beside if one.is_file()), None)
    landmarks = None if points is None else read_points_3d(points)
    used = np.unique(faces)
    unit, reason = _unit_of(path, vertices[used], landmarks, unit)
    factor = UNITS[unit]
    vertices = vertices * factor
    if landmarks is not None:
        landmarks = landmarks * factor
        _check_on_surface(points or path, landmarks, vertices[used])
    return Scan(path.stem, vertices, faces, landmarks, unit, reason)


def read_points_3d(path: Path) -> np.ndarray:
    """Seven points [7, 3] of a file of 7 or 68, in its own unit.

    Raises:
        ValueError: if it holds anything else.
    """
    try:
        if path.suffix == ".npy":
            points = read_npy(path).astype(np.float64)
        else:
            lines = path.read_text(encoding="utf-8").replace(",", " ").splitlines()
            rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
            points = np.array(
                [[float(value) for value in row[-3:]] for row in rows if _number(row)]
            )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a file of points ({one_line(error)})") from None
    if points.ndim != 2 or points.shape[1] != 3 or len(points) not in (7, 68):
        raise ValueError(f"{path} holds points of shape {points.shape}, not 7 or 68 of 3 numbers")
    if not np.isfinite(points).all():
        raise ValueError(f"{path}: points are not finite")
    return points[list(SEVEN_OF_68)] if len(points) == 68 else points


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix.lower() not in SCAN_SUFFIXES:
        raise ValueError(f"{path}: scans are {', '.join(SCAN_SUFFIXES)} files")
    if path.suffix.lower() != ".npz":
        return load_triangles(path)
    arrays = read_npz(path, ("vertices", "faces"))
    vertices, faces = arrays["vertices"].astype(np.float64), arrays["faces"].astype(np.int64)
    if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        raise ValueError(
            f"{path} holds vertices {vertices.shape} and faces {faces.shape}, not [V, 3] and [F, 3]"
        )
    return vertices, faces


def _unit_of(
    path: Path, vertices: np.ndarray, landmarks: np.ndarray | None, unit: str | None
) -> tuple[str, str]:
    """The unit and how it is known."""
    if unit is not None:
        if unit not in UNITS:
            raise ValueError(f"unknown unit {unit!r}; choose from {', '.join(UNITS)}")
        return unit, "as said"
    if landmarks is not None:
        size, usual, limit = float(np.linalg.norm(landmarks[0] - landmarks[3])), EYE_CORNERS_MM, 0
        what = f"the outer eye corners are {size:.4g} apart"
    else:
        size, usual, limit = float(np.linalg.norm(np.ptp(vertices, axis=0))), DIAGONAL_MM, 1
        what = f"the diagonal of its box is {size:.4g}"
    if size <= 0:
        raise ValueError(f"{path}: {what}; this is not a face")
    off = {name: abs(math.log(size * factor / usual)) for name, factor in UNITS.items()}
    best = min(off, key=lambda name: off[name])
    if off[best] > math.log(MAX_UNIT_FACTOR[limit]):
        raise ValueError(
            f"{path}: {what}, which is a face in none of {', '.join(UNITS)}; give the "
            "unit with --unit"
        )
    return best, what


def _check_on_surface(path: Path, landmarks: np.ndarray, vertices: np.ndarray) -> None:
    distance = np.array([np.linalg.norm(vertices - point, axis=1).min() for point in landmarks])
    worst = int(distance.argmax())
    if distance[worst] > MAX_OFF_SURFACE_MM:
        raise ValueError(
            f"{path}: point {worst} lies {distance[worst]:.0f} mm off the scan; landmarks must be "
            "in the scan's own coordinates"
        )


def _number(row: list[str]) -> bool:
    """Whether a row of words is one of numbers, not a header."""
    try:
        [float(value) for value in row[-3:]]
    except ValueError:
        return False
    return len(row) >= 3
