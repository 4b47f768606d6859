from __future__ import annotations

import torch

from v3recon.geometry.mesh import edges_of, face_normals, vertex_faces_of, vertex_normals

PYRAMID = torch.tensor([[0.0, 0, 1], [1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]])
PYRAMID_FACES = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1]])


def test_normal_of_one_triangle_points_to_the_viewer():
    triangle = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [0, 3, 0]]])  # counter-clockwise
    normal = face_normals(triangle, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(normal, torch.tensor([[[0.0, 0, 1]]]))


def test_degenerate_triangle_has_no_normal_and_no_nan():
    line = torch.tensor([[[0.0, 0, 0], [1, 1, 1], [2, 2, 2]]], requires_grad=True)
    normal = face_normals(line, torch.tensor([[0, 1, 2]]))
    normal.sum().backward()
    assert (normal == 0).all() and line.grad is not None and line.grad.isfinite().all()


def test_apex_normal_is_up_and_small_faces_count_as_much_as_large_ones():
    squashed = PYRAMID.clone()
    squashed[1:, 0] += 1e-3  # the sums of unit normals barely move, areas do not matter
    table = vertex_faces_of(PYRAMID_FACES, 5)
    normal = vertex_normals(torch.stack([PYRAMID, squashed]), PYRAMID_FACES, table)
    torch.testing.assert_close(normal[0, 0], torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(normal[1, 0], normal[0, 0], atol=2e-3, rtol=0)


def test_twin_of_a_plain_loop(golden):
    shape, faces = golden["shape"].double(), golden["tri"]
    table = vertex_faces_of(faces, shape.shape[1])
    total = torch.zeros_like(shape)
    for face in faces.tolist():
        a, b, c = (shape[:, vertex] for vertex in face)
        normal = torch.linalg.cross(a - b, b - c)
        normal = normal / normal.norm(dim=-1, keepdim=True)
        for vertex in face:
            total[:, vertex] += normal
    expected = total / total.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(vertex_normals(shape, faces, table), expected)


def test_faces_around_each_vertex():
    table = vertex_faces_of(PYRAMID_FACES, 5)
    assert table.tolist() == [
        [0, 1, 2, 3],
        [0, 3, 4, 4],
        [0, 1, 4, 4],
        [1, 2, 4, 4],
        [2, 3, 4, 4],
    ]


def test_table_of_faces_with_a_fixed_width_and_a_lonely_vertex():
    table = vertex_faces_of(PYRAMID_FACES, 6, width=3)
    assert table[0].tolist() == [0, 1, 2]
    assert table[5].tolist() == [4, 4, 4]


def test_edges():
    assert edges_of(PYRAMID_FACES).tolist() == [
        [0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [1, 4], [2, 3], [3, 4],
    ]  # fmt: skip


def test_gradient(generator):
    vertices = PYRAMID.double() + 0.1 * torch.randn(5, 3, generator=generator)
    table = vertex_faces_of(PYRAMID_FACES, 5)
    vertices = vertices[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, PYRAMID_FACES, table), vertices)


def test_rotating_the_mesh_rotates_its_normals(golden):
    table = golden["point_buf"]
    before = vertex_normals(golden["shape"], golden["tri"], table) @ golden["rotation_row"]
    after = vertex_normals(golden["shape"] @ golden["rotation_row"], golden["tri"], table)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
