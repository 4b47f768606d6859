import math

import numpy as np
import pytest
import torch

from v3recon.losses import photometric
from v3recon.losses.perceptual import align_faces, perceptual_loss
from v3recon.losses.photometric import photometric_loss, rgb_to_ycbcr, skin_attention
from v3recon.losses.position_map import position_map_loss, position_map_weights


def test_photometric_equals_loops(generator):
    rendered, image = torch.rand(2, 2, 3, 4, 5, generator=generator)
    mask = torch.rand(2, 1, 4, 5, generator=generator) > 0.4
    attention = torch.rand(2, 1, 4, 5, generator=generator)
    total = weight = 0.0
    for b in range(2):
        for r in range(4):
            for c in range(5):
                w = float(mask[b, 0, r, c]) * float(attention[b, 0, r, c])
                squared = sum(
                    float(rendered[b, k, r, c] - image[b, k, r, c]) ** 2 for k in range(3)
                )
                total += w * math.sqrt(1e-6 + squared)
                weight += w
    loss = photometric_loss(rendered, image, mask, attention)
    assert loss.item() == pytest.approx(total / weight, rel=1e-5)


def test_photometric_edges():
    image = torch.rand(1, 3, 4, 4)
    full = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert photometric_loss(image, image, full).item() == pytest.approx(1e-3)
    assert photometric_loss(image, 1 - image, ~full).item() == 0
    same = image.clone().requires_grad_()
    photometric_loss(same, image, full).backward()
    assert same.grad.isfinite().all()


def test_photometric_gradcheck(generator):
    rendered, image = torch.rand(2, 1, 3, 4, 4, generator=generator, dtype=torch.float64)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda r: photometric_loss(r, image, mask), rendered.requires_grad_()
    )


def test_align_faces_moves_pixels_where_the_matrix_says():
    image = torch.zeros(1, 3, 9, 11)
    image[0, :, 3, 6] = 1
    moved = align_faces(image, torch.tensor([[[1.0, 0.0, -4.0], [0.0, 1.0, 1.0]]]), 7)
    assert moved.shape == (1, 3, 7, 7)
    expected = torch.zeros(3, 7, 7)
    expected[:, 4, 2] = 1
    torch.testing.assert_close(moved[0], expected, atol=1e-5, rtol=0)


def test_perceptual(generator):
    weight = torch.rand(27, 4, generator=generator, dtype=torch.float64) - 0.5

    def network(picture):
        return torch.nn.functional.adaptive_avg_pool2d(picture, 3).flatten(1) @ weight

    rendered, image = torch.rand(2, 2, 3, 8, 8, generator=generator, dtype=torch.float64)
    one, two = network(rendered), network(image)
    cosine = [float(one[b] @ two[b] / one[b].norm() / two[b].norm()) for b in range(2)]
    loss = perceptual_loss(rendered, image, network)
    assert loss.item() == pytest.approx(1 - sum(cosine) / 2, rel=1e-9)
    assert abs(perceptual_loss(image, image, network).item()) < 1e-12
    matrix = torch.tensor([[0.7, 0.1, 0.3], [-0.1, 0.7, 1.0]], dtype=torch.float64).expand(2, 2, 3)
    assert torch.autograd.gradcheck(
        lambda r: perceptual_loss(r, image, network, alignment=matrix, size=6),
        rendered.requires_grad_(),
    )


def test_position_map(generator):
    key, inner, face = (torch.rand(4, 4, generator=generator) > t for t in (0.9, 0.5, 0.2))
    weights = position_map_weights(key, inner, face)
    predicted, target = torch.rand(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    total = 0.0
    for r in range(4):
        for c in range(4):
            w = 16 if key[r, c] else 4 if inner[r, c] else 3 if face[r, c] else 0
            assert weights[r, c] == w
            total += w * float(((predicted[:, :, r, c] - target[:, :, r, c]) ** 2).sum())
    assert position_map_loss(predicted, target, weights).item() == pytest.approx(total / 32)
    assert torch.autograd.gradcheck(
        lambda p: position_map_loss(p, target, weights), predicted.requires_grad_()
    )


def test_skin_attention_tells_skin_from_grass_sky_and_shadow():
    skin = torch.tensor([[0.87, 0.67, 0.57], [0.55, 0.38, 0.29], [0.38, 0.25, 0.19]])
    other = torch.tensor([[0.3, 0.6, 0.2], [0.4, 0.6, 0.9], [0.02, 0.02, 0.02], [1.0, 1.0, 1.0]])
    attention = skin_attention(torch.cat([skin, other]).T[None, :, :, None])
    assert attention.shape == (1, 1, 7, 1)
    assert (attention[0, 0, :3] > 0.6).all() and (attention[0, 0, 3:] < 0.2).all()


def test_skin_attention_is_the_posterior_of_the_mixtures(generator):
    """Against densities written out with numpy."""
    image = torch.rand(1, 3, 2, 2, generator=generator, dtype=torch.float64)
    pixels = rgb_to_ycbcr(image)[0].flatten(1).T.numpy()

    def density(mixture):
        total = 0.0
        for weight, mean, (a, b, c, d, e, f) in mixture:
            covariance = np.array([[a, b, c], [b, d, e], [c, e, f]])
            offset = pixels - np.array(mean)
            power = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(covariance), offset)
            total = total + weight * np.exp(-power / 2) / np.sqrt(np.linalg.det(covariance))
        return total

    skin, other = 0.3 * density(photometric._SKIN), 0.7 * density(photometric._OTHER)
    attention = skin_attention(image, prior=0.3)
    np.testing.assert_allclose(attention.flatten().numpy(), skin / (skin + other), rtol=1e-8)


def test_ycbcr_of_pure_colors():
    colors = torch.eye(3).T[None, :, :, None]
    expected = torch.tensor(
        [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]
    )
    torch.testing.assert_close(rgb_to_ycbcr(colors)[0, :, :, 0], expected, atol=1e-4, rtol=0)
