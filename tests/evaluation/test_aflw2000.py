from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch

from v3recon.cli.evaluate import main
from v3recon.evaluation.aflw2000 import read_annotation
from v3recon.evaluation.nme import rotation_from_300wlp
from v3recon.face_models.detector_mesh import load_face_mesh

YAWS = (10.0, -20.0, 45.0, -75.0)


def _posed_points(angle: np.ndarray) -> np.ndarray:
    """The mean face's points [3, 68] as such a file stores them: Matlab pixels, z nearer."""
    mesh = load_face_mesh()
    rotation = rotation_from_300wlp(torch.from_numpy(angle)[None])[0].numpy()
    points = mesh.mean[mesh.landmarks_68] @ rotation * [60.0, -60.0, 60.0]
    return (points - points.mean(0) + [101.0, 101.0, 0.0]).T


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    folder = tmp_path / "aflw"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, yaw in enumerate(YAWS):
        angle = np.radians([5.0, yaw, -8.0])
        picture = rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"image{number:05d}.jpg"), picture)
        scipy.io.savemat(
            folder / f"image{number:05d}.mat",
            {
                "pt3d_68": _posed_points(angle),
                "Pose_Para": np.concatenate([angle, np.zeros(4)])[None],
            },
        )
    return folder


def _stored(folder: Path) -> np.ndarray:
    """All stored points (N, 2, 68)."""
    files = sorted(folder.glob("*.mat"))
    return np.stack([scipy.io.loadmat(path)["pt3d_68"][:2] for path in files])


