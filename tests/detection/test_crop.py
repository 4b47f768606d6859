from __future__ import annotations

import numpy as np
import pytest
import torch

from v3recon.detection.crop import (
    CropTransform,
    crop_again,
    crop_of_detection,
    crop_of_five_points,
    crop_of_landmarks,
    crop_of_photo,
    crop_of_square,
    input_matrix,
    landmark_box_of,
    resize_crop,
    widened,
)
from v3recon.detection.crop_pixels import crop_image
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.types import Detection

CAMERA = Camera()
POINTS_3D = torch.tensor(
    [[-0.33, 0.3, 0.1], [0.33, 0.3, 0.1], [0, -0.02, 0.5], [-0.25, -0.4, 0.2], [0.25, -0.4, 0.2]]
)


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows with the column, green with the row; so colours tell where a pixel came from."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = np.stack([x * 250 / width, y * 250 / height, np.full_like(x, 128)], -1)
    return np.round(image).astype(np.uint8)


def scaled_pose(scale: float, center: tuple[float, float]) -> torch.Tensor:
    """The five points seen by a scaled orthographic camera, photo pixels."""
    posed = POINTS_3D @ euler_to_matrix(torch.tensor([0.1, 0.3, -0.2]))
    return torch.tensor(center) + scale * posed[:, :2] * torch.tensor([1.0, -1.0])


def test_five_points_of_a_known_pose():
    crop = crop_of_five_points(scaled_pose(300.0, (700.0, 400.0)), POINTS_3D, CAMERA)
    assert crop.scale == pytest.approx(102 / 300, abs=1e-5)
    # What lies on the camera's axis goes to its principal point.
    axis = project(torch.zeros(3), CAMERA)
    torch.testing.assert_close(
        crop.to_crop(torch.tensor([[700.0, 400.0]]))[0], axis, atol=1e-2, rtol=0
    )
    linear = crop.matrix[:, :2]
    torch.testing.assert_close(linear, crop.scale * torch.eye(2, dtype=torch.float64))


def test_five_point_crop_is_invariant_to_the_photo():
    near = scaled_pose(300.0, (700.0, 400.0))
    far = 0.37 * near + torch.tensor([15.0, -7.0])
    one = crop_of_five_points(near, POINTS_3D, CAMERA).to_crop(near)
    two = crop_of_five_points(far, POINTS_3D, CAMERA).to_crop(far)
    torch.testing.assert_close(one, two, atol=1e-2, rtol=0)


def test_points_that_fall_together_are_refused():
    with pytest.raises(ValueError, match="fall together"):
        crop_of_five_points(torch.full((5, 2), 7.0), POINTS_3D, CAMERA)


def test_square_edges_meet_frame_edges():
    crop = crop_of_square(torch.tensor([99.5, 49.5]), 100.0, CAMERA)
    edges = torch.tensor([[49.5, -0.5], [149.5, 99.5]])
    torch.testing.assert_close(crop.to_crop(edges), torch.tensor([[-0.5, -0.5], [223.5, 223.5]]))


def test_crop_of_landmarks_takes_the_longer_side():
    points = torch.tensor([[10.0, 20.0], [50.0, 100.0], [30.0, 60.0]])
    crop = crop_of_landmarks(points, 1.5, CAMERA)
    assert crop.scale == pytest.approx(224 / 120)
    middle = crop.to_crop(torch.tensor([[30.0, 60.0]]))[0]
    torch.testing.assert_close(middle, torch.tensor([111.5, 111.5]))


def test_rules_by_name():
    points = scaled_pose(100.0, (150.0, 120.0))
    box = torch.tensor([100.0, 60.0, 200.0, 190.0])
    face = Detection(box, 0.99, points)
    five = crop_of_detection(face, {"name": "five_points"}, POINTS_3D, CAMERA)
    torch.testing.assert_close(five.matrix, crop_of_five_points(points, POINTS_3D, CAMERA).matrix)
    square = crop_of_detection(face, {"name": "box", "scale": 2.0}, POINTS_3D, CAMERA)
    center, longer = landmark_box_of(face)
    assert 224 / square.scale == pytest.approx(2 * longer)
    torch.testing.assert_close(
        square.to_crop(center[None])[0], torch.tensor([111.5, 111.5]).double()
    )
    assert 60 < center[1] < 190 and 80 < longer < 130
    with pytest.raises(ValueError, match="unknown crop rule"):
        crop_of_detection(face, {"name": "circle"}, POINTS_3D, CAMERA)
    with pytest.raises(ValueError, match="five points"):
        crop_of_detection(Detection(box, 0.9), {"name": "five_points"}, POINTS_3D, CAMERA)


