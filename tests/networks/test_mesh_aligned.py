from __future__ import annotations

import pytest
import torch
from synthetic_assets import tiny_face_model
from torch import nn

from v3recon._fast.packed_convolutions import pack_convolutions
from v3recon.decode import decode
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.networks.checkpoints import load_checkpoint, save_checkpoint
from v3recon.networks.mesh_aligned import (
    POINTS,
    CloseUps,
    MeshAlignedCorrections,
    feature_levels,
    set_points,
)
from v3recon.networks.mobilenet_v3 import MobileNetV3Large
from v3recon.networks.regressor import Regressor, fuse_for_inference, make_backbone
from v3recon.types import FaceCoeffs

SIZES = (80, 64, 80)


@pytest.fixture(scope="module")
def model():
    return load_face_model("photoface")


def corrected(model, backbone: str = "mbnetv3", seed: int = 0, closeups: int = 0) -> Regressor:
    """A random network whose corrections are not zero."""
    torch.manual_seed(seed)
    regressor = Regressor(backbone, model.sizes, 64, "6d", corrections=2, closeups=closeups).eval()
    set_points(regressor.aligned, model)
    for step in regressor.aligned.steps:
        nn.init.normal_(step[-1].weight, 0, 2e-3)
    if regressor.near is not None:
        nn.init.normal_(regressor.near.step[-1].weight, 0, 2e-3)
    return regressor


@pytest.mark.parametrize("rotation_size", [3, 6])
def test_features_are_read_where_the_landmarks_project(model, rotation_size):
    """Twin: the program's own decoding."""
    corrections = MeshAlignedCorrections((4, 4), model.sizes, rotation_size, 1)
    set_points(corrections, model)
    generator = torch.Generator().manual_seed(0)
    shape = torch.randn(3, 144, generator=generator)
    angle = 0.4 * torch.randn(3, 3, generator=generator)
    trans = 0.2 * torch.randn(3, 3, generator=generator)
    pose = angle if rotation_size == 3 else euler_to_matrix(angle)[:, :2].flatten(1)
    coeffs = FaceCoeffs(
        shape[:, :80], shape[:, 80:], torch.zeros(3, 80), angle, torch.zeros(3, 27), trans
    )
    expected = decode(coeffs, model, Camera()).points_2d[:, model.landmarks_106]
    places = corrections.places(shape, pose, trans)
    assert (((places + 1) * 224 - 1) / 2 - expected).abs().max() < 1e-3


def test_a_map_is_read_at_the_right_pixel():
    """One point at the world's origin is the centre of the crop; a ramp map says where it is."""
    corrections = MeshAlignedCorrections((1,), (1, 1, 0), 3, 1)
    size = 56
    ramp = torch.arange(size, dtype=torch.float32).expand(1, 24, size, size)
    corrections._fine_map = lambda maps: ramp
    seen = []
    corrections.steps[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    corrections([ramp[:, :1]], torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 3))
    # Pixel 112 of 224 lies at (112 + 0.5) / 4 - 0.5 of 56 cells.
    value = seen[0][0][0, 0]
    assert float(value) == pytest.approx((112 + 0.5) / 4 - 0.5, abs=1e-3)


def test_fresh_corrections_change_nothing_and_learn(model):
    torch.manual_seed(0)
    narrow = Regressor("mbnetv3", model.sizes, 64, "6d", "spatial").eval()
    wide = Regressor("mbnetv3", model.sizes, 64, "6d", "spatial", corrections=2).eval()
    set_points(wide.aligned, model)
    wide.load_state_dict(narrow.state_dict(), strict=False)
    image = torch.rand(2, 3, 64, 64)
    coeffs = wide(image)
    assert torch.equal(coeffs.to_tensor(), narrow(image).to_tensor())
    coeffs.exp.sum().backward()
    for step in wide.aligned.steps:
        assert step[-1].weight.grad.abs().max() > 0


def test_fresh_close_ups_change_nothing_and_learn(model):
    old = corrected(model)
    new = Regressor("mbnetv3", model.sizes, 64, "6d", corrections=2, closeups=3).eval()
    new.load_state_dict(old.state_dict(), strict=False)
    image = torch.rand(2, 3, 64, 64)
    coeffs = new(image)
    assert torch.equal(coeffs.to_tensor(), old(image).to_tensor())
    coeffs.exp.sum().backward()
    assert new.near.step[-1].weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="need corrections before them"):
        Regressor("mbnetv3", model.sizes, 64, "6d", closeups=1)


