"""Distances between parameter vectors of a face: PDC, VDC, WPDC and OWPDC.

3DDFA (Zhu et al., TPAMI 2017, section 4) and 3DDFA_V2 (Guo et al., ECCV 2020, section 3.2). The
weights of WPDC and OWPDC are constants for the gradient. The exact forms take any function
`reconstruct: [B, K] -> [B, N, D]`, so they serve this project's perspective camera as well as
3DDFA's 62 affine parameters; the fast form is for the latter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reconstruct = Callable[[Tensor], Tensor]
"""Parameters [B, K] to vertices [B, N, D]."""

AFFINE_SIZE = 12
"""Leading parameters of 3DDFA: a 3 x 4 affine matrix, row by row."""


def pdc_loss(parameters: Tensor, target: Tensor) -> Tensor:
    """Parameter distance cost: mean over faces of |dp|^2 for [B, K] whitened parameters."""
    assert parameters.shape == target.shape and parameters.ndim == 2, parameters.shape
    return ((parameters - target) ** 2).sum(1).mean()


def vdc_loss(vertices: Tensor, target: Tensor) -> Tensor:
    """Vertex distance cost: mean over faces and vertices of |dv|^2 for [B, N, D]."""
    assert vertices.shape == target.shape and vertices.ndim == 3, vertices.shape
    return ((vertices - target) ** 2).sum(-1).mean()


def weighted_parameter_loss(parameters: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over faces of dp^T diag(w) dp; w [B, K] from one of the functions below."""
    assert parameters.shape == target.shape == weights.shape, weights.shape
    return (weights.detach() * (parameters - target) ** 2).sum(1).mean()


@torch.no_grad()
def wpdc_weights(parameters: Tensor, target: Tensor, reconstruct: Reconstruct) -> Tensor:
    """WPDC's weights, exactly: how far each predicted component alone moves the vertices.

    w_i = |V(target with component i predicted) - V(target)| / max_i.

    Args:
        parameters: [B, K] predicted.
        target: [B, K].
        reconstruct: [M, K] -> [M, N, D]; called once with M = B (K + 1).

    Returns:
        [B, K] in 0…1; all 0 for a face that is predicted perfectly.
    """
    assert parameters.shape == target.shape and parameters.ndim == 2, parameters.shape
    change = _displacements(target, parameters, reconstruct).flatten(2).norm(dim=2)
    return change / change.amax(1, keepdim=True).clamp_min(torch.finfo(change.dtype).tiny)


@torch.no_grad()
def wpdc_weights_fast(
    parameters: Tensor,
    target: Tensor,
    mean: Tensor,
    basis: Tensor,
    deviation: Tensor | None = None,
) -> Tensor:
    """WPDC's weights from one reconstruction (3DDFA_V2, "fWPDC").

    V = A S + t with A 3 x 3, S = mean + basis a. Component A_rc moves the vertices by
    |dA_rc| |row c of S|, t_r by |dt_r| sqrt(N), a_k by |da_k| scale |basis_k| with the scale of
    the target's affine matrix. Equal to the exact form up to how far A is from a scaled rotation.

    Args:
        parameters: [B, 12 + K] predicted: affine 3 x 4 row by row, then shape and expression.
        target: [B, 12 + K].
        mean: [N, 3] mean of the chosen vertices.
        basis: [N, 3, K] basis of the chosen vertices.
        deviation: [12 + K] by which whitened parameters were divided; default 1.

    Returns:
        [B, 12 + K] in 0…1.
    """
    assert parameters.shape == target.shape, (parameters.shape, target.shape)
    count = basis.shape[-1]
    if parameters.shape[1] != AFFINE_SIZE + count:
        raise ValueError(
            f"expected parameters [B, {AFFINE_SIZE + count}], got {tuple(parameters.shape)}"
        )
    difference = (parameters - target).abs()
    absolute = target if deviation is None else target * deviation
    if deviation is not None:
        difference = difference * deviation
    shape = mean + torch.einsum("nck,bk->bnc", basis, absolute[:, AFFINE_SIZE:])
    row = shape.norm(dim=1)  # [B, 3]: one length per coordinate of the model frame
    ones = torch.full_like(row[:, :1], len(mean) ** 0.5)
    reach = torch.cat([row, ones], 1).repeat(1, 3)  # [B, 12], like the affine matrix
    affine = absolute[:, :AFFINE_SIZE].reshape(-1, 3, 4)[..., :3]
    scale = affine.norm(dim=2).mean(1, keepdim=True)
    reach = torch.cat([reach, scale * basis.flatten(0, 1).norm(dim=0)], 1)
    change = difference * reach
    return change / change.amax(1, keepdim=True).clamp_min(torch.finfo(change.dtype).tiny)


