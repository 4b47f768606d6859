"""USD in one file (.usdz): a mesh in parts, its texture, blend shapes. Needs `usd-core`.

The package holds a binary layer and the texture. Every part is a mesh of its own under one skeleton
of one joint, whose animation carries the weights of the blend shapes.
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v3recon.io.atomic import replace_on_success
from v3recon.io.glb import (
    GlbMesh,
    GlbPart,
    MorphTargets,
    check_mesh,
    longer_than,
    mesh_parts,
    part_corners,
    to_linear,
    unit_normals,
)
from v3recon.io.images import encode_jpeg

_TEXTURE = "textures/color.jpg"
_UV, _COLOR = "st", "displayColor"
_JOINT = "head"
_ALIGNMENT = 64
"""Bytes; every file of a .usdz package begins at a multiple."""
_ENTRY_HEAD = 30
"""Bytes before the name of a file in an archive."""
_OLDEST_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file in a package: the same input gives the same bytes."""


def load_usd() -> Any:
    """The library `pxr` with the modules that this file uses.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import pxr
        from pxr import Gf, Kind, Sdf, Usd, UsdGeom, UsdShade, UsdSkel, Vt  # noqa: F401
    except ImportError:
        raise ValueError(
            "USD needs the library usd-core: pip install 'v3recon[usd]'; GLB needs no other library"
        ) from None
    return pxr


def write_usdz(path: str | Path, mesh: GlbMesh) -> None:
    """Write a mesh as one .usdz file, whole or not at all.

    The morph targets become blend shapes, one of each name for every part that it moves. Names of
    prims have ASCII letters, digits and underscores only.

    Args:
        path: the file; its folder exists.
        mesh: the mesh; `extras` are left out.

    Raises:
        ValueError: without `usd-core`, and for shapes that disagree, values that are not finite,
            indices out of range.
    """
    pxr = load_usd()
    check_mesh(mesh)
    root = prim_name(mesh.name)
    files = {f"{root}.usdc": _layer_bytes(pxr, mesh, root)}
    if mesh.texture is not None:
        files[_TEXTURE] = encode_jpeg(mesh.texture)
    with replace_on_success(path) as temporary:
        temporary.write_bytes(_package(files))


def prim_name(name: str) -> str:
    """A name of a prim that every reader takes: [A-Za-z_][A-Za-z0-9_]*."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"


def prim_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """`prim_name` of each, with underscores appended until all differ and none is taken."""
    result: list[str] = []
    for name in map(prim_name, names):
        while name in taken or name in result:
            name += "_"
        result.append(name)
    return result


def _package(files: dict[str, bytes]) -> bytes:
    """A .usdz archive: nothing is compressed, each file begins at a multiple of 64 bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _OLDEST_DATE)
            entry.create_system = 3  # the same on Windows
            gap = -(data.tell() + _ENTRY_HEAD + len(name)) % _ALIGNMENT
            if gap:
                # An extra field has a head of four bytes: its kind (any unknown one), its length.
                gap += _ALIGNMENT if gap < 4 else 0
                entry.extra = b"\x86\x19" + (gap - 4).to_bytes(2, "little") + bytes(gap - 4)
            archive.writestr(entry, content)
    return data.getvalue()


def _layer_bytes(pxr: Any, mesh: GlbMesh, root: str) -> bytes:
    """The binary layer (.usdc) of a mesh."""
    layer = pxr.Sdf.Layer.CreateAnonymous(".usdc")
    stage = pxr.Usd.Stage.Open(layer)
    pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.y)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(0)
    head = pxr.UsdSkel.Root.Define(stage, f"/{root}")
    stage.SetDefaultPrim(head.GetPrim())
    pxr.Usd.ModelAPI(head.GetPrim()).SetKind(pxr.Kind.Tokens.component)
    head.CreateExtentAttr(_extent(pxr, shown_vertices(mesh)))
    skeleton = _define_skeleton(pxr, stage, root, mesh.targets)
    pxr.UsdGeom.Scope.Define(stage, f"/{root}/materials")
    parts = mesh_parts(mesh)
    names = prim_names([part.name for part in parts], taken=("skeleton", "expression", "materials"))
    for name, part in zip(names, parts, strict=True):
        material = _define_material(pxr, stage, f"/{root}/materials/{name}", mesh, part)
        _define_part(pxr, stage, f"/{root}/{name}", mesh, part, skeleton, material)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "layer.usdc"
        if not layer.Export(str(file)):
            raise ValueError(f"{mesh.name!r} could not be written as USD")
        return file.read_bytes()


def shown_vertices(mesh: GlbMesh) -> np.ndarray:
    """[V, 3] metres, the vertices with the morph targets at the mesh's weights."""
    if mesh.targets is None:
        return mesh.vertices
    return mesh.vertices + np.tensordot(mesh.targets.weights, mesh.targets.offsets, 1)


