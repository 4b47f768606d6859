from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from v3recon.cli.evaluate import main
from v3recon.evaluation.masked import (
    labels_of_face,
    place_of_mask,
)
from v3recon.io.celebamask import LABEL_TO_CELEBAMASK, read_classes
from v3recon.io.images import read_image
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.reconstruct.segment import part_overlaps

CLASS_OF_LABEL = np.zeros(9, np.uint8)
CLASS_OF_LABEL[list(LABEL_TO_CELEBAMASK)] = list(LABEL_TO_CELEBAMASK.values())


@pytest.fixture(scope="module")
def face(random_weights, example_photo) -> Face:
    reconstructor = FaceReconstructor.from_pretrained(weights=random_weights, device="cpu")
    return reconstructor(read_image(example_photo))[0]


@pytest.fixture
def folder(tmp_path, example_photo) -> Path:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    shutil.copy(example_photo, tmp_path / "images" / "a.jpg")
    return tmp_path


def _write_mask(path: Path, labels: np.ndarray) -> None:
    picture = Image.fromarray(CLASS_OF_LABEL[labels], "P")
    picture.putpalette(list(range(256)) * 3)
    picture.save(path)


def _run(folder: Path, weights: Path, *flags: str) -> tuple[int, dict]:
    path = folder / "figures.json"
    where = ["--images", str(folder / "images"), "--masks", str(folder / "masks")]
    status = main(
        ["parts", *where, "--weights", str(weights), "--device", "cpu", "--json", str(path), *flags]
    )
    return status, json.loads(path.read_text()) if path.exists() else {}


def test_overlap_by_hand():
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels = target.clone()
    target[0, 0] = 1  # four pixels, two of them predicted, one more beside
    labels[0, 0, :2] = 1
    labels[0, 1, 0] = 1
    target[0, 3, 3] = 5  # not predicted
    labels[0, 2, 2] = 7  # not in the target
    overlap = part_overlaps(labels, target)[0]
    assert overlap[0] == pytest.approx(2 / 5) and overlap[4] == 0
    assert overlap[[1, 2, 3, 5, 6, 7]].isnan().all()
    assert part_overlaps(target, target)[0, [0, 4]].tolist() == [1, 1]


