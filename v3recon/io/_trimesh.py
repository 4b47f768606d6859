"""The one file that knows trimesh, an optional library: meshes of other programs in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v3recon.io.messages import one_line


def load_triangles(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] and triangles [F, 3] of an OBJ, PLY, STL or GLB file; parts are joined.

    The file is read as it stands: textures and other files that it names are not opened.

    Raises:
        ValueError: if trimesh is missing, or the file is not a mesh.
    """
    try:
        import trimesh
    except ImportError:
        raise ValueError(
            "reading scans needs the library trimesh: pip install trimesh; "
            "or give the mesh as .npz with vertices and faces"
        ) from None
    try:
        with path.open("rb") as stream:
            # No resolver: an OBJ's material and a GLB's outer files stay closed.
            loaded = trimesh.load(
                stream, file_type=path.suffix[1:].lower(), process=False, skip_materials=True
            )
        meshes = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
    except Exception as error:  # its readers raise many kinds for damaged files
        raise ValueError(f"{path} cannot be read as a mesh ({one_line(error)})") from None
    try:
        return _joined(meshes)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{path}: its vertices or triangles are not three numbers each") from None


def _joined(meshes: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """All parts as one mesh."""
    vertices, faces, offset = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for mesh in meshes:
        points = np.asarray(getattr(mesh, "vertices", np.zeros((0, 3))), np.float64)
        vertices.append(points)
        faces.append(np.asarray(getattr(mesh, "faces", faces[0]), np.int64) + offset)
        offset += len(points)
    return np.concatenate(vertices), np.concatenate(faces)
