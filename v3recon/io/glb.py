"""glTF 2.0 in one binary file (.glb): a mesh in parts, its texture, morph targets, animation.

Every part is one primitive with its own vertices. All parts share the morph targets; a target that
moves few vertices of a part is stored as a sparse accessor, one that moves none takes no bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import v3recon
from v3recon.io.atomic import replace_on_success
from v3recon.io.images import encode_jpeg

_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT, _UNSIGNED_BYTE = 5126, 5123, 5125, 5121
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR_MIPMAP_LINEAR, _LINEAR, _CLAMP_TO_EDGE = 9987, 9729, 33071
_SPARSE_BELOW = 0.75
"""Part of moved vertices up to which a sparse accessor is shorter than a whole one."""
_FLAT_NORMAL = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class GlbPart:
    """A part of a mesh with its own material.

    Attributes:
        name: of the material.
        faces: rows of the mesh's triangles.
        roughness: 0…1 of glTF's material.
        textured: takes the mesh's texture; otherwise the vertex colours.
    """

    name: str
    faces: np.ndarray
    roughness: float = 0.7
    textured: bool = True


@dataclass(frozen=True)
class MorphTargets:
    """Named displacements that a viewer adds by weight.

    Attributes:
        names: K names, `mesh.extras.targetNames` of the file.
        offsets: [K, V, 3] metres at weight 1.
        normals: [K, V, 3] change of the unit normals at weight 1; None leaves them as they are.
        weights: [K] that the mesh is shown with.
        smallest: lengths of offsets up to this one are left out, metres.
        smallest_turn: changes of normals up to this one are left out.
    """

    names: Sequence[str]
    offsets: np.ndarray
    weights: np.ndarray
    normals: np.ndarray | None = None
    smallest: float = 2e-5
    smallest_turn: float = 0.05


@dataclass(frozen=True)
class GlbMesh:
    """A triangle mesh in metres, y up, its front toward +z.

    Attributes:
        name: of node and mesh.
        vertices: [V, 3] metres.
        faces: [F, 3] 0-based, counterclockwise from outside.
        normals: [V, 3] unit.
        uv_coords: [V, 2] in 0…1, v up.
        texture: [H, W, 3] uint8 RGB, row 0 at v = 1; None where colours are of the vertices.
        colors: [V, 3] sRGB 0…1, for parts that are not textured.
        parts: the primitives; default all triangles as one part called `name`.
        targets: morph targets.
        extras: JSON values kept in the mesh's `extras`.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv_coords: np.ndarray | None = None
    texture: np.ndarray | None = None
    colors: np.ndarray | None = None
    parts: Sequence[GlbPart] = ()
    targets: MorphTargets | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GlbAnimation:
    """Movement of a mesh over T points in time, linear between them.

    Attributes:
        times: [T] seconds, rising.
        weights: [T, K] of the morph targets; None where they stay.
        rotations: [T, 4] unit quaternions x, y, z, w; None where the mesh does not turn.
        translations: [T, 3] metres; None where it does not move.
        name: of the animation.
    """

    times: np.ndarray
    weights: np.ndarray | None = None
    rotations: np.ndarray | None = None
    translations: np.ndarray | None = None
    name: str = "take"


def write_glb(path: str | Path, mesh: GlbMesh, animation: GlbAnimation | None = None) -> None:
    """Write a mesh as one .glb file, whole or not at all.

    Args:
        path: the file; its folder exists.
        mesh: the mesh.
        animation: of its morph targets and its place.

    Raises:
        ValueError: for shapes that disagree, values that are not finite, indices out of range.
    """
    check_mesh(mesh, animation)
    content = _Content()
    document = _document(mesh, content)
    if animation is not None:
        document["animations"] = [_animation(animation, content)]
    document |= {"bufferViews": content.views, "accessors": content.accessors}
    document["buffers"] = [{"byteLength": len(content.data)}]
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(content.data)
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, total))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", len(content.data), b"BIN\0"))
        file.write(content.data)


