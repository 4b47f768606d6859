"""A mesh as .usdz: the library reads back what was written, and finds nothing against it."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from v3recon.io.glb import GlbMesh, GlbPart, MorphTargets
from v3recon.io.images import encode_jpeg
from v3recon.io.usd import prim_name, prim_names, write_usdz


@pytest.fixture
def mesh() -> GlbMesh:
    """Two triangles of a square with a target for each and one that moves nothing."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    offsets = np.zeros((3, 4, 3), np.float32)
    offsets[0, 1] = 0, 0, 0.5
    offsets[1, 3] = 0.25, 0, 0
    normals = np.zeros_like(offsets)
    normals[0, 0] = 0.5, 0, 0
    targets = MorphTargets(["right", "top left", "still"], offsets, np.array([1, 0.5, 1]), normals)
    return GlbMesh(
        name="née 1",
        vertices=vertices,
        faces=np.array([[0, 1, 2], [0, 2, 3]]),
        normals=np.tile(np.float32([0, 0, 1]), (4, 1)),
        uv_coords=vertices[:, :2],
        texture=np.full((8, 8, 3), 200, np.uint8),
        parts=[GlbPart("first", np.array([0])), GlbPart("second", np.array([1]), 0.25)],
        targets=targets,
    )


def test_without_the_library_one_sentence_says_what_to_install(mesh, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(ValueError, match=r"pip install 'v3recon\[usd\]'"):
        write_usdz(tmp_path / "a.usdz", mesh)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "expected"), [("jawOpen", "jawOpen"), ("née 1", "n_e_1"), ("1", "_1"), ("", "_")]
)
def test_prims_have_plain_names(name, expected):
    assert prim_name(name) == expected


def test_prims_of_different_names_differ():
    assert prim_names(["a b", "a-b", "a_b"], taken=("a_b",)) == ["a_b_", "a_b__", "a_b___"]


def test_the_package_is_stored_aligned_and_the_same_each_time(mesh, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    for name in ("a.usdz", "b.usdz"):
        write_usdz(tmp_path / name, mesh)
    data = (tmp_path / "a.usdz").read_bytes()
    assert data == (tmp_path / "b.usdz").read_bytes()
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    assert archive.namelist() == ["n_e_1.usdc", "textures/color.jpg"]
    for entry in archive.infolist():
        assert entry.compress_type == zipfile.ZIP_STORED
        lengths = struct.unpack_from("<HH", data, entry.header_offset + 26)
        assert (entry.header_offset + 30 + sum(lengths)) % 64 == 0
    assert archive.read("textures/color.jpg") == encode_jpeg(mesh.texture)


def test_the_library_reads_back_meshes_shapes_and_weights(mesh, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    from pxr import UsdGeom, UsdSkel
    from usd_reader import complaints, expression_of, meshes_of, open_stage, shown_corners

    path = tmp_path / "a.usdz"
    write_usdz(path, mesh)
    assert complaints(path) == []
    stage = open_stage(path)
    assert stage.GetDefaultPrim().GetName() == "n_e_1"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    expression = expression_of(stage)
    assert list(expression.GetBlendShapesAttr().Get()) == ["right", "top left", "still"]
    for time in ((), (0,)):
        assert list(expression.GetBlendShapeWeightsAttr().Get(*time)) == [1, 0.5, 1]
    parts = meshes_of(stage)
    assert list(parts) == ["first", "second"]
    shapes = {name: UsdSkel.BindingAPI(part.GetPrim()) for name, part in parts.items()}
    # The normal of vertex 0 turns with "right", and that vertex is of both triangles.
    assert list(shapes["first"].GetBlendShapesAttr().Get()) == ["right"]
    assert list(shapes["second"].GetBlendShapesAttr().Get()) == ["right", "top left"]
    (right,) = shapes["first"].GetBlendShapeTargetsRel().GetTargets()
    shape = UsdSkel.BlendShape(stage.GetPrimAtPath(right))
    assert list(shape.GetPointIndicesAttr().Get()) == [0, 1]
    np.testing.assert_array_equal(shape.GetOffsetsAttr().Get(), [[0, 0, 0], [0, 0, 0.5]])
    np.testing.assert_array_equal(shape.GetNormalOffsetsAttr().Get(), [[0.5, 0, 0], [0, 0, 0]])
    uv_coords = UsdGeom.PrimvarsAPI(parts["second"]).GetPrimvar("st").Get()
    np.testing.assert_array_equal(uv_coords, [[0, 0], [1, 1], [0, 1]])
    first = [[0, 0, 0], [1, 0, 0.5], [1, 1, 0]]
    second = [[0, 0, 0], [1, 1, 0], [0.125, 1, 0]]
    np.testing.assert_allclose(shown_corners(path), [first, second], atol=1e-7)
    extent = UsdGeom.Boundable(stage.GetDefaultPrim()).GetExtentAttr().Get()
    np.testing.assert_allclose(extent, [[0, 0, 0], [1, 1, 0.5]])


def test_materials_have_the_texture_the_vertex_colors_or_white(mesh, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    from pxr import UsdGeom, UsdShade
    from usd_reader import complaints, meshes_of, open_stage

    plain = replace(mesh, texture=None, targets=None)
    colored = replace(plain, colors=np.tile([0.0, 1.0, 0.5], (4, 1)))
    wanted = {"texture": mesh, "colors": colored, "white": plain}
    for kind, one in wanted.items():
        path = tmp_path / f"{kind}.usdz"
        write_usdz(path, one)
        assert complaints(path) == []
        part = meshes_of(stage := open_stage(path))["second"]
        material, _ = UsdShade.MaterialBindingAPI(part).ComputeBoundMaterial()
        surface = UsdShade.Shader(stage.GetPrimAtPath(f"{material.GetPath()}/surface"))
        assert surface.GetInput("roughness").Get() == 0.25
        color = surface.GetInput("diffuseColor")
        if kind == "white":
            assert list(color.Get()) == [1, 1, 1]
            continue
        source = UsdShade.Shader(color.GetConnectedSources()[0][0].source)
        if kind == "texture":
            assert source.GetInput("file").Get().path.endswith("textures/color.jpg]")
            assert source.GetInput("wrapS").Get() == source.GetInput("wrapT").Get() == "clamp"
        else:
            assert source.GetInput("varname").Get() == "displayColor"
            linear = UsdGeom.PrimvarsAPI(part).GetPrimvar("displayColor").Get()
            np.testing.assert_allclose(linear, np.tile([0, 1, 0.2140411], (3, 1)), rtol=1e-5)


def test_the_checker_finds_what_is_missing(mesh, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    from usd_reader import complaints

    write_usdz(tmp_path / "whole.usdz", mesh)
    with zipfile.ZipFile(tmp_path / "whole.usdz") as archive:
        layer = archive.read("n_e_1.usdc")
    with zipfile.ZipFile(tmp_path / "half.usdz", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("n_e_1.usdc", layer)
    assert complaints(tmp_path / "half.usdz")


@pytest.mark.parametrize("damage", ["index", "nan", "weights"])
def test_wrong_meshes_leave_no_file(mesh, damage, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    targets = mesh.targets
    damaged = {
        "index": replace(mesh, faces=np.array([[0, 1, 2], [0, 2, 4]])),
        "nan": replace(mesh, vertices=np.full((4, 3), np.nan)),
        "weights": replace(mesh, targets=replace(targets, weights=np.ones(2))),
    }
    with pytest.raises(ValueError, match=r"vertices|weights"):
        write_usdz(tmp_path / "a.usdz", damaged[damage])
    assert not list(tmp_path.iterdir())