def test_second_look_uses_the_same_rule():
    landmarks = torch.zeros(68, 2)
    five = scaled_pose(100.0, (150.0, 120.0))
    landmarks[[36, 39]] = five[0]
    landmarks[[42, 45]] = five[1]
    landmarks[[30, 48, 54]] = five[2:]
    again = crop_again(landmarks, {"name": "five_points"}, POINTS_3D, CAMERA)
    first = crop_of_five_points(five, POINTS_3D, CAMERA)
    torch.testing.assert_close(again.matrix, first.matrix, atol=1e-4, rtol=0)
    boxed = crop_again(landmarks, {"name": "box", "scale": 1.4}, POINTS_3D, CAMERA)
    torch.testing.assert_close(boxed.matrix, crop_of_landmarks(landmarks, 1.4, CAMERA).matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_crop_undoes_to_crop(generator, dtype):
    crop = CropTransform(torch.tensor([[0.31, 0.02, -80.0], [-0.02, 0.31, -55.0]]).double())
    points = 3000 * torch.rand(7, 5, 2, generator=generator).to(dtype)
    back = crop.from_crop(crop.to_crop(points))
    assert back.dtype == dtype and back.shape == points.shape
    tolerance = 2e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(back, points, atol=tolerance, rtol=0)


def test_a_crop_sized_photo_is_the_crop():
    crop = crop_of_photo(224, 224, CAMERA)
    torch.testing.assert_close(crop.matrix, torch.eye(2, 3, dtype=torch.float64))
    image = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    assert resize_crop(image, 224) is image
    np.testing.assert_array_equal(crop_image(image, crop.matrix, 224), image)


def test_crop_of_photo_stretches():
    crop = crop_of_photo(100, 50, CAMERA)
    corners = torch.tensor([[-0.5, -0.5], [99.5, 49.5]])
    torch.testing.assert_close(crop.to_crop(corners), torch.tensor([[-0.5, -0.5], [223.5, 223.5]]))
    assert resize_crop(ramp(50, 100), 112).shape == (112, 112, 3)


def test_input_matrix_keeps_the_square():
    matrix = crop_of_square(torch.tensor([40.0, 60.0]), 33.0, CAMERA).matrix
    small = CropTransform(input_matrix(matrix, 112, CAMERA))
    corners = CropTransform(matrix).from_crop(torch.tensor([[-0.5, -0.5], [223.5, 223.5]]))
    torch.testing.assert_close(small.to_crop(corners), torch.tensor([[-0.5, -0.5], [111.5, 111.5]]))


@pytest.mark.parametrize("ratio", [0.11, 0.24, 0.49, 0.7, 1.0, 1.9])
@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_crop_image_samples_where_the_matrix_says(ratio, angle):
    height, width = round(100 / ratio), round(120 / ratio)  # two levels an output pixel
    image = ramp(height, width)
    cosine, sine = ratio * np.cos(angle), ratio * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    matrix = np.column_stack(
        [linear, [31.5, 31.5] - linear @ [0.5 * width + 0.3, 0.5 * height - 0.4]]
    )
    found = crop_image(image, matrix, 64)
    row, column = np.mgrid[:64, :64]
    photo = (np.stack([column, row], -1) - matrix[:, 2]) @ np.linalg.inv(linear).T
    expected = np.stack([photo[..., 0] * 250 / width, photo[..., 1] * 250 / height], -1)
    assert np.abs(found[..., :2] - expected).max() < 1.8
    assert np.abs((found[..., :2] - expected).mean((0, 1))).max() < 0.4  # a fifth of a pixel
    assert (found[..., 2] == 128).all()


@pytest.mark.parametrize("ratio", [0.09, 0.2, 0.34, 0.45])
def test_fine_patterns_average_out(ratio):
    row, column = np.mgrid[:800, :800]
    pattern = (255 * ((row // 1 + column // 1) % 2)).astype(np.uint8)
    image = np.repeat(pattern[..., None], 3, 2)
    matrix = np.array([[ratio, 0, -ratio * 60.2], [0, ratio, -ratio * 60.2]])
    found = crop_image(image, matrix, 48).astype(float)
    assert np.abs(found - 127.5).max() < 12  # nearest or plain bilinear sampling gives 127


def test_outside_of_the_photo_is_black():
    image = np.full((50, 50, 3), 200, np.uint8)
    beside = np.array([[1.0, 0, -1000.0], [0, 1, 0]])
    assert crop_image(image, beside, 32).max() == 0
    half = crop_image(image, np.array([[1.0, 0, 16.0], [0, 1, 0]]), 32)
    assert half[:, :16].max() == 0 and half[:, 16:].min() == 200


def test_crop_image_leaves_the_photo_alone_and_reads_views():
    image = ramp(300, 400)
    view = image[::-1, ::2]
    before = image.copy()
    matrix = np.array([[0.4, 0, 3], [0, 0.4, 1]])
    found = crop_image(view, matrix, 60)
    np.testing.assert_array_equal(found, crop_image(np.ascontiguousarray(view), matrix, 60))
    np.testing.assert_array_equal(image, before)


def test_widened_crop_is_the_crop_of_a_larger_square():
    center = torch.tensor([31.0, -7.5], dtype=torch.float64)
    expected = crop_of_square(center, 90.0, CAMERA).matrix
    assert torch.allclose(
        widened(crop_of_square(center, 60.0, CAMERA), 1.5, CAMERA).matrix, expected
    )
