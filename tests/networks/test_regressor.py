from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from synthetic_assets import random_network
from torch import nn

from v3recon.networks.mobilenet_v3 import MobileNetV3Large, SqueezeExcite, make_divisible
from v3recon.networks.regressor import Regressor, fuse_for_inference

KEYS = Path(__file__).parent.parent / "golden" / "3ddfa_v3_checkpoint_keys.json"
SIZES = (5, 4, 3)


def random_regressor(backbone: str, **options) -> Regressor:
    """With batch-norm statistics of random pictures and heads that are not nearly zero."""
    torch.manual_seed(0)
    regressor = Regressor(backbone, **options)
    for module in regressor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
    size = regressor.input_size
    with torch.no_grad():
        regressor(torch.rand(4, 3, size, size))
        for head in regressor.final_layers:
            head.weight.normal_(0, 0.05)
    return regressor.eval()


@pytest.mark.parametrize("backbone", ["resnet50", "mbnetv3"])
def test_names_and_shapes_are_the_official_ones(backbone):
    expected = json.loads(KEYS.read_text())[backbone]
    found = {key: list(value.shape) for key, value in Regressor(backbone).state_dict().items()}
    assert found == expected


def test_details_in_which_the_small_network_differs_from_torchvision():
    network = MobileNetV3Large()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-5}
    block = network.features[11].conv  # 6x expansion with excitation
    kinds = [type(module) for module in block]
    conv, norm, swish = nn.Conv2d, nn.BatchNorm2d, nn.Hardswish
    assert kinds == [conv, norm, swish, conv, norm, SqueezeExcite, swish, conv, norm]
    strides = [module.stride[0] for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert torch.tensor(strides).prod() == 32
    assert [make_divisible(value) for value in (7, 18, 30, 200 / 3, 92)] == [8, 24, 32, 64, 96]


def test_small_network_twin_of_plain_arithmetic():
    """One block by its equations: expand, filter, excite, activate, project, add."""
    torch.manual_seed(0)
    block = MobileNetV3Large().features[12].eval()
    w = {key: value.double() for key, value in block.conv.state_dict().items()}
    x = torch.randn(2, 112, 6, 6, dtype=torch.float64)

    def swish(value):
        return value * (value + 3).clamp(0, 6) / 6

    def conv(value, index, **options):
        return nn.functional.conv2d(value, w[f"{index}.weight"], **options) / (1 + 1e-5) ** 0.5

    y = swish(conv(x, 0))
    y = conv(y, 3, padding=1, groups=672)
    pooled = y.mean((2, 3))
    hidden = (pooled @ w["5.fc.0.weight"].T + w["5.fc.0.bias"]).clamp(min=0)
    gate = ((hidden @ w["5.fc.2.weight"].T + w["5.fc.2.bias"]) + 3).clamp(0, 6) / 6
    y = x + conv(swish(y * gate[..., None, None]), 7)
    torch.testing.assert_close(block.double()(x), y)


def test_coefficients_have_the_asked_sizes():
    regressor = random_regressor("mbnetv3", sizes=SIZES, input_size=64)
    coeffs = regressor(torch.rand(2, 3, 64, 64))
    assert coeffs.sizes == SIZES and coeffs.to_tensor().shape == (2, sum(SIZES) + 33)


def test_order_of_the_heads_is_the_official_one():
    regressor = random_regressor("mbnetv3", sizes=SIZES, input_size=64)
    with torch.no_grad():
        for index, head in enumerate(regressor.final_layers):
            head.weight.zero_()
            head.bias.fill_(index)
        packed = regressor(torch.rand(1, 3, 64, 64)).to_tensor()[0]
    assert packed.tolist() == [0] * 5 + [1] * 4 + [2] * 3 + [3] * 3 + [4] * 27 + [5] * 2 + [6]


def test_training_starts_near_the_mean_frontal_face():
    torch.manual_seed(0)
    coeffs = Regressor("mbnetv3", SIZES, 64)(torch.rand(4, 3, 64, 64))
    assert coeffs.to_tensor().abs().max() < 0.2


def test_every_weight_has_a_gradient():
    regressor = random_regressor("mbnetv3", sizes=SIZES, input_size=64).train()
    regressor(torch.rand(2, 3, 64, 64)).to_tensor().square().sum().backward()
    for parameter in regressor.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


def test_any_timm_backbone():
    regressor = random_regressor("resnet18", sizes=SIZES, input_size=64)
    assert regressor(torch.rand(1, 3, 64, 64)).sizes == SIZES
    wide_head = random_regressor("mobilenetv3_small_050", sizes=SIZES, input_size=64)
    assert wide_head(torch.rand(2, 3, 64, 64)).id.shape == (2, 5)


def test_wrong_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match="'resnet-50' is not known; use mbnetv3, resnet50"):
        Regressor("resnet-50")
    regressor = Regressor("mbnetv3", SIZES, 64)
    with pytest.raises(
        ValueError, match=r"expected crops \[B, 3, 64, 64\], got \(1, 3, 224, 224\)"
    ):
        regressor(torch.rand(1, 3, 224, 224))


@pytest.mark.parametrize("backbone", ["mbnetv3", "resnet50", "mobilenetv3_small_050"])
def test_fused_network_gives_the_same_coefficients(backbone):
    regressor = random_regressor(backbone, sizes=SIZES, input_size=64).double()
    before = {key: value.clone() for key, value in regressor.state_dict().items()}
    image = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    fused = fuse_for_inference(regressor)
    with torch.no_grad():
        expected, found = regressor(image).to_tensor(), fused(image).to_tensor()
    assert expected.std() > 1e-2, "a constant network would pass"
    torch.testing.assert_close(found, expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    for key, value in regressor.state_dict().items():
        assert torch.equal(value, before[key]), "the original is untouched"


def test_batch_of_three_is_three_batches_of_one():
    regressor = random_regressor("mbnetv3", sizes=SIZES, input_size=64).double()
    image = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        together = regressor(image).to_tensor()
        for index in range(3):
            alone = regressor(image[index : index + 1]).to_tensor()
            torch.testing.assert_close(alone[0], together[index])


def test_synthetic_weights_give_believable_faces():
    """The networks that other tests use: coefficients of a face that stays in the crop."""
    regressor = Regressor("mbnetv3").eval()
    regressor.load_state_dict(random_network("mbnetv3"))
    with torch.no_grad():
        coeffs = regressor(torch.nn.functional.interpolate(torch.rand(3, 3, 9, 9), size=224))
    assert coeffs.trans.abs().max() < 0.6 and coeffs.angle.abs().max() < 1
    assert coeffs.to_tensor().std(0).mean() > 1e-3, "different pictures, different faces"
