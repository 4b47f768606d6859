"""Carry a trained regressor over to another basis of the same mesh."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.networks.mesh_aligned import last_linear, set_points
from v3recon.networks.regressor import Regressor

RIDGE = 1e-9
"""Weight of squared coefficients against squared decimetres a vertex."""
ALBEDO_HEAD = 2


@torch.no_grad()
def rebase_heads(
    regressor: Regressor, old: LinearFaceModel, new: LinearFaceModel, every: int = 8
) -> None:
    """Change the linear heads in place so that they give the old shapes in the new basis.

    Heads are linear in the features and shapes are linear in the coefficients, so the best
    coefficients of the new basis are a fixed affine map of the old ones:
    c' = (B'^T B' + r)^-1 B'^T (m - m' + B c). Albedo starts anew: its mean differs as well.

    Args:
        regressor: trained for `old`; changed.
        old: the face model it was trained for.
        new: a model with the same dense vertices and numbers of coefficients.
        every: vertices are compared at this stride.

    Raises:
        ValueError: if the models do not share their mesh or their sizes.
    """
    if old.vertex_count != new.vertex_count or old.sizes != new.sizes:
        raise ValueError(
            f"face models with {old.vertex_count} and {new.vertex_count} vertices, coefficients"
            f" {old.sizes} and {new.sizes}: a checkpoint can only move between models of one mesh"
        )
    index = torch.arange(0, old.vertex_count, every)
    mean, basis = (part.double() for part in old.shape_basis_at(index))
    new_mean, new_basis = (part.double() for part in new.shape_basis_at(index))
    matrix = basis.reshape(3 * len(index), -1)
    new_matrix = new_basis.reshape(3 * len(index), -1)
    normal = new_matrix.T @ new_matrix
    normal += RIDGE * len(index) * torch.eye(len(normal), dtype=normal.dtype)
    solver = torch.linalg.solve(normal, new_matrix.T)
    linear = solver @ matrix
    offset = solver @ (mean - new_mean).reshape(-1)
    _map_heads(regressor, linear, offset)
    if regressor.aligned is not None:
        steps = [*regressor.aligned.steps]
        steps += [part.step for part in (regressor.near, regressor.nearest) if part is not None]
        for step in steps:
            _map_correction(last_linear(step), linear)
        set_points(regressor.aligned, new)
    weight, bias = _head(regressor, ALBEDO_HEAD)
    torch.nn.init.normal_(weight, 0, 1e-3)
    torch.nn.init.zeros_(bias)


def _map_heads(regressor: Regressor, linear: Tensor, offset: Tensor) -> None:
    """Apply c' = linear c + offset to the identity and expression heads."""
    heads = [_head(regressor, 0), _head(regressor, 1)]
    weights = torch.cat([weight.flatten(1) for weight, _ in heads]).double()
    biases = torch.cat([bias for _, bias in heads]).double()
    weights, biases = linear @ weights, linear @ biases + offset
    count = len(heads[0][1])
    for (weight, bias), rows in zip(heads, (slice(0, count), slice(count, None)), strict=True):
        weight.copy_(weights[rows].reshape(weight.shape))
        bias.copy_(biases[rows])


def _map_correction(last: nn.Linear, linear: Tensor) -> None:
    """Corrections are differences of coefficients: c' = linear c without the offset."""
    count = len(linear)
    last.weight[:count] = (linear @ last.weight[:count].double()).float()
    last.bias[:count] = (linear @ last.bias[:count].double()).float()


def _head(regressor: Regressor, number: int) -> tuple[Tensor, Tensor]:
    """Weight [K, F, 1, 1] and bias [K] of a head."""
    head = regressor.final_layers[number]
    assert isinstance(head, nn.Conv2d) and head.bias is not None
    return head.weight, head.bias
