from __future__ import annotations

import math

import torch

from v3recon.geometry.spherical_harmonics import irradiance, sh_basis, shade_sh


def random_normals(count: int, generator: torch.Generator) -> torch.Tensor:
    normals = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(normals, dim=-1)


def test_constants_of_the_reference_program():
    a0c0, a1c1, a2c2 = 0.886227, 1.772454, 2.427032
    n = torch.tensor([0.6, 0.0, 0.8])
    expected = [a0c0, 0, 0.8 * a1c1, -0.6 * a1c1, 0, 0]
    expected += [a2c2 / (2 * math.sqrt(3)) * (3 * 0.64 - 1), -0.48 * a2c2, 0.18 * a2c2]
    torch.testing.assert_close(sh_basis(n), torch.tensor(expected), atol=1e-5, rtol=0)


def test_basis_is_orthogonal_over_the_sphere(generator):
    basis = sh_basis(random_normals(200_000, generator)[0])
    gram = basis.T @ basis / len(basis)
    off_diagonal = gram - torch.diag(gram.diagonal())
    assert off_diagonal.abs().max() < 0.03 * gram.diagonal().min()


def test_zero_coefficients_are_white_ambient_light(generator):
    normals = random_normals(5, generator)
    light = irradiance(normals, torch.zeros(2, 27, dtype=torch.float64))
    torch.testing.assert_close(light, torch.full_like(light, 0.8 * math.sqrt(math.pi) / 2))


def test_coefficients_are_stored_color_first(generator):
    normals = random_normals(5, generator)
    sh = torch.zeros(2, 27, dtype=torch.float64)
    sh[:, 9 + 2] = 0.5  # the z term of green
    change = irradiance(normals, sh) - irradiance(normals, torch.zeros_like(sh))
    assert (change[..., [0, 2]] == 0).all()
    torch.testing.assert_close(change[..., 1], 0.5 * sh_basis(normals)[..., 2])


def test_gradients(generator):
    normals = random_normals(4, generator).requires_grad_()
    albedo = torch.rand(2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    sh = torch.randn(2, 27, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(shade_sh, (albedo, normals, sh))


def test_batch_of_two_is_two_batches_of_one(generator):
    normals = random_normals(6, generator)
    sh = torch.randn(2, 27, generator=generator, dtype=torch.float64)
    both = irradiance(normals, sh)
    for index in range(2):
        one = slice(index, index + 1)
        torch.testing.assert_close(irradiance(normals[one], sh[one]), both[one])
