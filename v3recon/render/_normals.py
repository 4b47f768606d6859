"""Vertex normals on the CPU, compiled; float32, without gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from v3recon._fast.compiled import compiled
from v3recon.render._cpu import for_each_item

_SMALLEST = 1e-20  # shorter sums are not made unit, as in `geometry.mesh`


def vertex_normals_cpu(vertices: Tensor, faces: Tensor, vertex_faces: Tensor) -> Tensor:
    """Arguments and result as in `geometry.mesh.vertex_normals`."""
    normals = torch.empty_like(vertices, memory_format=torch.contiguous_format)
    tensors = (vertices, faces, vertex_faces, normals)
    source, faces_np, around, out = (t.detach().contiguous().numpy() for t in tensors)
    for_each_item(lambda item: _sum_around(source[item], faces_np, around, out[item]), len(out))
    return normals


def facing_cpu(vertices: Tensor, faces: Tensor, vertex_faces: Tensor) -> Tensor:
    """Vertices turned toward the camera, [B, V] bool; arguments as in `facing_camera`."""
    facing = torch.zeros(vertices.shape[:2], dtype=torch.bool)
    tensors = (vertices.detach(), faces, vertex_faces, facing)
    source, faces_np, around, out = (t.contiguous().numpy() for t in tensors)
    for_each_item(lambda item: _face_camera(source[item], faces_np, around, out[item]), len(out))
    return facing


@compiled()
def unit_normal(vertices, faces, f):
    """x, y, z of one triangle's unit normal, (v1 - v2) x (v2 - v3); 0 where degenerate."""
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = vertices[i, 0] - vertices[j, 0], vertices[i, 1] - vertices[j, 1]
    bx, by = vertices[j, 0] - vertices[k, 0], vertices[j, 1] - vertices[k, 1]
    az, bz = vertices[i, 2] - vertices[j, 2], vertices[j, 2] - vertices[k, 2]
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    length = max(np.sqrt(x * x + y * y + z * z), np.float32(_SMALLEST))
    return x / length, y / length, z / length


@compiled()
def _sum_around(vertices, faces, vertex_faces, out):
    """Unit sum of the unit normals of the faces around each vertex, for one item."""
    face_count = faces.shape[0]
    normals = np.zeros((face_count + 1, 3), np.float32)  # the last adds nothing
    for f in range(face_count):
        normals[f, 0], normals[f, 1], normals[f, 2] = unit_normal(vertices, faces, f)
    for vertex in range(vertex_faces.shape[0]):
        x, y, z = np.float32(0), np.float32(0), np.float32(0)
        for f in vertex_faces[vertex]:
            x += normals[f, 0]
            y += normals[f, 1]
            z += normals[f, 2]
        length = max(np.sqrt(x * x + y * y + z * z), np.float32(_SMALLEST))
        out[vertex, 0], out[vertex, 1], out[vertex, 2] = x / length, y / length, z / length


@compiled()
def _face_camera(vertices, faces, vertex_faces, out):
    """Sign of z of the sum of the unit normals around each vertex, for one item."""
    face_count = faces.shape[0]
    normal_z = np.zeros(face_count + 1)  # the last adds nothing
    for f in range(face_count):
        normal_z[f] = unit_normal(vertices, faces, f)[2]
    for vertex in range(vertex_faces.shape[0]):
        total = 0.0
        for f in vertex_faces[vertex]:
            total += normal_z[f]
        out[vertex] = total >= 0.0
