from __future__ import annotations

import pytest
import torch

from v3recon.networks.recognition import RecognitionNet, load_recognition


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return RecognitionNet().state_dict()


def test_names_of_the_public_weights(weights):
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    assert shapes["conv1.weight"] == (64, 3, 3, 3)
    assert shapes["layer1.0.downsample.0.weight"] == (64, 64, 1, 1)
    assert shapes["layer3.13.prelu.weight"] == (256,)
    assert shapes["fc.weight"] == (512, 25088) and shapes["features.running_var"] == (512,)
    parameters = sum(parameter.numel() for parameter in RecognitionNet().parameters())
    assert round(parameters / 1e6, 2) == 43.59, "the published size of this network"


def test_frozen_but_differentiable_in_the_picture(tmp_path, weights):
    path = tmp_path / "backbone.pth"
    torch.save({key: value.half() for key, value in weights.items()}, path)
    network = load_recognition(path)
    image = torch.rand(2, 3, 80, 80, requires_grad=True)
    features = network(image)
    assert features.shape == (2, 512)
    features.square().sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(not parameter.requires_grad for parameter in network.parameters())


def test_bad_files_give_one_line(tmp_path, weights):
    with pytest.raises(ValueError, match="no such file"):
        load_recognition(tmp_path / "absent.pth")
    path = tmp_path / "bad.pth"
    contents = [
        b"text",
        b"",
        {"a": torch.zeros(1)},
        torch.zeros(3),
        {**weights, "bn1.bias": torch.zeros(1)},
    ]
    for content in contents:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(ValueError, match=str(path)) as error:
            load_recognition(path)
        assert "\n" not in str(error.value)
