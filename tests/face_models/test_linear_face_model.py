from __future__ import annotations

import dataclasses

import pytest
import torch
from synthetic_assets import tiny_face_model

from v3recon.face_models.linear_face_model import FaceModelData, LinearFaceModel


def data_of(model: LinearFaceModel) -> FaceModelData:
    lines = tuple(line[line >= 0] for line in model.contour_lines)
    keys = (
        "mean_shape id_basis exp_basis mean_albedo alb_basis faces part_labels part_faces "
        "landmarks_68 landmarks_106 landmarks_134 uv_coords name"
    ).split()
    return FaceModelData(**{key: getattr(model, key) for key in keys}, contour_lines=lines)


def subdivided(model: LinearFaceModel) -> tuple[FaceModelData, torch.Tensor]:
    """The same mesh driven by half as many control vertices through a random sparse operator."""
    generator = torch.Generator().manual_seed(1)
    dense, control = model.vertex_count, model.vertex_count // 2
    operator = torch.zeros(dense, control)
    columns = torch.randint(control, (dense, 3), generator=generator)
    operator.scatter_(1, columns, torch.rand(dense, 3, generator=generator))
    data = dataclasses.replace(
        data_of(model),
        mean_shape=model.mean_shape[:control],
        id_basis=model.id_basis[:control],
        exp_basis=model.exp_basis[:control],
        mean_albedo=model.mean_albedo[:control],
        alb_basis=model.alb_basis[:control],
        subdivision=operator.to_sparse_coo(),
        albedo_subdivision=operator.to_sparse_coo(),
    )
    return data, operator


@pytest.fixture(scope="module")
def model() -> LinearFaceModel:
    return tiny_face_model()


def random_coeffs(model, batch: int, generator) -> list[torch.Tensor]:
    return [torch.randn(batch, size, generator=generator) for size in model.sizes]


def test_mean_at_zero(model):
    vertices = model.vertices(torch.zeros(2, 10), torch.zeros(2, 8))
    torch.testing.assert_close(vertices, model.mean_shape.expand(2, -1, -1))
    torch.testing.assert_close(model.albedo(torch.zeros(1, 6))[0], model.mean_albedo)


def test_twin_of_the_equation(model, generator):
    id_coeffs, exp_coeffs, alb_coeffs = random_coeffs(model, 3, generator)
    # shape[b, v, c] = mean[v, c] + sum_k id[v, c, k] a[b, k] + sum_k exp[v, c, k] e[b, k]
    expected = (
        model.mean_shape
        + torch.einsum("vck,bk->bvc", model.id_basis, id_coeffs)
        + torch.einsum("vck,bk->bvc", model.exp_basis, exp_coeffs)
    )
    torch.testing.assert_close(model.vertices(id_coeffs, exp_coeffs), expected)
    expected = model.mean_albedo + torch.einsum("vck,bk->bvc", model.alb_basis, alb_coeffs)
    torch.testing.assert_close(model.albedo(alb_coeffs), expected)


def test_subdivision_is_applied_to_shape_and_albedo(model, generator):
    data, operator = subdivided(model)
    coarse = LinearFaceModel(data)
    id_coeffs, exp_coeffs, alb_coeffs = random_coeffs(model, 3, generator)
    control = coarse.control_vertices(id_coeffs, exp_coeffs)
    assert control.shape == (3, model.vertex_count // 2, 3)
    torch.testing.assert_close(coarse.vertices(id_coeffs, exp_coeffs), operator @ control)
    colors = data.mean_albedo + torch.einsum("vck,bk->bvc", data.alb_basis, alb_coeffs)
    torch.testing.assert_close(coarse.albedo(alb_coeffs), operator @ colors)


@pytest.mark.parametrize("coarse", [False, True])
def test_basis_at_landmarks_agrees_with_the_dense_mesh(model, generator, coarse):
    if coarse:
        model = LinearFaceModel(subdivided(model)[0])
    id_coeffs, exp_coeffs, _ = random_coeffs(model, 2, generator)
    mean, basis = model.shape_basis_at(model.landmarks_68)
    packed = torch.cat([id_coeffs, exp_coeffs], 1)
    points = mean + torch.einsum("lck,bk->blc", basis, packed)
    expected = model.vertices(id_coeffs, exp_coeffs)[:, model.landmarks_68]
    torch.testing.assert_close(points, expected)


def test_batch_of_three_is_three_batches_of_one(model, generator):
    id_coeffs, exp_coeffs, _ = random_coeffs(model, 3, generator)
    together = model.vertices(id_coeffs, exp_coeffs)
    for index in range(3):
        alone = model.vertices(id_coeffs[index : index + 1], exp_coeffs[index : index + 1])
        torch.testing.assert_close(alone[0], together[index])


@pytest.mark.parametrize("coarse", [False, True])
def test_gradients(model, generator, coarse):
    if coarse:
        model = LinearFaceModel(subdivided(model)[0])
    id_coeffs, exp_coeffs, alb_coeffs = (
        value.requires_grad_() for value in random_coeffs(model, 2, generator)
    )
    weights = torch.randn(2, model.vertex_count, 3, generator=generator)
    (model.vertices(id_coeffs, exp_coeffs) * weights).sum().backward()
    (model.albedo(alb_coeffs) * weights).sum().backward()
    step = torch.zeros(2, model.sizes[0])
    step[1, 3] = 1.0  # the model is linear, so one whole step gives the gradient
    moved = model.vertices(id_coeffs + step, exp_coeffs) - model.vertices(id_coeffs, exp_coeffs)
    assert id_coeffs.grad is not None and exp_coeffs.grad is not None
    torch.testing.assert_close(id_coeffs.grad[1, 3], (moved * weights).sum(), rtol=1e-3, atol=1e-4)
    assert alb_coeffs.grad is not None and alb_coeffs.grad.abs().min() > 0


def test_nothing_is_trained_or_saved(model):
    assert not list(model.parameters()) and not model.state_dict()


def test_hash_changes_with_the_shape_space_only(model):
    data = data_of(model)
    assert LinearFaceModel(data).content_hash == model.content_hash
    moved = dataclasses.replace(data, mean_shape=data.mean_shape + 1e-3)
    assert LinearFaceModel(moved).content_hash != model.content_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id_basis": torch.zeros(3, 3, 2)}, "id_basis is"),
        ({"exp_basis": torch.zeros(450, 3)}, "exp_basis is"),
        ({"alb_basis": torch.zeros(1, 3, 2)}, "alb_basis is"),
        ({"uv_coords": torch.zeros(450, 3)}, "uv_coords is"),
        ({"part_faces": ()}, "0 part face sets"),
        ({"contour_lines": ()}, "0 contour lines"),
        ({"faces": torch.tensor([[0, 1, 450]])}, "faces has vertex ids 0…450"),
        ({"landmarks_68": torch.zeros(5, dtype=torch.long)}, "landmarks_68 has 5 entries"),
        ({"subdivision": torch.eye(449).to_sparse_coo()}, "mean_shape has 450 rows, expected 449"),
    ],
)
def test_shapes_that_disagree_are_refused(model, change, message):
    with pytest.raises(ValueError, match=message):
        LinearFaceModel(dataclasses.replace(data_of(model), **change))
