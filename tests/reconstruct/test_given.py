"""Faces at places that a user gave: the detector's path when given its boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from v3recon.cli.reconstruct import main
from v3recon.io.given_faces import GivenFace
from v3recon.reconstruct.reconstructor import FaceReconstructor

PHOTO = np.ascontiguousarray(astronaut()[:300, 60:400])
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"


@pytest.fixture(scope="module")
def shipped() -> FaceReconstructor:
    return FaceReconstructor.from_pretrained()


@pytest.fixture(scope="module")
def official(official_assets) -> FaceReconstructor:
    options = {"backbone": "mbnetv3", "device": "cpu", "find_turned": False}
    return FaceReconstructor.from_pretrained(official_assets, **options)


@pytest.fixture(params=["shipped", "official"])
def reconstructor(request) -> FaceReconstructor:
    return request.getfixturevalue(request.param)


def as_given(face) -> GivenFace:
    left, top, right, bottom = face.detection.box.tolist()
    return GivenFace((left, top, right, bottom), face.detection.points.double().numpy())


def test_the_detectors_own_faces_give_its_results(reconstructor):
    (found,) = reconstructor(PHOTO)
    (same,) = reconstructor(PHOTO, given=[as_given(found)])
    torch.testing.assert_close(same.vertices, found.vertices)
    torch.testing.assert_close(same.points_photo, found.points_photo)
    assert same.detection is not None and same.detection.score == 1


def test_a_box_or_points_alone_find_the_face(shipped):
    (found,) = shipped(PHOTO)
    given = as_given(found)
    size = float((found.landmarks_68.amax(0) - found.landmarks_68.amin(0)).prod().sqrt())
    landmarks = found.landmarks_68.double().numpy()
    for face in (
        GivenFace(box=given.box),
        GivenFace(points=given.points),
        GivenFace(points=landmarks),
    ):
        (other,) = shipped(PHOTO, given=[face])
        apart = (other.landmarks_68 - found.landmarks_68).norm(dim=1).mean() / size
        assert float(apart) < 0.01
        assert other.quality > 0.5


def test_a_bare_box_of_a_five_point_network_is_looked_at_twice(official):
    (found,) = official(PHOTO)
    (other,) = official(PHOTO, given=[GivenFace(box=as_given(found).box)])
    ratio = other.crop.scale / found.crop.scale
    assert 0.3 < ratio < 3 and torch.isfinite(other.vertices).all()


def test_faces_outside_of_the_photo_are_refused(shipped):
    outside = GivenFace(box=(900.0, 10.0, 990.0, 80.0))
    with pytest.raises(ValueError, match=r"given: face 2: the box 900, 10, 990, 80 lies outside"):
        shipped(PHOTO, given=[GivenFace(box=(10.0, 10.0, 90.0, 90.0)), outside])
    with pytest.raises(ValueError, match="fall together"):
        shipped(PHOTO, given=[GivenFace(points=np.full((5, 2), 30.0))])
    with pytest.raises(ValueError, match="single photo"):
        shipped([PHOTO], given=[outside])
    assert len(shipped(PHOTO, given=[])) == 0


def test_program_reads_boxes_beside_photos(shipped, tmp_path, capsys):
    """One photo with a box, one with a broken file, one with a box outside, one without a file."""
    (found,) = shipped(PHOTO)
    for name in ("good", "broken", "outside", "plain"):
        Image.fromarray(PHOTO).save(tmp_path / f"{name}.png")
    (tmp_path / "good.txt").write_text(" ".join(f"{v:.2f}" for v in found.detection.box.tolist()))
    (tmp_path / "broken.txt").write_text("not a box\n")
    (tmp_path / "outside.json").write_text("[[2000, 2000, 2100, 2100]]")
    off = [word for flag in ("--useTex", "--extractTex", "--seg") for word in (flag, "0")]
    words = ["-i", str(tmp_path), "-s", str(tmp_path / "out"), *off]
    assert main([*words, "--boxes", "beside"]) == 1
    said = capsys.readouterr().out
    assert "4 photos: 2 faces in 2, no face in 0, 2 failed" in said
    assert "broken.png: boxes: " in said and "lies outside of the photo (340 x 300)" in said
    for name in ("good", "plain"):
        content = json.loads((tmp_path / "out" / name / f"{name}.json").read_text())
        np.testing.assert_allclose(content["ldm68"], found.landmarks_68, atol=0.5)
    assert main([*words, "--boxes", str(tmp_path / "absent")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main([*words, "--boxes", "beside", "--iscrop", "0"]) == 2
