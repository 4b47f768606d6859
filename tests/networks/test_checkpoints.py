from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from synthetic_assets import random_network, synthetic_face_model, tiny_face_model

from v3recon.networks.checkpoints import BYTES_FROM, load_checkpoint, save_checkpoint
from v3recon.networks.regressor import Regressor

CROP_RULE = {"name": "box", "scale": 1.414}
TRAINING = {"steps": 10, "figures": {"nme": 0.03}, "command": "v3recon train r.toml"}


@pytest.fixture(scope="module")
def model():
    return tiny_face_model()


@pytest.fixture
def regressor(model) -> Regressor:
    torch.manual_seed(0)
    return Regressor("mbnetv3", model.sizes, 96, "6d").eval()


@pytest.fixture
def saved(tmp_path, model, regressor) -> Path:
    path = tmp_path / "weights.pth"
    save_checkpoint(path, regressor, face_model=model, crop_rule=CROP_RULE, training=TRAINING)
    return path


def test_spatial_pooling_survives_the_file_and_unknown_pooling_is_refused(model, tmp_path):
    torch.manual_seed(0)
    wide = Regressor("mbnetv3", model.sizes, 96, "6d", "spatial").eval()
    path = tmp_path / "wide.pth"
    save_checkpoint(path, wide, face_model=model, crop_rule=CROP_RULE)
    loaded = load_checkpoint(path, model)
    image = torch.rand(1, 3, 96, 96)
    assert loaded.description.pooling == "spatial"
    assert torch.equal(loaded.regressor(image).to_tensor(), wide(image).to_tensor())
    content = torch.load(path, weights_only=True)
    content["description"] = content["description"].replace("spatial", "psychic")
    torch.save(content, path)
    with pytest.raises(ValueError, match="psychic"):
        load_checkpoint(path, model)


def test_round_trip(saved, model, regressor):
    loaded = load_checkpoint(saved, model)
    for key, value in regressor.state_dict().items():
        assert torch.equal(loaded.regressor.state_dict()[key], value), key
    description = loaded.description
    assert description.backbone == "mbnetv3" and description.rotation == "6d"
    assert description.sizes == model.sizes and description.input_size == 96
    assert description.face_model == "bfm" and description.face_model_hash == model.content_hash
    assert description.crop_rule == CROP_RULE and description.training == TRAINING
    assert not loaded.regressor.training


def test_half_precision_is_smaller_and_close(tmp_path, saved, model, regressor):
    path = tmp_path / "half.pth"
    for module in regressor.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(1e-9)  # would be 0 in half precision
    save_checkpoint(path, regressor, face_model=model, crop_rule=CROP_RULE, half=True)
    assert path.stat().st_size < 0.55 * saved.stat().st_size
    loaded = load_checkpoint(path, model).regressor.state_dict()
    for key, value in regressor.state_dict().items():
        assert loaded[key].dtype == value.dtype
        if value.ndim != 2:  # matrices are looked at below
            torch.testing.assert_close(loaded[key], value, rtol=1e-3, atol=1e-7)
        assert "running" not in key or torch.equal(loaded[key], value)


def test_large_matrices_are_stored_in_eight_bits(tmp_path, model, regressor):
    """A row's weights move by at most half a step of 1/127 of its largest; a row of zeros stays."""
    path = tmp_path / "half.pth"
    large = [k for k, v in regressor.state_dict().items() if v.ndim == 2 and v.numel() > BYTES_FROM]
    assert len(large) > 2
    regressor.state_dict()[large[0]][3] = 0
    save_checkpoint(path, regressor, face_model=model, crop_rule=CROP_RULE, half=True)
    stored = torch.load(path, weights_only=True)["weights"]
    assert sorted(k for k, v in stored.items() if v.dtype == torch.int8) == sorted(large)
    loaded = load_checkpoint(path, model).regressor.state_dict()
    for key in large:
        value = regressor.state_dict()[key]
        step = value.abs().amax(1, keepdim=True) / 127
        assert ((loaded[key] - value).abs() <= 0.53 * step).all(), key  # half scales round too
        assert (loaded[key] != value).any()
    assert (loaded[large[0]][3] == 0).all()
    for damage in (torch.ones(3, 1), 5, None):
        broken = dict(stored)
        broken[large[0] + ".scale"] = damage
        content = torch.load(path, weights_only=True) | {"weights": broken}
        torch.save(content, tmp_path / "broken.pth")
        with pytest.raises(ValueError, match="scale of weight"):
            load_checkpoint(tmp_path / "broken.pth")


@pytest.mark.parametrize("backbone", ["resnet50", "mbnetv3"])
def test_official_files(tmp_path, backbone):
    weights = (
        random_network(backbone) if backbone == "mbnetv3" else Regressor(backbone).state_dict()
    )
    path = tmp_path / "net_recon.pth"
    torch.save({"net_recon": weights}, path)
    loaded = load_checkpoint(path, synthetic_face_model())
    assert loaded.description.backbone == backbone
    assert loaded.description.face_model == "bfm" and loaded.description.input_size == 224
    assert loaded.description.rotation == "euler"
    assert loaded.description.crop_rule == {"name": "five_points"}
    for key, value in loaded.regressor.state_dict().items():
        assert torch.equal(value, weights[key])


