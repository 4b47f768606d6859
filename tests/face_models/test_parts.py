from __future__ import annotations

import torch
from synthetic_assets import synthetic_face_model

from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.face_models.parts import PART_COLORS, color_table, faces_of_labels, part_masks


def test_vertices_partition_the_model():
    model = synthetic_face_model()
    masks = part_masks(model)
    assert masks.names == PART_NAMES and len(masks.vertices) == 8
    every = torch.cat(masks.vertices)
    assert len(every) == model.vertex_count and len(every.unique()) == model.vertex_count
    for part, vertices in enumerate(masks.vertices):
        assert len(vertices) and (masks.labels[vertices] == part + 1).all()


def test_faces_lie_inside_their_part():
    model = synthetic_face_model()
    masks = part_masks(model)
    from_labels = faces_of_labels(masks.labels, model.faces)
    for part, faces in enumerate(masks.faces):
        assert len(faces) and (masks.labels[faces] == part + 1).all()
        assert torch.equal(faces, from_labels[part])
    assert sum(map(len, masks.faces)) < len(model.faces), "faces across borders belong to none"


def test_sides_are_the_persons_own():
    model = synthetic_face_model()
    masks = part_masks(model)
    x = [model.mean_shape[vertices, 0].mean() for vertices in masks.vertices[:4]]
    assert x[0] < 0 < x[1] and x[2] < 0 < x[3], "the person's right is the viewer's left"


def test_colors_are_distinct_and_black_means_none():
    table = color_table()
    assert table.shape == (9, 3) and table[0].sum() == 0
    distances = torch.cdist(table.float(), table.float()) + 1000 * torch.eye(9)
    assert distances.min() > 60
    assert table[1:].tolist() == [list(color) for color in PART_COLORS]
