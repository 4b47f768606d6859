from __future__ import annotations

import dataclasses

import pytest
import torch

from v3recon.types import FaceCoeffs

SIZES = (5, 4, 3)
WIDTH = sum(SIZES) + 33


def test_packing_round_trip_in_the_official_order(golden):
    coeffs = FaceCoeffs.from_tensor(golden["coeffs"])
    assert coeffs.sizes == (80, 64, 80) and len(coeffs) == 4
    assert torch.equal(coeffs.to_tensor(), golden["coeffs"])
    blocks = {"id": (0, 80), "exp": (80, 144), "alb": (144, 224), "angle": (224, 227)}
    blocks |= {"sh": (227, 254), "trans": (254, 257)}
    for name, (start, stop) in blocks.items():
        assert torch.equal(getattr(coeffs, name), golden["coeffs"][:, start:stop])


@pytest.mark.parametrize("shape", [(2, WIDTH + 1), (2, WIDTH - 1), (WIDTH,), (1, 2, WIDTH)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"\[B, {WIDTH}\], got \({shape[0]}"):
        FaceCoeffs.from_tensor(torch.zeros(shape), SIZES)


def test_zeros_and_slices():
    coeffs = FaceCoeffs.zeros(3, SIZES)
    assert coeffs.sizes == SIZES and coeffs.to_tensor().shape == (3, WIDTH)
    packed = torch.randn(3, WIDTH)
    coeffs = FaceCoeffs.from_tensor(packed, SIZES)
    assert torch.equal(coeffs[1:].to_tensor(), packed[1:])
    chosen = torch.tensor([True, False, True])
    assert torch.equal(coeffs[chosen].to_tensor(), packed[chosen])


def test_results_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FaceCoeffs.zeros(1, SIZES).id = torch.zeros(1, 5)  # type: ignore[misc]


def test_detach_and_move():
    packed = torch.randn(2, WIDTH, requires_grad=True)
    coeffs = FaceCoeffs.from_tensor(packed, SIZES)
    assert coeffs.to_tensor().requires_grad and not coeffs.detach().to_tensor().requires_grad
    assert torch.equal(coeffs.to("cpu").to_tensor(), packed)
