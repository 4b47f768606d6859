"""Wavefront OBJ meshes: with vertex colours, or with texture coordinates and a texture."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from v3recon._fast.compiled import compiled
from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.io.images import write_png
from v3recon.io.messages import one_line
from v3recon.io.names import ascii_name_of

_DECIMALS = 6  # an even number; of a decimetre: 0.1 micrometre, as float32 holds
_MAX_ABS = 1e9  # so that value * 10**_DECIMALS stays an exact int64
_FLOAT_WIDTH = 19  # space, sign, 10 digits, point, 6 decimals
_INT_WIDTH = 11
_PAIRS = np.frombuffer(b"".join(b"%02d" % pair for pair in range(100)), np.uint8)


@dataclass(frozen=True)
class ObjMesh:
    """What a Wavefront file holds.

    Attributes:
        vertices: [V, 3] float64.
        faces: [F, 3] int64, 0-based.
        colors: [V, 3] float64 RGB 0…1, or None.
        uv_coords: [T, 2] float64, v up, or None.
        faces_uv: [F, 3] int64, 0-based rows of `uv_coords`, or None.
        material_library: name of the .mtl file, or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None
    uv_coords: np.ndarray | None = None
    faces_uv: np.ndarray | None = None
    material_library: str | None = None


def write_obj(
    path: str | Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    colors: np.ndarray | None = None,
    uv_coords: np.ndarray | None = None,
    texture: np.ndarray | None = None,
) -> None:
    """Write a mesh, whole or not at all.

    With `colors`: `v x y z r g b` lines, as 3DDFA_V3 writes. With `uv_coords`: `vt` lines, and
    with `texture` also `<stem>.mtl` and `<stem>.png` beside it.

    The first line is a comment. Names inside the file are ASCII without blanks, so the material's
    files have another stem than the mesh where that has other letters (`names.ascii_name_of`).

    Args:
        path: the .obj file; its folder exists.
        vertices: [V, 3].
        faces: [F, 3], 0-based.
        colors: [V, 3] RGB; values outside of 0…1 are clipped.
        uv_coords: [V, 2] in 0…1, v up; the texture's first row is v = 1.
        texture: [H, W, 3] uint8 RGB.

    Raises:
        ValueError: for shapes that disagree, values that are not finite, indices out of range.
    """
    path = Path(path)
    vertices, faces = np.asarray(vertices), np.asarray(faces)
    _check(vertices, faces, colors, uv_coords)
    if texture is not None and uv_coords is None:
        raise ValueError("a texture needs uv_coords")
    columns = np.empty((len(vertices), 3 if colors is None else 6))
    columns[:, :3] = vertices
    if colors is not None:
        columns[:, 3:] = np.clip(colors, 0, 1)
    if texture is None:
        _write_lines(path, columns, faces, uv_coords)
        return
    with ThreadPoolExecutor(1) as other:  # a picture takes longer than the text; both are compiled
        material = other.submit(_write_material, path, texture)
        _write_lines(path, columns, faces, uv_coords, material)


def material_files(path: Path) -> list[Path]:
    """The `.mtl` and the picture that belong to a mesh with a texture."""
    name = ascii_name_of(path.stem)
    return [path.with_name(f"{name}.mtl"), path.with_name(f"{name}.png")]


