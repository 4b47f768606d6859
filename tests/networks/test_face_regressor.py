"""The network of one encoder and one refiner: shapes, what refinement is, files, bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera, project
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.networks.encoder import SEEN_NAMES, lite0_from_imagenet
from v3recon.networks.face_regressor import (
    FaceRegressor,
    FaceRegressorConfig,
    load_face_regressor,
    save_face_regressor,
)
from v3recon.networks.refiner import looking_points, split_state
from v3recon.networks.regressor import fuse_for_inference

CONFIG = FaceRegressorConfig(input_size=64, pyramid_width=16, map_width=8, cells=4, hidden=32,
                             points=96, refiner_hidden=32)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return load_face_model("photohead")


@pytest.fixture
def network(model):
    torch.manual_seed(0)
    network = FaceRegressor(CONFIG).eval()
    network.set_face_model(model)
    return network


def moved(network):
    """The same network with a refiner whose changes are not zero."""
    torch.manual_seed(1)
    torch.nn.init.normal_(network.refiner.change[-1].weight, 0, 0.05)
    return network


def test_every_estimate_and_the_seen_map_come_out(network):
    estimates, seen = network.estimates(torch.rand(2, 3, 64, 64))
    assert len(estimates) == CONFIG.refinements + 1
    assert seen.shape == (2, len(SEEN_NAMES), 32, 32)
    last = estimates[-1]
    assert last.coeffs.sizes == CONFIG.sizes and last.rotation.shape == (2, 3, 3)
    torch.testing.assert_close(last.rotation @ last.rotation.mT, torch.eye(3).expand(2, 3, 3))


def test_an_untrained_refiner_changes_nothing_and_a_trained_one_does(network):
    image = torch.rand(1, 3, 64, 64)
    first, *_, last = network.estimates(image)[0]
    torch.testing.assert_close(first.coeffs.id, last.coeffs.id)
    first, *_, last = moved(network).estimates(image)[0]
    assert (first.coeffs.id - last.coeffs.id).abs().max() > 1e-4


def test_a_wild_first_estimate_is_brought_back(network):
    """Within the limits of a refinement, so that nothing passes the camera or is not finite."""
    with torch.no_grad():
        network.first[-1].bias[:144] = 400.0
        network.first[-1].bias[150:153] = torch.tensor([50.0, -80.0, 30.0])
    estimates, _ = network.estimates(torch.rand(2, 3, 64, 64))
    last = estimates[-1]
    assert last.coeffs.trans.abs().max() < 4 and last.coeffs.id.abs().max() < 8
    assert last.aims.isfinite().all()


def test_refinements_may_be_changed_at_inference(network):
    image = torch.rand(1, 3, 64, 64)
    moved(network)
    three = network.estimates(image)[0]
    network.refinements = 1
    one = network.estimates(image)[0]
    assert len(one) == 2
    torch.testing.assert_close(one[-1].coeffs.exp, three[1].coeffs.exp)


def test_places_are_where_the_mesh_projects(network, model):
    torch.manual_seed(2)
    state = network.first(torch.randn(2, network.encoder.pooled_width))[:, : 144 + 9]
    state[:, :144] = torch.randn(2, 144)
    shape, _, trans = split_state(state)
    estimate = network._estimate(state, torch.zeros(2, 80), torch.zeros(2, 27))
    vertices = model.vertices(estimate.coeffs.id, estimate.coeffs.exp)
    posed = vertices[:, network.refiner.index] @ estimate.rotation + trans[:, None]
    expected = (2 * project(posed, Camera()) + 1) / 224 - 1
    torch.testing.assert_close(network.refiner.places(state), expected, atol=1e-4, rtol=1e-4)
    assert shape.shape == (2, 144)


def test_looking_points_are_distinct_and_begin_with_the_landmarks(model):
    index = looking_points(model, 96)
    assert len(index) == 96 and torch.equal(index[:68], model.landmarks_68)
    assert len(index[68:].unique()) == 28


def test_gradients_reach_every_weight(network):
    moved(network).train()
    estimates, seen = network.estimates(torch.rand(2, 3, 64, 64))
    total = seen.square().mean()
    for estimate in estimates:
        coeffs = estimate.coeffs
        for value in (coeffs.id, coeffs.exp, coeffs.alb, coeffs.sh, coeffs.trans):
            total = total + value.square().mean()
        total = total + (estimate.rotation - 1).square().mean()
    total.backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert not without


def test_a_file_gives_the_same_network_through_both_readers(network, model, tmp_path):
    moved(network)
    path = tmp_path / "weights.pth"
    rule = {"name": "box", "scale": 1.4}
    save_face_regressor(path, network, face_model=model, crop_rule=rule, training={"step": 3})
    again, said = load_face_regressor(path)
    assert said.config == CONFIG and said.crop_rule == rule and said.training == {"step": 3}
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(image).to_tensor()
        torch.testing.assert_close(again(image).to_tensor(), expected, atol=2e-2, rtol=2e-2)
        loaded = load_checkpoint(path, model)
        fused = fuse_for_inference(loaded.regressor)
        torch.testing.assert_close(
            fused(image).to_tensor(), again(image).to_tensor(), atol=1e-4, rtol=1e-3
        )


def test_wrong_files_and_sizes_are_named(network, model, tmp_path):
    path = tmp_path / "weights.pth"
    save_face_regressor(path, network, face_model=model, crop_rule={"name": "box", "scale": 1.4})
    content = torch.load(path, weights_only=True)
    content["weights"].pop("first.0.bias")
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights\.pth: .*first\.0\.bias"):
        load_face_regressor(path)
    with pytest.raises(ValueError, match="expected crops"):
        network(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="the face model 'photohead' takes"):
        FaceRegressor(replace(CONFIG, sizes=(80, 60, 80))).set_face_model(model)
    with pytest.raises(ValueError, match="points must be"):
        FaceRegressorConfig(points=0)
    with pytest.raises(ValueError, match="not known to timm"):
        FaceRegressor(replace(CONFIG, backbone="nonsense"))


def test_imagenet_keys_map_onto_the_backbone():
    """Names made the other way round, from timm's, come back as timm's."""
    network = FaceRegressor(CONFIG)
    expected = network.encoder.backbone.state_dict()
    given = {}
    firsts = [0, 1, 3, 5, 8, 11, 15]
    for key, value in expected.items():
        if key.startswith("blocks."):
            _, stage, place, layer, name = key.split(".")
            number = firsts[int(stage)] + int(place)
            table = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv",
                     "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip
            if number == 0:
                table = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv",
                         "bn2": "_bn2"}  # fmt: skip
            given[f"_blocks.{number}.{table[layer]}.{name}"] = value
        else:
            given[key.replace("conv_stem", "_conv_stem").replace("bn1", "_bn0")] = value
    given["_fc.bias"] = torch.zeros(1)
    found = lite0_from_imagenet(given)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