def test_batch_equals_ones(generator):
    labels = torch.randint(0, 9, (3, 20, 20), generator=generator)
    target = torch.randint(0, 9, (3, 20, 20), generator=generator)
    one_by_one = torch.cat([part_overlaps(labels[i : i + 1], target[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(part_overlaps(labels, target), one_by_one)


def test_place_of_mask_is_the_face_without_forehead():
    labels = np.zeros((100, 100), np.uint8)
    labels[10:80, 20:70] = 8
    labels[40:44, 25:40], labels[40:44, 50:65] = 3, 4  # brows: the skin above is cut away
    place = place_of_mask(labels)
    left, top, right, bottom = place.box.tolist()
    assert (left, right, bottom) == (20, 69, 79) and top in (40, 41, 42)
    assert place.five_points is None


def test_map_of_another_size_shows_the_same(face):
    height, width = face.image_size
    large = labels_of_face(face, (2 * height, 2 * width)).numpy()
    plain = labels_of_face(face, (height, width)).numpy()
    # Each small pixel lies between four large ones: where these agree it must agree with them.
    four = large.reshape(height, 2, width, 2).transpose(0, 2, 1, 3).reshape(height, width, 4)
    agree = (four == four[..., :1]).all(-1)
    assert (plain > 0).sum() > 2000 and agree.mean() > 0.9
    assert (plain == four[..., 0])[agree].mean() > 0.999


def test_own_parts_by_the_detector_overlap_fully(folder, face, random_weights):
    _write_mask(folder / "masks" / "a.png", labels_of_face(face, face.image_size).numpy())
    worst = folder / "worst.png"
    status, figures = _run(
        folder, random_weights, "--crop", "detector", "--worst", str(worst), "--sides", "repair"
    )
    assert status == 0
    assert figures["iou_mean"] == pytest.approx(1)
    assert all(value == pytest.approx(1) for value in figures["iou_groups"].values())
    assert worst.stat().st_size > 1000
    # From the mask's own place the crop is nearly the same.
    status, figures = _run(folder, random_weights)
    assert status == 0 and figures["iou"]["nose"] > 0.6


def test_exchanged_sides_lower_the_score_unless_repaired(folder, face, random_weights):
    labels = labels_of_face(face, face.image_size).numpy()
    exchanged = np.array([0, 2, 1, 4, 3, 5, 6, 7, 8], np.uint8)[labels]
    _write_mask(folder / "masks" / "a.png", exchanged)
    _, figures = _run(folder, random_weights, "--crop", "detector")
    assert figures["masks_with_sides_put_right"] == 1
    assert figures["iou_groups"]["eyes"] == pytest.approx(1)
    _, figures = _run(folder, random_weights, "--crop", "detector", "--sides", "as-labelled")
    assert figures["iou_groups"]["eyes"] == 0 and figures["iou"]["nose"] == pytest.approx(1)


def test_face_not_found_counts_zero(folder, face, random_weights):
    labels = labels_of_face(face, face.image_size).numpy()
    _write_mask(folder / "masks" / "a.png", labels)
    Image.new("RGB", face.image_size[::-1], "gray").save(folder / "images" / "b.jpg")
    without_nose = np.where(labels == 5, 8, labels)
    _write_mask(folder / "masks" / "b.png", without_nose)
    status, figures = _run(folder, random_weights, "--crop", "detector")
    assert status == 0 and figures["failures"] == [{"file": "b.jpg", "reason": "no face found"}]
    assert figures["iou"]["right_eye"] == pytest.approx(0.5)
    assert figures["iou_finished"]["right_eye"] == pytest.approx(1)
    assert figures["iou"]["nose"] == pytest.approx(1)  # the mask of b has none
    assert figures["parts_absent_in_mask"]["nose"] == 1


def test_bad_masks_are_listed(folder, face, random_weights):
    labels = labels_of_face(face, face.image_size).numpy()
    height, width = labels.shape
    for name in "bcdefg":
        shutil.copy(folder / "images" / "a.jpg", folder / "images" / f"{name}.jpg")
    half = Image.fromarray(labels).resize((width // 2, height // 2), Image.Resampling.NEAREST)
    _write_mask(folder / "masks" / "a.png", np.asarray(half))  # fine: the same field of view
    Image.fromarray(np.full((height, width), 40, np.uint8)).save(folder / "masks" / "b.png")
    Image.fromarray(np.zeros((height, width), np.uint8)).save(folder / "masks" / "c.png")
    Image.new("RGB", (width, height)).save(folder / "masks" / "d.png")
    (folder / "masks" / "e.png").write_bytes(b"nothing of the kind")
    _write_mask(folder / "masks" / "g.png", labels[: height // 2])  # f has none
    status, figures = _run(folder, random_weights)
    assert status == 1
    reasons = {one["file"]: one["reason"] for one in figures["unusable"]}
    assert sorted(reasons) == [f"{name}.jpg" for name in "bcdefg"]
    assert "0…18" in reasons["b.jpg"] and "no face part" in reasons["c.jpg"]
    assert "mode RGB" in reasons["d.jpg"] and "cannot be read" in reasons["e.jpg"]
    assert reasons["f.jpg"] == "no mask" and "proportions" in reasons["g.jpg"]
    assert figures["photos"] == 1 and figures["masks_of_another_size"] == 1


def test_palette_indices_are_the_classes(tmp_path):
    labels = np.arange(9, dtype=np.uint8).reshape(3, 3)
    _write_mask(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_classes(tmp_path / "a.png"), CLASS_OF_LABEL[labels])


def test_two_real_photos(shared_dir, tmp_path, random_weights):
    folder = shared_dir / "photos" / "celebamask"
    path = tmp_path / "figures.json"
    status = main(
        [
            *("parts", "--images", str(folder / "images"), "--masks", str(folder / "masks")),
            *("--index", str(shared_dir / "photos" / "index.csv"), "--split", "val"),
            *("--limit", "2", "--weights", str(random_weights), "--json", str(path)),
            *("--device", "cpu"),
        ]
    )
    figures = json.loads(path.read_text())
    assert status == 0 and figures["scored"] == 2
    # The mean face in the right crop covers much of any face.
    assert figures["iou"]["skin"] == pytest.approx(0.596, abs=0.02)
    assert figures["iou_mean"] == pytest.approx(0.102, abs=0.02)
