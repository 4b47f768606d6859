"""One identity for several looks: weights, what stays, drawn heads, the program."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from synthetic_assets import synthetic_face_model

from v3recon.cli.person import main, people_of
from v3recon.detection.crop import crop_of_square
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.io.obj import read_obj
from v3recon.reconstruct.faces import Face, make_faces
from v3recon.reconstruct.one_person import FRONTAL, look_weights, one_person, with_one_identity
from v3recon.types import FaceCoeffs

PHOTO = np.ascontiguousarray(astronaut()[:300, 60:400])


@pytest.mark.parametrize("name", ["photohead", "bfm"])
def test_surer_looks_tell_more_of_the_identity(name):
    """Looks whose error grows as their confidence falls: the weighted mean is nearer the truth."""
    model = synthetic_face_model() if name == "bfm" else load_face_model(name)
    random = torch.Generator().manual_seed(0)
    gains = []
    for _ in range(8):
        truth = torch.randn(1, model.sizes[0], generator=random)
        yaw, quality = torch.tensor([0.0, 0.3, 0.9, 1.2]), [0.9, 0.8, 0.5, 0.9]
        spread = 0.4 + 0.8 * yaw / FRONTAL
        looks = FaceCoeffs.zeros(4, model.sizes)
        noise = spread[:, None] * torch.randn(4, model.sizes[0], generator=random)
        angle = torch.stack([0 * yaw, yaw, 0 * yaw], 1)
        looks = replace(looks, id=truth + noise, angle=angle)
        together = with_one_identity(looks, quality).id[:1]
        shapes = [
            model.vertices(one, torch.zeros(1, model.sizes[1]))
            for one in (truth, together, looks.id.mean(0, keepdim=True))
        ]
        errors = [(shape - shapes[0]).norm(dim=-1).mean() for shape in shapes[1:]]
        gains.append(float(errors[1] / errors[0]))
    assert np.mean(gains) > 1.1


def test_weights():
    coeffs = FaceCoeffs.zeros(3)
    weights = look_weights(coeffs, [0.9, 0.3, math.nan])
    torch.testing.assert_close(weights, torch.tensor([0.9, 0.3, 1.0]) / 2.2)
    turned = replace(coeffs, angle=torch.tensor([[0.0, FRONTAL, 0.0]]).repeat(3, 1))
    torch.testing.assert_close(look_weights(turned, [1, 1, 1]), torch.full((3,), 1 / 3))


def test_identity_is_shared_and_landmarks_stay():
    model, camera = load_face_model("photohead"), Camera()
    packed = FaceCoeffs.zeros(3, model.sizes).to_tensor()
    packed = packed + 0.2 * torch.randn(packed.shape, generator=torch.Generator().manual_seed(1))
    coeffs = FaceCoeffs.from_tensor(packed, model.sizes)
    crops = [crop_of_square(torch.tensor([170.0, 150.0]), 224.0, camera)] * 3
    faces: list[Face] = make_faces(coeffs, model, camera, crops, [PHOTO] * 3, [None] * 3)
    looks = one_person(faces)
    for face, look in zip(faces, looks, strict=True):
        torch.testing.assert_close(look.coeffs.id, looks[0].coeffs.id)
        torch.testing.assert_close(look.coeffs.alb, looks[0].coeffs.alb)
        for name in ("exp", "angle", "sh"):
            torch.testing.assert_close(getattr(look.coeffs, name), getattr(face.coeffs, name))
        moved = (look.landmarks_68 - face.landmarks_68).mean(0).norm()
        assert float(moved) < 0.7, "pixels, on average over the landmarks"
    (alone,) = one_person(faces[:1])
    torch.testing.assert_close(alone.vertices, faces[0].vertices, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="none to take together"):
        one_person([])


def test_program_takes_a_folder_per_person(tmp_path, capsys):
    for person, count in (("ann", 2), ("bob", 1)):
        (tmp_path / "in" / person).mkdir(parents=True)
        for number in range(count):
            shown = PHOTO[:, ::-1] if number else PHOTO
            Image.fromarray(shown).save(tmp_path / "in" / person / f"{number}.png")
    wall = Image.fromarray(np.full((200, 200, 3), 90, np.uint8))
    (tmp_path / "in" / "nobody").mkdir()
    wall.save(tmp_path / "in" / "nobody" / "wall.png")
    (tmp_path / "in" / "ann" / "bad.jpg").write_bytes(b"\xff\xd8 no photo")
    assert set(people_of([tmp_path / "in"])) == {"ann", "bob", "nobody"}
    assert set(people_of([tmp_path / "in" / "ann"])) == {"ann"}
    status = main([str(tmp_path / "in"), "-s", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert status == 1 and "ann: 2 of 3 photos" in said and "bob: 1 of 1 photos" in said
    assert "bad.jpg: " in said and "nobody: no face in 1 photos" in said
    out = tmp_path / "out" / "ann"
    first, second = (json.loads((out / name / f"{name}.json").read_text()) for name in ("0", "1"))
    assert first["coeffs"]["id"] == second["coeffs"]["id"]
    assert first["coeffs"]["exp"] != second["coeffs"]["exp"]
    assert first["settings"]["person"] == "ann"
    assert read_obj(out / "ann.obj").colors is not None
    assert main([str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err
