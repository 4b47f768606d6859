"""What a face regressor learns from: a loss on every estimate, growing toward the last.

Points in the picture say where a face is; the head model's statistics and drawn heads, not a
detector's depth, say how deep it is. All distances are in pixels of the 224-pixel crop, divided by
`PIXELS` to be about 1 at the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from v3recon.data.augment import CROP_SIZE
from v3recon.data.draw_heads import detected_points
from v3recon.data.face_samples import NOT_LABELED, FaceBatch
from v3recon.face_models.detector_mesh import POINT_COUNT, load_face_mesh
from v3recon.face_models.landmarks import march_contour_2d
from v3recon.face_models.linear_face_model import (
    PART_NAMES,
    LinearFaceModel,
    linear_offsets,
    linear_points,
)
from v3recon.fitting.part_targets import PART_WEIGHTS, crop_anchors, names_parts, part_points
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import matrix_to_euler
from v3recon.losses.part_distribution import (
    part_distribution_loss,
)
from v3recon.networks.encoder import SEEN_NAMES
from v3recon.networks.face_regressor import Estimate
from v3recon.types import SH_SIZE

PIXELS = 10.0
DECIMETRES = 0.1
"""Divisor of distances in space: 1 cm is about 10 pixels."""
LOOSE_SHIFT = 0.15
"""Share of a loose source's common shift that is left in the loss."""
JAW = slice(0, 17)
JAW_WEIGHT = 0.6
"""Weight of marked jaw points: annotators agree least about them."""
GAPS_68 = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65), (19, 37), (24, 44))
"""Pairs across lids, lips and under brows whose distance matters beside their place."""
SEEN_WEIGHTS = (0.5, 3.0, 3.0, 3.0, 3.0, 1.5, 3.0, 3.0, 0.5, 0.5, 2.0, 1.5)
"""Weight of each of `SEEN_NAMES`: small things count as much as large ones."""
PART_POINTS = 128
"""Most vertices of one part that the part loss sees."""
PART_STATISTICS = (1.0, 0.3, 0.3)
"""Weights of least, greatest and mean distance."""
PART_SCALE = 300.0
"""Part loss of a face, square pixels, from which it grows like its root: a wrong mask would
otherwise outweigh the rest of its batch."""
PART_UNIT = 30.0
"""Divisor of the part loss, square pixels."""
BESIDE_MARKED = 0.3
"""Weight of detected points on photos with marked ones."""
CONTRAST_TEMPERATURE = 0.1


@dataclass(frozen=True)
class FaceWeights:
    """Weight of each term of the objective; 0 leaves it out."""

    detected: float = 1.0
    """Detected points; where people marked points as well, `BESIDE_MARKED` of it."""
    marked: float = 1.5
    aims: float = 1.5
    """Points where the refiner saw them (`Estimate.aims`), before the mesh is brought there."""
    gaps: float = 1.0
    curve: float = 0.5
    """Points of profiles on the jaw line."""
    parts: float = 1.0
    """Part re-projection distance (PRDL) to masks."""
    seen: float = 0.5
    """What each place shows."""
    identity_prior: float = 0.01
    expression_prior: float = 0.01
    bounds: float = 1.0
    """Expression weights beyond their bounds."""
    truth_shape: float = 1.0
    """Shape of drawn heads with their expression, and without it (`truth_identity`)."""
    truth_identity: float = 1.0
    truth_pose: float = 1.0
    truth_light: float = 0.1
    """Albedo and light of drawn heads."""
    same_person: float = 0.05
    """Identities of one person lie together, those of others apart (InfoNCE)."""


