import math

import pytest
import torch

from v3recon.face_models.landmarks import march_contour_2d
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.losses.landmark import (
    gather_landmarks,
    landmark_loss,
    landmark_weights_68,
)


def test_weights():
    weights = landmark_weights_68()
    assert (weights == 20).nonzero()[:, 0].tolist() == [28, 29, 30, *range(60, 68)]
    assert (weights == 1).sum() == 57


def test_loss_divides_by_count_and_ignores_what_is_not_annotated():
    points = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [3.0, 4.0]]], requires_grad=True)
    target = torch.zeros(2, 2, 2)
    assert landmark_loss(points, target).item() == (1 + 4 + 0 + 25) / 4
    assert landmark_loss(points, target, torch.tensor([20.0, 1.0])).item() == (20 + 4 + 25) / 4
    target[1, 1] = math.nan
    loss = landmark_loss(points, target, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert loss.item() == 5 / 4
    loss.backward()
    assert points.grad.isfinite().all() and (points.grad[1, 1] == 0).all()


def test_gradcheck(generator):
    points, target = torch.rand(2, 2, 5, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda p: landmark_loss(p, target, weights), points.requires_grad_()
    )


def test_marched_contour_equals_the_reference(golden):
    """Golden `ldm106_2d`: 33 marched points, then the rest of the 106, drawn with roll."""
    points = project(golden["posed"], Camera())
    index = march_contour_2d(
        points, golden["parallel"].long(), golden["coeffs"][:, 226], int(golden["ldm106"][16])
    )
    marched = gather_landmarks(points, index)
    expected = golden["ldm106_2d_xy_up"][:, :33].clone()
    expected[..., 1] = 223 - expected[..., 1]
    agree = (marched - expected).norm(dim=-1) < 1e-3
    assert agree.float().mean() > 0.95  # see the docstring: roll is removed in the image
    assert agree[:, 16].all()


def test_march_does_not_depend_on_roll(generator):
    shape = torch.randn(1, 40, 3, generator=generator) * 0.5
    lines = torch.arange(40).reshape(5, 8)
    lines[0, 5:] = -1
    upright, rolled = (
        project(shape @ euler_to_matrix(torch.tensor([[0.1, 0.3, roll]])), Camera())
        for roll in (0.0, 0.8)
    )
    one = march_contour_2d(upright, lines, torch.tensor([0.0]), 7)
    two = march_contour_2d(rolled, lines, torch.tensor([0.8]), 7)
    assert one.tolist() == two.tolist() and one[0, 2] == 7 and one[0, 0] < 5
    for line in range(5):
        x = upright[0, lines[line][lines[line] >= 0], 0]
        picked = upright[0, one[0, line], 0]
        if line != 2:
            assert picked == (x.min() if line < 2 else x.max())


def test_gather():
    points = torch.arange(12.0).reshape(2, 3, 2)
    assert gather_landmarks(points, torch.tensor([2, 0])).tolist() == [
        [[4, 5], [0, 1]],
        [[10, 11], [6, 7]],
    ]
    assert gather_landmarks(points, torch.tensor([[2], [0]])).tolist() == [[[4, 5]], [[6, 7]]]


def test_shapes_are_checked():
    with pytest.raises(AssertionError):
        landmark_loss(torch.zeros(1, 3, 2), torch.zeros(1, 4, 2))
