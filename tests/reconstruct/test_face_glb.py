"""Faces as .glb: the file at its own weights is the face; other programs read it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from drawn_face import drawn_face, neutral_corners
from glb_reader import read_glb, shown_corners

from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.face_models.surfaces import GROUP_NAMES, surface_faces
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.glb import PHOTO_EXPRESSION, albedo_texture, write_face_glb
from v3recon.reconstruct.save import OutputChoice


@pytest.fixture(scope="module")
def head() -> Face:
    return drawn_face("photohead")


def test_a_head_has_arkits_shapes_and_its_own_expression(head, tmp_path):
    write_face_glb(tmp_path / "head.glb", head)
    document, binary = read_glb(tmp_path / "head.glb")
    assert len(binary) < 6e6
    shape = document["meshes"][0]
    assert shape["extras"]["targetNames"] == list(ARKIT_NAMES)
    np.testing.assert_allclose(shape["weights"], head.coeffs.exp[0, :52], rtol=1e-6)
    assert [one["name"] for one in document["materials"]] == ["skin", "eyes", "teeth", "tongue"]
    corners = shown_corners(document, binary, shape["weights"])
    # Displacements below 0.02 mm are left out; a few add up.
    np.testing.assert_allclose(corners, neutral_corners(head), atol=1e-4)
    posed = head.decoded.model_vertices[0].numpy()
    assert 0.25 < np.ptp(posed[:, 1]) * 0.1 < 0.45  # metres from collar to crown


def test_trimesh_reads_four_parts_with_the_texture(head, tmp_path):
    write_face_glb(tmp_path / "head.glb", head, texture="albedo", texture_size=256)
    scene = trimesh.load(tmp_path / "head.glb")
    assert sum(len(one.faces) for one in scene.geometry.values()) == len(head.model.faces)
    skin = max(scene.geometry.values(), key=lambda one: len(one.faces))
    picture = np.asarray(skin.visual.material.baseColorTexture.convert("RGB")).astype(float)
    expected = albedo_texture(head.coeffs.alb, head.model, 256)[0]
    assert np.abs(picture - expected).mean() < 2  # of JPEG
    normal = trimesh.Trimesh(skin.vertices, skin.faces, process=False).vertex_normals
    nose = skin.vertices[:, 2].argmax()
    assert normal[nose, 2] > 0.5  # y up, front toward +z, triangles counterclockwise
    front = (skin.vertices[:, 2] > 0) & (np.abs(skin.vertices[:, 0]) < 0.03)
    assert (normal[front] * skin.vertex_normals[front]).sum(1).mean() > 0.9


def test_models_without_arkit_have_the_faces_own_expression(tmp_path, official_assets):
    face = drawn_face("bfm", official_assets / "face_model.npy")
    write_face_glb(tmp_path / "face.glb", face, texture_size=64)
    document, binary = read_glb(tmp_path / "face.glb")
    shape = document["meshes"][0]
    names = shape["extras"]["targetNames"]
    assert names[0] == PHOTO_EXPRESSION and shape["weights"][0] == 1
    assert "smile" not in names and "neutral" not in names
    corners = shown_corners(document, binary, shape["weights"])
    np.testing.assert_allclose(corners, neutral_corners(face), atol=1.1e-4)


def test_surfaces_are_those_of_the_builder(head):
    labels = head.model.group_labels[head.model.faces].numpy()
    expected = {"eyes": ("eyeballs",), "teeth": ("upper_teeth", "lower_teeth"), "tongue": "tongue"}
    surfaces = surface_faces(head.model)
    assert sorted(torch.cat(list(surfaces.values())).tolist()) == list(range(len(labels)))
    for name, groups in expected.items():
        found = {GROUP_NAMES[label] for label in np.unique(labels[surfaces[name].numpy()])}
        assert found == set([groups] if isinstance(groups, str) else groups)


def test_saving_with_glb_writes_one_more_file(head, tmp_path):
    few = {"seg": False, "seg_visible": False, "model_texture": False, "texture_size": 64}
    for photo in (True, False):
        choice = OutputChoice(**few, extracted_texture=photo, glb=True)
        names = {path.name for path in head.save(tmp_path / str(photo), "me", choice=choice)}
        assert "me.glb" in names
        document, _ = read_glb(tmp_path / str(photo) / "me.glb")
        assert document["nodes"][0]["name"] == "me" and document["images"]
    files = [(tmp_path / one / "me.glb").read_bytes() for one in ("True", "False")]
    assert files[0] == files[1]
    with pytest.raises(ValueError, match="photo, albedo, none"):
        write_face_glb(tmp_path / "x.glb", head, texture="gold")
