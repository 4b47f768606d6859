from __future__ import annotations

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

from v3recon.io.reference_npy import PlacedMask, box_of, write_reference_npy


@pytest.fixture
def masks() -> np.ndarray:
    masks = np.zeros((40, 60, 8), np.uint8)
    masks[5:20, 10:30] = np.random.default_rng(0).integers(0, 2, (15, 20, 8))
    masks[5, 10, 0] = masks[19, 29, 7] = 1
    return masks


def test_it_loads_as_the_reference_program_writes_it(tmp_path, masks):
    points = np.random.default_rng(1).random((68, 2)).astype(np.float32)
    labels = masks[..., :1] * 3
    values = {"ldm68": points, "seg_visible": PlacedMask(labels), "seg": PlacedMask(masks, 255.0)}
    write_reference_npy(tmp_path / "a.npy", values)
    found = np.load(tmp_path / "a.npy", allow_pickle=True)
    assert found.shape == () and found.dtype == object
    found = found.item()
    assert list(found) == ["ldm68", "seg_visible", "seg"]
    for key, expected, dtype in (
        ("ldm68", points, np.float32),
        ("seg_visible", labels, np.float64),
        ("seg", masks * 255.0, np.float64),
    ):
        assert type(found[key]) is np.ndarray and found[key].dtype == dtype
        assert found[key].flags.writeable
        np.testing.assert_array_equal(found[key], expected)


def test_it_names_nothing_that_an_old_numpy_lacks(tmp_path, masks):
    """Any numpy from 1.21 to 2.x, and no module of this package."""
    write_reference_npy(tmp_path / "a.npy", {"x": np.arange(3.0), "seg": PlacedMask(masks, 255.0)})
    data = (tmp_path / "a.npy").read_bytes()
    start = 10 + int.from_bytes(data[8:10], "little")
    names = set()

    class Noting(pickle.Unpickler):
        def find_class(self, module: str, name: str):
            names.add((module, name))
            return super().find_class(module, name)

    Noting(io.BytesIO(data[start:])).load()
    functions = {("numpy", name) for name in ("array", "ndarray", "pad", "where")}
    assert names == functions | {("zlib", "decompress")}
    code = "import sys, numpy; numpy.load('a.npy', allow_pickle=True).item(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "v3recon" not in done.stdout.split()


def test_small_faces_of_large_photos_are_small(tmp_path):
    masks = np.zeros((4000, 6000, 8), np.uint8)
    masks[1000:1060, 2000:2050] = 1
    values = {"seg": PlacedMask(masks, 255.0), "seg_visible": PlacedMask(masks[..., :1])}
    write_reference_npy(tmp_path / "a.npy", values)
    assert (tmp_path / "a.npy").stat().st_size < 2_000


def test_nothing_in_a_mask(tmp_path):
    write_reference_npy(tmp_path / "a.npy", {"seg": PlacedMask(np.zeros((3, 4, 8), np.uint8), 255)})
    found = np.load(tmp_path / "a.npy", allow_pickle=True).item()["seg"]
    np.testing.assert_array_equal(found, np.zeros((3, 4, 8)))
    assert box_of(np.zeros((3, 4), bool)) == (0, 0, 0, 0)


def test_numbers_must_be_finite(tmp_path):
    with pytest.raises(ValueError, match="ldm68 has values that are not finite"):
        write_reference_npy(tmp_path / "a.npy", {"ldm68": np.array([np.nan])})
    assert not list(tmp_path.iterdir())
