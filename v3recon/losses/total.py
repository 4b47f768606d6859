"""The weighted sum of all losses, shared by training and fitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from v3recon.losses.landmark import gather_landmarks, landmark_loss
from v3recon.losses.parameter_distance import vdc_loss
from v3recon.losses.part_distribution import part_distribution_loss
from v3recon.losses.perceptual import perceptual_loss
from v3recon.losses.photometric import photometric_loss
from v3recon.losses.regularization import coefficient_loss, gamma_loss, reflectance_loss
from v3recon.types import Decoded, FaceCoeffs


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; 0 leaves it out. Defaults: 3DDFA_V3 and the release of Deep3D.

    Attributes:
        part: part re-projection distance, per squared pixel.
        landmark: landmarks, per squared pixel.
        dense: projected vertices against known ones, per squared pixel.
        photometric: colour difference under the skin attention.
        perceptual: 1 - cosine of face-recognition features.
        coefficient: sum of squared coefficients.
        reflectance: variance of the albedo over skin.
        gamma: colour of the light.
        id, exp, alb: weights inside the coefficient term.
    """

    part: float = 0.8e-3
    landmark: float = 1.6e-3
    dense: float = 0.0
    photometric: float = 1.9
    perceptual: float = 0.2
    coefficient: float = 3e-4
    reflectance: float = 5.0
    gamma: float = 10.0
    id: float = 1.0
    exp: float = 0.8
    alb: float = 0.017


@dataclass(frozen=True)
class LossTarget:
    """What a batch of faces is compared with. A term whose target is None is left out.

    Attributes:
        landmarks: [B, L, 2] crop pixels.
        landmark_index: [L] or, with a marched contour, [B, L] vertex ids.
        landmark_weights: [L] or [B, L]; 0 = not annotated.
        dense: [B, N, 2] crop pixels of the vertices `dense_index`.
        dense_index: [N] vertex ids.
        part_statistics: [B, P, 3, A] of the mask, crop pixels.
        part_anchors: [A, 2] crop pixels.
        part_index: [P, N] vertex ids, -1 = none.
        part_weights: [P] or [B, P]; 0 where a part is absent.
        vertex_weights: [B, V]; 0 = hidden from the part loss.
        image: [B, 3, H, W] the photo, RGB, 0…1.
        attention: [B, 1, H, W] skin attention for the photometric term.
        skin: [V] bool or [N] ids, the region of constant reflectance.
        recognition: network [B, 3, H, W] -> [B, D] for the perceptual term.
        alignment: [B, 2, 3] crop pixels to the network's input, see `perceptual_loss`.
        recognition_size: side of the network's input, pixels.
    """

    landmarks: Tensor | None = None
    landmark_index: Tensor | None = None
    landmark_weights: Tensor | None = None
    dense: Tensor | None = None
    dense_index: Tensor | None = None
    part_statistics: Tensor | None = None
    part_anchors: Tensor | None = None
    part_index: Tensor | None = None
    part_weights: Tensor | None = None
    vertex_weights: Tensor | None = None
    image: Tensor | None = None
    attention: Tensor | None = None
    skin: Tensor | None = None
    recognition: Callable[[Tensor], Tensor] | None = None
    alignment: Tensor | None = None
    recognition_size: int = 160


def total_loss(
    decoded: Decoded,
    target: LossTarget,
    weights: LossWeights,
    *,
    coeffs: FaceCoeffs | None = None,
    albedo: Tensor | None = None,
    rendered: Tensor | None = None,
    rendered_mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of every term that has a weight, a target and a prediction.

    Args:
        decoded: predicted geometry of B faces.
        target: what it is compared with.
        weights: weight of each term.
        coeffs: predicted coefficients, for the regularisers.
        albedo: [B, V, 3] predicted reflectance, for the reflectance term.
        rendered: [B, 3, H, W] drawn face, for the photometric and perceptual terms.
        rendered_mask: [B, 1, H, W] where the face was drawn.

    Returns:
        the scalar and the unweighted, detached terms by name.

    Raises:
        ValueError: if no term is left, or a target lacks the indices it needs.
    """
    points = decoded.points_2d
    terms: dict[str, Tensor] = {}
    if weights.landmark and target.landmarks is not None:
        index = _needed(target.landmark_index, "landmark_index")
        terms["landmark"] = landmark_loss(
            gather_landmarks(points, index), target.landmarks, target.landmark_weights
        )
    if weights.dense and target.dense is not None:
        index = _needed(target.dense_index, "dense_index")
        terms["dense"] = vdc_loss(points[:, index], target.dense)
    if weights.part and target.part_statistics is not None:
        terms["part"] = part_distribution_loss(
            points,
            _needed(target.part_index, "part_index"),
            target.part_statistics,
            _needed(target.part_anchors, "part_anchors"),
            part_weights=target.part_weights,
            vertex_weights=target.vertex_weights,
        )
    terms |= _appearance_terms(target, weights, rendered, rendered_mask)
    if weights.coefficient and coeffs is not None:
        terms["coefficient"] = coefficient_loss(coeffs, weights.id, weights.exp, weights.alb)
    if weights.reflectance and albedo is not None and target.skin is not None:
        terms["reflectance"] = reflectance_loss(albedo, target.skin)
    if weights.gamma and coeffs is not None:
        terms["gamma"] = gamma_loss(coeffs.sh)
    if not terms:
        raise ValueError("no loss term has a weight, a target and a prediction")
    total = points.new_zeros(())
    for name, term in terms.items():
        total = total + getattr(weights, name) * term
    return total, {name: term.detach() for name, term in terms.items()}


def _appearance_terms(
    target: LossTarget,
    weights: LossWeights,
    rendered: Tensor | None,
    rendered_mask: Tensor | None,
) -> dict[str, Tensor]:
    """Terms that compare pictures."""
    terms: dict[str, Tensor] = {}
    if rendered is None or target.image is None:
        return terms
    mask = _needed(rendered_mask, "rendered_mask")
    if weights.photometric:
        terms["photometric"] = photometric_loss(rendered, target.image, mask, target.attention)
    if weights.perceptual and target.recognition is not None:
        # Outside the face both pictures show the photo, so that only the face is judged.
        weight = mask.to(rendered)
        composed = rendered * weight + target.image * (1 - weight)
        terms["perceptual"] = perceptual_loss(
            composed,
            target.image,
            target.recognition,
            alignment=target.alignment,
            size=target.recognition_size,
        )
    return terms


def _needed(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(f"total_loss needs {name} for the targets it was given")
    return value
