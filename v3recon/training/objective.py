"""What a regressor is trained for: batch and prediction to one scalar and its named terms.

Only the vertices that some term looks at are evaluated, as rows of the model's linear basis: a
step costs a [B, 144] x [144, 3 N] product for N of a few thousand instead of the dense mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, grid_sample, one_hot

from v3recon.data.fit_coefficients import target_coeffs
from v3recon.data.samples import LABELS_HAND, LABELS_PARSED, TrainingBatch
from v3recon.face_models.landmarks import NOSE_TIP_68, march_contour_2d
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.parts import BROW_LABELS, EYE_LABELS, LIP_LABELS, SKIN_LABEL
from v3recon.fitting.part_targets import (
    MIN_PART_PIXELS,
    PartTargets,
    cut_forehead,
    part_masks,
    part_target_statistics,
)
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.point_sets import anchor_grid
from v3recon.geometry.spherical_harmonics import irradiance
from v3recon.losses.landmark import gather_landmarks
from v3recon.losses.parameter_distance import (
    AFFINE_SIZE,
    vdc_loss,
    weighted_parameter_loss,
    wpdc_weights_fast,
)
from v3recon.losses.part_distribution import (
    above_brows,
    part_distribution_loss,
    part_index_sets,
)
from v3recon.losses.regularization import gamma_loss
from v3recon.networks.fine_map import CLASS_WEIGHTS
from v3recon.training.config import TermWeights
from v3recon.types import FaceCoeffs

DETECTOR_POINTS = 468
"""PhotoFace keeps the detector's points as its first vertices."""
AFFINE_DEVIATION = 20.0
"""Pixels (a decimetre, for the linear part) by which WPDC's affine parameters are divided."""
PART_POINTS = 256
"""Most vertices of one part that the part loss sees (see `part_index_sets`)."""
PHOTO_POINTS = 1500
"""Vertices at which colours are compared."""
PART_WEIGHTS = (4.0, 4.0, 3.0, 3.0, 1.0, 4.0, 4.0, 0.15)
"""Weights of the parts in the part loss, order of PART_NAMES. Squared distances grow with the
part: unweighted, the skin's hair-cut border would be four fifths of the loss."""
PART_STATISTICS = (1.0, 0.3, 0.3)
"""Weights of least, greatest and mean distance: the least one draws borders onto borders, and led
in the comparison of docs/part_losses.md; the others matter far from the target."""
PART_SCALE = 300.0
"""Part loss of a face, square pixels, from which it grows like its root: a mask that names a part
wrongly would otherwise outweigh the rest of its batch."""
PARTS_MAX_YAW = 1.05
"""Turned further (radians, 60 degrees), the far eye and brow are slivers whose distances jump."""
PARSED_WITHOUT = (*EYE_LABELS, SKIN_LABEL)
"""Parts of parsed masks that the part loss leaves out."""
FEATURE_LABELS = (*EYE_LABELS, *BROW_LABELS, *LIP_LABELS)
FEATURE_REACH = 0.06
FEATURE_WEIGHT = 3.0
"""Detected points within FEATURE_REACH (decimetres) of eyes, brows and lips weigh so much more
than cheeks: that is where a pixel matters."""
GAP_PAIRS = (
    (159, 145), (158, 153), (160, 144), (157, 154), (161, 163),
    (386, 374), (385, 380), (387, 373), (384, 381), (388, 390),
    (13, 14), (82, 87), (312, 317), (81, 178), (311, 402),
    (66, 158), (105, 159), (296, 385), (334, 386),
)  # fmt: skip
"""Detected points across lids, inner lips, and from brow to lid: their offsets are what opens."""
GAP_PAIRS_68 = ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65))
"""The same among the 68 points."""
ANCHOR_GRID = 28
"""Anchors of the part loss along a side of the crop."""
JAW = 17
"""Contour points among the 68; they are marched to the visible rim."""
MARCH_FACING = 0.15
"""|x| of the nose tip's normal above which the far jaw is marched (about 9 degrees of yaw)."""


