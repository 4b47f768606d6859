"""Regularisers of Deep3D (Deng et al., CVPRW 2019, section 3.3; constants of its release)."""

from __future__ import annotations

from torch import Tensor

from v3recon.types import FaceCoeffs


def coefficient_loss(
    coeffs: FaceCoeffs,
    id_weight: float = 1.0,
    exp_weight: float = 0.8,
    alb_weight: float = 0.017,
) -> Tensor:
    """Mean over faces of w_id sum id^2 + w_exp sum exp^2 + w_alb sum alb^2.

    Args:
        coeffs: coefficients in standard deviations.
        id_weight: weight of identity.
        exp_weight: weight of expression.
        alb_weight: weight of albedo.

    Returns:
        scalar.
    """
    total = (
        id_weight * (coeffs.id**2).sum(1)
        + exp_weight * (coeffs.exp**2).sum(1)
        + alb_weight * (coeffs.alb**2).sum(1)
    )
    return total.mean()


def reflectance_loss(albedo: Tensor, skin: Tensor) -> Tensor:
    """Variance of the albedo over a skin region, summed over RGB, averaged over region and faces.

    Args:
        albedo: [B, V, 3] RGB, 0…1.
        skin: [V] bool mask or [N] vertex ids of the region.

    Returns:
        scalar.
    """
    assert albedo.ndim == 3 and albedo.shape[-1] == 3, albedo.shape
    region = albedo[:, skin]
    return ((region - region.mean(1, keepdim=True)) ** 2).sum(-1).mean()


def gamma_loss(sh: Tensor) -> Tensor:
    """Squared deviation of the light's three colours from their mean: lamps are nearly white.

    Args:
        sh: [B, 27] spherical-harmonics light, colour first.

    Returns:
        scalar, mean over faces and the 27 values.
    """
    assert sh.ndim == 2 and sh.shape[1] == 27, sh.shape
    gamma = sh.reshape(-1, 3, 9)
    return ((gamma - gamma.mean(1, keepdim=True)) ** 2).mean()
