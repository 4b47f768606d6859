import dataclasses
import math

import pytest
import torch

from v3recon.geometry.camera import Camera, project
from v3recon.geometry.point_sets import anchor_grid, distance_statistics
from v3recon.losses.landmark import landmark_loss
from v3recon.losses.part_distribution import part_distribution_loss
from v3recon.losses.regularization import coefficient_loss, gamma_loss, reflectance_loss
from v3recon.losses.total import LossTarget, LossWeights, total_loss
from v3recon.types import Decoded, FaceCoeffs


@pytest.fixture
def case(generator):
    coeffs = FaceCoeffs.from_tensor(torch.randn(2, 12 + 33, generator=generator), (5, 4, 3))
    shape = torch.randn(2, 9, 3, generator=generator)
    decoded = Decoded(shape, torch.eye(3).expand(2, 3, 3), shape, project(shape, Camera()))
    anchors = anchor_grid((224, 224), (4, 4))
    index = torch.tensor([[0, 1, 2], [3, -1, -1]])
    goal = decoded.points_2d + 3
    statistics = torch.stack(
        [distance_statistics(goal[:, ids], anchors) for ids in ([0, 1, 2], [3])], 1
    )
    target = LossTarget(
        landmarks=goal[:, [4, 5]],
        landmark_index=torch.tensor([4, 5]),
        dense=goal,
        dense_index=torch.arange(9),
        part_statistics=statistics,
        part_anchors=anchors,
        part_index=index,
        image=torch.rand(2, 3, 8, 8, generator=generator),
        skin=torch.arange(9) < 6,
        recognition=lambda picture: picture.mean((2, 3)),
    )
    return decoded, coeffs, target


def test_every_term_and_the_weighted_sum(case, generator):
    decoded, coeffs, target = case
    albedo = torch.rand(2, 9, 3, generator=generator)
    rendered = torch.rand(2, 3, 8, 8, generator=generator)
    weights = LossWeights(dense=0.5)
    total, terms = total_loss(
        decoded,
        target,
        weights,
        coeffs=coeffs,
        albedo=albedo,
        rendered=rendered,
        rendered_mask=torch.ones(2, 1, 8, 8),
    )
    names = {f.name for f in dataclasses.fields(LossWeights)} - {"id", "exp", "alb"}
    assert set(terms) == names
    expected = sum(getattr(weights, name) * value for name, value in terms.items())
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(terms["coefficient"], coefficient_loss(coeffs))
    torch.testing.assert_close(terms["dense"], torch.tensor(18.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        terms["landmark"], landmark_loss(decoded.points_2d[:, [4, 5]], target.landmarks)
    )
    torch.testing.assert_close(
        terms["part"],
        part_distribution_loss(
            decoded.points_2d, target.part_index, target.part_statistics, target.part_anchors
        ),
    )


def test_terms_without_weight_target_or_prediction_are_left_out(case):
    decoded, coeffs, target = case
    _, terms = total_loss(decoded, target, LossWeights(part=0))
    assert set(terms) == {"landmark"}
    _, terms = total_loss(decoded, LossTarget(), LossWeights(), coeffs=coeffs)
    assert set(terms) == {"coefficient", "gamma"}
    with pytest.raises(ValueError, match="no loss term"):
        total_loss(decoded, LossTarget(), LossWeights())
    with pytest.raises(ValueError, match="landmark_index"):
        total_loss(decoded, LossTarget(landmarks=target.landmarks), LossWeights())


def test_regularizers_equal_loops(case, generator):
    _, coeffs, _ = case
    expected = 0.0
    for b in range(2):
        expected += sum(float(v) ** 2 for v in coeffs.id[b])
        expected += 0.8 * sum(float(v) ** 2 for v in coeffs.exp[b])
        expected += 0.017 * sum(float(v) ** 2 for v in coeffs.alb[b])
    assert coefficient_loss(coeffs).item() == pytest.approx(expected / 2, rel=1e-5)
    albedo = torch.rand(2, 6, 3, generator=generator)
    region = torch.tensor([True, False, True, True, False, False])
    expected = 0.0
    for b in range(2):
        for c in range(3):
            values = [float(albedo[b, v, c]) for v in (0, 2, 3)]
            mean = sum(values) / 3
            expected += sum((v - mean) ** 2 for v in values) / 3 / 2
    assert reflectance_loss(albedo, region).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(
        reflectance_loss(albedo, region), reflectance_loss(albedo, torch.tensor([0, 2, 3]))
    )
    gray = torch.rand(2, 9, generator=generator).repeat(1, 3)
    assert gamma_loss(gray).item() < 1e-12
    one_red = torch.zeros(1, 27)
    one_red[0, 4] = 3.0  # mean 1: squares 4 + 1 + 1 over 27 values
    assert math.isclose(gamma_loss(one_red).item(), 6 / 27, rel_tol=1e-6)


def test_regularizers_gradcheck(generator):
    sh = torch.rand(2, 27, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gamma_loss, sh)
    albedo = torch.rand(2, 6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: reflectance_loss(a, torch.tensor([0, 2, 3])), albedo)
    packed = torch.rand(2, 45, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda p: coefficient_loss(FaceCoeffs.from_tensor(p, (5, 4, 3))), packed
    )
