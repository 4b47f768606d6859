"""Where the 468 points of a photo come from: MediaPipe or stored detections."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from v3recon.face_models.detector_mesh import POINT_COUNT
from v3recon.io.arrays import read_npz
from v3recon.io.atomic import replace_on_success

MeshDetector = Callable[[Path, str, np.ndarray], list[np.ndarray]]
"""(path, file name, [H, W, 3] uint8 RGB) -> meshes [468, 3], pixels, z toward the camera."""


class NoMeshDetectorError(ValueError):
    """No way to detect meshes; says what to install or pass."""


def mediapipe_detector(max_faces: int = 4) -> MeshDetector:
    """Detections by MediaPipe Face Mesh (about 5 ms a photo and core).

    Raises:
        NoMeshDetectorError: if mediapipe is not installed.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        from mediapipe.python.solutions import face_mesh  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NoMeshDetectorError(
            "mediapipe is not installed: pip install --no-deps -r requirements-nodeps.txt;"
            " or give stored detections with --meshes FILE.npz"
        ) from error
    network = face_mesh.FaceMesh(
        static_image_mode=True, refine_landmarks=True, max_num_faces=max_faces
    )

    def detect(path: Path, file: str, image: np.ndarray) -> list[np.ndarray]:
        height, width = image.shape[:2]
        result = network.process(np.ascontiguousarray(image))
        found = getattr(result, "multi_face_landmarks", None) or []
        meshes = []
        for face in found:
            points = np.array([(p.x, p.y, p.z) for p in face.landmark[:POINT_COUNT]])
            points *= [width, height, -width]  # its z shares the scale of x, away from the camera
            points[:, :2] -= 0.5  # its origin is the corner of the first pixel
            meshes.append(points)
        return meshes

    return detect


MAX_DETECTIONS = 1 << 31
"""Bytes of the largest file of detections that is read: a third of a million faces."""


def stored_detector(paths: list[Path]) -> MeshDetector:
    """Detections from `.npz` files with `names` and `pts` [N, 468 or more, 3].

    Raises:
        ValueError: if a file is not such a file.
    """
    stored: dict[str, np.ndarray] = {}
    for path in paths:
        arrays = read_npz(path, ("names", "pts"), max_bytes=MAX_DETECTIONS)
        names, points = arrays["names"], arrays["pts"]
        points = points[:, :POINT_COUNT] if points.ndim == 3 else points
        fits = points.shape[1:] == (POINT_COUNT, 3) and names.shape == points.shape[:1]
        if not fits or points.dtype.kind != "f":
            raise ValueError(f"{path}: pts is {points.shape}, names {names.shape}")
        stored.update(zip(names.tolist(), points, strict=True))

    def detect(path: Path, file: str, image: np.ndarray) -> list[np.ndarray]:
        return [stored[file].astype(np.float64)] if file in stored else []

    return detect


def store_detections(path: Path, names: Sequence[str], points: Sequence[np.ndarray]) -> None:
    """Write what `stored_detector` reads, whole or not at all.

    Args:
        path: `.npz` file.
        names: N files, as an index names them.
        points: N arrays [468, 3].
    """
    with replace_on_success(path) as temporary:
        np.savez(
            temporary,
            names=np.array(names, dtype=np.str_),
            pts=np.array(points, np.float32).reshape(len(points), POINT_COUNT, 3),
        )
