from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from synthetic_assets import tiny_face_model

from v3recon.decode import decode
from v3recon.detection.crop import CropTransform, crop_of_square
from v3recon.geometry.camera import Camera
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.geometry.spherical_harmonics import shade_sh
from v3recon.reconstruct.quality import DOUBTFUL
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.reconstruct.turned import (
    from_turned_coeffs,
    from_turned_crop,
    from_turned_detection,
    from_turned_matrix,
    turn_photo,
)
from v3recon.types import Detection, FaceCoeffs


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_pixels_are_where_the_matrix_says(quarters):
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    turned = turn_photo(image, quarters)
    back = from_turned_matrix(quarters, (5, 7)).numpy()
    for y in range(turned.shape[0]):
        for x in range(turned.shape[1]):
            column, row = (back[:, :2] @ [x, y] + back[:, 2]).astype(int)
            assert (turned[y, x] == image[row, column]).all()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_same_points_and_colors_in_the_photo(quarters, generator):
    """A face in a turned photo, told upright, projects and shines as it did there."""
    model, camera, size = tiny_face_model(), Camera(), (300, 400)
    coeffs = FaceCoeffs.from_tensor(
        0.3 * torch.randn(2, sum(model.sizes) + 33, generator=generator), model.sizes
    )
    crop = CropTransform(torch.tensor([[0.7, 0, -20.0], [0, 0.7, 15.0]], dtype=torch.float64))
    upright = from_turned_coeffs(coeffs, quarters)
    upright_crop = from_turned_crop(crop, quarters, size, camera)
    before, after = decode(coeffs, model, camera), decode(upright, model, camera)
    back = from_turned_matrix(quarters, size)
    there = crop.from_crop(before.points_2d).double() @ back[:, :2].T + back[:, 2]
    torch.testing.assert_close(
        upright_crop.from_crop(after.points_2d), there, atol=2e-3, rtol=0, check_dtype=False
    )
    normals = torch.nn.functional.normalize(torch.randn(2, 50, 3, generator=generator), dim=2)
    albedo = torch.rand(2, 50, 3, generator=generator)
    moved = normals @ euler_to_matrix(coeffs.angle).transpose(1, 2) @ euler_to_matrix(upright.angle)
    torch.testing.assert_close(
        shade_sh(albedo, moved, upright.sh), shade_sh(albedo, normals, coeffs.sh), atol=1e-5, rtol=0
    )
    assert (upright.angle[:, 2].abs() <= torch.pi + 1e-6).all()


def test_detections_follow():
    found = Detection(torch.tensor([10.0, 20, 30, 60]), 0.9, torch.rand(5, 2) * 20 + 20)
    moved = from_turned_detection(found, 1, (100, 80))  # the turned photo is 80 high, 100 wide
    np.testing.assert_allclose(moved.box, [79 - 60, 10, 79 - 20, 30])
    assert moved.points is not None and found.points is not None
    np.testing.assert_allclose(moved.points[:, 0], 79 - found.points[:, 1], rtol=1e-6)


@pytest.fixture(scope="module")
def shipped() -> FaceReconstructor:
    return FaceReconstructor.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def upright(shipped):
    (face,) = shipped(astronaut())
    return face


def test_an_upright_face_is_good(upright):
    assert upright.quality > 0.9


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_heads_on_their_side_and_hanging(shipped, upright, quarters):
    """The same face in a turned photo: points and depth turn, and nothing else."""
    image = astronaut()
    turned = turn_photo(image, quarters)
    faces = [face for face in shipped(turned) if face.quality >= DOUBTFUL]
    assert len(faces) == 1
    back = from_turned_matrix(quarters, image.shape[:2]).float()
    points = faces[0].landmarks_68 @ back[:, :2].T + back[:, 2]
    size = (upright.landmarks_68.amax(0) - upright.landmarks_68.amin(0)).prod().sqrt()
    assert float((points - upright.landmarks_68).norm(dim=1).mean() / size) < 0.02
    roll = float(faces[0].angle_degrees[2] - upright.angle_degrees[2])
    assert abs((roll - 90 * quarters + 180) % 360 - 180) < 3
    assert faces[0].image_size == turned.shape[:2] and faces[0].detection is not None
    assert bool(
        torch.equal(faces[0].crop.matrix[:, :2], faces[0].crop.scale * torch.eye(2).double())
    )


def test_what_is_no_face_is_doubtful_or_not_found(shipped):
    y, x = np.mgrid[:300, :300] - 150
    wheel = np.where((np.sin(9 * np.arctan2(y, x)) > 0) & (np.hypot(x, y) < 120), 230, 40)
    image = np.repeat(wheel[..., None], 3, 2).astype(np.uint8)
    assert all(face.quality < DOUBTFUL for face in shipped(image))
    box = Detection(torch.tensor([60.0, 60, 240, 240]), 0.99)
    crop = crop_of_square(torch.tensor([150.0, 150.0]), 200.0, shipped.camera)
    faces = shipped.reconstruct_found([image], [crop], [box], 2)
    assert shipped.finished([image], faces)[0].quality < DOUBTFUL


def test_doubtful_faces_can_be_left_out(shipped, upright):
    assert len(replace(shipped, min_quality=0.5)(astronaut())) == 1
    assert len(replace(shipped, min_quality=1.0)(astronaut())) == 0
