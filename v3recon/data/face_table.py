"""What is known about every photo of a folder, as arrays: made once, the same every time.

Detected points count in the picture only: their depth is the detector's guess. Where people marked
points, these say whether the detector found the face at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from v3recon.face_models.detector_mesh import POINT_COUNT, estimate_pose, load_face_mesh
from v3recon.face_models.openings import CLOSED_EYE, OPEN_MOUTH, openings_of_points
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.io.arrays import read_npz
from v3recon.io.atomic import replace_on_success
from v3recon.io.photo_index import (
    HAND,
    HIDDEN,
    INDEX_NAME,
    SELF_OCCLUDED,
    PhotoEntry,
    read_photo_index,
    read_points,
)

FORMAT_VERSION = 3
_PREFIX = "face_"  # numpy's own argument is called `file`
HIDDEN_WEIGHT = 0.4
"""Weight of marked points whose place the annotators guessed."""
FAR_WEIGHT = 0.2
"""Weight of detected points on the side that is turned away: the detector guesses them."""
WRONG_DETECTION = 0.06
"""Detections farther from marked points than this share of the face are left out."""
LOOSE_SOURCES = ("aflw",)
"""Sources whose marked points have a common shift of their own."""
ELSEWHERE = {"aflw": (55, 56, 58, 59)}
"""Marked points by source that lie farther out than other sources put them: the lower lip's border
of AFLW, by 5 of 224 pixels. They are not learned from."""
CURVE_POINTS = 9
"""Points along the jaw line of profiles: evenly spread, not fixed places."""


@dataclass(frozen=True)
class FaceTable:
    """N photos; points in photo pixels, first pixel (0, 0), NaN where not known.

    Attributes:
        file: [N] path relative to the folder.
        source, subject: [N] names.
        mask: [N] path of a CelebAMask-HQ mask that people drew, or "".
        detected: [N, 468, 2] float32.
        detected_weight: [N, 468] float32.
        marked: [N, 68, 2] float32, iBUG's order.
        marked_weight: [N, 68] float32.
        loose: [N] bool, the marked points have a common shift.
        curve: [N, 9, 2] float32, points on the jaw line from ear to chin.
        curve_left: [N] bool, the line is on the person's left.
    """

    file: np.ndarray
    source: np.ndarray
    subject: np.ndarray
    mask: np.ndarray
    detected: np.ndarray
    detected_weight: np.ndarray
    marked: np.ndarray
    marked_weight: np.ndarray
    loose: np.ndarray
    curve: np.ndarray
    curve_left: np.ndarray

    def __len__(self) -> int:
        return len(self.file)

    def frame_points(self, row: int) -> np.ndarray:
        """Points [n, 2] whose box is the face's: marked ones if all are there, else the rest."""
        marked = self.marked[row][np.isfinite(self.marked[row, :, 0])]
        if len(marked) == len(self.marked[row]):
            return marked
        detected = self.detected[row, load_face_mesh().landmarks_68]
        if np.isfinite(detected).all():
            return detected
        curve = self.curve[row]
        return np.concatenate([marked, curve[np.isfinite(curve[:, 0])]])


def table_key(photos: Path, split: str, detections: Path | None) -> str:
    """Hash of what a table is made from: index or names of photos, detections, the rules above."""
    digest = hashlib.sha256(f"{FORMAT_VERSION} {split}".encode())
    if not (photos / INDEX_NAME).is_file():
        names = "\n".join(entry.file for entry in read_photo_index(photos))
        digest.update(names.encode("utf-8", "surrogateescape"))
    for path in (photos / INDEX_NAME, detections):
        if path is not None and path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def table_hash(table: FaceTable) -> str:
    """Hash of everything a table says."""
    digest = hashlib.sha256()
    for f in fields(FaceTable):
        values = np.ascontiguousarray(getattr(table, f.name))
        digest.update("\n".join(values).encode() if values.dtype.kind == "U" else values.tobytes())
    return digest.hexdigest()[:16]


def load_detections(path: Path) -> dict[str, np.ndarray]:
    """Detected points [468, 3] by file, of an `.npz` with `names` and `pts`.

    Raises:
        ValueError: if it is no such file.
    """
    arrays = read_npz(path)
    if not {"names", "pts"} <= arrays.keys() or arrays["pts"].shape[1] < POINT_COUNT:
        raise ValueError(f"{path} holds no detections (arrays names and pts [N, 468+, 3])")
    points = arrays["pts"][:, :POINT_COUNT]
    return {str(name): points[row] for row, name in enumerate(arrays["names"])}


def make_table(photos: Path, split: str, detections: Mapping[str, np.ndarray]) -> FaceTable:
    """The photos of a split of which anything is known.

    Args:
        photos: folder of photos, see `io.photo_index.read_photo_index`.
        split: "train", "val" or "test".
        detections: file to detected points [468, 3], pixels, z in pixels.

    Raises:
        ValueError: if nothing is left, or files of points are unusable.
    """
    rows = []
    for entry in read_photo_index(photos, usable=detections):
        if entry.split == split:
            row = _row(photos, entry, detections.get(entry.file))
            if row is not None:
                rows.append(row)
    if not rows:
        raise ValueError(
            f"no photo of {photos} for the split {split!r} has a face or hand-made points; "
            "training needs photos with faces, one of them to be validated on"
        )
    return FaceTable(**{f.name: np.stack([row[f.name] for row in rows]) for f in fields(FaceTable)})


