from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from synthetic_photo import make_face

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.synthetic_data.expressions import edit_expression
from v3recon.synthetic_data.interior import paint, skin_look
from v3recon.synthetic_data.warp import expression_map, remap

MIRROR = load_face_mesh().mirror


def drawn(face, kind, head, seed=0):
    edited = edit_expression(face, kind, head, MIRROR, [4])
    warped = remap(face.canvas, expression_map(face.points, edited.points, edited.closed, 192))
    return edited, warped, paint(warped, face, edited, np.random.default_rng(seed))


def region(points, grow):
    mask = np.zeros((192, 192), np.uint8)
    cv2.fillPoly(mask, [cv2.convexHull(np.round(points).astype(np.int32))], 1)
    return cv2.dilate(mask, np.ones((grow, grow))) > 0


def test_only_the_mouth_is_painted(face, head):
    edited, warped, painted = drawn(face, "mouth_open", head)
    inside = region(edited.points[load_face_mesh().mouth, :2], 13)
    changed = (painted != warped).any(2)
    assert not changed[~inside].any()
    x, y = np.round((edited.points[13, :2] + edited.points[14, :2]) / 2).astype(int)
    assert changed[y, x]
    assert painted[y, x].mean() < 0.6 * skin_look(face).color.mean()  # a cavity is dark


def test_closed_lids_have_the_color_of_skin(face, head):
    edited, _, painted = drawn(face, "eyes_closed", head)
    x, y = np.round(0.5 * edited.points[27, :2] + 0.5 * edited.points[159, :2]).astype(int)
    lid = painted[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(0)
    assert np.abs(lid - skin_look(face).color).max() < 45
    near = face.points[[159, 145], :2].mean(0).round().astype(int)
    assert face.canvas[near[1], near[0]].mean() < 80  # where the dark eye was


def test_grey_photos_stay_grey(head):
    for kind in ("mouth_open", "eyes_closed"):
        _, _, painted = drawn(make_face(head, grey=True), kind, head)
        assert np.ptp(painted.astype(int), axis=2).max() <= 3, kind


def test_paint_is_repeatable_and_writes_nothing_into_its_input(face, head):
    edited, warped, first = drawn(face, "mouth_open+eyes_closed", head, 5)
    kept = warped.copy()
    again = paint(warped, face, edited, np.random.default_rng(5))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(warped, kept)


def test_furrows_are_shaded_in_skin_only(face, head):
    edited, warped, painted = drawn(face, "frown", head)
    brows = edited.points[[107, 336, 55, 285, 8, 9], :2]
    changed = (painted != warped).any(2)
    assert changed.sum() > 20 and not changed[~region(brows, 25)].any()
    darker = warped.astype(int) - painted
    assert darker.max() > 4  # a fold
    assert darker.min() < 0  # lit beside it
    hat = np.full_like(warped, (20, 40, 160))
    on_hat = np.abs(paint(hat, face, edited, np.random.default_rng(0)).astype(int) - hat)
    assert on_hat.max() < 0.06 * hat.max() < 0.15 * warped[changed].max()


def test_blur_of_a_photo_is_found(face):
    sigmas = []
    for blur in (1.0, 2.0, 4.0):
        canvas = cv2.GaussianBlur(face.canvas, (0, 0), blur)
        sigmas.append(skin_look(replace(face, canvas=canvas)).sigma)
    # The painted eyes are only eight pixels high: wider blurs are found too small.
    assert sigmas == sorted(sigmas), sigmas
    assert sigmas[2] > 1.6 * sigmas[0] and 1.0 < sigmas[1] < 2.5, sigmas
