"""Voting: labels that were drawn come back from the masks, whatever is wrong with some photos."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic_assets import synthetic_face_model

from v3recon.decode import decode
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera
from v3recon.io.celebamask import CELEBAMASK_TO_LABEL
from v3recon.part_masks import vote
from v3recon.part_masks.labels import read_labels
from v3recon.reconstruct.assets import find_assets
from v3recon.reconstruct.segment import segment_visible
from v3recon.types import FaceCoeffs

SIZE = 224
LABEL_TO_CLASS = {label: number for number, label in CELEBAMASK_TO_LABEL.items()}


@pytest.fixture(scope="module")
def model() -> LinearFaceModel:
    return synthetic_face_model(rows=60, columns=60)


def random_face(model: LinearFaceModel, seed: int) -> FaceCoeffs:
    generator = torch.Generator().manual_seed(seed)
    zero = FaceCoeffs.zeros(1, model.sizes)
    angle = torch.randn(1, 3, generator=generator) * torch.tensor([0.05, 0.12, 0.05])
    shape = 0.5 * torch.randn(zero.id.shape, generator=generator)
    return FaceCoeffs(shape, zero.exp, zero.alb, angle, zero.sh, zero.trans)


def class_map(model: LinearFaceModel, coeffs: FaceCoeffs) -> np.ndarray:
    """The model's own parts, drawn as CelebAMask-HQ classes."""
    camera = Camera()
    labels = segment_visible(decode(coeffs, model, camera), model, camera, (SIZE, SIZE))[0].numpy()
    table = np.array([0] + [LABEL_TO_CLASS[label] for label in range(1, 9)], np.uint8)
    return table[labels]


def write_photo(folder: Path, name: str, mask: np.ndarray) -> vote.MaskedPhoto:
    photo, path = folder / f"{name}.jpg", folder / f"{name}.png"
    Image.fromarray(np.full((SIZE, SIZE, 3), 128, np.uint8)).save(photo)
    Image.fromarray(mask).save(path)
    identity = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    return vote.MaskedPhoto(photo, path, FaceCoeffs.zeros(1), identity)


def photos_of(
    model: LinearFaceModel, folder: Path, count: int, mirrored: int = 0
) -> Iterator[vote.MaskedPhoto | str]:
    """Photos with masks of the model; the first `mirrored` masks have exchanged sides."""
    exchange = np.arange(19, dtype=np.uint8)
    exchange[[4, 5, 6, 7]] = 5, 4, 7, 6
    for seed in range(count):
        coeffs = random_face(model, seed)
        mask = class_map(model, coeffs)
        photo = write_photo(folder, str(seed), exchange[mask] if seed < mirrored else mask)
        yield vote.MaskedPhoto(photo.photo, photo.mask, coeffs, photo.from_crop)


def test_the_models_own_parts_come_back(model: LinearFaceModel, tmp_path: Path) -> None:
    labels, tally = vote.vote(model, photos_of(model, tmp_path, 12, mirrored=3))
    assert (tally.used, tally.exchanged, dict(tally.skipped)) == (12, 3, {})
    truth = model.part_labels.numpy()
    for label in range(1, 8):
        ours, theirs = labels == label, truth == label
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.75, label
    overlap, tally = vote.judge(model, labels, photos_of(model, tmp_path, 3, mirrored=1))
    assert tally.exchanged == 1 and (overlap[:7] > 0.8).all()


def test_bad_photos_are_counted_and_left_out(model: LinearFaceModel, tmp_path: Path) -> None:
    good = list(photos_of(model, tmp_path, 8))
    small = write_photo(tmp_path, "small", np.zeros((SIZE // 2, SIZE), np.uint8))
    strange = write_photo(tmp_path, "strange", np.full((SIZE, SIZE), 77, np.uint8))
    broken = write_photo(tmp_path, "broken", np.zeros((SIZE, SIZE), np.uint8))
    broken.mask.write_bytes(b"no picture")
    stream = iter(["without a detected face", small, strange, broken, *good])
    labels, tally = vote.vote(model, stream)
    assert tally.used == 8 and len(labels) == model.vertex_count
    assert dict(tally.skipped) == {
        "without a detected face": 1,
        "with a mask of another size": 1,
        "with unknown classes in the mask": 1,
        "with an unreadable mask or photo": 1,
    }
    with pytest.raises(ValueError, match="no photo can vote"):
        vote.vote(model, iter(["without a detected face", small]))


def test_folders_without_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        vote.find_pairs(tmp_path / "absent", tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match="mask of the same name"):
        vote.find_pairs(tmp_path, tmp_path)
    (tmp_path / "a.png").touch()
    assert (tmp_path / "a.jpg", tmp_path / "a.png") in vote.find_pairs(tmp_path, tmp_path)


def test_detections_file(tmp_path: Path) -> None:
    path = tmp_path / "points.npz"
    np.savez(path, names=np.array(["lfw/a.jpg"]), pts=np.zeros((1, 478, 3), np.float32))
    assert vote.read_detections(path)["a"].shape == (478, 3)
    np.savez(path, names=np.array(["a"]), pts=np.zeros((1, 68, 2), np.float32))
    with pytest.raises(ValueError, match="pts is"):
        vote.read_detections(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no file of detections"):
        vote.read_detections(path)


@pytest.mark.parametrize("tool", ["photohead", "photohead with weights", "other"])
def test_program_on_real_photos(
    tool: str,
    model: LinearFaceModel,
    shared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three photos; the points come from a fit that is made up: the mean face in the middle."""
    from v3recon.face_models.load import load_face_model

    head = load_face_model("photohead")
    camera = Camera()
    decoded = decode(FaceCoeffs.zeros(1, head.sizes), head, camera)
    points = head.at_detector(torch.cat([decoded.points_2d, 100 * decoded.vertices[..., 2:]], 2))
    points = points * 384 / SIZE
    folder = shared_dir / "photos" / "celebamask"
    names = sorted(path.name for path in (folder / "images").glob("*.jpg"))[:3]
    detections = tmp_path / "points.npz"
    np.savez(detections, names=np.array(names), pts=points.expand(3, -1, -1).numpy())
    tool, _, weights = tool.partition(" with ")
    if tool == "other":
        monkeypatch.setattr(
            vote, "load_face_model", lambda name: head if name == "photohead" else model
        )
    parser = argparse.ArgumentParser()
    vote.add_arguments(parser)
    options = {
        "--face-model": tool,
        "--photos": folder / "images",
        "--masks": folder / "masks",
        "--detections": detections,
        "--out": tmp_path / "labels.npy",
    }
    if weights:
        options["--weights"] = find_assets(None, face_model="photohead").weights
    argv = [str(text) for pair in options.items() for text in pair]
    # Other photos of the folder have no detection and are counted; three are enough to run.
    monkeypatch.setattr(
        vote, "find_pairs", lambda photos, masks: _first_pairs(photos, masks, names)
    )
    assert vote.run(parser.parse_args(argv)) == 0
    assert f"votes of {6 if weights else 3} photos" in capsys.readouterr().out
    count = head.vertex_count if tool == "photohead" else model.vertex_count
    labels = read_labels(tmp_path / "labels.npy", count)
    assert labels.min() >= 1


def _first_pairs(photos: Path, masks: Path, names: list[str]) -> list[tuple[Path, Path]]:
    return [(photos / name, (masks / name).with_suffix(".png")) for name in names]
