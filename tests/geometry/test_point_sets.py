import naive
import numpy as np
import pytest
import torch

from v3recon.geometry.point_sets import (
    anchor_grid,
    distance_statistics,
    farthest_point_sampling,
    nearest,
    pairwise_sq_dist,
)


def test_anchor_grid_lies_on_pixels():
    grid = anchor_grid((4, 9), (2, 3))
    assert grid.tolist() == [[1, 1], [4, 1], [7, 1], [1, 3], [4, 3], [7, 3]]
    full = anchor_grid((3, 2), (3, 2))
    assert full.tolist() == [[x, y] for y in range(3) for x in range(2)]
    with pytest.raises(ValueError, match="does not fit"):
        anchor_grid((4, 4), (5, 4))


def test_statistics_equal_loops_in_pieces(generator):
    points = torch.rand(2, 7, 2, generator=generator) * 20
    anchors = anchor_grid((20, 20), (5, 5))
    whole = distance_statistics(points, anchors)
    pieces = distance_statistics(points, anchors, chunk=50)
    torch.testing.assert_close(whole, pieces)
    for b in range(2):
        np.testing.assert_allclose(
            whole[b].numpy(), naive.statistics(points[b], anchors), rtol=1e-5
        )


def test_statistics_weights_and_empty_sets(generator):
    points = torch.rand(2, 4, 2, generator=generator, dtype=torch.float64)
    anchors = torch.rand(3, 2, generator=generator, dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    table = distance_statistics(points, anchors, weights)
    torch.testing.assert_close(table[:1], distance_statistics(points[:1, ::2], anchors))
    assert (table[1] == 0).all()


@pytest.mark.parametrize("chunk", [1 << 24, 16])
def test_statistics_gradcheck(generator, chunk):
    points = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    anchors = torch.rand(4, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: distance_statistics(p, anchors, chunk=chunk), points)


def test_statistics_slope_is_finite_on_an_anchor():
    points = torch.zeros(1, 1, 2, requires_grad=True)
    distance_statistics(points, torch.zeros(1, 2)).sum().backward()
    assert (points.grad == 0).all()


def test_nearest_with_mask_and_pieces(generator):
    source = torch.rand(2, 9, 3, generator=generator)
    target = torch.rand(2, 6, 3, generator=generator)
    squared, index = nearest(source, target, chunk=30)
    for b in range(2):
        value, where = naive.squared_nearest(source[b], target[b])
        assert index[b].tolist() == where
        np.testing.assert_allclose(squared[b].numpy(), value, rtol=1e-5)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 2:] = False
    assert (nearest(source, target, mask)[1] < 2).all()
    mask[:] = False
    assert nearest(source, target, mask)[0].isinf().all()


def test_pairwise_keeps_digits_far_from_the_origin():
    points = torch.tensor([[1e4, 1e4]])
    assert pairwise_sq_dist(points, points + 0.0625).item() == 2 * 0.0625**2


def test_farthest_point_sampling_equals_loops(generator):
    points = torch.rand(40, 3, generator=generator, dtype=torch.float64)
    assert farthest_point_sampling(points, 9).tolist() == naive.farthest_points(points.tolist(), 9)
    assert farthest_point_sampling(points, 99).tolist() == list(range(40))