@dataclass(frozen=True)
class TrainingFace:
    """Rows of a face model that training looks at, N in all.

    Attributes:
        mean: [N, 3] mean positions.
        basis: [N, 3, Kid + Kexp] modes.
        normals: [N, 3] unit normals of the mean shape (visibility and light in training use
            them rotated: individual normals differ by some degrees only).
        detector: rows of the detector's points, empty for models without them.
        detector_weights: [468] weights of these points, mean 1.
        landmarks: [68] rows.
        contour: [17, M] rows of the lines along which the jaw is marched, -1 filled.
        parts: [8, M] rows of the parts' vertices, -1 filled.
        photo: [P] rows where colours are compared.
        mean_albedo: [P, 3] RGB 0…1 at those rows.
        alb_basis: [P, 3, Kalb].
        id_count: number of identity modes in `basis`.
    """

    mean: Tensor
    basis: Tensor
    normals: Tensor
    detector: Tensor
    detector_weights: Tensor
    landmarks: Tensor
    contour: Tensor
    parts: Tensor
    photo: Tensor
    mean_albedo: Tensor
    alb_basis: Tensor
    id_count: int

    def to(self, device: torch.device) -> TrainingFace:
        """The same rows on another device."""
        names = [field.name for field in fields(self) if field.name != "id_count"]
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@torch.no_grad()
def make_training_face(model: LinearFaceModel) -> TrainingFace:
    """Choose and evaluate the rows once per run."""
    sizes = model.sizes
    mean_dense = model.mean_vertices()
    normals = model.normals(mean_dense[None])[0]
    # The forehead is cut on both sides: hair decides what the mask shows of it.
    forehead = above_brows(model.part_labels, mean_dense) & (model.part_labels == SKIN_LABEL)
    parts = part_index_sets(model.part_labels, mean_dense, PART_POINTS, keep=~forehead)
    shuffled = torch.randperm(model.vertex_count, generator=torch.Generator().manual_seed(0))
    photo = shuffled[:PHOTO_POINTS]
    # 33 contour lines go round the face, every other one belongs to a point of the 17.
    contour = model.contour_lines[::2]
    detector = torch.arange(DETECTOR_POINTS if model.name == "photoface" else 0)
    wanted = torch.cat(
        [detector, model.landmarks_68, contour.flatten(), parts.flatten(), photo]
    ).clamp(min=0)
    index, rows = torch.unique(wanted, return_inverse=True)
    pieces = rows.split([len(detector), 68, contour.numel(), parts.numel(), PHOTO_POINTS])
    mean, basis = model.shape_basis_at(index)
    zero = torch.zeros(1, sizes[2])
    mean_albedo = model.albedo(zero)[0, photo]
    modes = torch.eye(sizes[2])
    alb_basis = (model.albedo(modes)[:, photo] - mean_albedo).permute(1, 2, 0)
    return TrainingFace(
        mean=mean,
        basis=basis,
        normals=normals[index],
        detector=pieces[0],
        detector_weights=_feature_weights(model, mean_dense, detector),
        landmarks=pieces[1],
        contour=torch.where(contour >= 0, pieces[2].view_as(contour), -1),
        parts=torch.where(parts >= 0, pieces[3].view_as(parts), -1),
        photo=pieces[4],
        mean_albedo=mean_albedo.contiguous(),
        alb_basis=alb_basis.contiguous(),
        id_count=sizes[0],
    )


def _feature_weights(model: LinearFaceModel, mean_dense: Tensor, detector: Tensor) -> Tensor:
    """Weights of the detector's points, mean 1: more near eyes, brows and lips."""
    features = torch.isin(model.part_labels, torch.tensor(FEATURE_LABELS))
    distance = torch.cdist(mean_dense[detector], mean_dense[features]).amin(1)
    weights = torch.where(distance < FEATURE_REACH, FEATURE_WEIGHT, 1.0)
    return weights / weights.mean()


@dataclass(frozen=True)
class Posed:
    """Rows of a batch of faces: world vertices, crop pixels, depth and visibility by normal."""

    vertices: Tensor
    points_2d: Tensor
    normals: Tensor


