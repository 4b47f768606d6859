"""The texture of the whole head: what photos do not show, and what is before the head."""

import cv2
import numpy as np
import pytest
import torch

from v3recon.face_models.parts import SKIN_LABEL
from v3recon.face_models.surfaces import outer_skin
from v3recon.geometry.camera import Camera
from v3recon.networks.encoder import SEEN_NAMES
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.reconstruct.seen import other_than_face_at
from v3recon.reconstruct.texture import extract_texture
from v3recon.uv.bake import uv_layout

SIZE = 256


@pytest.fixture(scope="module")
def face(request):
    return FaceReconstructor.from_pretrained()(request.config.rootpath / "examples/astronaut.jpg")[
        0
    ]


def lab_at(face, texture, vertices):
    """CIELAB colors [N, 3] of a texture at vertices."""
    places = uv_layout(face.model, len(texture)).uv_pixels[vertices].round().astype(int)
    places = places.clip(0, len(texture) - 1)
    colors = texture[places[:, 1], places[:, 0]].astype(np.float32) / 255
    return cv2.cvtColor(colors[:, None], cv2.COLOR_RGB2LAB)[:, 0]


def skin_of(face):
    """Ids of the face's skin, and of the head behind the ears."""
    model, mean = face.model, face.model.mean_vertices()
    outer = outer_skin(model)
    behind = outer & (mean[:, 2] < mean[outer, 2].quantile(0.15))
    return (model.part_labels == SKIN_LABEL).nonzero()[:, 0], behind.nonzero()[:, 0]


def test_the_back_of_the_head_has_the_skin_of_the_face(face):
    texture = extract_texture(face, size=SIZE).texture
    front, back = (np.median(lab_at(face, texture, ids), 0) for ids in skin_of(face))
    assert back[0] > 0.6 * front[0]
    assert np.hypot(*(back - front)[1:]) < 14


def test_clothes_do_not_color_the_neck(face):
    """The same photo with a green suit from the chin on: the head's texture stays skin."""
    photo = face.batch.photo().copy()
    chin = int(face.landmarks_68[8, 1])
    photo[chin + 12 :] = (20, 160, 40)
    texture = extract_texture(face, photo, SIZE).texture
    mean = face.model.mean_vertices()
    outer = outer_skin(face.model)
    neck = (outer & (mean[:, 1] < mean[face.model.landmarks_68[8], 1] - 0.3)).nonzero()[:, 0]
    green = lab_at(face, texture, neck)[:, 1]
    assert len(neck) > 100 and np.mean(green < -15) < 0.02


def test_what_is_no_part_of_a_face_is_told():
    seen = torch.zeros(1, 12, 8, 8, dtype=torch.uint8)
    seen[:, SEEN_NAMES.index("skin"), :, :4] = 255
    seen[:, SEEN_NAMES.index("hair"), :, 4:6] = 255
    points = torch.tensor([[[20.0, 100.0], [140.0, 100.0], [210.0, 100.0]]])
    other = other_than_face_at(seen, points, Camera())
    torch.testing.assert_close(other, torch.tensor([[0.0, 1.0, 1.0]]))
