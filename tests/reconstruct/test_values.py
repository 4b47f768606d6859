from __future__ import annotations

import json

import numpy as np

from v3recon.reconstruct.values import write_json


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


def test_json_of_odd_values(tmp_path):
    """What JSON cannot hold: numbers that are not finite, names that are no UTF-8."""
    write_json(tmp_path / "a.json", {"x": np.array([1, np.nan, np.inf]), "photo": "a\udcff"})
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert found == {"x": [1.0, None, None], "photo": "a\udcff"}
