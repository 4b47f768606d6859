from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from synthetic_assets import random_network, synthetic_face_model, tiny_face_model

from v3recon.networks.checkpoints import load_checkpoint
from v3recon.networks.face_regressor import (
    FaceRegressor,
    FaceRegressorConfig,
    save_face_regressor,
)
from v3recon.networks.regressor import Regressor

SIZES = (10, 8, 6)


@pytest.fixture(scope="module")
def model():
    return tiny_face_model()


@pytest.fixture
def regressor() -> Regressor:
    torch.manual_seed(0)
    return Regressor("mbnetv3", SIZES).eval()


@pytest.fixture
def saved(tmp_path, regressor) -> Path:
    path = tmp_path / "net_recon_mbnet.pth"
    torch.save({"net_recon": regressor.state_dict()}, path)
    return path


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
    assert loaded.description.crop_rule == {"name": "five_points"}
    for key, value in loaded.regressor.state_dict().items():
        assert torch.equal(value, weights[key])


def test_another_face_model_is_refused(tmp_path, saved):
    other = tiny_face_model()
    other.name = "photohead"
    with pytest.raises(ValueError, match=r"made for the face model 'bfm', not 'photohead'"):
        load_checkpoint(saved, other)
    config = FaceRegressorConfig(sizes=SIZES, input_size=64, pyramid_width=16, map_width=8, cells=4,
                                 hidden=16, points=8, refiner_hidden=16)  # fmt: skip
    own = tmp_path / "own.pth"
    save_face_regressor(own, FaceRegressor(config), face_model=tiny_face_model(seed=3),
                        crop_rule={"name": "box"})  # fmt: skip
    with pytest.raises(ValueError, match=r"another version of the face model 'bfm'"):
        load_checkpoint(own, tiny_face_model())
    assert load_checkpoint(own, tiny_face_model(seed=3)).description.sizes == SIZES


def test_official_file_with_another_number_of_coefficients_is_refused(tmp_path, model):
    path = tmp_path / "net_recon.pth"
    torch.save({"net_recon": Regressor("mbnetv3").state_dict()}, path)
    with pytest.raises(ValueError, match=r"gives \(80, 64, 80\) coefficients.*\(10, 8, 6\)"):
        load_checkpoint(path, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("final_layers.5.bias"), "1 weights of mbnetv3 are missing"),
        (
            lambda w: w.update(extra=torch.zeros(1)),
            r"0 weights .* missing and 1 are unknown.*extra",
        ),
        (
            lambda w: w.update({"backbone.conv.1.bias": torch.zeros(3)}),
            r"is \(3,\), expected \(960",
        ),
        (lambda w: w["final_layers.1.bias"].fill_(torch.nan), "not finite"),
        (lambda w: w.update({"final_layers.1.bias": 5}), "lacks the head"),
        (lambda w: w.update({"final_layers.5.bias": 5}), r"final_layers\.5\.bias"),
        (lambda w: w.pop("final_layers.3.bias"), "lacks the head"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, saved, change, message):
    content = torch.load(saved, weights_only=True)
    change(content["net_recon"])
    path = tmp_path / "changed.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


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
        "an older version's": {"format": "v3recon-regressor", "weights": {}},
        "no weights": {"net_recon": None},
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
