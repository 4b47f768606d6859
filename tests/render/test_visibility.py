"""Which triangles and vertices are seen."""

from __future__ import annotations

import torch
from synthetic_assets import tiny_face_model

from v3recon.geometry.camera import Camera, to_clip
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import (
    facing_camera,
    touched_vertices,
    visible_faces,
    visible_vertices,
)

ANGLES = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.9, -0.1], [-0.3, -1.5, 0.4]])


def posed():
    model = tiny_face_model()
    rotation = euler_to_matrix(ANGLES)
    vertices = model.mean_shape[None] @ rotation
    fragments = rasterize(to_clip(vertices, Camera()), model.faces, (224, 224))
    return model, vertices, model.normals(model.mean_shape[None]) @ rotation, fragments


def test_equals_naive_sets():
    model, _, normals, fragments = posed()
    faces = visible_faces(fragments, len(model.faces))
    vertices = visible_vertices(fragments, model.faces, normals)
    for item in range(3):
        owners = set(fragments.face_id[item].unique().tolist()) - {-1}
        assert set(torch.nonzero(faces[item]).flatten().tolist()) == owners
        touched = {v for owner in owners for v in model.faces[owner].tolist()}
        expected = {v for v in touched if normals[item, v, 2] >= 0}
        assert set(torch.nonzero(vertices[item]).flatten().tolist()) == expected
        assert 0 < len(expected) < model.vertex_count
    assert not torch.equal(vertices[0], vertices[1])


def test_facing_camera_is_the_sign_of_the_normals():
    model, vertices, normals, _ = posed()
    clear = normals[..., 2].abs() > 1e-4
    facing = facing_camera(vertices, model.faces, model.vertex_faces)
    assert torch.equal(facing[clear], (normals[..., 2] >= 0)[clear])
    assert clear.float().mean() > 0.99 and 0 < facing[2].float().mean() < 1


def test_touched_vertices_of_an_empty_raster():
    model, vertices, _, _ = posed()
    away = to_clip(vertices + torch.tensor([50.0, 0, 0]), Camera())
    fragments = rasterize(away, model.faces, (224, 224))
    assert not touched_vertices(fragments, model.faces, model.vertex_count).any()
    assert not visible_faces(fragments, len(model.faces)).any()
