"""Albedo and light of a face whose shape and pose are known, from the pixels that it covers.

Colors are bilinear in albedo and light, I = (m + A c) * Y(n) g (Lambert under nine spherical
harmonics). Alternating ridge regression solves for one with the other held, each with its Gaussian
prior; pixels far from what is explained (shadows, highlights, beards) weigh less.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from v3recon.decode import posed_normals
from v3recon.face_models.linear_face_model import LinearFaceModel, linear_points
from v3recon.geometry.camera import Camera, to_grid
from v3recon.geometry.spherical_harmonics import AMBIENT, sh_basis
from v3recon.types import SH_SIZE, Decoded

POINTS = 600
ROUNDS = 6
NOISE = 0.05
"""Standard deviation of a pixel about its explanation, RGB in 0…1; beyond it weights fall."""
INDEPENDENT = 100.0
"""Pixels of a face that count as independent observations: neighbors share their errors."""
LIGHT_SIGMA = (0.15, 0.3, 0.3, 0.3, 0.12, 0.12, 0.12, 0.12, 0.12)
"""Standard deviation of each harmonic's white part."""
TINT_SIGMA = 0.06
"""Standard deviation of each channel of a harmonic about its white part."""
LEAST_POINTS = 30.0
"""Weight of all points below which a face keeps the prior."""
_FACING = 0.2


@dataclass(frozen=True)
class ColorPoints:
    """Vertices of the face whose colors are compared.

    Attributes:
        index: [P] vertex ids.
        mean: [P, 3] their mean albedo.
        basis: [P, 3, K] its modes.
    """

    index: Tensor
    mean: Tensor
    basis: Tensor


def color_points(model: LinearFaceModel, count: int = POINTS) -> ColorPoints:
    """Labeled vertices of the face, evenly by number."""
    labeled = (model.part_labels > 0).nonzero()[:, 0]
    place = torch.linspace(0, len(labeled) - 1, min(count, len(labeled)), device=labeled.device)
    index = labeled[place.long()]
    one_each = torch.eye(model.sizes[2], device=index.device)
    mean = model.albedo(torch.zeros_like(one_each[:1]))[0, index]
    basis = model.albedo(one_each)[:, index] - mean
    return ColorPoints(index, mean, basis.permute(1, 2, 0).contiguous())


def sample_colors(
    image: Tensor, decoded: Decoded, model: LinearFaceModel, points: ColorPoints, camera: Camera
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels under the points.

    Args:
        image: [B, 3, S, S] RGB in 0…1, the crop at any size.
        decoded: geometry of B faces.
        model: their face model.
        points: of the model.
        camera: of the crop.

    Returns:
        colors [B, P, 3], normals [B, P, 3] (world frame), weights [B, P]: 0 where a point faces
        away or lies outside of the crop.
    """
    places = to_grid(decoded.points_2d[:, points.index], camera)
    colors = grid_sample(image, places[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
    normals = posed_normals(decoded, model)[:, points.index]
    eye = normals.new_tensor([0.0, 0.0, camera.distance])
    view = torch.nn.functional.normalize(eye - decoded.vertices[:, points.index], dim=-1)
    facing = (normals * view).sum(-1)
    inside = (places.abs() < 1).all(-1)
    return colors, normals, ((facing - _FACING) / (1 - _FACING)).clamp(min=0) * inside


def fit_colors(
    colors: Tensor, normals: Tensor, weights: Tensor, points: ColorPoints
) -> tuple[Tensor, Tensor]:
    """Albedo and light that explain colors best.

    Args:
        colors: [B, P, 3] RGB in 0…1.
        normals: [B, P, 3] unit, world frame.
        weights: [B, P] >= 0.
        points: what they are colors of.

    Returns:
        albedo coefficients [B, K] and light [B, 27]; zeros, the prior, for faces with hardly a
        visible point.
    """
    harmonics = sh_basis(normals)
    batch, size = len(colors), points.basis.shape[-1]
    alb = colors.new_zeros(batch, size)
    light = colors.new_zeros(batch, 3, 9)
    ambient = colors.new_zeros(9)
    ambient[0] = AMBIENT
    robust = torch.ones_like(colors)
    for _ in range(ROUNDS):
        weight = robust * weights[..., None]
        share = INDEPENDENT / weight.mean(-1).sum(1).clamp(min=1) / NOISE**2
        weight = weight * share[:, None, None]
        albedo = linear_points(points.mean, points.basis, alb)
        light = _solve_light(colors, albedo, harmonics, weight, ambient)
        shading = harmonics @ (light + ambient).transpose(1, 2)
        alb = _solve_albedo(colors, shading, weight, points)
        albedo = linear_points(points.mean, points.basis, alb)
        robust = 1 / (1 + ((colors - albedo * shading) / (2 * NOISE)).square())
    known = (weights.sum(1) > LEAST_POINTS).to(alb)
    return alb * known[:, None], light.reshape(batch, SH_SIZE) * known[:, None]


def _solve_light(
    colors: Tensor, albedo: Tensor, harmonics: Tensor, weight: Tensor, ambient: Tensor
) -> Tensor:
    """Light [B, 3, 9] for a known albedo; channels hold together by the prior."""
    rows = albedo[..., None] * harmonics[:, :, None]  # [B, P, 3, 9]
    target = colors - (rows * ambient).sum(-1)
    gram = torch.einsum("bpc,bpci,bpcj->bcij", weight, rows, rows)
    right = torch.einsum("bpc,bpci,bpc->bci", weight, rows, target)
    system = colors.new_zeros(len(colors), 3, 9, 3, 9)
    white = torch.diag(1 / colors.new_tensor(LIGHT_SIGMA).square())
    tint = torch.eye(9, dtype=colors.dtype, device=colors.device) / TINT_SIGMA**2
    for one in range(3):
        system[:, one, :, one] += gram[:, one]
        for other in range(3):
            system[:, one, :, other] += white / 9 + tint * (float(one == other) - 1 / 3)
    system = system.reshape(len(colors), SH_SIZE, SH_SIZE)
    return torch.linalg.solve(system, right.flatten(1)).unflatten(1, (3, 9))


def _solve_albedo(colors: Tensor, shading: Tensor, weight: Tensor, points: ColorPoints) -> Tensor:
    """Albedo coefficients [B, K] for a known light; their prior is the unit normal."""
    rows = shading[..., None] * points.basis  # [B, P, 3, K]
    target = colors - shading * points.mean
    flat, scaled = rows.flatten(1, 2), (weight[..., None] * rows).flatten(1, 2)
    gram = scaled.transpose(1, 2) @ flat + torch.eye(flat.shape[-1]).to(flat)
    right = (scaled.transpose(1, 2) @ target.flatten(1, 2)[..., None])[..., 0]
    return torch.linalg.solve(gram, right)
