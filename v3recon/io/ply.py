"""Binary PLY meshes with vertex colors, as MeshLab, Open3D and trimesh read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from v3recon.io.atomic import replace_on_success

_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
_BARE_VERTEX = np.dtype([("xyz", "<f4", 3)])
_FACE = np.dtype([("count", "u1"), ("ids", "<i4", 3)])


def write_ply(
    path: str | Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray | None = None
) -> None:
    """Write a triangle mesh, little-endian, whole or not at all.

    Args:
        path: the .ply file; its folder exists.
        vertices: [V, 3].
        faces: [F, 3], 0-based.
        colors: [V, 3] RGB 0…1; values outside are clipped.

    Raises:
        ValueError: for shapes that disagree, values that are not finite, indices out of range.
    """
    vertices, faces = np.asarray(vertices), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"a mesh is [V, 3] and [F, 3], not {vertices.shape} and {faces.shape}")
    with np.errstate(over="ignore"):
        places = vertices.astype(np.float32)
    if not np.isfinite(places).all():
        raise ValueError("a vertex has a value that is not finite")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(f"faces hold vertex ids outside of 0…{len(vertices) - 1}")
    rows = np.zeros(len(vertices), _BARE_VERTEX if colors is None else _VERTEX)
    rows["xyz"] = places
    if colors is not None:
        colors = np.asarray(colors)
        if colors.shape != vertices.shape or not np.isfinite(colors).all():
            raise ValueError(f"colors are finite numbers {vertices.shape}, not {colors.shape}")
        rows["rgb"] = np.rint(255 * colors.clip(0, 1))
    triangles = np.zeros(len(faces), _FACE)
    triangles["count"], triangles["ids"] = 3, faces
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        file.write(_header(len(vertices), len(faces), colors is not None))
        file.write(rows.tobytes())
        file.write(triangles.tobytes())


def _header(vertex_count: int, face_count: int, colored: bool) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {vertex_count}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    if colored:
        lines += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    lines += [f"element face {face_count}", "property list uchar int vertex_indices", "end_header"]
    return ("\n".join(lines) + "\n").encode("ascii")
