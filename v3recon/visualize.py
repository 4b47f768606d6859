"""Pictures for people: landmarks, part colours, overlays and the contact sheet of a face.

Everything here takes and returns [H, W, 3] uint8 RGB and leaves its inputs alone. The panels of a
sheet share one frame, the panel frame: `panel_matrix` says how photo pixels come to it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from v3recon.compiled import compiled
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.face_models.parts import LABEL_COLORS

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating]
Color = tuple[int, int, int]

PANEL_SIZE = 224
LANDMARK_COLOR = (40, 220, 70)

_LANDMARK_TITLES = {
    "ldm68": "68 landmarks",
    "ldm106": "106 landmarks",
    "ldm106_2d": "106, contour as seen",
    "ldm134": "134 landmarks",
}

_FACE_SHARE = 0.62  # of a panel's side that the face takes when the photo is larger
_GAP = 6  # pixels between panels
_TITLE_HEIGHT = 20
_BACKGROUND, _INK = 250, (45, 45, 50)
_OUTLINE = 0.8  # pixels of dark rim around a dot, so that it shows on light skin


@dataclass(frozen=True)
class Panel:
    """One picture of a contact sheet and what is written over it."""

    title: str
    image: Image


def panel_matrix(
    points: Points, image_size: tuple[int, int], panel_size: int = PANEL_SIZE
) -> npt.NDArray[np.float64]:
    """Similarity from photo pixels to panel pixels: a square window around the face.

    A photo that holds little more than the face is shown whole.

    Args:
        points: [N, 2] the face's vertices or landmarks, photo pixels.
        image_size: (H, W) of the photo.
        panel_size: side of the panel, pixels.

    Returns:
        [2, 3]; panel = matrix @ (x, y, 1).
    """
    height, width = image_size
    columns = points.T.copy()  # numpy reduces rows 30 times faster
    low, high = columns.min(1), columns.max(1)
    side = float((high - low).max()) / _FACE_SHARE
    left, top = (low + high + 1) / 2 - side / 2
    if side >= max(height, width):
        side = float(max(height, width))
        left, top = (width - side) / 2, (height - side) / 2
    else:  # move the window into the photo where the photo is large enough
        left = (width - side) / 2 if side > width else float(np.clip(left, 0, width - side))
        top = (height - side) / 2 if side > height else float(np.clip(top, 0, height - side))
    scale = panel_size / side
    # Pixel edges map to pixel edges: photo edge `left`, half a pixel before the centre of its
    # pixel, becomes panel edge 0.
    shift = 0.5 * scale - 0.5
    return np.array([[scale, 0, shift - left * scale], [0, scale, shift - top * scale]])


def to_panel(points: Points, matrix: npt.NDArray[np.floating]) -> Points:
    """Points [..., 2] in photo pixels to panel pixels (or by any other affine map [2, 3])."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def panel_image(
    image: Image, matrix: npt.NDArray[np.floating], panel_size: int = PANEL_SIZE
) -> Image:
    """The photo in the panel frame, anti-aliased, black where the photo ends."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    affine = matrix.astype(np.float64)
    if scale < 0.7:  # shrink by whole areas first, a warp alone would alias
        height, width = image.shape[:2]
        corners = to_panel(
            np.array([[0, 0], [panel_size - 1, panel_size - 1]]),
            np.asarray(cv2.invertAffineTransform(affine), float),
        )
        pad = 2 / scale
        x0, y0 = np.clip(corners.min(0) - pad, 0, [width - 1, height - 1]).astype(int)
        x1, y1 = np.clip(corners.max(0) + pad, 1, [width, height]).astype(int)
        region = image[y0:y1, x0:x1]
        size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
        factor = size[0] / (x1 - x0), size[1] / (y1 - y0)
        image = np.asarray(cv2.resize(region, size, interpolation=cv2.INTER_AREA), np.uint8)
        # its pixel p shows region pixel (p + 0.5) / factor - 0.5
        back = np.array(
            [
                [1 / factor[0], 0, 0.5 / factor[0] - 0.5 + x0],
                [0, 1 / factor[1], 0.5 / factor[1] - 0.5 + y0],
            ]
        )
        linear = affine[:, :2] @ back[:, :2]
        affine = np.column_stack([linear, affine[:, :2] @ back[:, 2] + affine[:, 2]])
    warped = cv2.warpAffine(image, affine, (panel_size, panel_size), flags=cv2.INTER_LINEAR)
    return np.asarray(warped, np.uint8)


def panel_labels(
    labels: npt.NDArray[np.uint8],
    matrix: npt.NDArray[np.floating],
    panel_size: int = PANEL_SIZE,
) -> npt.NDArray[np.uint8]:
    """A label or bit map [H, W] of the photo in the panel frame, nearest pixel, 0 outside."""
    size = (panel_size, panel_size)
    warped = cv2.warpAffine(labels, matrix.astype(np.float64), size, flags=cv2.INTER_NEAREST)
    return np.asarray(warped, np.uint8)


def draw_landmarks(
    image: Image,
    points: Points,
    color: Color = LANDMARK_COLOR,
    radius: float | None = None,
) -> Image:
    """Anti-aliased dots on a copy of a picture.

    Args:
        image: the picture.
        points: [N, 2] pixels of that picture; points that are not finite are left out.
        color: RGB 0…255.
        radius: pixels; default suits the picture's size, smaller where dots would run together.
    """
    assert points.ndim == 2 and points.shape[1] == 2, points.shape
    points = points[np.isfinite(points).all(1)]
    if radius is None:
        radius = max(1.0, min(1.9 * min(image.shape[:2]) / 224, 0.45 * _spacing(points)))
    drawn = image.copy()
    outline, dots = np.zeros((2, *image.shape[:2]), np.float32)
    _cover_discs(points, radius + _OUTLINE, outline)
    _cover_discs(points, radius, dots)
    _blend_dots(drawn, outline, dots, np.array(color, np.float32))
    return drawn


def _spacing(points: Points) -> float:
    """Usual distance from a point to the next one where they are dense; infinite for one point."""
    if len(points) < 2:
        return np.inf
    return float(np.quantile(_nearest(points), 0.3))


def overlay(image: Image, drawn: Image, mask: npt.NDArray, opacity: float = 1.0) -> Image:
    """Lay a rendering over a photo.

    Args:
        image: the photo.
        drawn: the rendering, same size.
        mask: [H, W] bool, or weights 0…1.
        opacity: of the rendering.
    """
    assert image.shape == drawn.shape and mask.shape == image.shape[:2], (drawn.shape, mask.shape)
    if mask.dtype == bool and opacity == 1:
        return np.asarray(cv2.copyTo(drawn, mask.astype(np.uint8), image.copy()), np.uint8)
    weight = opacity * mask.astype(np.float32)[..., None]
    return (image + weight * (drawn.astype(np.float32) - image) + 0.5).astype(np.uint8)


def label_colors() -> Image:
    """Colours of the labels 0…8, [9, 3] RGB; label 0 is black."""
    return np.array(LABEL_COLORS, np.uint8)


def color_labels(labels: npt.NDArray[np.integer]) -> Image:
    """A label map [H, W] with values 0…8 as a picture."""
    return label_colors()[labels]


def overlay_labels(image: Image, labels: npt.NDArray[np.integer], opacity: float = 0.65) -> Image:
    """Part colours over the grey photo, so that every part stands out from its own skin colour."""
    assert labels.shape == image.shape[:2], labels.shape
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    painted = np.empty_like(image)
    _look_up(_overlay_table(opacity), labels, gray, painted)
    return painted


@functools.cache
def _overlay_table(opacity: float) -> Image:
    """What `overlay_labels` paints: [9 labels, 256 grey levels, 3]."""
    level = np.arange(256, dtype=np.float32)[None, :, None]
    table = (1 - opacity) * level + opacity * label_colors()[:, None].astype(np.float32)
    table[0] = 0.8 * level[0]
    return np.round(table).astype(np.uint8)


def reconstruction_panels(
    image: Image,
    *,
    shape: Image | None = None,
    textured: Image | None = None,
    landmarks: Mapping[str, Points] | None = None,
    labels: npt.NDArray[np.integer] | None = None,
    part_bits: npt.NDArray[np.uint8] | None = None,
) -> list[Panel]:
    """The panels of 3DDFA_V3's result picture, those whose product is given.

    Args:
        image: the photo in the panel frame.
        shape: the grey shape laid over it.
        textured: the textured face laid over it.
        landmarks: name -> [N, 2] panel pixels.
        labels: [H, W] visible parts, 0…8.
        part_bits: [H, W], bit p is set where part p is, each part drawn alone.
    """
    panels = [Panel("input", image)]
    if shape is not None:
        panels.append(Panel("shape", shape))
    if textured is not None:
        panels.append(Panel("textured face", textured))
    for name, points in (landmarks or {}).items():
        panels.append(Panel(_LANDMARK_TITLES.get(name, name), draw_landmarks(image, points)))
    if labels is not None:
        panels.append(Panel("visible parts", overlay_labels(image, labels)))
    if part_bits is not None:
        for index, name in enumerate(PART_NAMES):
            own = (part_bits >> index & 1) * np.uint8(index + 1)
            panels.append(Panel(name.replace("_", " "), overlay_labels(image, own)))
    return panels


def contact_sheet(panels: Sequence[Panel], columns: int = 4, panel_size: int = PANEL_SIZE) -> Image:
    """Panels in rows under small titles.

    Args:
        panels: at least one; each is fitted into a square of `panel_size`.
        columns: panels in a row.
        panel_size: pixels.

    Returns:
        The sheet, as wide as min(columns, number of panels) panels.

    Raises:
        ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("a contact sheet needs at least one panel")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    cell_height, cell_width = panel_size + _TITLE_HEIGHT + _GAP, panel_size + _GAP
    sheet = np.full(
        (rows * cell_height + _GAP, columns * cell_width + _GAP, 3), _BACKGROUND, np.uint8
    )
    for index, panel in enumerate(panels):
        top = _GAP + index // columns * cell_height
        left = _GAP + index % columns * cell_width
        sheet[top : top + _TITLE_HEIGHT, left : left + panel_size] = _title(panel.title, panel_size)
        picture = _fit(panel.image, panel_size)
        height, width = picture.shape[:2]
        y = top + _TITLE_HEIGHT + (panel_size - height) // 2
        x = left + (panel_size - width) // 2
        sheet[y : y + height, x : x + width] = picture
    return sheet


