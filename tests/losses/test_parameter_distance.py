import naive
import numpy as np
import pytest
import torch

from v3recon.geometry.rotation import euler_to_matrix
from v3recon.losses.parameter_distance import (
    owpdc_weights,
    pdc_loss,
    resample_vertices,
    vdc_loss,
    weighted_parameter_loss,
    wpdc_weights,
    wpdc_weights_fast,
)


class Affine:
    """3DDFA's reconstruction: V = A S + t from 12 + K parameters."""

    def __init__(self, generator, count=15, components=5):
        self.mean = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        self.basis = torch.randn(count, 3, components, generator=generator, dtype=torch.float64)
        self.basis *= 0.1

    def __call__(self, parameters):
        affine = parameters[:, :12].reshape(-1, 3, 4)
        shape = self.mean + torch.einsum("nck,bk->bnc", self.basis, parameters[:, 12:])
        return shape @ affine[..., :3].transpose(1, 2) + affine[:, None, :, 3]


@pytest.fixture
def case(generator):
    model = Affine(generator)
    target = torch.zeros(3, 17, dtype=torch.float64)
    rotation = euler_to_matrix(torch.tensor([[0.1, 0.4, 0.0]] * 3, dtype=torch.float64))
    target[:, :12] = torch.cat([2 * rotation, torch.ones(3, 3, 1)], 2).flatten(1)
    target[:, 12:] = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, 17, generator=generator, dtype=torch.float64)
    return model, target + 0.2 * noise, target


def test_plain_distances():
    one, two = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert pdc_loss(one, two).item() == 2.5
    assert vdc_loss(one[None], two[None]).item() == 2.5
    weights = torch.tensor([[1.0, 0.5], [1.0, 1.0]])
    assert weighted_parameter_loss(one, two, weights).item() == 1.5


def test_exact_weights_equal_loops(case):
    model, parameters, target = case
    weights = wpdc_weights(parameters, target, model)
    for b in range(3):
        expected = naive.wpdc_weights(
            parameters[b].numpy(),
            target[b].numpy(),
            lambda p: model(torch.from_numpy(p)[None])[0].numpy(),
        )
        np.testing.assert_allclose(weights[b].numpy(), expected, rtol=1e-9)
    assert (weights.amax(1) == 1).all()


def test_fast_weights_equal_exact_ones_for_a_scaled_rotation(case):
    model, parameters, target = case
    fast = wpdc_weights_fast(parameters, target, model.mean, model.basis)
    torch.testing.assert_close(fast, wpdc_weights(parameters, target, model))
    deviation = torch.linspace(0.5, 2, 17, dtype=torch.float64)
    whitened = wpdc_weights_fast(
        parameters / deviation, target / deviation, model.mean, model.basis, deviation
    )
    torch.testing.assert_close(whitened, fast)
    with pytest.raises(ValueError, match=r"\[B, 17\]"):
        wpdc_weights_fast(parameters[:, :16], target[:, :16], model.mean, model.basis)


def test_perfect_prediction_has_no_weight(case):
    model, _, target = case
    assert (wpdc_weights(target, target, model) == 0).all()
    assert (wpdc_weights_fast(target, target, model.mean, model.basis) == 0).all()


def test_owpdc_is_the_constrained_minimum(case):
    model, parameters, target = case
    strength = 0.05
    weights = owpdc_weights(parameters, target, model, strength, steps=200)
    assert (weights >= 0).all() and (weights <= 1).all()
    start, goal = model(parameters), model(target)
    columns = []
    for i in range(17):
        mixed = parameters.clone()
        mixed[:, i] = target[:, i]
        columns.append(model(mixed) - start)
    columns = torch.stack(columns, 1)

    def energy(w):
        reached = (w[:, :, None, None] * columns).sum(1)
        misfit = ((reached - (goal - start)) ** 2).mean((1, 2))
        return misfit + strength * ((w * (target - parameters)) ** 2).sum(1)

    best = energy(weights)
    probe = torch.Generator().manual_seed(1)
    for _ in range(200):
        other = (weights + 0.1 * torch.randn(3, 17, generator=probe)).clamp(0, 1)
        assert (energy(other) >= best - 1e-9).all()
    assert (best < energy(torch.zeros_like(weights))).all()


@pytest.mark.parametrize("kind", [wpdc_weights, owpdc_weights])
def test_weights_are_constants_for_the_gradient(case, kind):
    model, parameters, target = case
    weights = kind(parameters, target, model)
    assert not weights.requires_grad
    parameters.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: weighted_parameter_loss(p, target, weights), parameters
    )
    assert torch.autograd.gradcheck(lambda p: pdc_loss(p, target), parameters)
    assert torch.autograd.gradcheck(lambda p: vdc_loss(model(p), model(target)), parameters)


def test_resampling(generator):
    key = torch.tensor([3, 7, 11])
    drawn = resample_vertices(key, 50, 20, generator)
    again = resample_vertices(key, 50, 20, generator)
    assert drawn[:3].tolist() == [3, 7, 11] and len(set(drawn.tolist())) == 23
    assert drawn.tolist() != again.tolist()
    with pytest.raises(ValueError, match="cannot draw 132 vertices out of 47"):
        resample_vertices(key, 50)
