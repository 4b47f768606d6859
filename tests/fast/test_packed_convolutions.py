from __future__ import annotations

import pytest
import torch
from synthetic_assets import random_network
from torch import nn

from v3recon._fast.packed_convolutions import PackedConv, can_pack, pack_convolutions
from v3recon.networks.regressor import Regressor, fuse_for_inference

needs_onednn = pytest.mark.skipif(not can_pack(), reason="this PyTorch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize(
    ("options", "activation"),
    [
        ({}, "none"),
        ({"padding": 1, "stride": 2}, "relu"),
        ({"groups": 4, "padding": 2, "dilation": 2, "bias": False}, "hardswish"),
    ],
)
def test_packed_convolution_twin_of_the_plain_one(options, activation):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, **options)
    packed = PackedConv(conv, activation)
    function = {"none": nn.Identity(), "relu": nn.ReLU(), "hardswish": nn.Hardswish()}[activation]
    for batch, size in ((1, 16), (3, 16), (2, 9)):  # the layout is chosen for the first
        x = torch.randn(batch, 8, size, size).to(memory_format=torch.channels_last)
        with torch.no_grad():
            torch.testing.assert_close(packed(x), function(conv(x)), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(packed(x.contiguous()), packed(x))


@needs_onednn
@pytest.mark.parametrize("backbone", ["mbnetv3", "resnet50"])
def test_packed_network_gives_the_same_coefficients(backbone):
    torch.manual_seed(0)
    regressor = Regressor(backbone)
    regressor.load_state_dict(random_network(backbone))
    fused = fuse_for_inference(regressor)
    image = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        expected = fused(image).to_tensor()
        pack_convolutions(fused)
        found = fused(image).to_tensor()
        again = fused(image[:1]).to_tensor()
    assert sum(isinstance(module, PackedConv) for module in fused.modules()) > 50
    assert expected.std() > 1e-2, "a constant network would pass"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=5e-5)
    torch.testing.assert_close(again, found[:1], rtol=1e-5, atol=5e-5)


@needs_onednn
def test_activations_are_taken_along_in_sequences_only():
    """Children of another module need not run in the order in which they are named."""

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.conv(x) + x)

    network = nn.Sequential(Added(), nn.Conv2d(3, 3, 1), nn.Identity(), nn.ReLU())
    x = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = network(x)
        pack_convolutions(network)
        torch.testing.assert_close(network(x), expected)
    assert isinstance(network[0].act, nn.ReLU) and isinstance(network[3], nn.Identity)


def test_what_cannot_be_packed_stays():
    network = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding="same"),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 3, 1).double(),
    )
    before = list(network)
    pack_convolutions(network)
    assert list(network) == before
