"""Drawing: exact places, inputs untouched, every panel in its place."""

from __future__ import annotations

import numpy as np
import pytest

from v3recon.face_models.parts import PART_COLORS
from v3recon.reconstruct.draw import color_labels, draw_landmarks, overlay, overlay_labels
from v3recon.reconstruct.sheet import (
    Panel,
    contact_sheet,
    panel_image,
    panel_labels,
    panel_matrix,
    reconstruction_panels,
    to_panel,
)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)


def test_landmark_dots_are_centred_and_leave_the_input_alone(photo):
    blank = np.full((64, 64, 3), 200, np.uint8)
    drawn = draw_landmarks(blank, np.array([[20.0, 31.0]]), color=(255, 0, 0), radius=2.5)
    assert (blank == 200).all()
    rows, columns = np.nonzero((drawn == (255, 0, 0)).all(-1))
    assert (rows.mean(), columns.mean()) == (31, 20)
    assert 9 <= len(rows) <= 21


def test_dots_are_placed_between_pixels():
    blank = np.full((32, 32, 3), 255, np.uint8)
    drawn = draw_landmarks(blank, np.array([[10.5, 16.0]]), radius=2.0).astype(float)
    ink = (255 - drawn).sum(-1)
    assert abs((ink * np.arange(32)).sum() / ink.sum() - 10.5) < 0.02


def test_points_outside_or_not_finite_are_left_out(photo):
    points = np.array([[np.nan, 3], [1e9, 2], [-40.0, -40.0], [1000.0, 5.0]])
    np.testing.assert_array_equal(draw_landmarks(photo, points), photo)


def test_dots_grow_with_the_picture():
    point = np.array([[100.0, 100.0]])
    changed = [
        (draw_landmarks(np.full((size, size, 3), 255, np.uint8), point) < 255).any(-1).sum()
        for size in (224, 896)
    ]
    assert changed[1] > 6 * changed[0]


def test_overlay_weights(photo):
    other = 255 - photo
    mask = np.zeros(photo.shape[:2], bool)
    mask[:100] = True
    kept = photo.copy()
    hard, half = overlay(photo, other, mask), overlay(photo, other, mask, 0.5)
    np.testing.assert_array_equal(hard[:100], other[:100])
    np.testing.assert_array_equal(hard[100:], photo[100:])
    np.testing.assert_allclose(half[:100], 127.5, atol=1)
    np.testing.assert_array_equal(photo, kept)


def test_label_colours():
    labels = np.arange(9, dtype=np.uint8)[None]
    np.testing.assert_array_equal(color_labels(labels)[0, 1:], PART_COLORS)
    gray = np.full((1, 9, 3), 100, np.uint8)
    drawn = overlay_labels(gray, labels, opacity=1)
    np.testing.assert_array_equal(drawn[0, 1:], PART_COLORS)
    assert len(set(drawn[0, 0])) == 1  # grey where there is no part


@pytest.mark.parametrize("scale", [1.0, 7.3])
def test_panel_frame_agrees_for_pictures_labels_and_points(scale):
    """A bright square stays under its own centre, in small photos and in shrunk large ones."""
    height, width = int(300 * scale), int(400 * scale)
    labels = np.zeros((height, width), np.uint8)
    center = np.array([150.0, 120.0]) * scale
    half = int(10 * scale)
    x, y = center.astype(int)
    labels[y - half : y + half + 1, x - half : x + half + 1] = 3
    picture = np.repeat(labels[..., None] * 80, 3, 2)
    face = np.array([[110, 70], [210, 190]]) * scale
    matrix = panel_matrix(face, (height, width), 224)
    expected = to_panel(np.array([[x, y]]), matrix)[0]
    for weight in (panel_image(picture, matrix, 224)[..., 0], panel_labels(labels, matrix, 224)):
        weight = weight.astype(float)
        rows, columns = np.indices((224, 224))
        found = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose(found, expected, atol=0.3)


