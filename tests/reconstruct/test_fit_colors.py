"""Albedo and light from pixels: what is drawn is explained, outliers do not count."""

import pytest
import torch

from v3recon.decode import decode, posed_normals, render
from v3recon.face_models.photohead import load_photohead
from v3recon.geometry.camera import Camera
from v3recon.geometry.spherical_harmonics import shade_sh
from v3recon.reconstruct.fit_colors import color_points, fit_colors, sample_colors
from v3recon.types import FaceCoeffs


@pytest.fixture(scope="module")
def scene():
    model = load_photohead()
    points = color_points(model, 400)
    coeffs = FaceCoeffs.zeros(3, model.sizes)
    generator = torch.Generator().manual_seed(3)
    coeffs.alb[:, :20] = torch.randn(3, 20, generator=generator)
    coeffs.sh.view(3, 3, 9)[:, :, :4] += 0.15 * torch.randn(3, 1, 4, generator=generator)
    return model, points, coeffs, decode(coeffs, model)


def test_colors_that_were_shaded_are_explained(scene):
    model, points, coeffs, decoded = scene
    normals = posed_normals(decoded, model)[:, points.index]
    albedo = points.mean + (coeffs.alb @ points.basis.flatten(0, 1).T).unflatten(
        1, points.mean.shape
    )
    colors = shade_sh(albedo, normals, coeffs.sh)
    weights = torch.ones(colors.shape[:2])
    alb, sh = fit_colors(colors, normals, weights, points)
    again = points.mean + (alb @ points.basis.flatten(0, 1).T).unflatten(1, points.mean.shape)
    assert float((shade_sh(again, normals, sh) - colors).abs().mean()) < 0.01
    before = float((albedo.mean(0) - albedo).mean(1).abs().mean())
    assert float((again - albedo).mean(1).abs().mean()) < 0.7 * before


def test_a_covered_patch_does_not_change_the_rest(scene):
    model, points, _, decoded = scene
    normals = posed_normals(decoded, model)[:, points.index]
    colors = shade_sh(points.mean.expand(3, -1, -1), normals, torch.zeros(3, 27))
    hidden = points.index % 4 == 0
    dirty = torch.where(hidden[None, :, None], torch.tensor([0.0, 1.0, 0.0]), colors)
    weights = torch.ones(colors.shape[:2])
    told, _ = fit_colors(dirty, normals, weights * ~hidden, points)
    clean, _ = fit_colors(colors, normals, weights, points)
    assert float((told - clean).abs().max()) < 0.1
    robust, _ = fit_colors(dirty, normals, weights, points)
    assert float((robust - clean).abs().mean()) < 0.5


def test_nothing_visible_keeps_the_prior(scene):
    model, points, _, decoded = scene
    normals = posed_normals(decoded, model)[:, points.index]
    alb, sh = fit_colors(torch.rand(3, 400, 3), normals, torch.zeros(3, 400), points)
    assert not alb.any() and not sh.any()


def test_pixels_of_a_drawing_are_those_of_its_vertices(scene):
    model, points, coeffs, decoded = scene
    camera = Camera()
    image = render(coeffs, model, camera)[0]
    colors, normals, weights = sample_colors(image, decoded, model, points, camera)
    expected = shade_sh(model.albedo(coeffs.alb)[:, points.index], normals, coeffs.sh).clamp(0, 1)
    plain = weights > 0.6
    assert int(plain.sum()) > 300
    assert float((colors - expected)[plain].abs().median()) < 0.02
