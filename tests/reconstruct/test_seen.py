"""What is seen: sides of the mirror image, covers at points, the map in the photo."""

import numpy as np
import torch

from v3recon.decode import decode
from v3recon.face_models.photohead import load_photohead
from v3recon.geometry.camera import Camera
from v3recon.networks.encoder import SEEN_NAMES
from v3recon.reconstruct.seen import cover_at, point_visibility, seen_bytes, seen_in_photo
from v3recon.types import FaceCoeffs

HAIR, RIGHT_EYE, LEFT_EYE = (SEEN_NAMES.index(n) for n in ("hair", "right_eye", "left_eye"))


def test_the_mirror_images_right_eye_is_the_left_one_on_the_other_side():
    logits = torch.zeros(1, 12, 4, 4)
    logits[0, RIGHT_EYE, 1, 0] = 20.0
    direct, turned = (seen_bytes(logits, mirrored=flag) for flag in (False, True))
    assert int(direct[0, RIGHT_EYE, 1, 0]) == 255
    assert int(turned[0, LEFT_EYE, 1, 3]) == 255 and int(turned[0, RIGHT_EYE, 1, 3]) == 0


def half_covered():
    seen = torch.zeros(1, 12, 8, 8, dtype=torch.uint8)
    seen[:, 8] = 255
    seen[:, 8, :, :4], seen[:, HAIR, :, :4] = 0, 255
    return seen


def test_cover_is_read_where_the_points_are():
    points = torch.tensor([[[20.0, 100.0], [200.0, 100.0], [-50.0, 100.0]]])
    cover = cover_at(half_covered(), points, Camera())
    assert torch.equal(cover, torch.tensor([[1.0, 0.0, 1.0]]))


def test_points_are_hidden_by_the_head_or_by_what_covers_it():
    model = load_photohead()
    coeffs = FaceCoeffs.zeros(2, model.sizes)
    coeffs.angle[1, 1] = 1.5
    decoded = decode(coeffs, model)
    ids = model.landmarks_68
    bare = point_visibility(decoded, model, Camera(), None, ids)
    assert float(bare[0, 17:].min()) > 0.5
    eyes = float(bare[1, 36:42].mean()), float(bare[1, 42:48].mean())
    assert min(eyes) < 0.4 and max(eyes) > 1.5 * min(eyes)
    covered = point_visibility(decoded, model, Camera(), half_covered().expand(2, -1, -1, -1), ids)
    left = decoded.points_2d[0, ids, 0] < 90
    right = decoded.points_2d[0, ids, 0] > 130
    assert float(covered[0, left].max()) < 0.01
    assert torch.allclose(covered[0, right], bare[0, right])


def test_the_map_lies_in_the_photo_where_the_crop_does():
    to_photo = torch.tensor([[[0.5, 0.0, 10.0], [0.0, 0.5, 20.0]]], dtype=torch.float64)
    found = seen_in_photo(half_covered(), to_photo, Camera(), (160, 140))
    assert found.shape == (1, 160, 140) and found.dtype == np.uint8
    assert int(found[0, 70, 20]) == HAIR and int(found[0, 70, 110]) == 8
    half_cell = 8  # the border fades over half a cell of the map
    assert not found[0, : 20 - half_cell].any() and not found[0, 132 + half_cell :].any()
    assert not found[0, :, : 10 - half_cell].any() and not found[0, :, 122 + half_cell :].any()
