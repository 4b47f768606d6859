"""ICT-FaceKit's mean head and identity modes (MIT): the statistics that PhotoHead learns from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from v3recon.io.arrays import read_npz
from v3recon.io.json_file import read_json
from v3recon.photohead.registration import Surface, edges_of, triangulate

_OUTSIDE_POLYGONS = 14034
_OUTSIDE_VERTICES = 11248
"""Face, head and neck without mouth and sockets: vertices below the second of polygons below the
first."""
_EYEBALLS = {"left": slice(21451, 23021), "right": slice(23021, 24591)}
_TEETH = slice(17039, 21451)
_FACE_VERTICES = 9409


@dataclass(frozen=True)
class ScanModel:
    """Mean and modes of scanned heads. Centimeters, y up, z to the front.

    Attributes:
        mean: [V, 3].
        modes: [K, V, 3] per standard deviation.
        outside: [F, 3] triangles of face, head and neck.
        landmarks_68: [68] Multi-PIE points, vertex ids.
    """

    mean: np.ndarray
    modes: np.ndarray
    outside: np.ndarray
    landmarks_68: np.ndarray

    @property
    def face_ids(self) -> np.ndarray:
        """Vertices of the face without the rest of the head."""
        ids = np.unique(self.outside)
        return ids[ids < _FACE_VERTICES]

    def surface(self) -> Surface:
        """The outside of the mean head."""
        return Surface.of(self.mean, self.outside)

    def eyeball_ids(self, side: str) -> np.ndarray:
        """Vertices of the eyeball of a side, "left" or "right"."""
        return np.arange(len(self.mean))[_EYEBALLS[side]]

    def teeth_ids(self) -> np.ndarray:
        """Vertices of all teeth."""
        return np.arange(len(self.mean))[_TEETH]

    def path(self, landmarks: list[int]) -> np.ndarray:
        """Vertex ids along the shortest way over the surface through Multi-PIE points."""
        edges = edges_of(self.outside)
        length = np.linalg.norm(self.mean[edges[:, 0]] - self.mean[edges[:, 1]], axis=1)
        count = len(self.mean)
        graph = sparse.csr_matrix((length, (edges[:, 0], edges[:, 1])), shape=(count, count))
        ids = self.landmarks_68[landmarks]
        way = [int(ids[0])]
        for first, last in pairwise(ids):
            _, before = dijkstra(graph, directed=False, indices=first, return_predecessors=True)
            part = [int(last)]
            while part[-1] != first:
                part.append(int(before[part[-1]]))
            way += part[::-1][1:]
        return np.array(way)


def read_scan_model(folder: Path) -> ScanModel:
    """Read `ict_facekit.npz` and `ict_facekit_indices.json`.

    Raises:
        ValueError: if a file is absent or not what its name says.
    """
    path, indices = folder / "ict_facekit.npz", folder / "ict_facekit_indices.json"
    try:
        file = read_npz(path, ("mean", "identity", "polygons"), max_bytes=1 << 30)
        mean = file["mean"].astype(np.float64)
        modes = file["identity"].astype(np.float64)
        polygons = file["polygons"][:_OUTSIDE_POLYGONS].astype(np.int64)
        landmarks = np.array(read_json(indices)["idx_to_landmark_verts"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"cannot read the scan statistics in {folder}: {error}") from error
    if modes.ndim != 3 or modes.shape[1:] != mean.shape or landmarks.shape != (68,):
        raise ValueError(f"{path} is not ICT-FaceKit: modes {modes.shape}, mean {mean.shape}")
    return ScanModel(
        mean=mean,
        modes=modes,
        outside=triangulate(polygons[(polygons < _OUTSIDE_VERTICES).all(1)]),
        landmarks_68=landmarks,
    )
