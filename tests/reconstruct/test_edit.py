"""Faces changed in their photo: what changes, what stays, and what the programs refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from synthetic_assets import synthetic_face_model

from v3recon.cli import edit_texture as edit_program
from v3recon.cli import swap_faces as swap_program
from v3recon.detection.crop import crop_of_square
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.io.images import read_image, write_edited
from v3recon.reconstruct.edit import edit_texture, face_region, paint_into_photo, part_region
from v3recon.reconstruct.faces import Face, make_faces
from v3recon.reconstruct.photo_maps import depth_map
from v3recon.reconstruct.save import OutputChoice
from v3recon.types import FaceCoeffs

PHOTO = np.ascontiguousarray(astronaut()[:300, 60:400])
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
SIZE = 128


@pytest.fixture(scope="module", params=["photohead", "bfm"])
def face(request) -> Face:
    """A face that is drawn over a photo by its own model's colors."""
    name = request.param
    model = synthetic_face_model() if name == "bfm" else load_face_model(name)
    coeffs, camera = FaceCoeffs.zeros(1, model.sizes), Camera()
    crop = crop_of_square(torch.tensor([170.0, 150.0]), 224.0, camera)
    return make_faces(coeffs, model, camera, [crop], [PHOTO], [None])[0]


def smooth_texture(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(60, 200, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def test_regions_are_parts_of_the_face(face):
    model, labels = face.model, face.model.part_labels
    lips = part_region(model, ["lips"])
    assert lips[(labels == 6) | (labels == 7)].all() and lips.sum() < 0.4 * len(lips)
    middle = face_region(model)
    assert middle[labels == 5].float().mean() > 0.9, "the nose"
    assert not middle[labels == 0].any() and middle.sum() > lips.sum()
    with pytest.raises(ValueError, match="parts: 'ears' is not known; known: eyes, brows"):
        part_region(model, ["ears"])


def test_the_own_texture_changes_nothing_and_another_only_the_region(face):
    own, other = smooth_texture(), smooth_texture(1)
    region = part_region(face.model, ["nose"])
    np.testing.assert_allclose(edit_texture(own, own, region, face.model), own, atol=1)
    edited = edit_texture(own, other, region, face.model)
    changed = (edited != own).any(2)
    assert 0.001 < changed.mean() < 0.4
    transparent = np.zeros((SIZE, SIZE), np.float32)
    kept = edit_texture(own, other, region, face.model, opacity=transparent)
    np.testing.assert_array_equal(kept, own)
    brighter = (own * 0.5).astype(np.uint8)  # the same colors in less light: no make-up
    made_up = edit_texture(own, brighter, region, face.model, colors_only=True)
    assert np.abs(made_up.astype(int) - own)[changed].mean() < 4


def test_painting_changes_the_face_alone_and_keeps_the_tone(face):
    before = PHOTO.copy()
    painted = paint_into_photo(face, smooth_texture(), face_region(face.model))
    changed = (painted != PHOTO).any(2)
    assert (face.image == before).all(), "the photo is not written to"
    assert 200 < changed.sum() and not changed[depth_map(face) == 0].any()
    flat = np.full_like(PHOTO, 140)
    gray = np.full((SIZE, SIZE, 3), 60, np.uint8)
    toned = paint_into_photo(face, gray, face_region(face.model), flat)
    np.testing.assert_allclose(toned, flat, atol=2)  # a factor of exposure makes them equal
    as_it_is = paint_into_photo(face, gray, face_region(face.model), flat, tone=False)
    assert as_it_is.min() <= 62


def test_pictures_say_that_they_were_edited(tmp_path):
    for name in ("a.png", "a.jpg"):
        write_edited(tmp_path / name, PHOTO, "Edited: faces & more")
        with Image.open(tmp_path / name) as image:
            assert image.getexif()[0x010E] == "Edited: faces & more"
        data = (tmp_path / name).read_bytes()
        assert b"digitalsourcetype/composite" in data and b"faces &amp; more" in data
        assert read_image(tmp_path / name).shape == PHOTO.shape
    with pytest.raises(ValueError, match=r"written as \.png"):
        write_edited(tmp_path / "a.bmp", PHOTO, "x")


def test_programs_change_photos_and_name_what_they_cannot(tmp_path, capsys):
    two = np.full((300, 700, 3), 90, np.uint8)
    two[:, :340], two[:, 350:690] = PHOTO, PHOTO[:, ::-1]
    Image.fromarray(two).save(tmp_path / "two.png")
    Image.fromarray(two[:, :340]).save(tmp_path / "one.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    out = str(tmp_path / "out")
    common = ["-i", *(str(tmp_path / f"{name}.png") for name in ("two", "one", "wall")), "-s", out]
    assert swap_program.main(common) == 1
    said = capsys.readouterr().out
    assert "one.png: shows 1 faces; swapping takes two, or --from" in said
    assert "wall.png: shows 0 faces" in said and "3 photos: 1 changed, 2 not" in said
    assert (read_image(tmp_path / "out" / "two_swapped.png") != two).any()
    assert swap_program.main([*common, "--from", str(tmp_path / "wall.png")]) == 2
    assert "wall.png shows no face, there is no face 1" in capsys.readouterr().err
    lips = ["--from", str(EXAMPLE), "--parts", "lips", "--colors-only", "--face", "1"]
    assert edit_program.main([*common, *lips, "--format", "jpg"]) == 1
    said = capsys.readouterr().out
    assert "wall.png shows no face, there is no face 1" in said and "2 changed" in said
    assert (tmp_path / "out" / "one_edited.jpg").is_file()


def test_textures_of_another_model_are_refused(face, tmp_path, capsys):
    choice = OutputChoice(seg=False, seg_visible=False, model_texture=False, texture_size=64)
    face.save(tmp_path / "results", "me", choice=choice)
    Image.fromarray(PHOTO).save(tmp_path / "one.png")
    words = ["-i", str(tmp_path / "one.png"), "-s", str(tmp_path / "out"), "--texture"]
    status = edit_program.main([*words, str(tmp_path / "results" / "me_uv.png")])
    said = capsys.readouterr()
    if face.model.name == "photohead":
        assert status == 0 and "1 changed" in said.out
    else:
        assert status == 2 and "of another face model; give --face-model" in said.err
    assert edit_program.main([*words, str(tmp_path / "one.png")]) == 2
    assert "a texture is square, not 340 x 300" in capsys.readouterr().err
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert edit_program.main([*words, str(tmp_path / "bad.png")]) == 2
    assert "bad.png: not a photo" in capsys.readouterr().err