@torch.no_grad()
def owpdc_weights(
    parameters: Tensor,
    target: Tensor,
    reconstruct: Reconstruct,
    regularization: float = 0.1,
    steps: int = 50,
) -> Tensor:
    """OWPDC's weights: the best mixture of predicted and true components.

    argmin over 0 <= w <= 1 of |V(p + diag(w) dp) - V(target)|^2 + l |diag(w) dp|^2, dp = target
    - p (3DDFA, TPAMI 2017, eq. 13), with V made linear in w around the prediction: component i
    alone moved to its target gives column i. Solved by projected coordinate descent.

    Args:
        parameters: [B, K] predicted.
        target: [B, K].
        reconstruct: [M, K] -> [M, N, D]; called with M = B (K + 1).
        regularization: l, per vertex coordinate (the mean, not the sum, of |.|^2 is regularised,
            so that it does not depend on how many vertices are chosen).
        steps: sweeps over the components.

    Returns:
        [B, K] in 0…1.
    """
    assert parameters.shape == target.shape and parameters.ndim == 2, parameters.shape
    columns = _displacements(parameters, target, reconstruct).flatten(2)  # [B, K, N D]
    goal = (reconstruct(target) - reconstruct(parameters)).flatten(1)  # [B, N D]
    size = goal.shape[1]
    matrix = columns @ columns.transpose(1, 2) / size
    matrix = matrix + regularization * torch.diag_embed((target - parameters) ** 2)
    right = (columns @ goal[..., None])[..., 0] / size
    weights = torch.zeros_like(parameters)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    for _ in range(steps):
        for i in range(parameters.shape[1]):
            rest = right[:, i] - (matrix[:, i] * weights).sum(1) + diagonal[:, i] * weights[:, i]
            best = rest / diagonal[:, i].clamp_min(torch.finfo(rest.dtype).tiny)
            weights[:, i] = best.clamp(0, 1)
    return weights


def resample_vertices(
    key_vertices: Tensor,
    vertex_count: int,
    extra: int = 132,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Vertices for one step of WPDC or VDC: the key ones and freshly drawn others (3DDFA_V2).

    Args:
        key_vertices: [L] ids that are always taken (68 landmarks).
        vertex_count: V.
        extra: how many more, all different, none a key vertex.
        generator: source of randomness, CPU.

    Returns:
        [L + extra] ids, key vertices first.
    """
    free = torch.ones(vertex_count, dtype=torch.bool)
    free[key_vertices.cpu()] = False
    candidates = free.nonzero()[:, 0]
    if extra > len(candidates):
        raise ValueError(f"cannot draw {extra} vertices out of {len(candidates)}")
    drawn = candidates[torch.randperm(len(candidates), generator=generator)[:extra]]
    return torch.cat([key_vertices, drawn.to(key_vertices)])


def _displacements(base: Tensor, other: Tensor, reconstruct: Reconstruct) -> Tensor:
    """[B, K, N, D]: V(base with component i of other) - V(base)."""
    batch, count = base.shape
    swap = torch.eye(count, dtype=torch.bool, device=base.device)
    mixed = torch.where(swap, other[:, None], base[:, None])  # [B, K, K]
    moved = reconstruct(mixed.reshape(batch * count, count))
    change = moved.reshape(batch, count, *moved.shape[1:]) - reconstruct(base)[:, None]
    # Batches of other sizes round differently: equal components must give exactly nothing.
    return change * (base != other)[:, :, None, None]