def save_table(path: Path, table: FaceTable) -> None:
    """Write a table as `.npz`, whole or not at all."""
    arrays = {f"{_PREFIX}{f.name}": getattr(table, f.name) for f in fields(FaceTable)}
    with replace_on_success(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def load_table(path: Path) -> FaceTable:
    """Read `save_table`'s file.

    Raises:
        ValueError: if it is no such file.
    """
    arrays = read_npz(path)
    missing = [f.name for f in fields(FaceTable) if f"{_PREFIX}{f.name}" not in arrays]
    if missing:
        raise ValueError(f"{path} is not a table of faces: it lacks {', '.join(missing)}")
    return FaceTable(**{f.name: arrays[f"{_PREFIX}{f.name}"] for f in fields(FaceTable)})


def _row(photos: Path, entry: PhotoEntry, found: np.ndarray | None) -> dict | None:
    """One photo's line of the table; None where nothing is known."""
    marked, weight = np.full((68, 2), np.nan), np.zeros(68)
    curve, curve_left = np.full((CURVE_POINTS, 2), np.nan), False
    hand = read_points(photos, entry)
    if hand is not None:
        marked = hand.points_68.copy()
        weight = np.where(hand.visibility == HIDDEN, HIDDEN_WEIGHT, 1.0)
        weight[(hand.visibility == SELF_OCCLUDED) | ~np.isfinite(marked[:, 0])] = 0
        weight[list(ELSEWHERE.get(entry.source, ()))] = 0
        if hand.points_30 is not None:
            curve, curve_left = hand.points_30[:CURVE_POINTS], hand.side == "left"
    detected, detected_weight = _detected(found, marked, weight)
    if not (weight.any() or detected_weight.any() or np.isfinite(curve).any()):
        return None
    return {
        "file": np.array(entry.file),
        "source": np.array(entry.source),
        "subject": np.array(f"{entry.source}/{entry.subject}"),
        "mask": np.array(entry.mask if entry.mask_from == HAND else ""),
        "detected": detected.astype(np.float32),
        "detected_weight": detected_weight.astype(np.float32),
        "marked": marked.astype(np.float32),
        "marked_weight": weight.astype(np.float32),
        "loose": np.array(entry.source in LOOSE_SOURCES),
        "curve": curve.astype(np.float32),
        "curve_left": np.array(curve_left),
    }


def _detected(
    found: np.ndarray | None, marked: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Detected points in the picture and their weights; NaN and 0 where they are wrong."""
    nothing = np.full((POINT_COUNT, 2), np.nan), np.zeros(POINT_COUNT)
    if found is None or not np.isfinite(found).all():
        return nothing
    mesh = load_face_mesh()
    inner = np.arange(17, 68)
    inner = inner[weight[inner] > 0]
    if len(inner) > 4:
        size = np.ptp(found[:, :2], axis=0).max()
        off = np.linalg.norm(found[mesh.landmarks_68[inner], :2] - marked[inner], axis=1)
        if np.median(off) > WRONG_DETECTION * size:
            return nothing
    toward = _toward_camera(estimate_pose(found.astype(np.float64)))
    return found[:, :2], np.where(toward, 1.0, FAR_WEIGHT)


def _toward_camera(pose: np.ndarray) -> np.ndarray:
    """Which of the 468 points of a posed mean face look toward the camera, [468] bool."""
    import torch

    mesh = load_face_mesh()
    rotation = euler_to_matrix(torch.from_numpy(pose)[None])[0].numpy()
    posed = mesh.mean @ rotation
    corners = posed[mesh.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros((POINT_COUNT, 3))
    for k in range(3):
        np.add.at(total, mesh.triangles[:, k], normals)
    flat = mesh.mean[mesh.triangles]
    straight = np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0])[:, 2].sum()
    return total[:, 2] * np.sign(straight) > 0


def rows_by_source(
    table: FaceTable, sources: Sequence[str], rare: int = 1
) -> dict[str, np.ndarray]:
    """Rows of each source that the table has; those of `rare_faces` so many times."""
    times = np.where(rare_faces(table), rare, 1)
    found = {name: np.flatnonzero(table.source == name) for name in sources}
    return {name: rows.repeat(times[rows]) for name, rows in found.items() if len(rows)}


def rare_faces(table: FaceTable) -> np.ndarray:
    """[N] whether an eye is closed or the mouth open, by marked points, else by detected ones."""
    detected = table.detected[:, load_face_mesh().landmarks_68]
    marked, found = (
        openings_of_points(torch.from_numpy(points).double()).numpy()
        for points in (table.marked, detected)
    )
    openings = np.where(np.isfinite(marked), marked, found)  # a comparison with NaN is False
    return (openings[:, :2] < CLOSED_EYE).any(1) | (openings[:, 2] > OPEN_MOUTH)


def known_shares(table: FaceTable, shares: Mapping[str, float]) -> dict[str, float]:
    """Shares of the sources that a table has.

    Where it has none of them, as that of any folder of photos, each of its own sources counts by
    its number of photos.
    """
    found = {name: share for name, share in shares.items() if (table.source == name).any()}
    if any(found.values()):
        return found
    names, counts = np.unique(table.source, return_counts=True)
    return {str(name): float(count) for name, count in zip(names, counts, strict=True)}