def test_another_face_model_is_refused(saved, model):
    other = tiny_face_model(seed=3)
    with pytest.raises(ValueError, match=r"another version of the face model 'bfm'"):
        load_checkpoint(saved, other)
    other = tiny_face_model()
    other.name = "photoface"
    with pytest.raises(ValueError, match=r"made for the face model 'bfm', not 'photoface'"):
        load_checkpoint(saved, other)


def test_official_file_with_another_number_of_coefficients_is_refused(tmp_path, model):
    path = tmp_path / "net_recon.pth"
    torch.save({"net_recon": Regressor("mbnetv3").state_dict()}, path)
    with pytest.raises(ValueError, match=r"gives \(80, 64, 80\) coefficients.*\(10, 8, 6\)"):
        load_checkpoint(path, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("final_layers.2.bias"), "1 weights of mbnetv3 are missing"),
        (
            lambda w: w.update(extra=torch.zeros(1)),
            r"0 weights .* missing and 1 are unknown.*extra",
        ),
        (
            lambda w: w.update({"backbone.conv.1.bias": torch.zeros(3)}),
            r"is \(3,\), expected \(960",
        ),
        (lambda w: w["final_layers.1.bias"].fill_(torch.nan), "not finite"),
        (lambda w: w.update({"final_layers.1.bias": 5}), r"final_layers\.1\.bias"),
        (lambda w: w.clear(), "missing"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, saved, change, message):
    content = torch.load(saved, weights_only=True)
    change(content["weights"])
    path = tmp_path / "changed.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "has format 99"),
        ({"backbone": "vgg-unknown"}, "'vgg-unknown' is not known"),
        ({"rotation": "spin"}, "'spin' is not known"),
        ({"unknown_field": 1}, "description is malformed"),
        ({"sizes": 3}, "description is malformed"),
        ({"sizes": [1, 2]}, "description is malformed"),
        ({"input_size": "large"}, "description is malformed"),
    ],
)
def test_malformed_descriptions(tmp_path, saved, change, message):
    content = torch.load(saved, weights_only=True)
    content["description"] = json.dumps({**json.loads(content["description"]), **change})
    path = tmp_path / "changed.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_foreign_and_damaged_files_give_one_line(tmp_path, saved):
    whole = saved.read_bytes()
    proof = tmp_path / "proof"
    files = {
        "empty": b"",
        "text": b"<html>not found</html>",
        "truncated": whole[: len(whole) // 2],
        "pickle": pickle.dumps({"net_recon": Payload(proof)}),
    }
    for name, content in files.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
    others = {
        "tensor": torch.zeros(3),
        "other program": {"state_dict": {"a": torch.zeros(1)}},
        "other network": {"net_recon": {"backbone.a": torch.zeros(1)}},
        "payload": {"net_recon": Payload(proof)},
        "no description": {"format": "v3recon-regressor"},
        "no weights": {**torch.load(saved, weights_only=True), "weights": None},
    }
    for name, value in others.items():
        torch.save(value, tmp_path / f"{name}.pth")
    for name in [*files, *others]:
        path = tmp_path / f"{name}.pth"
        with pytest.raises(ValueError) as error:
            load_checkpoint(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value), name
    assert not proof.exists()
    with pytest.raises(ValueError, match="no such file"):
        load_checkpoint(tmp_path / "absent.pth")


def test_nothing_half_written_stays(tmp_path, model, regressor, saved):
    before = saved.read_bytes()
    with torch.no_grad():
        regressor.final_layers[0].bias.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"final_layers\.0\.bias.*not finite"):
        save_checkpoint(saved, regressor, face_model=model, crop_rule=CROP_RULE)
    assert saved.read_bytes() == before
    assert list(tmp_path.iterdir()) == [saved]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_rule": {"scale": 1}}, "needs a 'name'"),
        ({"training": {"nme": float("nan")}}, "JSON values only"),
        ({"training": {"tensor": torch.zeros(1)}}, "JSON values only"),
    ],
)
def test_descriptions_that_cannot_be_saved(tmp_path, model, regressor, options, message):
    options = {"crop_rule": CROP_RULE, **options}
    with pytest.raises(ValueError, match=message):
        save_checkpoint(tmp_path / "x.pth", regressor, face_model=model, **options)


def test_sizes_must_agree_when_saving(tmp_path, model):
    with pytest.raises(ValueError, match="the face model 'bfm' takes"):
        save_checkpoint(
            tmp_path / "x.pth", Regressor("mbnetv3"), face_model=model, crop_rule=CROP_RULE
        )
