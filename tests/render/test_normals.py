from __future__ import annotations

import torch

from v3recon.geometry.mesh import vertex_faces_of, vertex_normals
from v3recon.render._normals import facing_cpu, vertex_normals_cpu


def test_compiled_normals_twin_of_tensor_operations(golden):
    shape, faces = golden["shape"].float(), golden["tri"]
    table = vertex_faces_of(faces, shape.shape[1])
    several = torch.cat([1.5 * shape.flip(-1), shape, torch.zeros_like(shape[:1])])
    for vertices in (several, several.transpose(0, 1).contiguous().transpose(0, 1)):
        found = vertex_normals_cpu(vertices, faces, table)
        expected = vertex_normals(vertices, faces, table)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        assert (found[-1] == 0).all(), "degenerate"
        clear = expected[..., 2].abs() > 1e-5
        facing = facing_cpu(vertices, faces, table)
        assert torch.equal(facing[clear], (expected[..., 2] >= 0)[clear])
        assert facing[-1].all() and not facing[0].all()
