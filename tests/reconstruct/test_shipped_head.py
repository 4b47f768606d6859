"""The weights of PhotoHead in the package: the example photo, and drawn heads of known pose."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from v3recon.data.draw_heads import draw_heads
from v3recon.decode import decode
from v3recon.face_models.landmarks import INNER_51
from v3recon.geometry.rotation import matrix_to_euler
from v3recon.reconstruct.reconstructor import FaceReconstructor

EXAMPLE = Path(__file__).parents[2] / "examples" / "astronaut.jpg"
HEADS, SEED = 10, 20261126
"""Another seed than any recipe's."""


@pytest.fixture(scope="module")
def shipped():
    return FaceReconstructor.from_pretrained(face_model="photohead")


@pytest.fixture(scope="module")
def face(shipped):
    return shipped(EXAMPLE)[0]


@pytest.fixture(scope="module")
def drawn(shipped):
    heads = draw_heads(shipped.model, [EXAMPLE], HEADS, SEED)
    model = shipped.model
    with torch.inference_mode():
        image = torch.from_numpy(heads.image).permute(0, 3, 1, 2).float() / 255
        size = shipped.regressor.input_size
        image = torch.nn.functional.interpolate(image, (size, size), mode="area")
        found = shipped.regressor(image)
        decoded = decode(found, model, shipped.camera)
    return model, heads, decoded


def test_the_example_is_read_as_another_network_read_it(face):
    """Points 17…67 by an independent network (1.8 % on Helen)."""
    golden = Path(__file__).parents[1] / "golden" / "astronaut_inner_51.csv"
    points = torch.from_numpy(np.loadtxt(golden, delimiter=",", skiprows=1)).float()
    size = float((face.landmarks_68.amax(0) - face.landmarks_68.amin(0)).prod().sqrt())
    apart = (face.landmarks_68[INNER_51] - points).norm(dim=1).mean() / size
    assert float(apart) < 0.035
    expected = torch.tensor([5.0, 0.1, -2.5])
    assert float((face.angle_degrees - expected).abs().max()) < 10


def test_what_is_seen_of_the_example(face):
    seen = face.seg_seen()
    height, width = face.image_size
    assert seen.shape == (height, width)
    nose, brow = face.landmarks_68[30].long(), face.landmarks_68[19].long()
    assert int(seen[nose[1], nose[0]]) == 5
    assert int(seen[brow[1] - height // 4, brow[0]]) in (0, 9)
    assert float(face.visibility_68[27:].min()) > 0.5


def test_drawn_heads_are_found_where_they_are(drawn):
    model, heads, decoded = drawn
    yaw = torch.rad2deg(matrix_to_euler(torch.from_numpy(heads.rotation)))[:, 1].abs()
    apart = decoded.points_2d[:, model.landmarks_68] - torch.from_numpy(heads.marked)
    error = apart[:, INNER_51].norm(dim=2).mean(1) / (224 / math.sqrt(2))
    assert float(error[yaw < 60].median()) < 0.05
    assert float(error.median()) < 0.07
    turned = decoded.rotation.transpose(1, 2) @ torch.from_numpy(heads.rotation)
    trace = turned.diagonal(dim1=1, dim2=2).sum(1)
    angle = torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))
    assert float(angle.median()) < 10


def test_eyes_are_what_lids_leave_open(face):
    """The whole of an eye is little more than what is seen of it: no eyeball behind the lids."""
    parts = face.parts()
    for part in (0, 1):
        seen = int((parts.labels == part + 1).sum())
        assert seen < int((parts.part_bits >> part & 1).sum()) < 1.8 * seen
