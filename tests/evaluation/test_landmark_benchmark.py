from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from v3recon.cli.evaluate import main
from v3recon.evaluation.predict import FacePlace, choose_detection
from v3recon.types import Detection


def _write_pts(path: Path, points: np.ndarray) -> None:
    """Points [N, 2] with the first pixel at 0 as a 300-W file, whose first pixel is 1."""
    rows = "\n".join(f"{x:.6f} {y:.6f}" for x, y in points + 1)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n")


@pytest.fixture
def truth() -> np.ndarray:
    """68 points [68, 2] in a box 100 wide and 64 high, outer eye corners 50 apart."""
    rng = np.random.default_rng(0)
    points = rng.uniform([20, 30], [120, 94], (68, 2))
    points[:2] = [[20, 30], [120, 94]]
    points[[36, 45]] = [[40, 50], [90, 50]]
    return points


@pytest.fixture
def folder(tmp_path, truth, example_photo) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for name in ("a", "b"):
        shutil.copy(example_photo, path / f"{name}.jpg")
        _write_pts(path / f"{name}.pts", truth)
    return path


def _run(folder: Path, tmp_path: Path, *flags: str) -> tuple[int, dict]:
    path = tmp_path / "figures.json"
    status = main(["landmarks", "--root", str(folder), "--json", str(path), *flags])
    return status, json.loads(path.read_text()) if path.exists() else {}


def test_known_predictions_give_their_score(folder, tmp_path, truth):
    predictions = np.stack([truth + np.array([6.0, 0]), truth]) + 1  # the files count from 1
    predictions[1, :17, 1] += 16  # the jaw only
    np.save(tmp_path / "points.npy", predictions.transpose(0, 2, 1))
    status, figures = _run(folder, tmp_path, "--predictions", str(tmp_path / "points.npy"))
    assert status == 0
    jaw = 16 * 17 / 68  # mean distance of the second face
    means = {name: one["mean"] for name, one in figures["nme"].items()}
    assert means == pytest.approx(
        {
            "68, predictions, by box": (6 + jaw) / 2 / 80,
            "inner 51, by box": 6 / 2 / 80,
            "68, predictions, by eye corners": (6 + jaw) / 2 / 50,
            "inner 51, by eye corners": 6 / 2 / 50,
        },
        abs=1e-6,
    )
    assert figures["large_errors"]["count"] == 0


def test_not_found_counts_as_failure(folder, tmp_path, truth):
    predictions = np.stack([truth, np.full_like(truth, np.nan)]) + 1
    np.save(tmp_path / "points.npy", predictions.transpose(0, 2, 1))
    status, figures = _run(folder, tmp_path, "--predictions", str(tmp_path / "points.npy"))
    assert status == 0 and figures["failures"] == [{"file": "b.jpg", "reason": "no face found"}]
    assert figures["failure_rate"] == 0.5 and figures["large_errors"]["rate"] == 0.5
    assert figures["headline"]["nme_68"] == pytest.approx(0, abs=1e-9)


def test_own_points_by_the_detector_have_no_error(folder, tmp_path, random_weights, example_photo):
    from v3recon.evaluation.predict import landmarks_68_of
    from v3recon.io.images import read_image
    from v3recon.reconstruct.reconstructor import FaceReconstructor

    reconstructor = FaceReconstructor.from_pretrained(weights=random_weights, device="cpu")
    fixed, _ = landmarks_68_of(reconstructor(read_image(example_photo))[0])
    (folder / "b.jpg").unlink()
    _write_pts(folder / "a.pts", fixed.numpy())
    flags = ["--weights", str(random_weights), "--device", "cpu", "--crop", "detector"]
    worst = tmp_path / "worst.png"
    status, figures = _run(folder, tmp_path, *flags, "--worst", str(worst))
    assert status == 0
    assert figures["nme"]["68, 3D points, by box"]["mean"] < 1e-5
    assert figures["nme"]["68, jaw on outline, by box"]["mean"] > 1e-5
    assert worst.stat().st_size > 1000


def test_bad_input_is_listed(folder, tmp_path, random_weights, truth):
    (folder / "a.pts").write_text("version: 1\n{\n1 2\n")
    for name, points in (("c", truth[:5]), ("d", truth + np.array([400.0, 0])), ("e", 0 * truth)):
        shutil.copy(folder / "a.jpg", folder / f"{name}.jpg")
        _write_pts(folder / f"{name}.pts", points)
    (folder / "f.jpg").write_bytes(b"no photo")
    _write_pts(folder / "f.pts", truth)
    flags = ["--weights", str(random_weights), "--device", "cpu"]
    status, figures = _run(folder, tmp_path, *flags)
    assert status == 1
    reasons = {one["file"]: one["reason"] for one in figures["unusable"]}
    assert sorted(reasons) == ["a.jpg", "c.jpg", "e.jpg"]
    assert "5 points, not 68" in reasons["c.jpg"] and "fall together" in reasons["e.jpg"]
    assert [one["file"] for one in figures["failures"]] == ["f.jpg"]
    assert figures["points_outside_photo"] == 1  # d
    assert figures["photos"] == 3 and figures["scored"] == 2


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["faces"],
        ["landmarks", "--root", "no/such/folder"],
        ["landmarks", "--root", ".", "--passes", "-1"],
        ["landmarks", "--root", ".", "--json", "no/such/folder/figures.json"],
        ["parts", "--images", "no/such", "--masks", "no/such"],
        ["aflw2000", "--root", "no/such/folder"],
    ],
)
def test_wrong_usage(flags, capsys):
    assert main(flags) == 2
    captured = capsys.readouterr()
    assert captured.err or captured.out


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "aflw2000" in capsys.readouterr().out
    assert main(["parts", "--help"]) == 0
    assert "--masks" in capsys.readouterr().out


def test_two_real_photos(shared_dir, tmp_path, random_weights):
    flags = ["--split", "val", "--limit", "2", "--weights", str(random_weights), "--device", "cpu"]
    status, figures = _run(shared_dir / "photos", tmp_path, *flags)
    assert status == 0 and figures["scored"] == 2
    # The mean face in the middle of the right crop is not far off.
    assert 0.02 < figures["headline"]["nme_68"] < 0.2


def test_the_annotated_face_is_chosen_among_the_detected():
    place = FacePlace(torch.tensor([100.0, 100.0, 180.0, 200.0]))

    def face(left: float, top: float, side: float) -> Detection:
        return Detection(torch.tensor([left, top, left + side, top + side]), 0.9)

    right, large = face(78, 75, 125), face(300, 100, 300)
    assert choose_detection([large, right], place) is right
    assert choose_detection([large], place) is None
    assert choose_detection([], place) is None
    assert not math.isnan(right.score)
