from __future__ import annotations

import json

import numpy as np
import pytest

from v3recon.cli.evaluate import main
from v3recon.data.samples import LABELS_NONE, FaceRecord, ProfiledValidation
from v3recon.data.shards import PreparedFace, PreparedSet, write_shard
from v3recon.evaluation.profiled import turned_photo
from v3recon.face_models.detector_mesh import load_face_mesh


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Three drawn frontal faces, the last with hand-made points 3 pixels lower."""
    folder = tmp_path_factory.mktemp("prepared")
    mesh = load_face_mesh()
    rng = np.random.default_rng(0)
    points = mesh.mean * [40.0, -40.0, 40.0] + [64.0, 64.0, 0.0]
    faces = []
    for number in range(3):
        hand = points[mesh.landmarks_68] + [0.0, 3.0, 0.0]
        record = FaceRecord(
            image=rng.integers(0, 255, (128, 128, 3), dtype=np.uint8),
            points=points.astype(np.float32),
            landmarks_68=(hand if number == 2 else np.full((68, 3), np.nan)).astype(np.float32),
            labels=None,
            labels_source=LABELS_NONE,
            pose=np.zeros(3, np.float32),
            source=0,
            name=f"face{number}.png",
        )
        faces.append(PreparedFace(record, np.eye(2, 3)))
    write_shard(folder / "val" / "00000", faces, ["drawn"], [])
    return folder


def test_points_of_a_turned_picture_are_those_of_training(prepared):
    photos = ProfiledValidation(PreparedSet(prepared, "val"), 112)
    for index in range(2):
        crop = photos[index].points[load_face_mesh().landmarks_68, :2]
        wide = turned_photo(photos, index).points.numpy()
        # The same points in another crop: equal up to scale and shift.
        scale = np.ptp(wide[:, 1]) / np.ptp(crop[:, 1])
        aligned = (wide - wide.mean(0)) / scale
        np.testing.assert_allclose(aligned, crop - crop.mean(0), atol=1e-3)
        assert wide.min() > 0 and wide.max() < 112


def test_hand_made_points_ride_along(prepared):
    photos = ProfiledValidation(PreparedSet(prepared, "val"), 200)
    plain, hand = turned_photo(photos, 0), turned_photo(photos, 2)
    assert hand.hand_made and not plain.hand_made


def test_profiled_benchmark(prepared, tmp_path, random_weights):
    path = tmp_path / "figures.json"
    flags = ["--prepared", str(prepared), "--weights", str(random_weights), "--device", "cpu"]
    assert main(["profiled", *flags, "--size", "128", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert figures["photos"] == 3 and figures["found_rate"] == 1
    # The network is random and shows a frontal face: far from a profile.
    assert figures["nme_68"] == pytest.approx(0.265, abs=0.01)
    flags += ["--crop", "detector", "--size", "128", "--json", str(path)]
    assert main(["profiled", *flags]) == 0
    figures = json.loads(path.read_text())
    assert figures["found_rate"] == 0 and figures["nme_68"] is None
    assert len(figures["failures"]) == 3
