"""Faces as .usdz: the file at its own weights is the face, and the library has no complaints."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from drawn_face import drawn_face, neutral_corners
from glb_reader import read_glb

from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.reconstruct.glb import PHOTO_EXPRESSION, write_face_glb
from v3recon.reconstruct.save import OutputChoice
from v3recon.reconstruct.usd import write_face_usd

pytest.importorskip("pxr", reason="usd-core is not installed")
from pxr import UsdGeom, UsdSkel
from usd_reader import complaints, expression_of, meshes_of, open_stage, shown_corners


@pytest.fixture(scope="module")
def head():
    return drawn_face("photohead")


def test_a_head_has_arkits_shapes_and_its_own_expression(head, tmp_path):
    path = tmp_path / "head.usdz"
    write_face_usd(path, head, name="me")
    assert complaints(path) == []
    assert path.stat().st_size < 7e6
    stage = open_stage(path)
    assert stage.GetDefaultPrim().GetPath() == "/me"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    expression = expression_of(stage)
    assert tuple(expression.GetBlendShapesAttr().Get()) == ARKIT_NAMES
    weights = expression.GetBlendShapeWeightsAttr().Get()
    np.testing.assert_allclose(weights, head.coeffs.exp[0, :52], rtol=1e-6)
    parts = meshes_of(stage)
    assert list(parts) == ["skin", "eyes", "teeth", "tongue"]
    bindings = [UsdSkel.BindingAPI(part.GetPrim()) for part in parts.values()]
    shapes = [set(one.GetBlendShapesAttr().Get()) for one in bindings]
    assert set().union(*shapes) == set(ARKIT_NAMES)
    assert set(ARKIT_NAMES) - shapes[0] == {"tongueOut"}
    # Displacements below 0.02 mm are left out; a few add up.
    np.testing.assert_allclose(shown_corners(path), neutral_corners(head), atol=1e-4)


def test_texture_and_coordinates_are_those_of_the_glb(head, tmp_path):
    write_face_usd(tmp_path / "head.usdz", head, texture_size=128)
    write_face_glb(tmp_path / "head.glb", head, texture_size=128)
    document, binary = read_glb(tmp_path / "head.glb")
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    start = view["byteOffset"]
    with zipfile.ZipFile(tmp_path / "head.usdz") as archive:
        picture = archive.read("textures/color.jpg")
    assert picture == binary[start : start + view["byteLength"]]
    stage = open_stage(tmp_path / "head.usdz")
    skin = meshes_of(stage)["skin"]
    uv_coords = np.array(UsdGeom.PrimvarsAPI(skin).GetPrimvar("st").Get())
    assert len(uv_coords) == len(skin.GetPointsAttr().Get())
    assert 0 <= uv_coords.min() and uv_coords.max() <= 1


def test_models_without_arkit_have_the_faces_own_expression(tmp_path, official_assets):
    face = drawn_face("bfm", official_assets / "face_model.npy")
    path = tmp_path / "face.usdz"
    write_face_usd(path, face, texture_size=64)
    assert complaints(path) == []
    stage = open_stage(path)
    expression = expression_of(stage)
    names = list(expression.GetBlendShapesAttr().Get())
    assert names[0] == PHOTO_EXPRESSION and expression.GetBlendShapeWeightsAttr().Get()[0] == 1
    assert "smile" not in names
    np.testing.assert_allclose(shown_corners(path), neutral_corners(face), atol=1.1e-4)


def test_saving_with_usd_writes_one_more_file(head, tmp_path):
    few = {"seg": False, "seg_visible": False, "model_texture": False, "texture_size": 64}
    for photo in (True, False):
        choice = OutputChoice(**few, extracted_texture=photo, glb=photo, usd=True)
        names = {path.name for path in head.save(tmp_path / str(photo), "me", choice=choice)}
        assert "me.usdz" in names and ("me.glb" in names) == photo
    files = [(tmp_path / one / "me.usdz").read_bytes() for one in ("True", "False")]
    assert files[0] == files[1]
    with pytest.raises(ValueError, match="photo, albedo, none"):
        write_face_usd(tmp_path / "x.usdz", head, texture="gold")
