from __future__ import annotations

import torch

from v3recon.geometry.camera import Camera, project, to_camera, to_clip, unproject

CAMERA = Camera()


def random_points(generator: torch.Generator, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 20, 3, generator=generator, dtype=torch.float64)


def test_known_pixels():
    origin = torch.zeros(1, 1, 3)
    torch.testing.assert_close(project(origin, CAMERA), torch.tensor([[[112.0, 111.0]]]))
    # One decimetre to the right, two up, one nearer: 1015 / 9 and 2030 / 9 pixels.
    point = torch.tensor([[[1.0, 2.0, 1.0]]])
    expected = torch.tensor([[[112 + 1015 / 9, 111 - 2030 / 9]]])
    torch.testing.assert_close(project(point, CAMERA), expected)


def test_depth_grows_away_from_the_camera():
    near, far = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, -1])
    assert to_camera(near, CAMERA)[2] == 9 and to_camera(far, CAMERA)[2] == 11


def test_unproject_undoes_project(generator):
    points = random_points(generator)
    depth = to_camera(points, CAMERA)[..., 2]
    torch.testing.assert_close(unproject(project(points, CAMERA), depth, CAMERA), points)


def pixels_of_clip(clip: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Raster position: pixel (c, r) has its centre at (2c + 1) / W - 1, (2r + 1) / H - 1."""
    ndc = clip[..., :2] / clip[..., 3:]
    size = torch.tensor([width, height], dtype=clip.dtype)
    return ((ndc + 1) * size - 1) / 2


def test_clip_agrees_with_project(generator):
    points = random_points(generator)
    clip = to_clip(points, CAMERA)
    torch.testing.assert_close(pixels_of_clip(clip, 224, 224), project(points, CAMERA))


def test_clip_into_the_photo(generator):
    points = random_points(generator, batch=2)
    matrix = torch.tensor([[[2.0, 0.5, 30.0], [-0.5, 2.0, -7.0]], [[1.0, 0, 0], [0, 1, 5]]])
    matrix = matrix.double()
    clip = to_clip(points, CAMERA, (480, 640), matrix)
    crop = project(points, CAMERA)
    homogeneous = torch.cat([crop, torch.ones_like(crop[..., :1])], -1)
    torch.testing.assert_close(pixels_of_clip(clip, 480, 640), homogeneous @ matrix.mT)


def test_near_and_far_planes():
    points = torch.tensor([[[0.0, 0, 10 - CAMERA.near], [0, 0, 10 - CAMERA.far]]])
    clip = to_clip(points, CAMERA)
    torch.testing.assert_close(clip[0, :, 2] / clip[0, :, 3], torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(clip[0, :, 3], torch.tensor([CAMERA.near, CAMERA.far]))


def test_gradients(generator):
    points = random_points(generator, batch=1)[:, :3].requires_grad_()
    matrix = torch.randn(1, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    check = torch.autograd.gradcheck
    assert check(lambda p: project(p, CAMERA), points)
    assert check(lambda p, m: to_clip(p, CAMERA, (10, 12), m), (points, matrix))
    pixels = project(points.detach(), CAMERA).requires_grad_()
    depth = torch.full((1, 3), 9.0, dtype=torch.float64, requires_grad=True)
    assert check(lambda p, d: unproject(p, d, CAMERA), (pixels, depth))


def test_batch_of_three_is_three_batches_of_one(generator):
    points = random_points(generator)
    clip = to_clip(points, CAMERA)
    for index in range(3):
        torch.testing.assert_close(to_clip(points[index : index + 1], CAMERA)[0], clip[index])