def read_obj(path: str | Path) -> ObjMesh:
    """Read a triangle mesh; normals, groups and smoothing are ignored.

    Raises:
        ValueError: if a line cannot be understood, or a face is not a triangle.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    rows: dict[str, list[list[str]]] = {"v": [], "vt": [], "f": []}
    library = None
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] in rows:
                rows[words[0]].append(words[1:])
            elif words[0] == "mtllib" and len(words) > 1:
                library = line.split(maxsplit=1)[1].strip()
        return _mesh_of(rows, library)
    except (ValueError, IndexError, OverflowError, OSError) as error:
        raise ValueError(
            f"{path}: not a triangle mesh in Wavefront form ({one_line(error)})"
        ) from None


def _mesh_of(rows: dict[str, list[list[str]]], library: str | None) -> ObjMesh:
    """The mesh of the words of a file's `v`, `vt` and `f` lines."""
    if not rows["v"]:
        raise ValueError("it has no vertices")
    values = np.array(rows["v"], np.float64)
    if values.shape[1] < 3 or not (np.abs(values[:, :3]) < _MAX_ABS).all():
        raise ValueError("a vertex is not three finite numbers")
    colors = values[:, 3:6] if values.shape[1] >= 6 else None
    if colors is not None and not np.isfinite(colors).all():
        raise ValueError("a color is not finite")
    uv_coords = None
    if rows["vt"]:
        uv_coords = np.array([row[:2] for row in rows["vt"]], np.float64)
        if uv_coords.shape[1] != 2 or not np.isfinite(uv_coords).all():
            raise ValueError("a texture coordinate is not two finite numbers")
    if any(len(row) != 3 for row in rows["f"]):
        raise ValueError("a face has not three corners")
    corners = [corner.split("/") for row in rows["f"] for corner in row]
    faces = _indices([ids[0] for ids in corners], len(values))
    faces_uv = None
    if uv_coords is not None and all(len(ids) > 1 and ids[1] for ids in corners):
        faces_uv = _indices([ids[1] for ids in corners], len(uv_coords))
    return ObjMesh(values[:, :3], faces, colors, uv_coords, faces_uv, library)


def _indices(words: list[str], count: int) -> np.ndarray:
    """[F, 3] 0-based ids of 1-based ones; negative ones count from the end."""
    ids = np.array([int(word) for word in words], np.int64).reshape(-1, 3)
    ids = np.where(ids < 0, ids + count, ids - 1)
    if len(ids) and (ids.min() < 0 or ids.max() >= count):
        raise ValueError(f"a face names vertex {ids.max() + 1} or {ids.min() + 1} of {count}")
    return ids


def _write_lines(
    path: Path,
    columns: np.ndarray,
    faces: np.ndarray,
    uv_coords: np.ndarray | None,
    material: Future[None] | None = None,
) -> None:
    """The .obj itself; it appears after its material."""
    comment = f"# v3recon: {len(columns)} vertices, {len(faces)} triangles\n"
    parts: list[bytes | memoryview] = [comment.encode()]
    if material is not None:
        parts.append(f"mtllib {ascii_name_of(path.stem)}.mtl\nusemtl face\n".encode())
    parts.append(_format_floats(b"v", columns))
    if uv_coords is not None:
        parts.append(_TEXTURE_LINES.of(np.asarray(uv_coords, np.float64)))
    parts.append((_FACE_UV_LINES if uv_coords is not None else _FACE_LINES).of(faces))
    with replace_on_success(path) as temporary:
        with temporary.open("wb") as file:
            file.writelines(parts)
        if material is not None:
            material.result()


def _write_material(path: Path, texture: np.ndarray) -> None:
    """The picture and the `.mtl` that names it beside the mesh."""
    library, picture = material_files(path)
    write_png(picture, texture)
    lines = "newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\n"
    write_text_atomic(library, f"{lines}map_Kd {picture.name}\n")


def _check(
    vertices: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray | None,
    uv_coords: np.ndarray | None,
) -> None:
    count = len(vertices)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"expected vertices [V, 3], got {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"expected faces [F, 3], got {faces.shape}")
    for name, values, width in (("colors", colors, 3), ("uv_coords", uv_coords, 2)):
        if values is not None and np.shape(values) != (count, width):
            raise ValueError(f"expected {name} [{count}, {width}], got {np.shape(values)}")
    if len(faces) and (faces.min() < 0 or faces.max() >= count):
        raise ValueError(f"faces name vertices {faces.min()}…{faces.max()} of {count}")
    for values in (vertices, colors, uv_coords):
        if values is not None and not np.all(np.abs(values) < _MAX_ABS):
            raise ValueError(f"mesh values must be finite and below {_MAX_ABS:g}")


