"""AFLW, CFP, visibility, identity and skin: known predictions give known figures."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from v3recon.cli.evaluate import main
from v3recon.evaluation import marked
from v3recon.evaluation.aflw import POINTS_21, shift_free_error
from v3recon.evaluation.identity import cosine_similarity, pair_scores
from v3recon.evaluation.nme import YAW_BINS
from v3recon.evaluation.ranking import area_under_curve
from v3recon.evaluation.skin import skin_colors
from v3recon.evaluation.visibility import landmark_visibility
from v3recon.io.images import read_image
from v3recon.reconstruct.reconstructor import FaceReconstructor


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """As numpy.savez, which cannot write an array of the name `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


@pytest.fixture(scope="module")
def reconstructor(random_weights) -> FaceReconstructor:
    return FaceReconstructor.from_pretrained(weights=random_weights, detector="mtcnn", device="cpu")


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Points [68, 2] on the example photo: a face 100 wide and 100 high."""
    angle = np.linspace(0, math.pi, 17)
    points = np.random.default_rng(0).uniform([190, 70], [260, 150], (68, 2))
    points[:17] = np.stack([224 - 50 * np.cos(angle), 100 + 60 * np.sin(angle)], 1)
    points[19] = [210, 60]
    for first, left in ((36, 190), (42, 240)):  # eyes 20 wide, open by 6
        points[first : first + 6, 0] = left + np.array([0, 6, 14, 20, 14, 6])
        points[first : first + 6, 1] = 90 + 3 * np.array([0, -1, -1, 0, 1, 1])
    return points


def run(tmp_path: Path, name: str, folder: Path, weights: Path, *flags: str) -> tuple[int, dict]:
    path = tmp_path / "figures.json"
    command = [name, "--photos", str(folder), "--weights", str(weights), "--device", "cpu"]
    status = main([*command, "--json", str(path), *flags])
    return status, json.loads(path.read_text()) if path.exists() else {}


@pytest.fixture
def aflw(tmp_path, truth, example_photo) -> Path:
    """Three faces at yaw 10, -40 and 80; the second's jaw is turned away, its mouth covered."""
    folder = tmp_path / "photos"
    (folder / "aflw").mkdir(parents=True)
    files = [f"aflw/{name}.jpg" for name in "abc"]
    for file in files:
        shutil.copy(example_photo, folder / file)
    points, visibility = np.stack([truth] * 3), np.full((3, 68), 2)
    visibility[1, 1:8], visibility[1, 48:] = 0, 1
    points[1, 1:8] = np.nan
    ours = [truth[list(i)].mean(0) if i else np.full(2, np.nan) for i in POINTS_21]
    points_21 = np.stack([np.stack(ours)] * 3)
    points_21[0, [12, 16]] = [224, 100]  # ear lobes are marked, and not scored
    write_npz(
        folder / "aflw/annotations.npz",
        file=np.array(files),
        points_68=points,
        visibility=visibility,
        points_21=points_21,
        yaw=np.array([10.0, -40.0, 80.0]),
        residual=np.ones(3),
        shift_sigma=np.ones(3),
        scale_exact=np.ones(3, bool),
    )
    rows = [f"{file},aflw,{file[5]},val,aflw/annotations.npz" for file in files]
    rows.append("aflw/d.jpg,aflw,d,val,aflw/annotations.npz")  # the marks lack it
    rows.append("aflw/e.jpg,aflw,e,train,")
    (folder / "index.csv").write_text("file,source,subject,split,landmarks\n" + "\n".join(rows))
    return folder


def test_aflw(tmp_path, aflw, truth, random_weights, monkeypatch):
    """Predictions 3 pixels to the right, with closed eyes."""
    read = torch.from_numpy(truth + np.array([3.0, 0.0]))
    read[[37, 38, 40, 41, 43, 44, 46, 47], 1] = 90
    monkeypatch.setattr(marked, "landmarks_68_of", lambda face: (read, read))
    status, figures = run(tmp_path, "aflw", aflw, random_weights)
    assert status == 1 and figures["unusable"][0]["file"] == "aflw/d.jpg"
    assert (figures["photos"], figures["scored"], figures["failures"]) == (3, 3, [])
    size = 100.0
    nme = figures["nme"]
    assert nme["21 points"]["bins"] == pytest.approx(dict.fromkeys(YAW_BINS, 3 / size))
    assert nme["21 points, shift-free"]["mean_of_bins"] == pytest.approx(0, abs=1e-9)
    # 8 of 51 lids are 3 too low or too high, in pairs: no common shift is left
    assert nme["visible inner"]["bins"]["0-30"] == pytest.approx(8 * 3 / 51 / size, abs=1e-6)
    assert nme["visible inner"]["bins"]["30-60"] == pytest.approx(8 * 3 / 31 / size, abs=1e-6)
    marked_68 = (60 * 3 + 8 * math.hypot(3, 3)) / 68 / size
    assert nme["68 marked, 3D points"]["bins"]["0-30"] == pytest.approx(marked_68, abs=1e-6)
    eyes = figures["openings"]["open eyes"]
    assert eyes["count"] == 6 and eyes["true"] == pytest.approx(0.3)
    assert eyes["error"] == pytest.approx(0.3) and eyes["as_such"] == 0
    mouths = [figures["openings"][name]["count"] for name in ("open mouths", "other mouths")]
    assert sum(mouths) == 2, "the covered one is left out"


def test_aflw_wrong_usage(tmp_path, aflw, random_weights, capsys):
    status, _ = run(tmp_path, "aflw", aflw, random_weights, "--split", "test")
    assert status == 2 and "no photo of aflw in the split test" in capsys.readouterr().err
    assert run(tmp_path, "cfp", aflw, random_weights)[0] == 2
    assert run(tmp_path, "aflw", tmp_path / "absent", random_weights)[0] == 2


def test_shift_free_error():
    points = torch.tensor([[0.0, 0], [1, 0], [0, 1], [5, 5]])
    assert shift_free_error(points + torch.tensor([7.0, -2]), points).max() < 1e-6
    moved = points.clone()
    moved[0, 0] += 4  # the mean moves by one
    assert shift_free_error(moved, points).tolist() == pytest.approx([3, 1, 1, 1])


def test_visibility(tmp_path, aflw, random_weights, monkeypatch):
    """Of the second face 7 points are turned away and 20 covered."""
    score = torch.ones(68)
    score[1:8] = -1
    monkeypatch.setattr(
        "v3recon.evaluation.visibility.landmark_visibility", lambda face: (score, False)
    )
    status, figures = run(tmp_path, "visibility", aflw, random_weights)
    assert status == 1 and not figures["reads_occluders"]
    found = figures["visibility_auc"]
    # Visible are 2 x 68 points, 2 x 7 of them with the low score, and 41 of the second face.
    away = (163 + 14 / 2) / 177
    assert found["turned away"]["all 68"] == pytest.approx(away)
    assert found["covered"]["inner 51"] == pytest.approx(0.5)
    assert found["covered"]["jaw"] is None, "no covered jaw point"


def test_visibility_of_a_face(reconstructor, example_photo):
    """A face that looks at the camera, by a random network: probabilities, the nose seen best."""
    face = reconstructor(read_image(example_photo))[0]
    score, knows = landmark_visibility(face)
    assert knows and score.shape == (68,) and bool(((score >= 0) & (score <= 1)).all())
    assert score[30] > score[[0, 16]].max()


def test_cfp(tmp_path, truth, example_photo, random_weights, monkeypatch):
    folder = tmp_path / "photos"
    (folder / "cfp").mkdir(parents=True)
    shutil.copy(example_photo, folder / "cfp/a.jpg")
    right = np.array(
        [-1] * 9
        + [17, 19, 21, 36, 37, 38, 39, 41, 40, 27, 28, 29, 30, 33, 32, 31, 48, 51, 62, 57, 66]
    )
    given = np.where(right[:, None] >= 0, truth[right], truth[np.arange(30) % 9])
    arrays = {
        "file": np.array(["cfp/a.jpg"]),
        "points_30": given[None],
        "side": np.array(["right"]),
    }
    write_npz(folder / "cfp/annotations.npz", **arrays, ibug_right=right, ibug_left=right)
    (folder / "index.csv").write_text(
        "file,source,subject,split,landmarks\ncfp/a.jpg,cfp,a,val,cfp/annotations.npz\n"
    )
    read = torch.from_numpy(truth.copy())
    read[36] += torch.tensor([0.0, 7.0])
    monkeypatch.setattr(marked, "landmarks_68_of", lambda face: (read, read))
    status, figures = run(tmp_path, "cfp", folder, random_weights)
    height = np.ptp(given[:, 1])
    assert status == 0
    assert figures["cfp"]["mean"] == pytest.approx(7 / 21 / height, abs=1e-6)
    assert figures["cfp"]["groups"]["eye"] == pytest.approx(7 / 6 / height, abs=1e-6)
    assert figures["cfp"]["groups"]["mouth"] == pytest.approx(0, abs=1e-12)


def test_area_under_curve():
    assert area_under_curve(np.array([2.0, 3]), np.array([0.0, 1])) == 1
    assert area_under_curve(np.array([0.0]), np.array([1.0])) == 0
    assert area_under_curve(np.array([1.0, 3]), np.array([1.0, 2])) == (0.5 + 0 + 1 + 1) / 4
    assert math.isnan(area_under_curve(np.array([]), np.array([1.0])))


def test_pair_scores():
    similarity = np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.95], [0.0, 0.4, 0.5]])
    area, rank = pair_scores(similarity)
    # 0.9 beats all but 0.95, 0.8 too, 0.5 too
    assert area == pytest.approx((5 + 5 + 5) / 18) and rank == pytest.approx(2 / 3)
    first, second = np.array([[1.0, 0], [0, 2]]), np.array([[3.0, 0], [1, 1]])
    np.testing.assert_allclose(cosine_similarity(first, second), [[1, 0.5**0.5], [0, 0.5**0.5]])


def test_identity(tmp_path, example_photo, random_weights):
    """Two people, each the same photo twice: every pair is told and ranked first."""
    folder = tmp_path / "photos"
    folder.mkdir()
    image = read_image(example_photo)
    rows = []
    for person, picture in (("a", image), ("b", np.ascontiguousarray(image[:, ::-1]))):
        for number in range(2):
            Image.fromarray(picture).save(folder / f"{person}{number}.png")
            rows.append(f"{person}{number}.png,lfw,{person},val")
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(folder / "c0.png")
    rows += ["c0.png,lfw,c,val", "a0.png,lfw,c,val", "b0.png,lfw,alone,val"]
    (folder / "index.csv").write_text("file,source,subject,split\n" + "\n".join(rows))
    status, figures = run(tmp_path, "identity", folder, random_weights)
    assert status == 0 and figures["pairs"] == 2
    assert figures["identity"]["cosine"] == {"auc": 1, "rank_1": 1}
    assert [one["file"] for one in figures["failures"]] == ["c0.png"]
    assert run(tmp_path, "identity", folder, random_weights, "--source", "cfp")[0] == 2


def test_skin(tmp_path, example_photo, random_weights, reconstructor):
    folder = tmp_path / "photos"
    (folder / "fairface").mkdir(parents=True)
    for name in ("1", "3"):
        shutil.copy(example_photo, folder / f"fairface/{name}.jpg")
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(folder / "fairface/5.jpg")
    files = [f"fairface/{name}.jpg" for name in "135"]
    index = [f"{file},fairface,{file[9]},val" for file in files]
    (folder / "index.csv").write_text("file,source,subject,split\n" + "\n".join(index))
    people = [f"{file},{group},Male,20-29" for file, group in zip(files, "AAB", strict=True)]
    (folder / "fairface/labels.csv").write_text("file,race,gender,age\n" + "\n".join(people))
    status, figures = run(tmp_path, "skin", folder, random_weights, "--split", "all")
    assert status == 0
    groups = figures["skin"]["group"]
    assert groups["all"]["photos"] == 3 and groups["A"]["failure_rate"] == 0
    assert groups["B"]["failure_rate"] == 1 and groups["B"]["error"] is None
    assert groups["A"]["error"] == pytest.approx(groups["all"]["error"])

    image = read_image(example_photo)
    face = reconstructor(image)[0]
    flat = np.full_like(image, (200, 120, 90))
    photo, drawn, albedo = skin_colors(face, flat)
    expected = cv2.cvtColor(np.float32([[[200, 120, 90]]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]
    np.testing.assert_allclose(photo, expected, atol=1e-3)
    assert np.isfinite(drawn).all() and np.isfinite(albedo).all()
