import naive
import numpy as np
import pytest
import torch

from v3recon.losses.chamfer import chamfer_loss, density_aware_chamfer_loss, icp_loss
from v3recon.losses.silhouette import silhouette_iou_loss, soft_silhouette


@pytest.fixture
def sets(generator):
    points = torch.rand(2, 6, 2, generator=generator, dtype=torch.float64) * 10
    target = torch.rand(2, 9, 2, generator=generator, dtype=torch.float64) * 10
    return points, target


LOSSES = {
    "chamfer": (chamfer_loss, naive.chamfer),
    "icp": (icp_loss, naive.icp),
    "density_aware": (
        lambda *a, **k: density_aware_chamfer_loss(*a, alpha=0.3, **k),
        lambda *a: naive.density_aware_chamfer(*a, alpha=0.3),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_equals_loops_and_ignores_masked_points(sets, name):
    points, target = sets
    loss, twin = LOSSES[name]
    expected = [twin(points[b], target[b]) for b in range(2)]
    np.testing.assert_allclose(loss(points, target).numpy(), expected, rtol=1e-9)
    junk = torch.full((2, 3, 2), 5.0, dtype=torch.float64)
    here = torch.arange(9).expand(2, 9) < 6
    there = torch.arange(12).expand(2, 12) < 9
    padded = loss(
        torch.cat([points, junk], 1),
        torch.cat([target, junk], 1),
        points_mask=here,
        target_mask=there,
    )
    np.testing.assert_allclose(padded.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(sets, name):
    points, target = sets
    loss = LOSSES[name][0]
    assert torch.autograd.gradcheck(lambda p: loss(p, target), points.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_zero_on_itself_symmetric_and_empty(sets, name):
    points, target = sets
    loss = LOSSES[name][0]
    own = points.clone().requires_grad_()
    loss(own, points).sum().backward()
    assert own.grad.isfinite().all()
    assert loss(points, points).abs().max() < 1e-12
    torch.testing.assert_close(loss(points, target), loss(target, points))
    empty = torch.zeros(2, 9, dtype=torch.bool)
    empty[1] = True
    value = loss(points.requires_grad_(), target, target_mask=empty)
    assert value[0] == 0 and value[1] > 0
    value.sum().backward()
    assert (points.grad[0] == 0).all() and points.grad[1].isfinite().all()


def test_icp_directions(sets):
    points, target = sets
    both = icp_loss(points, target, direction="to_target")
    both = both + icp_loss(points, target, direction="from_target")
    torch.testing.assert_close(icp_loss(points, target), both)
    with pytest.raises(ValueError, match="direction is 'up'"):
        icp_loss(points, target, direction="up")


def test_density_aware_counts_crowding():
    """A crowd at one target point costs more than points that are spread over both."""
    target = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    crowd = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    assert density_aware_chamfer_loss(crowd, target, 1.0) > 0.25
    assert density_aware_chamfer_loss(target, target, 1.0) == 0


def test_soft_silhouette_equals_loops(generator):
    points = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64) * 10
    faces = torch.tensor([[0, 1, 2], [0, 3, 2], [4, 1, 3]])
    pixels = torch.rand(7, 2, generator=generator, dtype=torch.float64) * 10
    whole = soft_silhouette(points, faces, pixels, sigma=0.7)
    torch.testing.assert_close(whole, soft_silhouette(points, faces, pixels, 0.7, chunk=12))
    own = torch.stack([pixels, pixels + 1])
    torch.testing.assert_close(
        soft_silhouette(points, faces, own, 0.7)[1],
        soft_silhouette(points, faces, pixels + 1, 0.7)[1],
    )
    for b in range(2):
        expected = naive.soft_silhouette(points[b].numpy(), faces, pixels.numpy(), 0.7)
        np.testing.assert_allclose(whole[b].numpy(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole, soft_silhouette(points, faces.flip(1), pixels, 0.7))


def test_soft_silhouette_gradcheck(generator):
    points = torch.rand(1, 4, 2, generator=generator, dtype=torch.float64) * 5
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    pixels = torch.rand(6, 2, generator=generator, dtype=torch.float64) * 5
    assert torch.autograd.gradcheck(
        lambda p: soft_silhouette(p, faces, pixels, 1.3), points.requires_grad_()
    )
    with pytest.raises(ValueError, match="sigma"):
        soft_silhouette(points, faces, pixels, 0.0)


def test_hard_silhouette_is_a_triangle_and_its_iou():
    points = torch.tensor([[[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]]])
    pixels = torch.tensor([[1.0, 1.0], [2.0, 3.0], [6.0, 6.0], [-1.0, 2.0]])
    sharp = soft_silhouette(points, torch.tensor([[0, 1, 2]]), pixels, sigma=1e-3)
    assert sharp[0].tolist() == [1, 1, 0, 0]
    mask = torch.tensor([[True, False, True, False]])
    assert silhouette_iou_loss(sharp, mask).item() == pytest.approx(1 - 1 / 3)
    assert silhouette_iou_loss(sharp, mask & False).item() == 0