def pose_rows(coeffs: FaceCoeffs, rotation: Tensor, face: TrainingFace, camera: Camera) -> Posed:
    """Posed and projected rows [B, N, ...] of a batch."""
    code = torch.cat([coeffs.id, coeffs.exp], 1)
    count = len(face.mean)
    shape = torch.addmm(face.mean.reshape(1, -1), code, face.basis.reshape(3 * count, -1).T)
    vertices = shape.reshape(-1, count, 3) @ rotation + coeffs.trans[:, None]
    return Posed(vertices, project(vertices, camera), face.normals @ rotation.detach())


def training_loss(
    coeffs: FaceCoeffs,
    rotation: Tensor,
    batch: TrainingBatch,
    face: TrainingFace,
    weights: TermWeights,
    camera: Camera,
    part_logits: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of all terms that have a weight.

    Every term is a sum over faces divided by the batch size, never by how many faces have the
    target: so the loss of a batch is the mean of the losses of its parts, and a run on two
    processes equals a run on one.

    Args:
        coeffs: predicted coefficients of B faces.
        rotation: [B, 3, 3] predicted rotation.
        batch: targets, crop-224 pixels.
        face: rows of the face model.
        weights: weights of the terms.
        camera: camera of the crop.
        part_logits: [B, 9, S / 2, S / 2] of the parts that the network names, if it does.

    Returns:
        The scalar to minimise, and each term before weighting (detached).
    """
    posed = pose_rows(coeffs, rotation, face, camera)
    naming = 0.0 if part_logits is None else weights.named
    terms = {
        "points": (weights.points, lambda: _points_term(posed, batch, face, weights.marked)),
        "depth": (weights.depth, lambda: _depth_term(posed, batch, face, camera)),
        "landmarks": (weights.landmarks, lambda: _landmark_term(posed, coeffs, batch, face)),
        "gaps": (weights.gaps, lambda: _gap_term(posed, batch, face, weights.marked)),
        "wpdc": (weights.wpdc, lambda: _wpdc_term(coeffs, rotation, batch, face, camera)),
        "vdc": (weights.vdc, lambda: _vdc_term(posed, batch, face, camera)),
        "parts": (weights.parts, lambda: _parts_term(posed, batch, face, camera, weights.parsed)),
        "named": (naming, lambda: _named_term(part_logits, batch, weights.parsed)),
        "photometric": (
            weights.photometric,
            lambda: _photometric_term(posed, coeffs, batch, face, camera),
        ),
        "coefficients": (
            weights.coefficients,
            lambda: coeffs.id.square().sum(1).mean() + coeffs.exp.square().sum(1).mean(),
        ),
        "albedo": (weights.albedo, lambda: coeffs.alb.square().sum(1).mean()),
        "light": (weights.light, lambda: gamma_loss(coeffs.sh)),
    }
    total = posed.points_2d.new_zeros(())
    values = {}
    for name, (weight, term) in terms.items():
        if weight > 0:
            value = term()
            total = total + weight * value
            values[name] = value.detach()
    return total, values


def _points_term(posed: Posed, batch: TrainingBatch, face: TrainingFace, marked: float) -> Tensor:
    """Mean absolute error of the detected points, pixels; less where people marked the photo."""
    if len(face.detector) == 0:
        return posed.points_2d.new_zeros(())
    error = (posed.points_2d[:, face.detector] - batch.points[..., :2]).abs().sum(-1)
    return (error * batch.points_weight * _trust(batch, marked) * face.detector_weights).mean()


def _depth_term(posed: Posed, batch: TrainingBatch, face: TrainingFace, camera: Camera) -> Tensor:
    """Mean absolute error of the centred depth, in pixels at the face's distance."""
    if len(face.detector) == 0:
        return posed.points_2d.new_zeros(())
    z = posed.vertices[:, face.detector, 2]
    scale = camera.focal / (camera.distance - z.mean(1, keepdim=True)).detach()
    error = (z - z.mean(1, keepdim=True)) * scale - batch.points[..., 2]
    return (error.abs() * batch.points_weight).mean()


def _gap_term(posed: Posed, batch: TrainingBatch, face: TrainingFace, marked: float) -> Tensor:
    """Mean absolute error of offsets across lids, lips and brows, pixels.

    Pose, place and size cancel in an offset, so that the opening of an eye, three pixels of a
    face of a hundred, is not lost among them (the eye closure loss of DECA, for mouths as well).
    """
    landmarks = posed.points_2d[:, face.landmarks]
    known = batch.landmarks_weight[:, torch.tensor(GAP_PAIRS_68)].amin(-1)
    error = (_offset_error(landmarks, batch.landmarks_68, GAP_PAIRS_68) * known).mean()
    if len(face.detector) == 0:
        return error
    points = posed.points_2d[:, face.detector]
    trust = _trust(batch, marked) * batch.points_weight[:, :1]
    return error + (_offset_error(points, batch.points[..., :2], GAP_PAIRS) * trust).mean()


def _offset_error(points: Tensor, target: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """Absolute error [B, P] of the offsets between P pairs of points [B, N, 2]."""
    one, other = torch.tensor(pairs, device=points.device).unbind(1)
    error = points - target
    return (error[:, one] - error[:, other]).abs().sum(-1)


def _trust(batch: TrainingBatch, weight: float) -> Tensor:
    """Weight [B, 1] of detected points: `weight` where people marked the photo."""
    marked = (batch.labels_source == LABELS_HAND) | (batch.landmarks_weight > 0).any(1)
    return torch.where(marked, weight, 1.0)[:, None]


def _parsed(batch: TrainingBatch) -> Tensor:
    """Which faces [B] have a mask of the part parser."""
    return batch.labels_source == LABELS_PARSED


def _mask_trust(batch: TrainingBatch, parsed: float) -> Tensor:
    """Weight [B] of masks: 1 hand-made, `parsed` by the part parser, 0 for others and profiles."""
    trust = (batch.labels_source == LABELS_HAND).to(batch.angle)
    trust = torch.where(_parsed(batch), parsed, trust)
    return trust * (batch.angle[:, 1].abs() < PARTS_MAX_YAW)


def _wpdc_term(
    coeffs: FaceCoeffs, rotation: Tensor, batch: TrainingBatch, face: TrainingFace, camera: Camera
) -> Tensor:
    """Weighted parameter distance (3DDFA, fast form of V2) to the fitted coefficients.

    The affine parameters are those of the scaled orthographic camera that agrees with ours at
    the face's depth.
    """
    mean, basis = face.mean[face.detector], face.basis[face.detector]
    target, target_rotation = target_coeffs(batch, mean, basis, coeffs.sizes, camera)
    predicted = affine_parameters(coeffs, rotation, camera)
    wanted = affine_parameters(target, target_rotation, camera)
    deviation = torch.ones_like(wanted[0])
    deviation[:AFFINE_SIZE] = AFFINE_DEVIATION
    predicted, wanted = predicted / deviation, wanted / deviation
    weights = wpdc_weights_fast(predicted, wanted, mean, basis, deviation)
    known = batch.shape_weight[:, None]
    return weighted_parameter_loss(predicted, wanted, weights * known)


def affine_parameters(coeffs: FaceCoeffs, rotation: Tensor, camera: Camera) -> Tensor:
    """3DDFA's parameters [B, 12 + K]: affine 3 x 4 row by row in pixels, identity, expression."""
    scale = camera.focal / (camera.distance - coeffs.trans[:, 2:])
    linear = scale[..., None] * rotation.transpose(1, 2)  # acts on column vectors
    offset = torch.cat([scale * coeffs.trans[:, :2], torch.zeros_like(scale)], 1)
    affine = torch.cat([linear, offset[..., None]], 2).flatten(1)
    return torch.cat([affine, coeffs.id, coeffs.exp], 1)


def _vdc_term(posed: Posed, batch: TrainingBatch, face: TrainingFace, camera: Camera) -> Tensor:
    """Vertex distance (3DDFA) to the fitted face, square pixels at the world's origin."""
    mean, basis = face.mean[face.detector], face.basis[face.detector]
    sizes = (face.id_count, face.basis.shape[-1] - face.id_count, 0)
    target, rotation = target_coeffs(batch, mean, basis, sizes, camera)
    code = torch.cat([target.id, target.exp], 1)
    shape = mean + (code @ basis.flatten(0, 1).T).unflatten(1, (-1, 3))
    wanted = shape @ rotation + target.trans[:, None]
    pixels = camera.focal / camera.distance
    known = batch.shape_weight[:, None, None]
    return vdc_loss(pixels * known * posed.vertices[:, face.detector], pixels * known * wanted)


def marched_rows(posed: Posed, coeffs: FaceCoeffs, face: TrainingFace) -> Tensor:
    """Rows [B, 68] of the landmarks, the jaw moved to the visible rim of turned faces.

    Only the cheek that turns away marches: on nearly frontal faces and on the near cheek the
    annotated jaw line is the anatomical one.
    """
    chin = int(face.landmarks[JAW // 2])
    roll = coeffs.angle.detach()[:, 2]
    marched = march_contour_2d(posed.points_2d, face.contour, roll, chin)
    rows = face.landmarks.expand(len(marched), -1)
    toward_right = posed.normals[:, face.landmarks[NOSE_TIP_68], :1]  # x of the facing direction
    left = torch.arange(JAW, device=rows.device) < JAW // 2
    right = torch.arange(JAW, device=rows.device) > JAW // 2
    # A face that looks to the viewer's left hides its left cheek (as seen by the viewer).
    use = (left & (toward_right < -MARCH_FACING)) | (right & (toward_right > MARCH_FACING))
    return torch.cat([torch.where(use, marched, rows[:, :JAW]), rows[:, JAW:]], 1)


def _landmark_term(
    posed: Posed, coeffs: FaceCoeffs, batch: TrainingBatch, face: TrainingFace
) -> Tensor:
    """Mean absolute error of the hand-made 68 points, pixels."""
    return landmark_errors(posed, coeffs, batch, face).mean()


def landmark_errors(
    posed: Posed, coeffs: FaceCoeffs, batch: TrainingBatch, face: TrainingFace
) -> Tensor:
    """Absolute errors [B, 68] of the hand-made points, pixels; 0 where there are none."""
    points = gather_landmarks(posed.points_2d, marched_rows(posed, coeffs, face))
    return (points - batch.landmarks_68).abs().sum(-1) * batch.landmarks_weight


def _parts_term(
    posed: Posed, batch: TrainingBatch, face: TrainingFace, camera: Camera, parsed: float
) -> Tensor:
    """Part re-projection distance (PRDL) to hand-made masks, square pixels.

    Masks of the part parser count with weight `parsed`, without the skin, whose border is hair, and
    without eyes: it hardly knows closed ones, which the gaps know.
    """
    trust = _mask_trust(batch, parsed)
    chosen = trust.nonzero()[:, 0]
    if len(chosen) == 0:
        return 0 * posed.points_2d.sum()
    labels = batch.labels[chosen]
    distrusted = torch.isin(labels, labels.new_tensor(PARSED_WITHOUT))
    distrusted = distrusted & _parsed(batch)[chosen, None, None]
    aim = part_aim(labels.masked_fill(distrusted, 0), camera, posed.points_2d)
    loss = part_losses(posed, chosen, face, aim)
    robust = 2 * PART_SCALE * ((1 + loss / PART_SCALE).sqrt() - 1)
    return (robust * trust[chosen]).sum() / len(batch)


def _named_term(logits: Tensor | None, batch: TrainingBatch, parsed: float) -> Tensor:
    """Cross-entropy of named parts against masks, small parts heavier, plus soft Dice of each face.

    A pixel of the map covers several of the mask: its target is the share of each class. Where
    the part parser saw an eye nothing is said (see `_parts_term`).
    """
    assert logits is not None
    classes = one_hot(batch.labels.long(), logits.shape[1]).permute(0, 3, 1, 2).to(logits)
    share = adaptive_avg_pool2d(classes, (logits.shape[2], logits.shape[3]))
    eyes = share[:, list(EYE_LABELS)].sum(1, keepdim=True)
    told = 1 - eyes * _parsed(batch)[:, None, None, None]
    weights = logits.new_tensor(CLASS_WEIGHTS)[:, None, None] * told
    log_chances = logits.log_softmax(1)
    entropy = -(weights * share * log_chances).sum(1).mean((1, 2))
    chances, share = told * log_chances.exp()[:, 1:], told * share[:, 1:]
    overlap = (chances * share).sum((2, 3))
    total = (chances + share).sum((2, 3))
    dice = (1 - (2 * overlap + 1) / (total + 1)).mean(1)
    return ((entropy + dice) * _mask_trust(batch, parsed)).mean()


@dataclass(frozen=True)
class PartAim:
    """What the part loss draws b faces to.

    Attributes:
        statistics: [b, 8, 3, A] distances of the masks from the anchors, pixels.
        anchors: [A, 2] crop pixels.
        weights: [b, 8] of the parts, 0 where the mask has none.
    """

    statistics: Tensor
    anchors: Tensor
    weights: Tensor


def part_aim(labels: Tensor, camera: Camera, like: Tensor) -> PartAim:
    """Targets of the part loss for label maps [b, S, S]; device and type are those of `like`."""
    targets, anchors = mask_targets(labels.cpu().numpy(), camera)
    statistics = torch.from_numpy(np.stack([target.statistics for target in targets]))
    present = torch.from_numpy(np.stack([target.present for target in targets]))
    weights = present.to(like) * like.new_tensor(PART_WEIGHTS)
    return PartAim(statistics.to(like), anchors.to(like), weights)


def part_losses(posed: Posed, chosen: Tensor, face: TrainingFace, aim: PartAim) -> Tensor:
    """Part re-projection distance [b] of the chosen faces, square pixels."""
    return part_distribution_loss(
        posed.points_2d[chosen],
        face.parts,
        aim.statistics,
        aim.anchors,
        part_weights=aim.weights,
        statistic_weights=PART_STATISTICS,
        per_face=True,
        vertex_weights=(posed.normals[chosen, :, 2] > 0).to(posed.points_2d),
    )


def mask_targets(labels: np.ndarray, camera: Camera) -> tuple[list[PartTargets], Tensor]:
    """Target side of the part loss for label maps over the crop.

    Args:
        labels: [B, S, S] uint8 part labels of the whole crop at any resolution S.
        camera: camera of the crop.

    Returns:
        One set of statistics a face and the anchors [A, 2], both in crop pixels.
    """
    size = labels.shape[-1]
    scale = camera.image_size / size
    grid = anchor_grid((size, size), (ANCHOR_GRID, ANCHOR_GRID))
    targets = []
    for face_labels in labels:
        found = part_target_statistics(part_masks(cut_forehead(face_labels)), grid.numpy())
        pixels = np.bincount(face_labels.ravel(), minlength=9)[1:]
        present = found.present & (pixels >= MIN_PART_PIXELS)
        targets.append(PartTargets(found.statistics * np.float32(scale), present))
    return targets, (grid + 0.5) * scale - 0.5


def _photometric_term(
    posed: Posed, coeffs: FaceCoeffs, batch: TrainingBatch, face: TrainingFace, camera: Camera
) -> Tensor:
    """Colour error at visible vertices, not squared so that occluders weigh little (Deep3D).

    Positions are not moved by it: texture gradients of small pictures mislead more than they
    help; it trains albedo and light.
    """
    points = posed.points_2d[:, face.photo].detach()
    normals = posed.normals[:, face.photo]
    image = batch.image.float() / 255
    grid = (points + 0.5) * (2 / camera.image_size) - 1
    observed = grid_sample(image, grid[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
    count = len(face.photo)
    albedo = torch.addmm(
        face.mean_albedo.reshape(1, -1), coeffs.alb, face.alb_basis.reshape(3 * count, -1).T
    ).reshape(-1, count, 3)
    color = albedo * irradiance(normals, coeffs.sh)
    inside = (grid.abs() < 1).all(-1)
    weight = ((normals[..., 2] - 0.15).clamp(min=0) * inside).detach()
    error = ((color - observed).square().sum(-1) + 1e-6).sqrt()
    return ((error * weight).sum(1) / weight.sum(1).clamp(min=1)).mean()
