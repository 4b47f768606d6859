import naive
import numpy as np
import pytest
import torch

from v3recon.geometry.point_sets import anchor_grid, distance_statistics
from v3recon.losses.part_distribution import (
    _plain_part_distribution,
    above_brows,
    covered_by,
    part_distribution_loss,
    part_index_sets,
)

INDEX = [torch.tensor([0, 1, 2, 3, 4]), torch.tensor([5]), torch.tensor([6, 7, 8, 9])]


@pytest.fixture
def scene(generator):
    points = torch.rand(2, 12, 2, generator=generator, dtype=torch.float64) * 30 + 5
    goal = torch.rand(2, 12, 2, generator=generator, dtype=torch.float64) * 30 + 5
    anchors = anchor_grid((40, 48), (5, 6), dtype=torch.float64)
    target = torch.stack([distance_statistics(goal[:, ids], anchors) for ids in INDEX], 1)
    return points, target, anchors


def test_equals_loops(scene):
    points, target, anchors = scene
    weights = torch.tensor([[1.0, 0.5, 2.0], [0.0, 1.0, 1.0]])
    loss = part_distribution_loss(points, INDEX, target, anchors, part_weights=weights)
    expected = naive.part_distribution(points, INDEX, target, anchors, weights)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_large_sets_equal_distance_matrix(generator):
    """Enough vertices for the grid, the hull and the vector loops to matter; float32."""
    sizes = (700, 90, 3)
    starts = np.cumsum((0, *sizes))
    index = [torch.arange(starts[i], starts[i + 1]) for i in range(3)]
    points = torch.randn(3, int(starts[-1]), 2, generator=generator) * 25 + 112
    anchors = anchor_grid((224, 224), (28, 28))
    target = torch.rand(3, 3, 3, len(anchors), generator=generator) * 100
    points.requires_grad_()
    part_distribution_loss(points, index, target, anchors).backward()
    exact = points.detach().double().requires_grad_()
    distance = [
        torch.cdist(
            anchors.double().expand(3, -1, -1),
            exact[:, i],
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        for i in index
    ]
    table = torch.stack([torch.stack([d.amin(-1), d.amax(-1), d.mean(-1)], 1) for d in distance], 1)
    loss = ((table - target) ** 2).sum() / len(anchors) / 3
    loss.backward()
    fused = part_distribution_loss(points.detach(), index, target, anchors)
    assert fused.item() == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(points.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_gradcheck(scene):
    points, target, anchors = scene
    visible = torch.ones(2, 12, dtype=torch.float64)
    visible[0, 1] = 0
    visible[1, 7] = 0.5

    def loss(p):
        return part_distribution_loss(p, INDEX, target, anchors, vertex_weights=visible)

    assert torch.autograd.gradcheck(loss, points.requires_grad_(), eps=1e-6, atol=1e-5)


def test_losses_of_single_faces(scene):
    points, target, anchors = scene
    points.requires_grad_()
    each = part_distribution_loss(points, INDEX, target, anchors, per_face=True)
    whole = part_distribution_loss(points, INDEX, target, anchors)
    assert each.shape == (2,) and each.mean().item() == pytest.approx(whole.item(), rel=1e-12)
    (second,) = torch.autograd.grad(each[1], points)
    alone = points.detach()[1:].requires_grad_()
    part_distribution_loss(alone, INDEX, target[1:], anchors).backward()
    assert not second[0].any()
    torch.testing.assert_close(second[1:], alone.grad)


def test_fused_equals_plain(scene):
    points, target, anchors = scene
    factors = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)[:, None] * torch.tensor(
        [1.0, 0.5, 2.0], dtype=torch.float64
    )
    weights = torch.rand(2, 12, dtype=torch.float64)
    weights[:, 5] = 0  # the middle part has no vertex left
    index = torch.nn.utils.rnn.pad_sequence(INDEX, batch_first=True, padding_value=-1)
    plain = points.clone().requires_grad_()
    value = _plain_part_distribution(
        plain, weights, index, anchors, target, factors.expand(2, 3, 3) / len(anchors)
    ).mean()
    value.backward()
    fused = points.clone().requires_grad_()
    loss = part_distribution_loss(
        fused,
        index,
        target,
        anchors,
        part_weights=torch.tensor([1.0, 0.0, 3.0]),
        statistic_weights=(1.0, 0.5, 2.0),
        vertex_weights=weights,
    )
    loss.backward()
    torch.testing.assert_close(loss, value)
    torch.testing.assert_close(fused.grad, plain.grad)


def test_gradient_of_min_is_the_papers(generator):
    points = torch.rand(1, 6, 2, generator=generator, dtype=torch.float64) * 20
    anchors = anchor_grid((20, 20), (4, 4), dtype=torch.float64)
    target = torch.rand(1, 1, 3, 16, generator=generator, dtype=torch.float64) * 10
    points.requires_grad_()
    part_distribution_loss(
        points, torch.arange(6)[None], target, anchors, statistic_weights=(1, 0, 0)
    ).backward()
    expected = naive.part_distribution_gradient_min(points[0].detach(), anchors, target[0, 0, 0])
    np.testing.assert_allclose(points.grad[0].numpy(), expected, atol=1e-9)


def test_invariants(scene, generator):
    points, target, anchors = scene
    own = torch.stack([distance_statistics(points[:, ids], anchors) for ids in INDEX], 1)
    assert part_distribution_loss(points, INDEX, own, anchors).item() < 1e-12
    shuffled = [ids[torch.randperm(len(ids), generator=generator)] for ids in INDEX]
    one, two = (part_distribution_loss(points, s, target, anchors) for s in (INDEX, shuffled))
    torch.testing.assert_close(one, two)
    each = [
        part_distribution_loss(points[b : b + 1], INDEX, target[b : b + 1], anchors)
        for b in range(2)
    ]
    torch.testing.assert_close(one, sum(each) / 2)


def test_absent_part_gives_nothing(scene):
    points, target, anchors = scene
    points.requires_grad_()
    target = target.clone()
    target[:, 0] = 1e6
    part_distribution_loss(
        points, INDEX, target, anchors, part_weights=torch.tensor([0.0, 1.0, 1.0])
    ).backward()
    assert (points.grad[:, :5] == 0).all() and (points.grad[:, 5:10] != 0).all()


def test_wrong_target_shape_is_named(scene):
    points, target, anchors = scene
    with pytest.raises(ValueError, match=r"expected \(2, 3, 3, 30\)"):
        part_distribution_loss(points, INDEX, target[:, :2], anchors)


def test_bad_points_and_indices_are_named(scene):
    points, target, anchors = scene
    with pytest.raises(ValueError, match="vertex 12 of 12"):
        part_distribution_loss(points, [*INDEX[:2], torch.tensor([12])], target, anchors)
    points = points.clone()
    points[1, 3, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        part_distribution_loss(points, INDEX, target, anchors)


def test_index_sets_thin_and_drop_the_forehead():
    shape = torch.tensor([[0.0, y, 0.0] for y in range(6)])
    labels = torch.tensor([8, 8, 3, 4, 8, 8])  # the mean height of the brows is 2.5
    forehead = above_brows(labels, shape)
    assert forehead.tolist() == [False, False, False, False, True, True]
    index = part_index_sets(labels, shape, max_points=1, keep=~forehead)
    assert index[:, 0].tolist() == [-1, -1, 2, 3, -1, -1, -1, 0]
    assert index.shape == (8, 1)


def test_covered_by():
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 2, 3] = True
    points = torch.tensor([[[3.4, 1.6], [3.6, 2.0], [-1.0, 2.0], [3.0, 9.0]]])
    assert covered_by(points, mask).tolist() == [[True, False, False, False]]
