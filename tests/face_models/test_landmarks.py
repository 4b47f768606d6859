from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_assets import official_arrays, synthetic_face_model

from v3recon.decode import decode
from v3recon.face_models.bfm import bfm_from_arrays
from v3recon.face_models.landmarks import (
    landmark_points,
    march_contour,
    marched_landmarks_68,
    marched_landmarks_106,
)
from v3recon.geometry.camera import Camera
from v3recon.types import FaceCoeffs

CAMERA = Camera()


@pytest.fixture(scope="module")
def model():
    return synthetic_face_model()


@pytest.fixture
def posed(model):
    """Three faces: frontal, turned with roll, turned the other way."""
    coeffs = FaceCoeffs.zeros(3, model.sizes)
    angle = torch.tensor([[0.0, 0, 0], [0.1, 0.7, 0.5], [-0.2, -0.7, 0]])
    trans = torch.tensor([[0.0, 0, 0], [0.2, -0.1, 0.3], [0, 0, -0.5]])
    coeffs = FaceCoeffs(coeffs.id, coeffs.exp, coeffs.alb, angle, coeffs.sh, trans)
    return coeffs, decode(coeffs, model, CAMERA)


def test_points_of_one_set_and_of_a_set_per_face():
    points = torch.arange(2 * 5 * 2.0).reshape(2, 5, 2)
    same = landmark_points(points, torch.tensor([4, 0]))
    assert same.tolist() == [[[8, 9], [0, 1]], [[18, 19], [10, 11]]]
    different = landmark_points(points, torch.tensor([[4, 0], [1, 1]]))
    assert different.tolist() == [[[8, 9], [0, 1]], [[12, 13], [12, 13]]]


def golden_model(golden):
    """The golden mesh; what the golden file does not have is made up and not used here."""
    arrays = official_arrays(rows=30, columns=15, sizes=(10, 8, 6))
    count = len(golden["u"]) // 3
    keys = ("u", "id", "exp", "u_alb", "alb", "tri", "point_buf", "ldm106")
    arrays |= {key: golden[key].numpy() for key in keys}
    arrays |= {"uv_coords": np.zeros((count, 2)), "ldm68": np.arange(68), "ldm134": np.arange(134)}
    arrays |= {"annotation": [[p] for p in range(8)], "parallel": list(golden["parallel"].numpy())}
    arrays |= {"annotation_tri": [arrays["tri"][:1]] * 8}
    return bfm_from_arrays(arrays)


def test_golden_marched_landmarks(golden):
    model = golden_model(golden)
    coeffs = FaceCoeffs.from_tensor(golden["coeffs"])
    decoded = decode(coeffs, model, CAMERA)
    contour = march_contour(decoded.model_vertices, decoded.rotation, coeffs.trans, model, CAMERA)
    points = landmark_points(decoded.points_2d, marched_landmarks_106(contour, model))
    expected = golden["ldm106_2d_xy_up"].clone()
    expected[..., 1] = 223 - expected[..., 1]
    torch.testing.assert_close(points, expected, atol=1e-4, rtol=0)


def test_twin_of_a_plain_loop(model, posed):
    coeffs, decoded = posed
    contour = march_contour(decoded.model_vertices, decoded.rotation, coeffs.trans, model)
    upright = FaceCoeffs(
        *(getattr(coeffs, key) for key in ("id", "exp", "alb")),
        coeffs.angle * torch.tensor([1.0, 1, 0]),
        coeffs.sh,
        coeffs.trans,
    )
    x = decode(upright, model, CAMERA).points_2d[..., 0]
    for face in range(3):
        for line in range(33):
            vertices = [vertex for vertex in model.contour_lines[line].tolist() if vertex >= 0]
            best = min(vertices, key=lambda v: x[face, v] * (1 if line < 16 else -1))
            if line == 16:
                best = int(model.landmarks_106[16])
            assert contour[face, line] == best


def test_contour_marches_toward_the_far_cheek(model, posed):
    """Turned away, the silhouette moves inward on that side, toward the middle of the face."""
    coeffs, decoded = posed
    contour = march_contour(decoded.model_vertices, decoded.rotation, coeffs.trans, model)
    x = model.mean_shape[contour][..., 0]  # [3, 33]
    right_side, left_side = slice(17, 30), slice(3, 16)
    assert (x[1, right_side] < x[0, right_side]).all(), "nose to the right hides the right cheek"
    assert (x[2, left_side] > x[0, left_side]).all()


def test_jaw_of_the_68_set_takes_every_other_point(model, posed):
    coeffs, decoded = posed
    contour = march_contour(decoded.model_vertices, decoded.rotation, coeffs.trans, model)
    marched = marched_landmarks_68(contour, model)
    assert marched.shape == (3, 68)
    assert torch.equal(marched[:, :17], contour[:, ::2])
    assert (marched[:, 8] == model.landmarks_106[16]).all(), "the chin does not march"
    assert torch.equal(marched[1, 17:], model.landmarks_68[17:])
    assert torch.equal(marched_landmarks_106(contour, model)[:, 33:][2], model.landmarks_106[33:])


def test_batch_of_three_is_three_batches_of_one(model, posed):
    coeffs, decoded = posed
    contour = march_contour(decoded.model_vertices, decoded.rotation, coeffs.trans, model)
    for face in range(3):
        one = slice(face, face + 1)
        alone = march_contour(
            decoded.model_vertices[one], decoded.rotation[one], coeffs.trans[one], model
        )
        assert torch.equal(alone[0], contour[face])


def test_marched_points_have_a_gradient(model):
    coeffs = FaceCoeffs.zeros(1, model.sizes)
    id_coeffs = coeffs.id.clone().requires_grad_()
    coeffs = FaceCoeffs(id_coeffs, coeffs.exp, coeffs.alb, coeffs.angle, coeffs.sh, coeffs.trans)
    decoded = decode(coeffs, model, CAMERA)
    contour = march_contour(decoded.model_vertices, decoded.rotation, coeffs.trans, model)
    landmark_points(decoded.points_2d, contour).sum().backward()
    assert id_coeffs.grad is not None and id_coeffs.grad.abs().sum() > 0
