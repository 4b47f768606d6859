from __future__ import annotations

import pytest
from synthetic_assets import write_official_assets

from v3recon.face_models.load import load_face_model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    return write_official_assets(folder, rows=30, columns=15, networks=()) / "face_model.npy"


def test_official_model_by_name_and_by_file(model_file):
    named, direct = load_face_model("bfm", model_file), load_face_model(model_file)
    assert named.name == direct.name == "bfm"
    assert named.content_hash == direct.content_hash
    assert named.sizes == (80, 64, 80)


def test_official_model_without_a_path_says_what_to_do():
    with pytest.raises(ValueError, match=r"face_model\.npy.*photohead"):
        load_face_model("bfm")


@pytest.mark.parametrize("name", ["flame", "model.txt", ""])
def test_unknown_name(name):
    with pytest.raises(
        ValueError, match=r"not known; use bfm, photohead, or a \.npy, \.npz or \.mat"
    ):
        load_face_model(name)


@pytest.mark.parametrize("name", ["absent.npy", "absent.npz"])
def test_absent_file(tmp_path, name):
    with pytest.raises(ValueError, match="no such file"):
        load_face_model(tmp_path / name)
    with pytest.raises(ValueError, match=name):
        load_face_model("bfm" if name.endswith("npy") else "photohead", tmp_path / name)


def test_two_files_at_once(model_file):
    with pytest.raises(ValueError, match="either a name with a path or one file"):
        load_face_model(model_file, model_file)