def test_close_ups_show_the_cells_around_each_inner_point(model):
    """On a map that numbers its cells; every point is put on a cell's centre."""
    torch.manual_seed(0)
    near = CloseUps(1, 144, 6, 1)
    side = 40
    numbered = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    cells = torch.randint(3, side - 3, (1, POINTS, 2))

    class At:
        def places(self, shape, pose, trans):
            return (2 * cells + 1) / side - 1

    seen = []
    near.read[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    near(numbered, At(), torch.zeros(1, 144), torch.zeros(1, 6), torch.zeros(1, 3))
    assert seen[0].shape == (1, 73, 25)
    for point in (0, 40, 72):
        column, row = cells[0, 33 + point].tolist()
        patch = numbered[0, 0, row - 2 : row + 3, column - 2 : column + 3]
        assert torch.allclose(seen[0][0, point], patch.flatten(), atol=2e-2)


def test_each_close_up_starts_from_the_estimate_before(model):
    regressor = corrected(model, closeups=2)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        both = regressor(image)
        regressor.near.count = 1
        once = regressor(image)
        regressor.near.count = 0
        none = regressor(image)
    first, second = (once.exp - none.exp), (both.exp - once.exp)
    assert first.abs().max() > 1e-4 and second.abs().max() > 1e-4
    assert not torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("closeups", [0, 2])
def test_mixed_precision_does_not_round_the_estimate(model, closeups):
    """A backbone in bfloat16, everything that is read from it in float32."""
    regressor = corrected(model, closeups=closeups)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = regressor(image).to_tensor()
        with torch.autocast("cpu", torch.bfloat16):
            found = regressor(image).to_tensor()
    assert found.dtype == torch.float32
    assert not torch.equal(found.bfloat16().float(), found), "the estimate itself was rounded"
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_each_correction_starts_from_the_one_before(model):
    regressor = corrected(model)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        both = regressor(image)
        regressor.aligned.steps = regressor.aligned.steps[:1]
        once = regressor(image)
        regressor.aligned.steps = regressor.aligned.steps[:0]
        first = regressor(image)
    for name in ("id", "exp", "angle", "trans"):
        values = [getattr(coeffs, name) for coeffs in (first, once, both)]
        assert not torch.allclose(values[0], values[1], atol=1e-5), name
        assert not torch.allclose(values[1], values[2], atol=1e-5), name
    assert torch.equal(first.alb, both.alb) and torch.equal(first.sh, both.sh)


def test_gradients_reach_the_backbone_through_what_is_read(model):
    regressor = corrected(model)
    for head in regressor.final_layers:  # no way round
        nn.init.zeros_(head.weight)
    regressor(torch.rand(1, 3, 64, 64)).exp.sum().backward()
    early = regressor.backbone.features[3].conv[0].weight.grad
    late = regressor.backbone.features[12].conv[0].weight.grad
    assert early.abs().max() > 0 and late.abs().max() > 0


def test_the_file_keeps_corrections_and_their_points(model, tmp_path):
    regressor = corrected(model, closeups=3)
    path = tmp_path / "weights.pth"
    save_checkpoint(path, regressor, face_model=model, crop_rule={"name": "box", "scale": 1.4})
    loaded = load_checkpoint(path, model)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = regressor(image).to_tensor()
        assert torch.equal(loaded.regressor(image).to_tensor(), expected)
    assert (loaded.description.corrections, loaded.description.closeups) == (2, 3)
    content = torch.load(path, weights_only=True)
    good = content["description"]
    for name, value in (("corrections", 2), ("closeups", 3)):
        content["description"] = good.replace(f'"{name}": {value}', f'"{name}": -1')
        torch.save(content, path)
        with pytest.raises(ValueError, match=name):
            load_checkpoint(path, model)


@pytest.mark.parametrize("closeups", [0, 2])
def test_inference_form_gives_the_same(model, closeups):
    regressor = corrected(model, closeups=closeups)
    image = torch.rand(2, 3, 64, 64)
    fused = fuse_for_inference(regressor)
    pack_convolutions(fused)
    with torch.no_grad():
        expected = regressor(image).to_tensor()
        assert torch.allclose(fused(image).to_tensor(), expected, atol=2e-4)


def test_large_network_too(model):
    regressor = corrected(model, "resnet50", closeups=1)
    with torch.no_grad():
        coeffs = regressor(torch.rand(1, 3, 64, 64))
    assert coeffs.to_tensor().isfinite().all()


def test_levels_have_the_strides_they_are_named_for():
    network = MobileNetV3Large().eval()
    indices, widths = feature_levels(network)
    image = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        last, maps = network.forward_intermediates(image, indices)
        assert torch.equal(last, network.forward_features(image))
    shapes = [tuple(level.shape) for level in maps]
    expected = [(1, w, 96 // s, 64 // s) for w, s in zip(widths, (4, 8, 16), strict=True)]
    assert shapes == expected


def test_backbones_without_a_pyramid_and_other_models_are_refused(model):
    backbone, _ = make_backbone("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="strides"):
        feature_levels(backbone)
    corrections = MeshAlignedCorrections((4,), SIZES, 6, 1)
    with pytest.raises(ValueError, match="modes"):
        set_points(corrections, tiny_face_model())


def test_a_description_with_words_for_corrections_is_refused(model, tmp_path):
    path = tmp_path / "weights.pth"
    regressor = Regressor("mbnetv3", model.sizes, 64, "6d")
    save_checkpoint(path, regressor, face_model=model, crop_rule={"name": "box", "scale": 1.4})
    content = torch.load(path, weights_only=True)
    content["description"] = content["description"].replace(
        '"corrections": 0', '"corrections": "x"'
    )
    torch.save(content, path)
    with pytest.raises(ValueError, match="malformed"):
        load_checkpoint(path, model)