class FacePoints(nn.Module):
    """Mean and modes of the points that losses compare: D detected ones, then the 68.

    Attributes:
        mean, basis: [D + 68, 3] and [D + 68, 3, K].
        detected: [D] numbers of the detector's points that the face model has (`detected_points`).
        detected_68: [68] places among these D of those that are landmarks, iBUG's order.
    """

    mean: Tensor
    basis: Tensor
    detected: Tensor
    detected_68: Tensor
    bounds: Tensor
    sigma: Tensor
    contour_lines: Tensor
    contour_mean: Tensor
    contour_basis: Tensor
    part_index: Tensor
    part_mean: Tensor
    part_basis: Tensor
    part_normals: Tensor
    aimed_mean: Tensor
    aimed_basis: Tensor

    def __init__(self, model: LinearFaceModel, aimed: Tensor | None = None) -> None:
        """Take them from a face model.

        Args:
            model: the face model.
            aimed: [P] vertices at which a network looks, the 68 landmarks first; default these.
        """
        super().__init__()
        mean, basis = model.shape_basis_at(model.landmarks_68 if aimed is None else aimed)
        self.register_buffer("aimed_mean", mean)
        self.register_buffer("aimed_basis", basis)
        numbers, surface = detected_points(model)
        places = np.full(POINT_COUNT, -1)
        places[numbers] = np.arange(len(numbers))
        self.register_buffer("detected", torch.from_numpy(numbers))
        self.register_buffer("detected_68", torch.from_numpy(places[load_face_mesh().landmarks_68]))
        detected = model.shape_basis_of(surface)
        marked = model.shape_basis_at(model.landmarks_68)
        self.register_buffer("mean", torch.cat([detected[0], marked[0]]))
        self.register_buffer("basis", torch.cat([detected[1], marked[1]]))
        bounds = model.exp_bounds
        if bounds is None:
            bounds = torch.tensor([-torch.inf, torch.inf]).repeat(model.sizes[1], 1)
        sigma = torch.ones(model.sizes[1]) if model.exp_sigma is None else model.exp_sigma
        self.register_buffer("bounds", bounds)
        self.register_buffer("sigma", sigma)
        self._add_contour(model)
        self._add_parts(model)

    def _add_contour(self, model: LinearFaceModel) -> None:
        """The lines along which the outline of the face may lie."""
        lines = model.contour_lines
        vertices, place = lines.clamp(min=0).unique(return_inverse=True)
        mean, basis = model.shape_basis_at(vertices)
        self.register_buffer("contour_lines", torch.where(lines >= 0, place.view_as(lines), -1))
        self.register_buffer("contour_mean", mean)
        self.register_buffer("contour_basis", basis)

    def contour_pixels(self, estimate: Estimate, index: Tensor | None = None) -> Tensor:
        """Points of these lines in the crop, [B, N, 2], or some of each face's, index [B, L]."""
        coeffs = estimate.coeffs
        code = torch.cat([coeffs.id, coeffs.exp], 1)
        if index is None:
            shape = linear_points(self.contour_mean, self.contour_basis, code)
        else:
            offset = (self.contour_basis[index] @ code[:, None, :, None])[..., 0]
            shape = self.contour_mean[index] + offset
        return project(shape @ estimate.rotation + coeffs.trans[:, None], Camera())

    def _add_parts(self, model: LinearFaceModel) -> None:
        """Vertices of the parts, thinned; none where the model does not name parts."""
        index = torch.zeros(len(PART_NAMES), 0, dtype=torch.long)
        vertices = torch.zeros(0, dtype=torch.long)
        if names_parts(model):
            sets = part_points(model, PART_POINTS)
            vertices, place = sets.clamp(min=0).unique(return_inverse=True)
            index = torch.where(sets >= 0, place.view_as(sets), -1)
            self.register_buffer(
                "part_normals", model.normals(model.mean_vertices()[None])[0, vertices]
            )
        mean, basis = model.shape_basis_at(vertices)
        self.register_buffer("part_index", index)
        self.register_buffer("part_mean", mean)
        self.register_buffer("part_basis", basis)

    def shape(self, estimate: Estimate) -> Tensor:
        """Unposed points [B, D + 68, 3], decimetres."""
        code = torch.cat([estimate.coeffs.id, estimate.coeffs.exp], 1)
        return linear_points(self.mean, self.basis, code)

    def pixels(self, estimate: Estimate, shape: Tensor) -> Tensor:
        """Where they are in the crop, [B, D + 68, 2]."""
        posed = shape @ estimate.rotation + estimate.coeffs.trans[:, None]
        return project(posed, Camera())


def estimate_shares(count: int) -> list[float]:
    """Weight of each of the estimates, doubling toward the last, sum 1."""
    shares = [2.0**k for k in range(count)]
    return [share / sum(shares) for share in shares]


def face_loss(
    estimates: list[Estimate], seen: Tensor, batch: FaceBatch, points: FacePoints, w: FaceWeights
) -> dict[str, Tensor]:
    """Weighted terms of the objective; their sum is the loss.

    Args:
        estimates: from `FaceRegressor.estimates`.
        seen: its logits [B, 12, h, w].
        batch: the samples.
        points: of the face model.
        w: weights.
    """
    terms: dict[str, Tensor] = {}
    for estimate, share in zip(estimates, estimate_shares(len(estimates)), strict=True):
        for name, value in estimate_terms(estimate, batch, points).items():
            terms[name] = terms.get(name, seen.new_zeros(())) + share * value * getattr(w, name)
    last = estimates[-1]
    terms["truth_light"] = w.truth_light * light_loss(last, batch)
    if w.same_person > 0:
        terms["same_person"] = w.same_person * contrast_loss(last.coeffs.id, batch.subject)
    if w.seen > 0:
        terms["seen"] = w.seen * seen_loss(seen, batch.seen)
    return terms


