"""Photometric loss under a skin attention map (Deep3D; Deng et al., CVPRW 2019, eq. 4)."""

from __future__ import annotations

from torch import Tensor


def photometric_loss(
    rendered: Tensor,
    image: Tensor,
    mask: Tensor,
    attention: Tensor | None = None,
    epsilon: float = 1e-6,
) -> Tensor:
    """Mean over the weighted pixels of sqrt(epsilon + sum_c (I - I')^2).

    Args:
        rendered: [B, 3, H, W] RGB, 0…1.
        image: [B, 3, H, W] RGB, 0…1.
        mask: [B, 1, H, W] rendered face, bool or 0…1.
        attention: [B, 1, H, W] skin probability, 0…1; default 1.
        epsilon: keeps the slope finite at zero.

    Returns:
        scalar, 0…sqrt(3); sqrt(epsilon) for equal pictures, 0 where no pixel has weight.
    """
    assert rendered.shape == image.shape and rendered.shape[1] == 3, rendered.shape
    weight = mask.to(rendered)
    if attention is not None:
        weight = weight * attention.to(rendered)
    distance = (((rendered - image) ** 2).sum(1, keepdim=True) + epsilon).sqrt()
    return (distance * weight).sum() / weight.sum().clamp_min(1.0)
