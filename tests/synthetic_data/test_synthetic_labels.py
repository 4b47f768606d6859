from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_photo import make_face

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.synthetic_data.expressions import Closing, edit_expression
from v3recon.synthetic_data.generate import make_expression
from v3recon.synthetic_data.labels import to_picture
from v3recon.synthetic_data.source_face import projected_mesh
from v3recon.types import FaceCoeffs

MIRROR = load_face_mesh().mirror


def labels_of(face, kind, head, amount=1.0):
    closing = Closing((amount, amount))
    edited = edit_expression(face, kind, head, MIRROR, [4], closing)
    return edited, make_expression(face, edited, head, [4])


def test_closed_eyes_have_no_eye_part(face, head):
    _, (_, labels) = labels_of(face, "eyes_closed", head)
    assert set(np.unique(labels.parts)) == {0, 3, 4, 5, 6, 7, 8}
    _, (_, open_labels) = labels_of(face, "frown", head)
    assert set(np.unique(open_labels.parts)) == set(range(9)), PART_NAMES


def test_landmarks_of_closed_lids_meet_whatever_the_hand_made_points_were(face, head):
    hand = face.points[load_face_mesh().landmarks_68, :2].copy()
    hand[[37, 38, 43, 44]] -= [0, 9]  # canvas pixels: lids that the detector sees elsewhere
    marked = replace(face, landmarks_68=hand)
    for source in (face, marked):
        edited, (_, labels) = labels_of(source, "one_eye_closed", head)
        (side,) = edited.closed
        lids = {"right": [[37, 38], [41, 40]], "left": [[43, 44], [47, 46]]}
        points = labels.landmarks["68"]
        upper, lower = points[lids.pop(side)]
        assert np.abs(upper[:, 1] - lower[:, 1]).max() < 1
        mesh = to_picture(edited.points[:, :2])
        line = mesh[[159, 158] if side == "right" else [385, 386]]
        assert np.abs(upper[:, 1] - line[:, 1]).max() < 1.5
        ((other, _),) = lids.items()
        upper, lower = points[lids[other]]
        assert (lower[:, 1] - upper[:, 1]).min() > 2  # the other eye stays open


def test_half_closed_eyes_are_labelled_between_their_lids(head):
    face = make_face(head, size=256)
    areas, gaps = [], []
    for amount in (0.3, 0.7):
        edited, (_, labels) = labels_of(face, "eyes_closed", head, amount)
        mesh = to_picture(edited.points[:, :2])
        eye = labels.parts == 1
        rows, columns = np.nonzero(eye)
        assert abs(rows.min() - mesh[159, 1]) < 1.5 and abs(rows.max() - mesh[145, 1]) < 1.5
        assert columns.min() > mesh[33, 0] - 1.5 and columns.max() < mesh[133, 0] + 1.5
        points = labels.landmarks["68"]
        areas.append(eye.sum())
        gaps.append((points[[40, 41], 1] - points[[38, 37], 1]).mean())
    assert 0.25 < areas[1] / areas[0] < 0.6
    assert gaps[1] / gaps[0] == pytest.approx(3 / 7, rel=0.15)


def test_points_before_the_edit_are_kept(face, head):
    _, (_, labels) = labels_of(face, "mouth_open", head)
    index = load_face_mesh().landmarks_68
    before = to_picture(face.points[index, :2])
    assert np.abs(labels.landmarks_before[17:] - before[17:]).max() < 4
    jaw = labels.landmarks["68"][8, 1] - labels.landmarks_before[8, 1]
    assert jaw > 1.5
    hand = before + 1
    _, (_, marked) = labels_of(replace(face, landmarks_68=hand), "frown", head)
    np.testing.assert_allclose(marked.landmarks_before, to_picture(hand))


def test_opened_mouth_is_inner_mouth_between_the_lips(face, head):
    edited, (_, labels) = labels_of(face, "mouth_open", head)
    gap = edited.points[14, 1] - edited.points[13, 1]
    rows, _ = np.nonzero(labels.classes == 10)
    assert abs(np.ptp(rows) - gap / 2) < 2.5
    column = round(float(labels.points[13, 0]))
    strip = labels.parts[:, column]
    down = np.flatnonzero(strip == 7)
    up = np.flatnonzero(strip == 6)
    assert up.max() < rows.min() + 1 and down.min() > rows.max() - 1
    assert not labels.parts[labels.classes == 10].any()


def test_landmarks_lie_on_the_moved_mesh(face, head):
    _, (_, labels) = labels_of(face, "mouth_open", head)
    index = load_face_mesh().landmarks_68
    inner = labels.landmarks["68"][17:] - labels.points[index[17:], :2]
    assert np.linalg.norm(inner, axis=1).max() < 4
    assert labels.landmarks["106"].shape == (106, 2)
    assert labels.landmarks["134"].shape == (134, 2)


def test_hand_made_points_move_by_the_same_displacement(face, head):
    edited, (_, plain) = labels_of(face, "mouth_open", head)
    hand = np.random.default_rng(0).normal(0, 2, (68, 2))
    base = plain.landmarks["68"]
    _, (_, unmoved) = labels_of(face, "frown", head)
    del unmoved
    shifted = [
        make_expression(
            replace(face, landmarks_68=face.points[:68, :2] * 0 + offset), edited, head, [4]
        )[1].landmarks["68"]
        for offset in (np.zeros((68, 2)), 2 * hand)
    ]
    np.testing.assert_allclose(shifted[1] - shifted[0], hand, atol=1e-9)
    assert base.shape == (68, 2)


def test_coefficients_reproduce_the_landmarks(face, head):
    """What is stored decodes to where the landmarks are."""
    from v3recon.decode import decode
    from v3recon.geometry.camera import Camera

    _, (_, labels) = labels_of(face, "mouth_open", head)
    import torch

    coeffs = FaceCoeffs.from_tensor(torch.from_numpy(labels.coeffs)[None], head.sizes)
    points = projected_mesh(decode(coeffs, head, Camera()), head)[:, :2]
    points = points @ labels.crop_to_picture[:, :2].T + labels.crop_to_picture[:, 2]
    assert np.abs(points - labels.points[:, :2]).max() < 1.0


def test_frontal_landmarks_are_seen(face, head):
    _, (_, labels) = labels_of(face, "brows_raised", head)
    assert labels.visible["68"][17:].mean() > 0.9


def test_picture_pixels_are_pairs_of_canvas_pixels():
    np.testing.assert_allclose(to_picture(np.array([[0.5, 2.5]])), [[0.0, 1.0]])
