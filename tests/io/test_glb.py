"""A small mesh in two parts, written as .glb and read by plain code."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from glb_reader import read_glb, values_of
from PIL import Image

from v3recon.io.glb import GlbAnimation, GlbMesh, GlbPart, MorphTargets, write_glb


@pytest.fixture
def mesh() -> GlbMesh:
    """A square in two triangles with corners of their own; one target lifts one corner."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    offsets = np.zeros((2, 6, 3))
    offsets[0, 2] = 0, 0, 0.5
    offsets[1, 5] = 1e-7, 0, 0  # too little to be kept
    return GlbMesh(
        name="square",
        vertices=vertices,
        faces=np.array([[0, 1, 2], [3, 4, 5]]),
        normals=np.tile([0, 0, 2.0], (6, 1)),
        uv_coords=vertices[:, :2],
        texture=np.full((8, 8, 3), 200, np.uint8),
        parts=[GlbPart("first", np.array([0])), GlbPart("second", np.array([1]), 0.2)],
        targets=MorphTargets(["lift", "nothing"], offsets, np.array([0.25, 0])),
    )


def test_parts_have_their_vertices_and_share_the_targets(mesh, tmp_path):
    write_glb(tmp_path / "a.glb", mesh)
    document, binary = read_glb(tmp_path / "a.glb")
    shape = document["meshes"][0]
    assert shape["weights"] == [0.25, 0] and shape["extras"]["targetNames"] == ["lift", "nothing"]
    assert [one["name"] for one in document["materials"]] == ["first", "second"]
    first, second = shape["primitives"]
    position = values_of(document, binary, first["attributes"]["POSITION"])
    np.testing.assert_array_equal(position, mesh.vertices[:3])
    normal = values_of(document, binary, first["attributes"]["NORMAL"])
    np.testing.assert_array_equal(normal, [[0, 0, 1]] * 3)
    uv_coords = values_of(document, binary, second["attributes"]["TEXCOORD_0"])
    np.testing.assert_array_equal(uv_coords, [[0, 1], [1, 0], [0, 0]])  # v down in glTF
    lifted = document["accessors"][first["targets"][0]["POSITION"]]
    assert lifted["sparse"]["count"] == 1 and "bufferView" not in lifted
    values = values_of(document, binary, first["targets"][0]["POSITION"])
    np.testing.assert_array_equal(values, [[0, 0, 0], [0, 0, 0], [0, 0, 0.5]])
    still = document["accessors"][second["targets"][1]["POSITION"]]
    assert "sparse" not in still and "bufferView" not in still
    picture = document["bufferViews"][document["images"][0]["bufferView"]]
    data = binary[picture["byteOffset"] :][: picture["byteLength"]]
    assert Image.open(io.BytesIO(data)).size == (8, 8)


def test_vertex_colors_are_linear_light(mesh, tmp_path):
    gray = replace(mesh, texture=None, colors=np.full((6, 3), 0.5), targets=None)
    write_glb(tmp_path / "a.glb", gray)
    document, binary = read_glb(tmp_path / "a.glb")
    first = document["meshes"][0]["primitives"][0]
    color = values_of(document, binary, first["attributes"]["COLOR_0"])
    np.testing.assert_allclose(color, 0.2140, atol=1e-4)
    assert "images" not in document and "targets" not in first


def test_animation_moves_weights_and_place(mesh, tmp_path):
    take = GlbAnimation(
        times=np.array([0, 0.04, 0.08]),
        weights=np.arange(6).reshape(3, 2) / 10,
        rotations=np.tile([0, 0, 0, 1.0], (3, 1)),
        translations=np.eye(3),
    )
    write_glb(tmp_path / "a.glb", mesh, take)
    document, binary = read_glb(tmp_path / "a.glb")
    animation = document["animations"][0]
    found = {
        channel["target"]["path"]: animation["samplers"][channel["sampler"]]
        for channel in animation["channels"]
    }
    weights = values_of(document, binary, found["weights"]["output"])
    np.testing.assert_allclose(weights, np.arange(6) / 10, rtol=1e-6)
    np.testing.assert_allclose(values_of(document, binary, found["weights"]["input"])[2], 0.08)
    assert values_of(document, binary, found["rotation"]["output"]).shape == (3, 4)
    np.testing.assert_array_equal(
        values_of(document, binary, found["translation"]["output"]), np.eye(3)
    )


def test_what_no_viewer_could_show_is_refused(mesh, tmp_path):
    wrong = {
        "faces name vertices": replace(mesh, faces=mesh.faces + 1),
        "vertices has values": replace(mesh, vertices=mesh.vertices * np.nan),
        "needs uv_coords": replace(mesh, uv_coords=None),
        "expected normals": replace(mesh, normals=mesh.normals[:2]),
        "no triangles": replace(mesh, parts=[GlbPart("none", np.array([], int))]),
        "expected weights": replace(mesh, targets=replace(mesh.targets, weights=np.zeros(3))),
    }
    for message, one in wrong.items():
        with pytest.raises(ValueError, match=message):
            write_glb(tmp_path / "a.glb", one)
    with pytest.raises(ValueError, match="must rise"):
        write_glb(tmp_path / "a.glb", mesh, GlbAnimation(np.zeros(2)))
    assert list(tmp_path.iterdir()) == []
