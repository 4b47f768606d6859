"""A tiny prepared set: drawn ovals with the mean face's points, hand-made marks on some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from v3recon.data.samples import LABELS_HAND, LABELS_NONE, FaceRecord
from v3recon.data.shards import PreparedFace, write_shard
from v3recon.face_models.detector_mesh import load_face_mesh


def _record(number: int, rng: np.random.Generator) -> FaceRecord:
    mesh = load_face_mesh()
    size = 96
    points = mesh.mean * [38.0, -38.0, 38.0] + [size / 2, size / 2, 0]
    points = points + rng.normal(0, 0.3, points.shape)
    marked = number % 2 == 0
    landmarks = points[mesh.landmarks_68] if marked else np.full((68, 3), np.nan)
    labels = np.zeros((size, size), np.uint8)
    if marked:
        low, high = points[:, :2].min(0).astype(int), points[:, :2].max(0).astype(int)
        labels[low[1] : high[1], low[0] : high[0]] = 8
        nose = points[1, :2].astype(int)
        labels[nose[1] - 8 : nose[1] + 4, nose[0] - 5 : nose[0] + 5] = 5
    return FaceRecord(
        image=rng.integers(0, 255, (size, size, 3), dtype=np.uint8),
        points=points.astype(np.float32),
        landmarks_68=landmarks.astype(np.float32),
        labels=labels if marked else None,
        labels_source=LABELS_HAND if marked else LABELS_NONE,
        pose=np.zeros(3, np.float32),
        source=0,
        name=f"face{number}.png",
    )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and four validation faces on disk."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        faces = [PreparedFace(_record(i, rng), np.eye(2, 3)) for i in range(count)]
        write_shard(folder / split / "000", faces, ["drawn"], [])
    return folder