def test_small_photo_is_shown_whole_and_unchanged():
    photo = np.random.default_rng(1).integers(0, 255, (224, 224, 3)).astype(np.uint8)
    matrix = panel_matrix(np.array([[30.0, 20], [190, 200]]), (224, 224), 224)
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    np.testing.assert_array_equal(panel_image(photo, matrix), photo)


def test_window_stays_inside_a_large_photo():
    matrix = panel_matrix(np.array([[10.0, 10], [110, 110]]), (1000, 2000), 224)
    corner = -matrix[:, 2] / matrix[0, 0]
    assert (corner > -0.6).all()


def test_all_panels_four_to_a_row():
    image = np.full((224, 224, 3), 90, np.uint8)
    points = np.random.default_rng(2).uniform(40, 180, (68, 2))
    panels = reconstruction_panels(
        image,
        shape=image,
        textured=image,
        landmarks={"68 landmarks": points, "106": points, "106 contour": points, "134": points},
        labels=np.full((224, 224), 8, np.uint8),
        part_bits=np.full((224, 224), 1 << 4, np.uint8),
    )
    titles = [panel.title for panel in panels]
    assert titles[:4] == ["input", "shape", "textured face", "68 landmarks"]
    assert titles[7] == "visible parts" and titles[8:] == [
        "right eye", "left eye", "right eyebrow", "left eyebrow",
        "nose", "up lip", "down lip", "skin",
    ]  # fmt: skip
    sheet = contact_sheet(panels)
    assert sheet.dtype == np.uint8 and sheet.shape[1] < 5 * 224 <= sheet.shape[0] + 224
    for part, panel in enumerate(panels[8:]):
        has_color = np.ptp(panel.image.astype(int), axis=-1).max() > 20
        assert has_color == (part == 4)
    assert len(reconstruction_panels(image)) == 1


def test_sheet_shows_each_panel_where_it_belongs():
    colors = [(200, 10, 10), (10, 200, 10), (10, 10, 200), (200, 200, 10), (10, 200, 200)]
    panels = [
        Panel("a long title " * i, np.full((50, 50, 3), c, np.uint8)) for i, c in enumerate(colors)
    ]
    sheet = contact_sheet(panels, columns=4, panel_size=50)
    places = [np.argwhere((sheet == color).all(-1)) for color in colors]
    assert all(len(place) == 2500 for place in places)
    assert places[0][0][0] == places[3][0][0] < places[4][0][0]
    assert places[0][0][1] == places[4][0][1] < places[1][0][1]
    with pytest.raises(ValueError, match="at least one panel"):
        contact_sheet([])


def test_dots_twin_of_whole_picture_arithmetic(photo):
    """Every pixel's distance to every point, in numpy."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-5, 405, (30, 2)), rng.uniform(50, 70, (20, 2))])
    color, radius = np.array((40, 220, 70), np.float32), 2.3
    rows, columns = np.mgrid[:300, :400]
    distance = np.hypot(columns[..., None] - points[:, 0], rows[..., None] - points[:, 1]).min(-1)
    outline, dots = (
        np.clip(size + 0.5 - distance, 0, 1).astype(np.float32)[..., None]
        for size in (radius + 0.8, radius)
    )
    under = photo * (1 - 0.75 * outline)
    expected = np.where(outline > 0, np.round(under + dots * (color - under)), photo)
    drawn = draw_landmarks(photo, points, radius=radius)
    assert (drawn != photo).any(-1).mean() > 0.005
    np.testing.assert_array_equal(drawn, expected)


def test_default_radius_follows_the_distance_to_the_next_point():
    blank = np.full((224, 224, 3), 255, np.uint8)
    grid = np.stack(np.meshgrid(np.arange(40, 180, 3.0), np.arange(40, 180, 3.0)), -1)
    points = grid.reshape(-1, 2)
    expected = draw_landmarks(blank, points, radius=0.45 * 3)
    np.testing.assert_array_equal(draw_landmarks(blank, points), expected)
    assert (draw_landmarks(blank, points, radius=1.9) != expected).any()
