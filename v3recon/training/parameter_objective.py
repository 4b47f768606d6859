"""Training by a distance between parameters, as 3DDFA does: PDC, VDC and WPDC.

3DDFA (Zhu et al., TPAMI 2017) and 3DDFA_V2 (Guo et al., ECCV 2020). The parameters are identity,
expression, the first two axes of the rotation, and the place; each is divided by its standard
deviation among the labels (whitened). Labels are the exact coefficients of drawn heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from v3recon.data.draw_heads import DrawnHeads
from v3recon.data.face_samples import FaceBatch
from v3recon.face_models.linear_face_model import (
    LinearFaceModel,
    linear_offsets,
    linear_points,
)
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import matrix_to_rotation_6d, rotation_6d_to_matrix
from v3recon.losses.parameter_distance import (
    pdc_loss,
    resample_vertices,
    vdc_loss,
    weighted_parameter_loss,
    wpdc_weights,
)
from v3recon.networks.face_regressor import Estimate, FaceRegressor
from v3recon.networks.point_solver import NEAREST
from v3recon.networks.refiner import ROTATION_SIZE, split_state
from v3recon.training.face_objective import PIXELS, FacePoints, estimate_shares

COSTS = ("pdc", "vdc", "wpdc")
TURN_BINS = (0.0, 30.0, 60.0, 180.0)
"""Degrees that faces are turned from the camera; the mean of these bins is reported."""
_CONSTANT = 1e-3  # deviation below which labels never change a component
_MM = 100.0


@dataclass(frozen=True)
class CostSettings:
    """`[objective]` of a recipe.

    Attributes:
        cost: "pdc", "vdc" or "wpdc"; "" trains by the terms of `[weights]`.
        vertices: drawn anew at each step for VDC and WPDC, beside the 68 landmarks.
    """

    cost: str = ""
    vertices: int = 132

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            ValueError: if the cost is not known or the number negative.
        """
        if self.cost not in ("", *COSTS):
            raise ValueError(f"cost must be one of {', '.join(COSTS)}, got {self.cost!r}")
        if self.vertices < 0:
            raise ValueError(f"vertices must be at least 0, got {self.vertices}")


class ParameterCost(nn.Module):
    """The cost of estimates against the labels of drawn heads.

    Attributes:
        deviation: [P] standard deviation of each parameter among the labels.
        mean, basis: [N, 3] and [N, 3, K] of the 68 landmarks and then of the face's vertices.
    """

    deviation: Tensor
    mean: Tensor
    basis: Tensor

    def __init__(
        self, model: LinearFaceModel, heads: DrawnHeads, settings: CostSettings, seed: int
    ) -> None:
        """Take vertices from a face model and deviations from the labels.

        Args:
            model: the face model.
            heads: drawn heads.
            settings: of the recipe.
            seed: of the vertices that are drawn at each step.

        Raises:
            ValueError: if the face has fewer vertices than a step needs.
        """
        super().__init__()
        self.settings, self.seed = settings, seed
        face = model.part_labels > 0
        face[model.landmarks_68] = False
        vertices = torch.cat([model.landmarks_68, face.nonzero()[:, 0]])
        if settings.vertices > len(vertices) - len(model.landmarks_68):
            raise ValueError(f"the face has no {settings.vertices} vertices beside its landmarks")
        mean, basis = model.shape_basis_at(vertices)
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        truth, rotation, trans = (
            torch.from_numpy(np.array(value, np.float32))
            for value in (heads.truth, heads.rotation, heads.trans)
        )
        labels = _joined(truth[:, : basis.shape[-1]], rotation, trans)
        deviation = labels.std(0, unbiased=False)
        self.register_buffer("deviation", deviation.where(deviation > _CONSTANT, 1.0))

    def forward(self, estimates: list[Estimate], batch: FaceBatch, step: int) -> Tensor:
        """The cost, growing toward the last estimate; photographs count as 0.

        Args:
            estimates: from `FaceRegressor.estimates`.
            batch: the samples.
            step: of the run; says which vertices are drawn.
        """
        known = batch.truth_weight > 0
        if not known.any():
            return self.deviation.new_zeros(()) * estimates[-1].coeffs.trans.sum()
        code = batch.truth[known][:, : self.basis.shape[-1]]
        target = _joined(code, batch.rotation[known], batch.trans[known]) / self.deviation
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        keys = torch.arange(68, device=self.mean.device)
        index = resample_vertices(keys, len(self.mean), self.settings.vertices, generator)
        total = self.deviation.new_zeros(())
        for estimate, share in zip(estimates, estimate_shares(len(estimates)), strict=True):
            coeffs = estimate.coeffs
            found = _joined(torch.cat([coeffs.id, coeffs.exp], 1), estimate.rotation, coeffs.trans)
            found = found[known] / self.deviation
            total = total + share * self._cost(found, target, index)
        return total * known.float().mean()

    def _cost(self, found: Tensor, target: Tensor, index: Tensor) -> Tensor:
        def reconstruct(parameters: Tensor) -> Tensor:
            return self.vertices(parameters, index)

        if self.settings.cost == "pdc":
            return pdc_loss(found, target)
        if self.settings.cost == "vdc":
            return vdc_loss(reconstruct(found), reconstruct(target))
        weights = wpdc_weights(found.detach(), target, reconstruct)
        return weighted_parameter_loss(found, target, weights)

    def vertices(self, parameters: Tensor, index: Tensor) -> Tensor:
        """Vertices in the crop, pixels / `PIXELS`, with depth in the same unit as in 3DDFA.

        Args:
            parameters: [M, P] whitened.
            index: [N] of `mean` and `basis`.

        Returns:
            [M, N, 3]; depth is relative to the head's own place and grows toward the camera.
        """
        code, six, trans = split_state(parameters * self.deviation)
        mean, basis = self.mean[index], self.basis[index]
        posed = linear_points(mean, basis, code) @ rotation_6d_to_matrix(six)
        camera = Camera()
        trans = torch.cat([trans[:, :2], trans[:, 2:].clamp(max=camera.distance - NEAREST)], 1)
        pixels = project(posed + trans[:, None], camera)
        scale = camera.focal / (camera.distance - trans[:, 2:])
        return torch.cat([pixels, scale[:, None] * posed[..., 2:]], -1) / PIXELS