@functools.lru_cache(maxsize=64)  # OpenCV takes a millisecond for a line; all sheets have the same
def _title(text: str, width: int) -> Image:
    """A panel's title [_TITLE_HEIGHT, width, 3], made smaller when it would not fit."""
    strip = np.full((_TITLE_HEIGHT, width, 3), _BACKGROUND, np.uint8)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    (length, _), _ = cv2.getTextSize(text, font, scale, 1)
    scale *= min(1.0, (width - 4) / max(length, 1))
    cv2.putText(strip, text, (2, 14), font, scale, _INK, 1, cv2.LINE_AA)
    strip.flags.writeable = False
    return strip


def _fit(image: Image, size: int) -> Image:
    """A picture with its longer side at `size`, as it is where that holds already."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale == 1:
        return image
    target = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, target, interpolation=method), np.uint8)


@compiled()
def _nearest(points):
    """Distance from each point to the next one."""
    nearest = np.full(len(points), np.inf, points.dtype)
    for i in range(len(points)):
        for j in range(i):
            distance = np.hypot(points[i, 0] - points[j, 0], points[i, 1] - points[j, 1])
            nearest[i] = min(nearest[i], distance)
            nearest[j] = min(nearest[j], distance)
    return nearest


@compiled()
def _cover_discs(points, radius, cover):
    """How much of each pixel [H, W] discs around the points cover, 0…1."""
    height, width = cover.shape
    reach = int(np.ceil(radius + 1))
    for i in range(len(points)):
        x, y = points[i, 0], points[i, 1]
        if not (-reach <= x and x < width + reach and -reach <= y and y < height + reach):
            continue  # so that a place far away stays a whole number
        left, top = int(np.floor(x)) - reach, int(np.floor(y)) - reach
        for row in range(max(top, 0), min(top + 2 * reach + 2, height)):
            for column in range(max(left, 0), min(left + 2 * reach + 2, width)):
                share = radius + 0.5 - np.hypot(column - x, row - y)
                cover[row, column] = max(cover[row, column], np.float32(min(share, 1.0)))


@compiled()
def _blend_dots(image, outline, dots, color):
    """Darken the outline, then lay the colour over it."""
    height, width = outline.shape
    for row in range(height):
        for column in range(width):
            if outline[row, column] > 0:
                dark = np.float32(1) - np.float32(0.75) * outline[row, column]
                for k in range(3):
                    under = image[row, column, k] * dark
                    mixed = under + dots[row, column] * (color[k] - under)
                    image[row, column, k] = np.uint8(np.rint(mixed))


@compiled()
def _look_up(table, labels, gray, painted):
    height, width = gray.shape
    for row in range(height):
        for column in range(width):
            for k in range(3):
                painted[row, column, k] = table[labels[row, column], gray[row, column], k]