def estimate_terms(estimate: Estimate, batch: FaceBatch, points: FacePoints) -> dict[str, Tensor]:
    """Unweighted terms of one estimate; names are those of `FaceWeights`."""
    shape = points.shape(estimate)
    pixels = points.pixels(estimate, shape)
    detected, marked = pixels.split([len(points.detected), 68], 1)
    found, found_weight = (
        batch.detected[:, points.detected],
        batch.detected_weight[:, points.detected],
    )
    target = batch.marked + loose_shift(marked, batch)[:, None]
    marked_weight = batch.marked_weight.clone()
    marked_weight[:, JAW] *= JAW_WEIGHT
    jaw = jaw_difference(estimate, marked, target, points)
    jaw = torch.where(batch.truth_weight[:, None, None] > 0, (marked - target)[:, JAW], jaw)
    difference = torch.cat([jaw, (marked - target)[:, JAW.stop :]], 1)
    has_marked = (batch.marked_weight.sum(1) > 0).float() * (1 - batch.truth_weight)
    beside = 1 - (1 - BESIDE_MARKED) * has_marked
    exp = estimate.coeffs.exp
    over = (exp - points.bounds[:, 1]).clamp(min=0) + (points.bounds[:, 0] - exp).clamp(min=0)
    real = 1 - batch.truth_weight
    return {
        "detected": point_loss(detected - found, found_weight * beside[:, None]),
        "marked": point_loss(difference, marked_weight),
        "aims": aim_loss(estimate, target, marked_weight, batch, points),
        "gaps": gap_loss(detected[:, points.detected_68], marked, batch),
        "curve": curve_loss(marked, batch),
        "parts": part_loss(estimate, batch, points),
        "identity_prior": (real * estimate.coeffs.id.square().mean(1)).mean(),
        "expression_prior": (real * (exp / points.sigma).square().mean(1)).mean(),
        "bounds": (over / points.sigma).square().sum(1).mean(),
        **truth_terms(estimate, batch, points),
    }


def point_loss(difference: Tensor, weight: Tensor) -> Tensor:
    """Mean over faces of each one's weighted mean distance, smooth below a pixel.

    Args:
        difference: [B, N, 2] pixels.
        weight: [B, N] >= 0; faces without weight count as 0.
    """
    distance = (difference.square().sum(-1) + 1).sqrt() - 1
    total = (weight * distance).sum(1) / weight.shape[1]
    return total.mean() / PIXELS


def aim_loss(
    estimate: Estimate, target: Tensor, weight: Tensor, batch: FaceBatch, points: FacePoints
) -> Tensor:
    """Where the refiner saw its points: inner landmarks of marked photos, all of drawn heads.

    Args:
        estimate: B faces.
        target: [B, 68, 2] where the landmarks are, crop pixels.
        weight: [B, 68] of them.
        batch: the samples.
        points: of the face model.
    """
    aims = estimate.aims
    if aims is None or aims.shape[1] < weight.shape[1]:
        return target.new_zeros(())
    code = batch.truth[:, : points.aimed_basis.shape[-1]]
    posed = linear_points(points.aimed_mean, points.aimed_basis, code) @ batch.rotation
    truth = project(posed + batch.trans[:, None], Camera())
    drawn = batch.truth_weight[:, None] > 0
    marks, inner = torch.zeros_like(aims), torch.zeros_like(aims[..., 0])
    marks[:, : weight.shape[1]] = target
    # The mean of `point_loss` is over all points, of which few are marked.
    scale = aims.shape[1] / weight.shape[1]
    inner[:, JAW.stop : weight.shape[1]] = scale * weight[:, JAW.stop :]
    wanted = torch.where(drawn[..., None], truth, marks)
    return point_loss(aims - wanted, torch.where(drawn, 1.0, inner))


def loose_shift(marked: Tensor, batch: FaceBatch) -> Tensor:
    """Part [B, 2] of the mean offset of inner points that is the source's, not the estimate's."""
    weight = batch.marked_weight[:, JAW.stop :, None]
    offset = (marked - batch.marked)[:, JAW.stop :]
    mean = (offset * weight).sum(1) / weight.sum(1).clamp(min=1)
    return batch.loose[:, None] * (1 - LOOSE_SHIFT) * mean