def _shift(points: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Points moved to the right by shares of each face's size: the error is that share."""
    size = np.sqrt(np.prod(np.ptp(points, axis=2), axis=1))
    moved = points.copy()
    moved[:, 0] += (share * size)[:, None]
    return moved


def _run(folder: Path, tmp_path: Path, *flags: str) -> tuple[int, dict]:
    path = tmp_path / "figures.json"
    status = main(["aflw2000", "--root", str(folder), "--json", str(path), *flags])
    return status, json.loads(path.read_text()) if path.exists() else {}


def test_known_predictions_give_their_score(benchmark, tmp_path, capsys):
    share = np.array([0.02, 0.04, 0.05, 0.09])
    np.save(tmp_path / "points.npy", _shift(_stored(benchmark), share))
    worst = tmp_path / "worst.png"
    flags = ["--predictions", str(tmp_path / "points.npy"), "--worst", str(worst)]
    status, figures = _run(benchmark, tmp_path, *flags)
    assert status == 0 and cv2.imread(str(worst)) is not None
    headline = figures["headline"]
    assert headline["bins"] == pytest.approx({"0-30": 0.03, "30-60": 0.05, "60-90": 0.09})
    assert headline["counts"] == {"0-30": 2, "30-60": 1, "60-90": 1}
    assert headline["mean_of_bins"] == pytest.approx(0.17 / 3, abs=1e-5)
    assert headline["std"] == pytest.approx(np.std([0.03, 0.05, 0.09]), abs=1e-5)
    assert headline["mean"] == pytest.approx(0.05, abs=1e-5)
    assert figures["convention_check_degrees"] < 1e-3
    shown = capsys.readouterr().out
    assert "3.00" in shown and "5.67" in shown


def test_other_ground_truth(benchmark, tmp_path):
    stored = _stored(benchmark)
    np.save(tmp_path / "truth.npy", _shift(stored, np.full(4, 0.5)))
    np.save(tmp_path / "points.npy", stored)
    flags = ["--points", str(tmp_path / "truth.npy"), "--predictions"]
    status, figures = _run(benchmark, tmp_path, *flags, str(tmp_path / "points.npy"))
    assert status == 0 and figures["headline"]["mean"] == pytest.approx(0.5)
    np.save(tmp_path / "short.npy", stored[:3])
    flags = ["--points", str(tmp_path / "short.npy")]
    assert main(["aflw2000", "--root", str(benchmark), *flags]) == 2


def test_missing_faces_and_bad_files_are_counted(benchmark, tmp_path, capsys):
    points = _stored(benchmark)
    points[2] = np.nan  # not found
    np.save(tmp_path / "points.npy", points)
    (benchmark / "image00000.mat").unlink()
    bad = scipy.io.loadmat(benchmark / "image00001.mat")
    bad["pt3d_68"][0, 5] = np.nan
    scipy.io.savemat(benchmark / "image00001.mat", {k: bad[k] for k in ("pt3d_68", "Pose_Para")})
    status, figures = _run(benchmark, tmp_path, "--predictions", str(tmp_path / "points.npy"))
    assert status == 1
    assert {one["file"]: one["reason"] for one in figures["unusable"]} == {
        "image00000.jpg": "no .mat file",
        "image00001.jpg": "annotated points or angles are not finite",
    }
    assert figures["failures"] == [{"file": "image00002.jpg", "reason": "no face found"}]
    assert figures["failures_by_bin"] == {"0-30": 0, "30-60": 1, "60-90": 0}
    assert figures["photos"] == 2 and figures["failure_rate"] == 0.5
    assert figures["headline"]["counts"] == {"0-30": 0, "30-60": 0, "60-90": 1}
    shown = capsys.readouterr().out
    assert "image00000.jpg" in shown and "image00002.jpg" in shown


def test_network_end_to_end(benchmark, tmp_path, random_weights):
    worst = tmp_path / "worst.png"
    flags = ["--weights", str(random_weights), "--device", "cpu", "--worst", str(worst)]
    (benchmark / "image00001.jpg").write_bytes(b"no photo")
    status, figures = _run(benchmark, tmp_path, *flags)
    assert status == 1 and len(figures["failures"]) == 1
    assert figures["scored"] == 3 and len(figures["faces"]) == 3
    # The network is random: it shows a frontal face, so its yaw error is the yaw itself.
    first = figures["faces"][0]
    assert first["angle_error"][1] == pytest.approx(abs(YAWS[0]), abs=4)
    assert np.isfinite(figures["headline"]["mean"])
    assert cv2.imread(str(worst)) is not None


def test_detector_finds_nothing_in_noise(benchmark, tmp_path, random_weights):
    flags = ["--weights", str(random_weights), "--device", "cpu", "--crop", "detector"]
    status, figures = _run(benchmark, tmp_path, *flags)
    assert status == 0  # a result, not an error
    assert figures["failures"] == [
        {"file": f"image0000{i}.jpg", "reason": "no face found"} for i in range(4)
    ]
    assert figures["failure_rate"] == 1 and figures["headline"]["mean"] is None


def test_files_with_other_signs_are_noticed(benchmark, tmp_path):
    for path in benchmark.glob("*.mat"):
        content = scipy.io.loadmat(path)
        content["Pose_Para"][0, 1] *= -1
        scipy.io.savemat(path, {key: content[key] for key in ("pt3d_68", "Pose_Para")})
    np.save(tmp_path / "points.npy", _stored(benchmark))
    _, figures = _run(benchmark, tmp_path, "--predictions", str(tmp_path / "points.npy"))
    assert figures["convention_check_degrees"] > 20
    assert any("do not trust the pose errors" in note for note in figures["notes"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"pt3d_68": np.zeros((3, 68))}, "lacks"),
        ({"pt3d_68": np.zeros((2, 68)), "Pose_Para": np.zeros((1, 7))}, "holds pt3d_68"),
        (None, "cannot be read"),
    ],
)
def test_unusable_mat(tmp_path, content, reason):
    path = tmp_path / "a.mat"
    if content is None:
        path.write_bytes(b"nothing of the kind")
    else:
        scipy.io.savemat(path, content)
    with pytest.raises(ValueError, match=reason):
        read_annotation(path)
