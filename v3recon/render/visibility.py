"""Which triangles and vertices are seen."""

from __future__ import annotations

import torch
from torch import Tensor

from v3recon.geometry.mesh import vertex_normals
from v3recon.types import Fragments


def visible_faces(fragments: Fragments, face_count: int) -> Tensor:
    """Triangles that own at least one pixel.

    Args:
        fragments: what `rasterize` returned.
        face_count: F, number of triangles of the mesh.

    Returns:
        [B, F] bool.
    """
    batch = len(fragments.face_id)
    owner = fragments.face_id.reshape(batch, -1) + 1  # slot 0 collects empty pixels
    seen = torch.zeros(batch, face_count + 1, dtype=torch.bool, device=owner.device)
    return seen.scatter_(1, owner, True)[:, 1:]


def touched_vertices(fragments: Fragments, faces: Tensor, vertex_count: int) -> Tensor:
    """Vertices of triangles that own at least one pixel.

    Args:
        fragments: what `rasterize` returned for these faces.
        faces: [F, 3] int64.
        vertex_count: V.

    Returns:
        [B, V] bool.
    """
    batch = len(fragments.face_id)
    if fragments.face_id.device.type == "cpu":
        from v3recon.render._cpu import touched_cpu  # compiled only where it is used

        return touched_cpu(fragments.face_id, faces, vertex_count)
    item, face = torch.nonzero(visible_faces(fragments, len(faces)), as_tuple=True)
    touched = torch.zeros(batch * vertex_count, dtype=torch.bool, device=faces.device)
    touched[(faces[face] + (item * vertex_count)[:, None]).reshape(-1)] = True
    return touched.reshape(batch, vertex_count)


def visible_vertices(fragments: Fragments, faces: Tensor, normals: Tensor) -> Tensor:
    """Vertices of triangles that own a pixel, turned toward the camera (3DDFA_V3's rule).

    Args:
        fragments: what `rasterize` returned for these faces.
        faces: [F, 3] int64.
        normals: [B, V, 3] rotated vertex normals, world frame (z toward the camera).

    Returns:
        [B, V] bool.
    """
    assert normals.ndim == 3 and normals.shape[-1] == 3, normals.shape
    return touched_vertices(fragments, faces, normals.shape[1]) & (normals[..., 2] >= 0)


def facing_camera(vertices: Tensor, faces: Tensor, vertex_faces: Tensor) -> Tensor:
    """Vertices whose normal has z >= 0: the second half of `visible_vertices`, without normals.

    Args:
        vertices: [B, V, 3] posed, world frame.
        faces: [F, 3] int64.
        vertex_faces: [V, N] ids of the faces around each vertex, filled up with F.

    Returns:
        [B, V] bool.
    """
    if vertices.device.type == "cpu":
        from v3recon.render._normals import facing_cpu

        return facing_cpu(vertices, faces, vertex_faces)
    return vertex_normals(vertices, faces, vertex_faces)[..., 2] >= 0
