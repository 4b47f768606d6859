from __future__ import annotations

import pytest
import torch

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.linear_face_model import SurfacePoints
from v3recon.face_models.photohead import load_photohead
from v3recon.fitting.fit_landmarks import fit_landmarks
from v3recon.geometry.affine2d import apply_affine_2d, invert_affine_2d
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import euler_to_matrix

CAMERA = Camera()


@pytest.fixture(scope="module")
def model():
    return load_photohead()


@pytest.fixture(scope="module")
def faces(model):
    """Random faces: coefficients, rotation, translation, shape and their exact 3D detections."""
    generator = torch.Generator().manual_seed(0)
    count = 8
    id_coeffs = torch.randn(count, 80, generator=generator)
    exp_coeffs = torch.rand(count, 64, generator=generator) * 0.2
    angle = (torch.rand(count, 3, generator=generator) * 2 - 1) * torch.tensor([0.4, 1.4, 0.4])
    trans = torch.randn(count, 3, generator=generator) * torch.tensor([0.1, 0.1, 0.4])
    shape = model.at_detector(model.vertices(id_coeffs, exp_coeffs))
    rotation = euler_to_matrix(angle)
    posed = shape @ rotation + trans[:, None]
    depth = posed[..., 2:] * (CAMERA.focal / (CAMERA.distance - trans[:, None, 2:]))
    return rotation, trans, shape, torch.cat([project(posed, CAMERA), depth], 2)


def degrees_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    trace = (a.transpose(1, 2) @ b).diagonal(dim1=1, dim2=2).sum(1)
    return ((trace - 1) / 2).clamp(-1, 1).acos().rad2deg()


def test_exact_points_are_recovered(model, faces):
    rotation, trans, shape, points = faces
    fit = fit_landmarks(points, model, noise=0.002, iterations=6)
    assert fit.error.max() < 0.1
    assert degrees_between(fit.rotation, rotation).max() < 0.5
    torch.testing.assert_close(fit.coeffs.trans, trans, atol=0.08, rtol=0)
    found = model.at_detector(model.vertices(fit.coeffs.id, fit.coeffs.exp))
    assert (found - shape).norm(dim=2).mean() < 0.003


def test_coefficients_project_onto_the_points(model, faces):
    points = faces[3]
    fit = fit_landmarks(points, model)
    shape = model.at_detector(model.vertices(fit.coeffs.id, fit.coeffs.exp))
    posed = shape @ euler_to_matrix(fit.coeffs.angle) + fit.coeffs.trans[:, None]
    distance = (project(posed, CAMERA) - points[..., :2]).norm(dim=2)
    torch.testing.assert_close((distance**2).mean(1).sqrt(), fit.error, atol=2e-3, rtol=1e-3)
    assert distance.mean() < 0.6


def test_two_dimensions_are_enough(model, faces):
    rotation, _, _, points = faces
    fit = fit_landmarks(points[..., :2], model, noise=0.005, iterations=8)
    assert fit.error.max() < 0.3
    assert degrees_between(fit.rotation, rotation).max() < 3


def test_68_points(model, faces):
    rotation, _, _, points = faces
    chosen = torch.from_numpy(load_face_mesh().landmarks_68)
    where = model.detector_points
    index = SurfacePoints(where.vertices[chosen], where.weights[chosen])
    fit = fit_landmarks(points[:, chosen, :2], model, index=index, noise=0.01, iterations=8)
    assert fit.error.mean() < 1.0
    assert degrees_between(fit.rotation, rotation).median() < 6


def test_crop_changes_the_frame_only(model, faces):
    points = faces[3]
    matrix = torch.tensor([[0.5, 0.1, 20.0], [-0.1, 0.5, 30.0]]).expand(len(points), 2, 3)
    back = invert_affine_2d(matrix)
    factor = back[:, 0, :2].norm(dim=1)[:, None, None]
    photo = torch.cat([apply_affine_2d(points[..., :2], back), points[..., 2:] * factor], 2)
    direct = fit_landmarks(points, model)
    through = fit_landmarks(photo, model, to_crop=matrix)
    torch.testing.assert_close(through.rotation, direct.rotation, atol=2e-3, rtol=0)
    torch.testing.assert_close(through.coeffs.trans, direct.coeffs.trans, atol=5e-3, rtol=0)


def test_batch_equals_single_faces(model, faces):
    points = faces[3][:3]
    together = fit_landmarks(points, model)
    for row in range(3):
        alone = fit_landmarks(points[row : row + 1], model)
        torch.testing.assert_close(together.coeffs.id[row], alone.coeffs.id[0], atol=5e-3, rtol=0)


def test_points_without_weight_do_not_matter(model, faces):
    points = faces[3].clone()
    weights = torch.ones(len(points), 468)
    weights[:, ::5] = 0
    points[:, ::5] += 50
    fit = fit_landmarks(points, model, weights=weights)
    assert fit.error.max() < 0.6


def test_shared_weights_equal_repeated_ones(model, faces):
    points = faces[3]
    weights = torch.rand(468, generator=torch.Generator().manual_seed(0)) + 0.1
    shared = fit_landmarks(points, model, weights=weights)
    own = fit_landmarks(points, model, weights=weights.expand(len(points), -1))
    torch.testing.assert_close(shared.coeffs.exp, own.coeffs.exp, atol=5e-3, rtol=0)


def test_noise_shrinks_toward_the_mean(model, faces):
    points = faces[3]
    loose, tight = (fit_landmarks(points, model, noise=value) for value in (0.2, 0.01))
    assert loose.coeffs.id.norm() < tight.coeffs.id.norm()
    assert loose.error.mean() > tight.error.mean()


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (torch.zeros(468, 3), {}, "expected points"),
        (torch.zeros(1, 468, 3), {"index": torch.arange(5)}, "need an index"),
        (torch.zeros(1, 468, 3), {"weights": torch.zeros(468)}, "six points"),
        (torch.zeros(2, 468, 3), {"to_crop": torch.zeros(1, 2, 3)}, "to_crop"),
        (torch.full((1, 468, 3), float("nan")), {}, "finite"),
    ],
)
def test_wrong_input_is_refused(model, points, options, message):
    with pytest.raises(ValueError, match=message):
        fit_landmarks(points, model, **options)