def _joined(code: Tensor, rotation: Tensor, trans: Tensor) -> Tensor:
    """Parameters [B, K + 9] as the network's state holds them, not whitened."""
    six = matrix_to_rotation_6d(rotation)
    assert six.shape[1] == ROTATION_SIZE, six.shape
    return torch.cat([code, six, trans], 1)


@torch.no_grad()
def drawn_figures(
    network: FaceRegressor, heads: DrawnHeads, points: FacePoints, size: int
) -> dict[str, float]:
    """`truth_figures` of a network on drawn heads that no step has seen.

    Args:
        network: in evaluation mode.
        heads: not those of the training.
        points: of the face model.
        size: pixels of the network's input.
    """
    network.input_size = size
    device = points.mean.device
    figures: list[Tensor] = []
    for start in range(0, len(heads), 32):
        image, marked, truth, rotation = (
            torch.from_numpy(np.array(value[start : start + 32])).to(device)
            for value in (heads.image, heads.marked, heads.truth, heads.rotation)
        )
        image = interpolate(image.permute(0, 3, 1, 2).float() / 255, (size, size), mode="area")
        estimate = network.estimates(image)[0][-1]
        figures.append(_errors(estimate, marked, truth, rotation, points))
    return _means(torch.cat(figures))


@torch.no_grad()
def truth_figures(estimate: Estimate, batch: FaceBatch, points: FacePoints) -> dict[str, float]:
    """Errors of estimates of drawn heads.

    Returns:
        "drawn_nme": mean distance of the 68 points over the root of the area of their box, the
        mean over the bins of turns (`TURN_BINS`); "drawn_shape_mm": mean distance of the unposed
        points in millimetres.
    """
    return _means(_errors(estimate, batch.marked, batch.truth, batch.rotation, points))


def _errors(
    estimate: Estimate, marked: Tensor, truth: Tensor, rotation: Tensor, points: FacePoints
) -> Tensor:
    """NME, distance in millimetres and turn in degrees of each face, [B, 3]."""
    found = points.pixels(estimate, points.shape(estimate))[:, -68:]
    side = (marked.amax(1) - marked.amin(1)).prod(1).sqrt()
    nme = (found - marked).norm(dim=-1).mean(1) / side
    change = torch.cat([estimate.coeffs.id, estimate.coeffs.exp], 1)
    change = change - truth[:, : change.shape[1]]
    wrong = linear_offsets(points.basis, change)
    turn = rotation[:, 2, 2].clamp(-1, 1).acos().rad2deg()
    return torch.stack([nme, wrong.norm(dim=-1).mean(1) * _MM, turn], 1)


def _means(errors: Tensor) -> dict[str, float]:
    nme, apart, turn = errors.unbind(1)
    bins = [(turn >= low) & (turn < high) for low, high in pairwise(TURN_BINS)]
    means = [nme[chosen].mean() for chosen in bins if chosen.any()]
    return {"drawn_nme": float(torch.stack(means).mean()), "drawn_shape_mm": float(apart.mean())}
