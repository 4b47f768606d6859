"""Fits of the head model: bounds, surface points, people who share their identity."""

import pytest
import torch

from v3recon.decode import decode
from v3recon.face_models.photohead import load_photohead
from v3recon.fitting.fit_landmarks import fit_landmarks
from v3recon.geometry.camera import Camera, project
from v3recon.types import FaceCoeffs


@pytest.fixture(scope="module")
def model():
    return load_photohead()


def faces(model, count, people=None):
    generator = torch.Generator().manual_seed(3)
    identity = torch.randn(count, 80, generator=generator)
    if people is not None:
        identity = identity[people]
    exp = torch.zeros(count, 64)
    exp[:, :52] = 0.3 * torch.rand(count, 52, generator=generator)
    zeros = FaceCoeffs.zeros(count)
    angle = 0.3 * torch.randn(count, 3, generator=generator)
    return FaceCoeffs(identity, exp, zeros.alb, angle, zeros.sh, zeros.trans)


def drawn_points(model, coeffs):
    decoded = decode(coeffs, model, Camera())
    return project(model.detector_points.of(decoded.vertices), Camera())


def test_points_of_drawn_heads_are_met_within_bounds(model):
    coeffs = faces(model, 4)
    points = drawn_points(model, coeffs)
    fit = fit_landmarks(points, model, noise=0.01, iterations=8)
    assert float(fit.error.max()) < 0.35  # pixels of 224
    weights = fit.coeffs.exp[:, :52]
    assert float(weights.min()) >= 0 and float(weights.max()) <= 1
    assert float((fit.coeffs.angle - coeffs.angle).abs().max()) < 0.12


def test_photos_of_one_person_share_the_identity(model):
    people = torch.tensor([0, 0, 0, 1])
    coeffs = faces(model, 4, people)
    points = drawn_points(model, coeffs)
    points = points + 0.7 * torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
    alone = fit_landmarks(points, model, noise=0.02)
    shared = fit_landmarks(points, model, noise=0.02, people=people)
    assert torch.equal(shared.coeffs.id[0], shared.coeffs.id[2])
    assert not torch.equal(shared.coeffs.id[0], shared.coeffs.id[3])
    zero = torch.zeros(4, 64)
    truth = model.vertices(coeffs.id, zero)

    def error(fit):
        return float((model.vertices(fit.coeffs.id, zero) - truth)[:3].norm(dim=2).mean())

    assert error(shared) < error(alone)


def test_batches_equal_single_fits(model):
    points = drawn_points(model, faces(model, 3))
    together = fit_landmarks(points, model)
    one = fit_landmarks(points[1:2], model)
    assert torch.allclose(together.coeffs.id[1], one.coeffs.id[0], atol=5e-3)