def _format_floats(prefix: bytes, values: np.ndarray) -> memoryview:
    """Lines `prefix a b c …` with _DECIMALS decimals."""
    row_width = len(prefix) + values.shape[1] * _FLOAT_WIDTH + 1
    buffer = np.empty(len(values) * row_width, np.uint8)
    used = _fill_floats(buffer, np.frombuffer(prefix, np.uint8), values)
    return buffer[:used].data


def _format_faces(faces: np.ndarray, with_uv: bool) -> memoryview:
    """Lines `f a b c`, or `f a/a b/b c/c` where each vertex has its own texture coordinate."""
    buffer = np.empty(len(faces) * (2 + 6 * (_INT_WIDTH + 1)), np.uint8)
    return buffer[: _fill_faces(buffer, faces.astype(np.int64) + 1, with_uv)].data


class _LastLines:
    """Text of the last array asked for: all meshes of a face model have the same triangles."""

    def __init__(self, write: Callable[[np.ndarray], memoryview]) -> None:
        self._write = write
        self._last = np.zeros((0, 0)), memoryview(b"")  # one object, so that threads see a pair

    def of(self, values: np.ndarray) -> memoryview:
        known, text = self._last
        if not np.array_equal(known, values):
            text = memoryview(bytes(self._write(values)))
            self._last = values.copy(), text
        return text


_FACE_LINES = _LastLines(partial(_format_faces, with_uv=False))
_FACE_UV_LINES = _LastLines(partial(_format_faces, with_uv=True))
_TEXTURE_LINES = _LastLines(partial(_format_floats, b"vt"))


@compiled()
def _put_int(buffer: np.ndarray, at: int, value: np.uint32, digits: int) -> int:
    """Write a number with at least `digits` digits; returns the new position."""
    ten = np.uint32(10)
    length = digits
    limit = np.uint64(10) ** np.uint64(digits)
    while np.uint64(value) >= limit:
        length += 1
        limit *= np.uint64(10)
    for position in range(at + length - 1, at - 1, -1):
        rest = np.uint32(value // ten)
        buffer[position] = np.uint8(np.uint32(48) + value - rest * ten)
        value = rest
    return at + length


@compiled()
def _put_decimals(buffer: np.ndarray, at: int, value: np.uint32) -> int:
    """Write a number below 10**_DECIMALS with all its digits, two at a time."""
    hundred = np.uint32(100)
    for position in range(at + _DECIMALS - 2, at - 1, -2):
        rest = np.uint32(value // hundred)
        pair = np.uint32(2) * (value - rest * hundred)
        buffer[position] = _PAIRS[pair]
        buffer[position + 1] = _PAIRS[pair + np.uint32(1)]
        value = rest
    return at + _DECIMALS


@compiled()
def _fill_floats(buffer: np.ndarray, prefix: np.ndarray, values: np.ndarray) -> int:
    one, scale = np.uint64(10**_DECIMALS), 10.0**_DECIMALS
    at = 0
    for row in range(values.shape[0]):
        for char in prefix:
            buffer[at] = char
            at += 1
        for column in range(values.shape[1]):
            buffer[at] = 32
            at += 1
            scaled = np.int64(np.rint(values[row, column] * scale))
            if scaled < 0:
                buffer[at] = 45
                at += 1
            value = np.uint64(abs(scaled))
            whole = np.uint64(value // one)
            at = _put_int(buffer, at, np.uint32(whole), 1)
            buffer[at] = 46
            at = _put_decimals(buffer, at + 1, np.uint32(value - whole * one))
        buffer[at] = 10
        at += 1
    return at


@compiled()
def _fill_faces(buffer: np.ndarray, corners: np.ndarray, with_uv: bool) -> int:
    at = 0
    for row in range(corners.shape[0]):
        buffer[at] = 102
        at += 1
        for column in range(3):
            buffer[at] = 32
            at = _put_int(buffer, at + 1, np.uint32(corners[row, column]), 1)
            if with_uv:
                buffer[at] = 47
                at = _put_int(buffer, at + 1, np.uint32(corners[row, column]), 1)
        buffer[at] = 10
        at += 1
    return at
