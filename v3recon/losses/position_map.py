"""Weighted loss on position maps in UV space (PRNet, Feng et al., ECCV 2018, section 3.2)."""

from __future__ import annotations

from torch import Tensor

KEY_POINTS, INNER_FACE, FACE, NECK = 16.0, 4.0, 3.0, 0.0
"""PRNet's weights: key points : eyes, nose and mouth : rest of the face : neck."""


def position_map_weights(key_points: Tensor, inner_face: Tensor, face: Tensor) -> Tensor:
    """Weight map; where masks overlap, key points win over inner face over face.

    Args:
        key_points: [H, W] bool.
        inner_face: [H, W] bool, eyes, nose and mouth.
        face: [H, W] bool, without the neck.

    Returns:
        [H, W] float, 0 elsewhere.
    """
    weights = face.float() * (FACE - NECK) + NECK
    weights = weights.masked_fill(inner_face, INNER_FACE)
    return weights.masked_fill(key_points, KEY_POINTS)


def position_map_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over faces and texels of w |P - P'|^2.

    Args:
        predicted: [B, C, H, W] position map.
        target: [B, C, H, W].
        weights: [H, W] or [B, H, W].

    Returns:
        scalar, squared units of the map.
    """
    assert predicted.shape == target.shape and predicted.ndim == 4, predicted.shape
    return (((predicted - target) ** 2).sum(1) * weights.to(predicted)).mean()