def jaw_difference(
    estimate: Estimate, marked: Tensor, target: Tensor, points: FacePoints
) -> Tensor:
    """Offsets [B, 17, 2] of marked jaw points from the jaw or the outline, whichever is nearer.

    Some sources mark the visible outline, some the jaw itself, some the one on the near and the
    other on the far side; no mark says which.

    Args:
        estimate: B faces.
        marked: [B, 68, 2] their points in the crop.
        target: [B, 68, 2] where people put them.
        points: of the face model.
    """
    with torch.no_grad():
        outline = points.contour_pixels(estimate)
        roll = matrix_to_euler(estimate.rotation)[:, 2]
        lines, chin = (
            points.contour_lines,
            int(points.contour_lines[len(points.contour_lines) // 2, 0]),
        )
        index = march_contour_2d(outline, lines, roll, chin)[:, ::2]
    marched = points.contour_pixels(estimate, index)
    fixed, moving = marked[:, JAW] - target[:, JAW], marched - target[:, JAW]
    nearer = moving.square().sum(-1, keepdim=True) < fixed.square().sum(-1, keepdim=True)
    return torch.where(nearer, moving, fixed)


def gap_loss(detected: Tensor, marked: Tensor, batch: FaceBatch) -> Tensor:
    """Offsets across lids, lips and below brows, marked ones where known, else detected ones.

    Args:
        detected: [B, 68, 2] the estimate's at the detector's landmarks, crop pixels.
        marked: [B, 68, 2] the same at the points that people mark.
        batch: the samples.
    """
    pairs = torch.tensor(GAPS_68, device=marked.device)
    index = torch.from_numpy(load_face_mesh().landmarks_68).to(marked.device)
    total = marked.new_zeros(())
    has_marked = (batch.marked_weight.sum(1) > 0).float()[:, None]
    for points, target, weight, use in (
        (marked, batch.marked, batch.marked_weight, has_marked),
        (detected, batch.detected[:, index], batch.detected_weight[:, index], 1 - has_marked),
    ):  # fmt: skip
        both = weight[:, pairs[:, 0]] * weight[:, pairs[:, 1]] * use
        gap = points[:, pairs[:, 0]] - points[:, pairs[:, 1]]
        wanted = target[:, pairs[:, 0]] - target[:, pairs[:, 1]]
        total = total + point_loss(gap - wanted, both)
    return total


def curve_loss(marked: Tensor, batch: FaceBatch) -> Tensor:
    """Distance of the points of a profile's jaw line from the line through the mesh's own."""
    left = batch.curve_left.bool()[:, None, None]
    line = torch.where(left, marked[:, 8:17].flip(1), marked[:, 0:9])
    start, step = line[:, None, :-1], (line[:, 1:] - line[:, :-1])[:, None]
    offset = batch.curve[:, :, None] - start
    along = (offset * step).sum(-1) / step.square().sum(-1).clamp(min=1e-3)
    nearest = start + along.clamp(0, 1)[..., None] * step
    square = (batch.curve[:, :, None] - nearest).square().sum(-1).amin(-1)
    distance = (square + 1).sqrt() - 1
    return (distance.mean(1) * batch.curve_weight).mean() / PIXELS


def part_loss(estimate: Estimate, batch: FaceBatch, points: FacePoints) -> Tensor:
    """Part re-projection distance (3DDFA_V3, CVPR 2024) of the faces with masks."""
    chosen = (batch.part_present.sum(1) > 0).nonzero()[:, 0]
    if not len(chosen) or not points.part_index.shape[1]:
        return estimate.rotation.new_zeros(())
    coeffs, rotation = estimate.coeffs[chosen], estimate.rotation[chosen]
    code = torch.cat([coeffs.id, coeffs.exp], 1)
    posed = linear_points(points.part_mean, points.part_basis, code) @ rotation
    pixels = project(posed + coeffs.trans[:, None], Camera())
    toward = (points.part_normals @ rotation.detach())[..., 2] > 0
    anchors = torch.from_numpy(crop_anchors(CROP_SIZE)).to(pixels)
    loss = part_distribution_loss(
        pixels.clamp(-CROP_SIZE, 2 * CROP_SIZE), points.part_index,
        batch.part_statistics[chosen], anchors,
        part_weights=batch.part_present[chosen] * pixels.new_tensor(PART_WEIGHTS),
        statistic_weights=PART_STATISTICS, vertex_weights=toward.to(pixels), per_face=True,
    )  # fmt: skip
    robust = 2 * PART_SCALE * ((1 + loss / PART_SCALE).sqrt() - 1)
    return robust.sum() / len(batch) / PART_UNIT


def truth_terms(estimate: Estimate, batch: FaceBatch, points: FacePoints) -> dict[str, Tensor]:
    """Shape in space with expression and without it, rotation and depth of drawn heads."""
    weight = batch.truth_weight
    size = points.basis.shape[-1]
    code = batch.truth[:, :size]
    basis = points.basis.detach()  # shrinking the modes of a model that learns is no way to fit
    change = torch.cat([estimate.coeffs.id, estimate.coeffs.exp], 1) - code
    apart = linear_offsets(basis, change).square().sum(-1).add(1e-6).sqrt().mean(1) / DECIMETRES
    wrong = estimate.coeffs.id - code[:, : estimate.coeffs.id.shape[1]]
    neutral = linear_offsets(basis[..., : wrong.shape[1]], wrong)
    neutral_apart = neutral.square().sum(-1).add(1e-6).sqrt().mean(1) / DECIMETRES
    turned = (estimate.rotation - batch.rotation).square().sum((1, 2))
    depth = (estimate.coeffs.trans - batch.trans).abs()[:, 2]
    return {
        "truth_shape": (weight * apart).mean(),
        "truth_identity": (weight * neutral_apart).mean(),
        "truth_pose": (weight * (turned + 0.2 * depth)).mean(),
    }


def light_loss(estimate: Estimate, batch: FaceBatch) -> Tensor:
    """Albedo and light coefficients of drawn heads."""
    found = torch.cat([estimate.coeffs.alb, 5 * estimate.coeffs.sh], 1)
    wanted = batch.truth[:, -found.shape[1] :]
    scale = torch.ones_like(wanted)
    scale[:, -SH_SIZE:] = 5
    return (batch.truth_weight * (found - scale * wanted).square().mean(1)).mean()


def contrast_loss(identity: Tensor, subject: Tensor) -> Tensor:
    """InfoNCE on identity coefficients: the other photo of a person among all of the batch.

    Args:
        identity: [B, Kid].
        subject: [B] person, -1 for none.
    """
    same = (subject[:, None] == subject) & (subject >= 0)[:, None]
    same = same & ~torch.eye(len(subject), dtype=torch.bool, device=subject.device)
    if not same.any():
        return identity.new_zeros(())
    direction = normalize(identity, dim=1)
    likeness = direction @ direction.T / CONTRAST_TEMPERATURE
    own = torch.eye(len(subject), dtype=torch.bool, device=subject.device)
    drawn = (subject < 0)[None].expand_as(own)
    likeness = likeness.masked_fill(own | drawn, -torch.inf)
    has = same.any(1)
    logits = likeness[has].log_softmax(1)
    return -(logits.masked_fill(~same[has], 0).sum(1) / same[has].sum(1)).mean()


def seen_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of what each place shows; 0 where nothing is labeled."""
    known = target != NOT_LABELED
    if not known.any():
        return logits.sum() * 0
    weights = logits.new_tensor(SEEN_WEIGHTS)
    assert len(weights) == len(SEEN_NAMES)
    return cross_entropy(logits, target.long(), weights, ignore_index=NOT_LABELED)


@torch.no_grad()
def validation_figures(
    estimates: list[Estimate], batch: FaceBatch, points: FacePoints
) -> dict[str, Tensor]:
    """Error of each face's marked points over the longer side of their box, by estimate.

    Faces without marked points are compared with the detected ones of the 68.

    Returns:
        [B] "inner" of the last estimate and "inner_first" of the first one (points 17 … 67), NaN
        where fewer than ten are known; a loose source's common shift is taken out.
    """
    result = {}
    index = torch.from_numpy(load_face_mesh().landmarks_68).to(batch.detected.device)
    bare = (batch.marked_weight > 0).sum(1, keepdim=True) == 0
    target = torch.where(bare[..., None], batch.detected[:, index], batch.marked)
    known = torch.where(bare, batch.detected_weight[:, index], batch.marked_weight) > 0
    for name, estimate in (("inner", estimates[-1]), ("inner_first", estimates[0])):
        marked = points.pixels(estimate, points.shape(estimate))[:, -68:]
        weight = known.float()
        weight[:, JAW] = 0
        difference = marked - target
        shift = (difference * weight[..., None]).sum(1) / weight.sum(1)[:, None].clamp(min=1)
        difference = difference - (batch.loose[:, None] * shift)[:, None]
        error = (difference.norm(dim=-1) * weight).sum(1) / weight.sum(1).clamp(min=1)
        size = 224 / 1.414
        result[name] = torch.where(weight.sum(1) >= 10, error / size, torch.nan)
    return result
