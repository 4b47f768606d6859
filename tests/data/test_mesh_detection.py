from __future__ import annotations

import numpy as np
import pytest

from v3recon.data.mesh_detection import store_detections, stored_detector


def test_stored_detections_come_back(tmp_path):
    points = np.random.default_rng(0).random((2, 468, 3)).astype(np.float32)
    store_detections(tmp_path / "m.npz", ["a.jpg", "é.jpg"], list(points))
    detect = stored_detector([tmp_path / "m.npz"])
    image = np.zeros((2, 2, 3), np.uint8)
    (found,) = detect(tmp_path, "é.jpg", image)
    np.testing.assert_array_equal(found, points[1])
    assert detect(tmp_path, "b.jpg", image) == []


def test_stored_detections_are_checked(tmp_path):
    np.savez(tmp_path / "m.npz", names=np.array(["a"]), pts=np.zeros((1, 5, 3)))
    with pytest.raises(ValueError, match=r"pts is \(1, 5, 3\)"):
        stored_detector([tmp_path / "m.npz"])
    (tmp_path / "t.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"t\.npz: not a \.npz file"):
        stored_detector([tmp_path / "t.npz"])