def _define_skeleton(pxr: Any, stage: Any, root: str, targets: MorphTargets | None) -> Any:
    """A skeleton of one joint that stays; its animation has the weights of the blend shapes."""
    rest = pxr.Vt.Matrix4dArray([pxr.Gf.Matrix4d(1.0)])
    skeleton = pxr.UsdSkel.Skeleton.Define(stage, f"/{root}/skeleton")
    skeleton.CreateJointsAttr([_JOINT])
    skeleton.CreateBindTransformsAttr(rest)
    skeleton.CreateRestTransformsAttr(rest)
    if targets is None:
        return skeleton
    animation = pxr.UsdSkel.Animation.Define(stage, f"/{root}/expression")
    animation.CreateJointsAttr([_JOINT])
    animation.SetTransforms(rest)
    animation.CreateBlendShapesAttr(list(targets.names))
    weights = pxr.Vt.FloatArray.FromNumpy(np.asarray(targets.weights, np.float32))
    shown = animation.CreateBlendShapeWeightsAttr(weights)
    shown.Set(weights, 0.0)  # Maya reads samples in time only
    binding = pxr.UsdSkel.BindingAPI.Apply(skeleton.GetPrim())
    binding.CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    return skeleton


def _define_part(
    pxr: Any, stage: Any, path: str, mesh: GlbMesh, part: GlbPart, skeleton: Any, material: Any
) -> None:
    """A part as a mesh with the vertices that its triangles use."""
    used, corners = part_corners(mesh, part)
    geometry = pxr.UsdGeom.Mesh.Define(stage, path)
    geometry.CreateSubdivisionSchemeAttr(pxr.UsdGeom.Tokens.none)
    points = np.asarray(mesh.vertices[used], np.float32)
    geometry.CreatePointsAttr(_vectors(pxr, points))
    geometry.CreateExtentAttr(_extent(pxr, points))
    geometry.CreateNormalsAttr(_vectors(pxr, unit_normals(mesh.normals[used])))
    geometry.SetNormalsInterpolation(pxr.UsdGeom.Tokens.vertex)
    geometry.CreateFaceVertexCountsAttr(_integers(pxr, np.full(len(corners), 3)))
    geometry.CreateFaceVertexIndicesAttr(_integers(pxr, corners.reshape(-1)))
    primvars = pxr.UsdGeom.PrimvarsAPI(geometry)
    kinds, vertex = pxr.Sdf.ValueTypeNames, pxr.UsdGeom.Tokens.vertex
    if mesh.texture is not None and part.textured:
        assert mesh.uv_coords is not None
        uv_coords = np.ascontiguousarray(mesh.uv_coords[used], np.float32)
        coordinates = pxr.Vt.Vec2fArray.FromNumpy(uv_coords)
        primvars.CreatePrimvar(_UV, kinds.TexCoord2fArray, vertex).Set(coordinates)
    elif mesh.colors is not None:
        colors = _vectors(pxr, to_linear(mesh.colors[used]))
        primvars.CreatePrimvar(_COLOR, kinds.Color3fArray, vertex).Set(colors)
    pxr.UsdShade.MaterialBindingAPI.Apply(geometry.GetPrim()).Bind(material)
    binding = pxr.UsdSkel.BindingAPI.Apply(geometry.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateGeomBindTransformAttr(pxr.Gf.Matrix4d(1.0))
    binding.CreateJointIndicesPrimvar(False, 1).Set(_integers(pxr, np.zeros(len(used))))
    joint_weights = pxr.Vt.FloatArray.FromNumpy(np.ones(len(used), np.float32))
    binding.CreateJointWeightsPrimvar(False, 1).Set(joint_weights)
    if mesh.targets is not None:
        _define_blend_shapes(pxr, stage, path, binding, mesh.targets, used)


def _define_blend_shapes(
    pxr: Any, stage: Any, path: str, binding: Any, targets: MorphTargets, used: np.ndarray
) -> None:
    """The targets that move one of a part's vertices, below its mesh."""
    names, shapes = [], []
    prims = prim_names(targets.names)
    for number, name in enumerate(targets.names):
        offsets = targets.offsets[number][used]
        moved = longer_than(offsets, targets.smallest)
        if targets.normals is not None:
            turns = targets.normals[number][used]
            moved = np.union1d(moved, longer_than(turns, targets.smallest_turn))
        if not len(moved):
            continue  # no indices would mean every vertex
        shape = pxr.UsdSkel.BlendShape.Define(stage, f"{path}/{prims[number]}")
        shape.CreatePointIndicesAttr(_integers(pxr, moved))
        shape.CreateOffsetsAttr(_vectors(pxr, offsets[moved]))
        if targets.normals is not None:
            shape.CreateNormalOffsetsAttr(_vectors(pxr, turns[moved]))
        names.append(name)
        shapes.append(shape.GetPath())
    binding.CreateBlendShapesAttr(names)
    binding.CreateBlendShapeTargetsRel().SetTargets(shapes)


def _define_material(pxr: Any, stage: Any, path: str, mesh: GlbMesh, part: GlbPart) -> Any:
    """The part's surface: the texture, else the vertex colours, else white, as in a .glb file."""
    kinds = pxr.Sdf.ValueTypeNames
    material = pxr.UsdShade.Material.Define(stage, path)
    surface = _define_shader(pxr, stage, f"{path}/surface", "UsdPreviewSurface")
    surface.CreateInput("metallic", kinds.Float).Set(0.0)
    surface.CreateInput("roughness", kinds.Float).Set(part.roughness)
    color = surface.CreateInput("diffuseColor", kinds.Color3f)
    if mesh.texture is not None and part.textured:
        reader = _define_shader(pxr, stage, f"{path}/coordinates", "UsdPrimvarReader_float2")
        reader.CreateInput("varname", kinds.String).Set(_UV)
        picture = _define_shader(pxr, stage, f"{path}/picture", "UsdUVTexture")
        picture.CreateInput("file", kinds.Asset).Set(pxr.Sdf.AssetPath(_TEXTURE))
        picture.CreateInput("sourceColorSpace", kinds.Token).Set("sRGB")
        for side in ("wrapS", "wrapT"):
            picture.CreateInput(side, kinds.Token).Set("clamp")
        coordinates = reader.CreateOutput("result", kinds.Float2)
        picture.CreateInput("st", kinds.Float2).ConnectToSource(coordinates)
        color.ConnectToSource(picture.CreateOutput("rgb", kinds.Float3))
    elif mesh.colors is not None:
        reader = _define_shader(pxr, stage, f"{path}/colors", "UsdPrimvarReader_float3")
        reader.CreateInput("varname", kinds.String).Set(_COLOR)
        color.ConnectToSource(reader.CreateOutput("result", kinds.Float3))
    else:
        color.Set(pxr.Gf.Vec3f(1.0))
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", kinds.Token))
    return material


def _define_shader(pxr: Any, stage: Any, path: str, kind: str) -> Any:
    shader = pxr.UsdShade.Shader.Define(stage, path)
    shader.CreateIdAttr(kind)
    return shader


def _vectors(pxr: Any, values: np.ndarray) -> Any:
    """[N, 3] as USD's array."""
    return pxr.Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(values, np.float32))


def _integers(pxr: Any, values: np.ndarray) -> Any:
    """[N] as USD's array."""
    return pxr.Vt.IntArray.FromNumpy(np.ascontiguousarray(values, np.int32))


def _extent(pxr: Any, points: np.ndarray) -> Any:
    """Lowest and highest corner of points [N, 3]."""
    return _vectors(pxr, np.stack([points.min(0), points.max(0)]))