def _document(mesh: GlbMesh, content: _Content) -> dict[str, Any]:
    """Everything but buffers and animations."""
    parts = mesh_parts(mesh)
    shape: dict[str, Any] = {
        "name": mesh.name,
        "primitives": [_primitive(mesh, part, index, content) for index, part in enumerate(parts)],
    }
    extras = dict(mesh.extras)
    if mesh.targets is not None:
        shape["weights"] = [float(weight) for weight in mesh.targets.weights]
        extras["targetNames"] = list(mesh.targets.names)
    if extras:
        shape["extras"] = extras
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": f"v3recon {v3recon.__version__}"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": mesh.name, "mesh": 0}],
        "meshes": [shape],
        "materials": [_material(part, mesh.texture is not None) for part in parts],
    }
    if mesh.texture is not None:
        view = content.view(encode_jpeg(mesh.texture))
        document["images"] = [
            {"name": f"{mesh.name}_color", "mimeType": "image/jpeg", "bufferView": view}
        ]
        document["samplers"] = [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ]
        document["textures"] = [{"source": 0, "sampler": 0}]
    return document


def _material(part: GlbPart, has_texture: bool) -> dict[str, Any]:
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": part.roughness}
    if has_texture and part.textured:
        surface["baseColorTexture"] = {"index": 0}
    return {"name": part.name, "pbrMetallicRoughness": surface}


def _primitive(mesh: GlbMesh, part: GlbPart, index: int, content: _Content) -> dict[str, Any]:
    """One part with the vertices that its triangles use."""
    used, corners = part_corners(mesh, part)
    positions = mesh.vertices[used].astype(np.float32)
    attributes = {
        "POSITION": content.values(positions, bounds=True),
        "NORMAL": content.values(unit_normals(mesh.normals[used])),
    }
    if mesh.texture is not None and part.textured:
        assert mesh.uv_coords is not None
        uv_coords = mesh.uv_coords[used].astype(np.float32)
        attributes["TEXCOORD_0"] = content.values(uv_coords * [1, -1] + [0, 1])
    elif mesh.colors is not None:
        attributes["COLOR_0"] = content.values(to_linear(mesh.colors[used]))
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": content.indices(corners.reshape(-1), len(used)),
        "material": index,
    }
    if mesh.targets is not None:
        primitive["targets"] = _targets(mesh.targets, used, content)
    return primitive


def _targets(targets: MorphTargets, used: np.ndarray, content: _Content) -> list[dict[str, int]]:
    result = []
    for number in range(len(targets.names)):
        offsets = targets.offsets[number][used]
        target = {"POSITION": content.displacements(offsets, targets.smallest, bounds=True)}
        if targets.normals is not None:
            turns = targets.normals[number][used]
            target["NORMAL"] = content.displacements(turns, targets.smallest_turn)
        result.append(target)
    return result


def _animation(animation: GlbAnimation, content: _Content) -> dict[str, Any]:
    times = content.values(np.asarray(animation.times, np.float32), bounds=True, target=None)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    weights = animation.weights
    for path, values in (
        ("weights", None if weights is None else np.asarray(weights).reshape(-1)),
        ("rotation", animation.rotations),
        ("translation", animation.translations),
    ):
        if values is None:
            continue
        output = content.values(np.asarray(values, np.float32), target=None)
        channels.append({"sampler": len(samplers), "target": {"node": 0, "path": path}})
        samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})
    return {"name": animation.name, "channels": channels, "samplers": samplers}


class _Content:
    """The binary chunk as it grows, with the views and accessors that say what lies where."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes at a multiple of four; the view's number."""
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self.data += data + b"\0" * (-len(data) % 4)
        self.views.append(view)
        return len(self.views) - 1

    def values(
        self, values: np.ndarray, *, bounds: bool = False, target: int | None = _ARRAY_BUFFER
    ) -> int:
        """An accessor of float32 values [N] or [N, C]."""
        values = np.ascontiguousarray(values, np.float32)
        accessor = {
            "bufferView": self.view(values.tobytes(), target),
            "componentType": _FLOAT,
            "count": len(values),
            "type": _type_of(values),
        }
        return self._accessor(accessor, values if bounds else None)

    def indices(self, indices: np.ndarray, count: int) -> int:
        """An accessor of vertex ids below `count`."""
        kind, code = _integer(count)
        view = self.view(indices.astype(kind).tobytes(), _ELEMENT_ARRAY_BUFFER)
        return self._accessor(
            {"bufferView": view, "componentType": code, "count": len(indices), "type": "SCALAR"}
        )

    def displacements(self, values: np.ndarray, smallest: float, *, bounds: bool = False) -> int:
        """An accessor of vectors [N, 3] that are mostly zero."""
        moved = longer_than(values, smallest)
        if len(moved) > _SPARSE_BELOW * len(values):
            return self.values(values, bounds=bounds)
        accessor: dict[str, Any] = {"componentType": _FLOAT, "count": len(values), "type": "VEC3"}
        kept = np.zeros((len(values), 3), np.float32)
        kept[moved] = values[moved]
        if len(moved):
            kind, code = _integer(len(values))
            accessor["sparse"] = {
                "count": len(moved),
                "indices": {
                    "bufferView": self.view(moved.astype(kind).tobytes()),
                    "componentType": code,
                },
                "values": {"bufferView": self.view(kept[moved].tobytes())},
            }
        return self._accessor(accessor, kept if bounds else None)

    def _accessor(self, accessor: dict[str, Any], bounded: np.ndarray | None = None) -> int:
        if bounded is not None:
            rows = bounded.reshape(len(bounded), -1)
            accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _type_of(values: np.ndarray) -> str:
    return "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"


