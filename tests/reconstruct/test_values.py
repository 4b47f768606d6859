from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from v3recon.reconstruct.values import PackedMasks, write_json, write_results


def test_packed_masks_load_as_a_plain_array_without_this_package(tmp_path):
    masks = np.random.default_rng(0).random((5, 7, 8)) > 0.5
    bits = sum(masks[..., part].astype(np.uint8) << part for part in range(8)).astype(np.uint8)
    np.testing.assert_array_equal(PackedMasks(bits).unpack(), masks)
    write_results(tmp_path / "a.npy", {"seg": PackedMasks(bits), "ldm68": np.ones((68, 2))})
    np.save(tmp_path / "masks.npy", masks)
    code = (
        "import sys, numpy as np\n"
        "found = np.load('a.npy', allow_pickle=True).item()\n"
        "assert not any(name.split('.')[0] == 'v3recon' for name in sys.modules)\n"
        "assert type(found['seg']) is np.ndarray and found['seg'].dtype == np.uint8\n"
        "assert (found['seg'] == np.load('masks.npy')).all() and found['ldm68'].shape == (68, 2)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_packed_masks_are_small(tmp_path):
    write_results(tmp_path / "a.npy", {"seg": PackedMasks(np.zeros((200, 300), np.uint8))})
    assert (tmp_path / "a.npy").stat().st_size < 61_000


def test_json_twin(tmp_path):
    values = {"points": np.array([[1, 2.123456789]], np.float32), "name": "é", "none": None}
    write_json(tmp_path / "a.json", {**values, "nested": {"score": np.float32(0.5)}})
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert found == {
        "points": [[1.0, 2.123457]],
        "name": "é",
        "none": None,
        "nested": {"score": 0.5},
    }
