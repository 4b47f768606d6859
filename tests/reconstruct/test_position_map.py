"""Position maps: every texel is its surface place in the photo, on every face model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_assets import synthetic_face_model

from v3recon.detection.crop import crop_of_square
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.reconstruct.alignment import points_photo_3d
from v3recon.reconstruct.faces import Face, make_faces
from v3recon.reconstruct.position_map import landmark_texels, map_weights, position_map
from v3recon.types import FaceCoeffs
from v3recon.uv.bake import uv_layout


@pytest.fixture(scope="module", params=("photohead", "bfm"))
def face(request) -> Face:
    """A face turned a little, 190 pixels wide in a photo of 300 x 400."""
    name = request.param
    model = synthetic_face_model() if name == "bfm" else load_face_model(name)
    coeffs = FaceCoeffs.zeros(1, model.sizes)
    coeffs.angle[:, 1] = 0.2
    crop = crop_of_square(torch.tensor([180.0, 150.0]), 200.0, Camera())
    photo = np.zeros((300, 400, 3), np.uint8)
    return make_faces(coeffs, model, Camera(), [crop], [photo], [None])[0]


def test_texels_are_the_points_of_their_triangles(face):
    positions, layout = position_map(face), uv_layout(face.model, 256)
    assert positions.shape == (256, 256, 3) and positions.dtype == np.float32
    points = points_photo_3d(face.batch)[0].numpy()
    rows, columns = np.nonzero(layout.inside)
    chosen = np.random.default_rng(0).choice(len(rows), 300, replace=False)
    for row, column in zip(rows[chosen], columns[chosen], strict=True):
        corners = points[layout.faces[layout.triangle[row, column]]]
        expected = layout.bary[row, column] @ corners
        np.testing.assert_allclose(positions[row, column], expected, atol=1e-3)
    assert (positions[~layout.inside] == 0).all()


def test_landmarks_and_their_depth_are_read_from_the_map(face):
    columns, rows = landmark_texels(face.model)
    found = position_map(face)[rows, columns]
    truth = points_photo_3d(face.batch)[0, face.model.landmarks_68].numpy()
    assert np.linalg.norm(found - truth, axis=1)[17:].max() < 3.0  # a texel of 256
    nose, jaw = found[30], found[[0, 16]]
    assert (nose[2] > jaw[:, 2] + 30).all(), "the tip of the nose is nearer to the camera"
    assert found[36, 0] < found[45, 0] and found[27, 1] < found[8, 1]  # x right, y down


def test_weights_are_prnets(face):
    weights, layout = map_weights(face.model), uv_layout(face.model, 256)
    columns, rows = landmark_texels(face.model)
    assert (weights[rows, columns] == 16).all() and layout.inside[rows, columns].all()
    assert (weights == 16).sum() == len(np.unique(rows * 256 + columns))
    assert set(np.unique(weights)) == {0, 3, 4, 16} and (weights[~layout.inside] == 0).all()
    labels = face.model.part_labels.numpy()[layout.faces[layout.triangle]]
    pure = layout.inside & (labels == labels[..., :1]).all(2) & (weights != 16)
    assert (weights[pure & np.isin(labels[..., 0], [5, 6, 7])] == 4).all()
    assert (weights[pure & np.isin(labels[..., 0], [3, 4, 8])] == 3).all()
    assert (weights[pure & (labels[..., 0] == 0)] == 0).all()