def _integer(count: int) -> tuple[type[np.unsignedinteger], int]:
    """The smallest type of ids below `count`; its greatest value is reserved by glTF."""
    for kind, code in ((np.uint8, _UNSIGNED_BYTE), (np.uint16, _UNSIGNED_SHORT)):
        if count <= np.iinfo(kind).max:
            return kind, code
    return np.uint32, _UNSIGNED_INT


def mesh_parts(mesh: GlbMesh) -> Sequence[GlbPart]:
    """The parts of a mesh; all triangles as one where it names none."""
    return mesh.parts or [GlbPart(mesh.name, np.arange(len(mesh.faces)))]


def part_corners(mesh: GlbMesh, part: GlbPart) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that a part uses, and its triangles in these.

    Returns:
        Vertex ids [N], rising; triangles [F, 3] as rows of these.
    """
    faces = np.asarray(mesh.faces)[part.faces]
    used, corners = np.unique(faces, return_inverse=True)
    return used, corners.reshape(faces.shape)


def longer_than(vectors: np.ndarray, smallest: float) -> np.ndarray:
    """Rows of vectors [N, 3] that are kept, rising; shorter vectors are left out of a file."""
    return np.flatnonzero(np.linalg.norm(vectors, axis=1) > smallest)


def unit_normals(normals: np.ndarray) -> np.ndarray:
    """Unit normals; those of vertices without a triangle's area point to the front."""
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    unit = np.asarray(normals, np.float64) / np.maximum(length, 1e-12)
    return np.where(length > 1e-6, unit, _FLAT_NORMAL)


def to_linear(colors: np.ndarray) -> np.ndarray:
    """SRGB 0…1 as linear light, the space of vertex colours in glTF and USD (IEC 61966-2-1)."""
    values = np.clip(colors, 0, 1)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def check_mesh(mesh: GlbMesh, animation: GlbAnimation | None = None) -> None:
    """Raise ValueError for what no viewer could show."""
    if mesh.texture is not None and mesh.uv_coords is None:
        raise ValueError("a texture needs uv_coords")
    count, targets = len(mesh.vertices), mesh.targets
    names = 0 if targets is None else len(targets.names)
    _check_array("vertices", mesh.vertices, (count, 3))
    _check_array("normals", mesh.normals, (count, 3))
    _check_array("uv_coords", mesh.uv_coords, (count, 2))
    _check_array("colors", mesh.colors, (count, 3))
    if targets is not None:
        _check_array("offsets", targets.offsets, (names, count, 3))
        _check_array("weights", targets.weights, (names,))
        _check_array("normals of targets", targets.normals, (names, count, 3))
    if animation is not None:
        frames = len(animation.times)
        if not frames or not (np.diff(animation.times) > 0).all() or animation.times[0] < 0:
            raise ValueError("times of an animation must rise from 0 or later")
        _check_array("times", animation.times, (frames,))
        _check_array("animated weights", animation.weights, (frames, names))
        _check_array("rotations", animation.rotations, (frames, 4))
        _check_array("translations", animation.translations, (frames, 3))
    _check_faces(mesh, count)


def _check_array(name: str, values: np.ndarray | None, shape: tuple[int, ...]) -> None:
    if values is None:
        return
    if np.shape(values) != shape:
        raise ValueError(f"expected {name} {list(shape)}, got {list(np.shape(values))}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has values that are not finite")


def _check_faces(mesh: GlbMesh, count: int) -> None:
    faces = np.asarray(mesh.faces)
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
        raise ValueError(f"expected faces [F, 3], got {list(faces.shape)}")
    if faces.min() < 0 or faces.max() >= count:
        raise ValueError(f"faces name vertices {faces.min()}…{faces.max()}, not 0…{count - 1}")
    for part in mesh.parts:
        if not len(part.faces):
            raise ValueError(f"part {part.name!r} has no triangles")
