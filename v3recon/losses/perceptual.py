"""Perceptual loss on face-recognition features (Deng et al., CVPRW 2019, eq. 6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, cosine_similarity, grid_sample


def align_faces(image: Tensor, alignment: Tensor, size: int) -> Tensor:
    """Warp pictures to the frame a recognition network was trained on; differentiable.

    Args:
        image: [B, 3, H, W].
        alignment: [B, 2, 3] maps image pixels to pixels of the output (centres at integers).
        size: side of the output, pixels.

    Returns:
        [B, 3, size, size], bilinear, 0 outside the picture.
    """
    assert image.ndim == 4 and alignment.shape[1:] == (2, 3), (image.shape, alignment.shape)
    height, width = image.shape[2:]
    bottom = alignment.new_tensor([[0.0, 0.0, 1.0]]).expand(len(alignment), 1, 3)
    inverse = torch.linalg.inv(torch.cat([alignment, bottom], 1))
    # affine_grid speaks of -1 … 1 across the whole picture: pixel = (n + 1) size / 2 - 1/2.
    to_pixels = alignment.new_tensor(
        [[size / 2, 0, (size - 1) / 2], [0, size / 2, (size - 1) / 2], [0, 0, 1]]
    )
    to_unit = alignment.new_tensor(
        [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]]
    )
    theta = (to_unit @ inverse @ to_pixels)[:, :2].to(image)
    grid = affine_grid(theta, [len(image), image.shape[1], size, size], align_corners=False)
    return grid_sample(image, grid, align_corners=False)


def perceptual_loss(
    rendered: Tensor,
    image: Tensor,
    network: Callable[[Tensor], Tensor],
    *,
    alignment: Tensor | None = None,
    size: int = 160,
) -> Tensor:
    """Mean over faces of 1 - cosine of the features of the drawn and the photographed face.

    Args:
        rendered: [B, 3, H, W] drawn face, RGB, 0…1.
        image: [B, 3, H, W] photo, RGB, 0…1; its features get no gradient.
        network: frozen recognition network, [B, 3, S, S] in 0…1 -> [B, D]
            (`networks.recognition`); the normalisation it needs is its own business.
        alignment: [B, 2, 3] image pixels to the network's input; default the whole picture.
        size: S, used with `alignment`.

    Returns:
        scalar, 0…2.
    """
    assert rendered.shape == image.shape and rendered.ndim == 4, (rendered.shape, image.shape)
    if alignment is not None:
        rendered = align_faces(rendered, alignment, size)
        image = align_faces(image, alignment, size)
    with torch.no_grad():
        reference = network(image)
    return (1 - cosine_similarity(network(rendered), reference, dim=1)).mean()
