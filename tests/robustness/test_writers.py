"""Whatever numbers come: what is written is finite and in its format's range, or nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from v3recon.io.images import read_image, write_png
from v3recon.io.obj import read_obj, write_obj
from v3recon.io.reference_npy import PlacedMask, write_reference_npy
from v3recon.reconstruct.values import write_arrays, write_json

ODD = (np.nan, np.inf, -np.inf, 1e38, -1e-38, 1e9, -3.0, 0.0, 1.0, 255.0)


def numbers(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Ordinary numbers, with a few odd ones in half of the cases."""
    values = random.normal(0, 2, shape)
    if random.random() < 0.5:
        for _ in range(int(random.integers(1, 4))):
            values.flat[int(random.integers(values.size))] = random.choice(ODD)
    return values


def obj(path: Path, random: np.random.Generator) -> None:
    write_obj(
        path,
        numbers(random, 9, 3),
        random.integers(-1 if random.random() < 0.2 else 0, 9, (5, 3)),
        colors=numbers(random, 9, 3) if random.random() < 0.7 else None,
        uv_coords=numbers(random, 9, 2) if random.random() < 0.3 else None,
    )


def check_obj(path: Path) -> None:
    words = path.read_text().split("\n", 1)[1].lower().split()
    assert not {"nan", "inf", "-inf"} & set(words)
    mesh = read_obj(path)
    assert np.isfinite(mesh.vertices).all() and mesh.faces.min() >= 0
    assert mesh.colors is None or (0 <= mesh.colors.min() and mesh.colors.max() <= 1)


def as_json(path: Path, random: np.random.Generator) -> None:
    write_json(path, {"points": numbers(random, 4, 2), "score": random.choice(ODD), "n": 3})


def check_json(path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(path.read_text(), parse_constant=refuse)


def npz(path: Path, random: np.random.Generator) -> None:
    write_arrays(path, {"vertices": numbers(random, 4, 3)}, {"quality": random.choice(ODD)})


def check_npz(path: Path) -> None:
    with np.load(path, allow_pickle=False) as file:
        assert np.isfinite(file["vertices"]).all()
        check_text = json.loads(str(file["origin"]))
        assert set(check_text) == {"quality"}


def npy(path: Path, random: np.random.Generator) -> None:
    masks = random.integers(0, 2, (5, 6, 8)).astype(np.uint8)
    points = numbers(random, 68, 2).astype(np.float32)
    write_reference_npy(path, {"ldm68": points, "seg": PlacedMask(masks, 255.0)})


def check_npy(path: Path) -> None:
    found = np.load(path, allow_pickle=True).item()
    assert np.isfinite(found["ldm68"]).all() and set(np.unique(found["seg"])) <= {0.0, 255.0}


def png(path: Path, random: np.random.Generator) -> None:
    image = numbers(random, 4, 5, 3)
    write_png(path, image if random.random() < 0.5 else np.abs(np.nan_to_num(image)).astype("u1"))


WRITERS = {
    ".obj": (obj, check_obj),
    ".json": (as_json, check_json),
    ".npz": (npz, check_npz),
    ".npy": (npy, check_npy),
    ".png": (png, read_image),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", WRITERS)
def test_numbers_in_files(tmp_path, suffix):
    write, check = WRITERS[suffix]
    written = 0
    for seed in range(60):
        path = tmp_path / f"{seed}{suffix}"
        try:
            write(path, np.random.default_rng(seed))
        except (ValueError, AssertionError):
            assert not path.exists(), "refused, so nothing is written"
            continue
        check(path)
        written += 1
    assert written >= 10
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
