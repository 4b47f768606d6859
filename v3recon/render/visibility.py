"""Which triangles and vertices are seen."""

from __future__ import annotations

import torch
from torch import Tensor

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
    batch, vertex_count = normals.shape[:2]
    if fragments.face_id.device.type == "cpu":
        from v3recon.render._cpu import touched_cpu  # compiled only where it is used

        return touched_cpu(fragments.face_id, faces, vertex_count) & (normals[..., 2] >= 0)
    item, face = torch.nonzero(visible_faces(fragments, len(faces)), as_tuple=True)
    touched = torch.zeros(batch * vertex_count, dtype=torch.bool, device=normals.device)
    touched[(faces[face] + (item * vertex_count)[:, None]).reshape(-1)] = True
    return touched.reshape(batch, vertex_count) & (normals[..., 2] >= 0)
