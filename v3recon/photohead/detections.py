"""MediaPipe's 478 points of every photo, kept in a file so that a build can be resumed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from v3recon.io.arrays import read_npz
from v3recon.io.atomic import replace_on_success
from v3recon.io.images import read_image

POINT_COUNT = 478
_SAVE_EVERY = 1000
_MAX_FACES = 3
_MAX_CACHE = 1 << 31  # bytes: a third of a million faces
_network = None  # one a process, made by `_start`


@dataclass(frozen=True)
class Detections:
    """Detected points of the photos with a face.

    Attributes:
        names: files relative to the folder of photos, sorted.
        points: [N, 478, 3] float32 pixels: x right, y down, the first pixel's centre is (0, 0);
            z toward the camera, in pixels as well.
        faceless: photos without a face.
        unreadable: photos that could not be read, with the reason.
    """

    names: list[str]
    points: np.ndarray
    faceless: list[str]
    unreadable: dict[str, str]


def tessellation() -> set[tuple[int, int]]:
    """Edges of the detector's mesh graph, smaller id first."""
    try:
        from mediapipe.python.solutions import face_mesh_connections  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(_install_message()) from error
    return {(min(a, b), max(a, b)) for a, b in face_mesh_connections.FACEMESH_TESSELATION}


def detect_photos(folder: Path, names: list[str], cache: Path, workers: int = 2) -> Detections:
    """Detect the most central large face of every photo.

    Args:
        folder: of the photos.
        names: files relative to it.
        cache: `.npz` that is read first and written every thousand photos. Photos whose size in
            bytes has changed are detected again.
        workers: processes.

    Raises:
        ValueError: if MediaPipe is not installed though photos remain, or the cache is damaged.
    """
    known = _read_cache(cache)
    sizes = {name: _file_size(folder / name) for name in names}
    todo = [name for name in names if name not in known or known[name][0] != sizes[name]]
    if todo:
        tessellation()  # says what to install, before any process is started
        for count, (name, found) in enumerate(_run(folder, todo, workers), 1):
            known[name] = (sizes[name], *found)
            if count % _SAVE_EVERY == 0:
                _write_cache(cache, known)
        _write_cache(cache, known)
    seen = [name for name in sorted(names) if known[name][1] is not None]
    points = _stack(known, seen)
    return Detections(
        names=seen,
        points=points,
        faceless=[n for n in sorted(names) if known[n][1] is None and not known[n][2]],
        unreadable={n: known[n][2] for n in sorted(names) if known[n][2]},
    )


Entry = tuple[int, np.ndarray | None, str]  # size in bytes, points, why it could not be read


def _run(
    folder: Path, names: list[str], workers: int
) -> Iterator[tuple[str, tuple[np.ndarray | None, str]]]:
    paths = [str(folder / name) for name in names]
    # Fork would copy the parent's threads' locks; spawned processes start clean.
    context = multiprocessing.get_context("spawn")
    with context.Pool(max(1, workers), initializer=_start) as pool:
        found = pool.imap(_detect, paths, chunksize=16)
        yield from zip(names, tqdm(found, "detections", len(names), unit="photo"), strict=True)


def _start() -> None:
    global _network
    os.environ.setdefault("GLOG_minloglevel", "2")
    from mediapipe.python.solutions import face_mesh  # pyright: ignore[reportMissingImports]

    _network = face_mesh.FaceMesh(
        static_image_mode=True, refine_landmarks=True, max_num_faces=_MAX_FACES
    )


def _detect(path: str) -> tuple[np.ndarray | None, str]:
    assert _network is not None
    try:
        image = read_image(path)
    except ValueError as error:
        return None, str(error)
    height, width = image.shape[:2]
    result = _network.process(np.ascontiguousarray(image))
    best, best_score = None, -np.inf
    for face in getattr(result, "multi_face_landmarks", None) or []:
        points = np.array([(p.x, p.y, p.z) for p in face.landmark]) * [width, height, -width]
        points[:, :2] -= 0.5
        area = np.ptp(points[:, 0]) * np.ptp(points[:, 1]) / (width * height)
        off_center = np.hypot(points[:, 0].mean() - width / 2, points[:, 1].mean() - height / 2)
        score = area - off_center / width
        if score > best_score:
            best, best_score = points.astype(np.float32), score
    return best, ""


def _stack(known: dict[str, Entry], names: list[str]) -> np.ndarray:
    """Points [N, 478, 3] of photos with a face."""
    found = [points for points in (known[name][1] for name in names) if points is not None]
    return np.stack(found) if found else np.zeros((0, POINT_COUNT, 3), np.float32)


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _read_cache(path: Path) -> dict[str, Entry]:
    if not path.is_file():
        return {}
    try:
        file = read_npz(path, max_bytes=_MAX_CACHE)
        names, sizes, reasons = file["all_names"], file["sizes"], file["reasons"]
        points = dict(zip(file["names"].tolist(), file["pts"], strict=True))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is no file of detections; delete it ({error})") from error
    return {
        name: (size, points.get(name), reason)
        for name, size, reason in zip(names.tolist(), sizes.tolist(), reasons.tolist(), strict=True)
    }


def _write_cache(path: Path, known: dict[str, Entry]) -> None:
    names = sorted(known)
    seen = [name for name in names if known[name][1] is not None]
    with replace_on_success(path) as temporary:
        np.savez(
            temporary,
            all_names=np.array(names, dtype=str),
            sizes=np.array([known[name][0] for name in names]),
            reasons=np.array([known[name][2] for name in names], dtype=str),
            names=np.array(seen, dtype=str),
            pts=_stack(known, seen),
        )


def _install_message() -> str:
    return (
        "detecting the 468 points of faces needs MediaPipe: `make build-env`, or `pip install -r "
        "requirements-build.txt` and `pip install --no-deps -r requirements-build-nodeps.txt`"
    )
