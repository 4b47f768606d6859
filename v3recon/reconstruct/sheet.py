"""The contact sheet of a face: its panels share one frame, the panel frame (`panel_matrix`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from v3recon._fast.threads import threads_limited
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.geometry.affine2d import compose_affine_2d
from v3recon.geometry.camera import to_clip
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.reconstruct.draw import Image, Points, draw_landmarks, overlay, overlay_labels
from v3recon.reconstruct.faces import LANDMARK_SETS, Face
from v3recon.reconstruct.precision import full_precision
from v3recon.reconstruct.seen import seen_in_photo
from v3recon.reconstruct.segment import Parts, segment_both
from v3recon.reconstruct.texture import Appearance
from v3recon.reconstruct.values import OutputChoice, to_numpy
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_image, render_shape

PANEL_SIZE = 224


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


_SIDES = {"shape from its right": 45.0, "from its left side": -90.0, "from behind": 180.0}


_SMALLER, _AWAY = 0.8, 4.0
"""Scale, and decimeters away from the camera, at which a head is seen whole."""


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


def reconstruction_panels(
    image: Image,
    *,
    shape: Image | None = None,
    textured: Image | None = None,
    landmarks: Mapping[str, Points] | None = None,
    labels: npt.NDArray[np.integer] | None = None,
    part_bits: npt.NDArray[np.uint8] | None = None,
    seen: npt.NDArray[np.integer] | None = None,
    turned: Mapping[str, Image] | None = None,
) -> list[Panel]:
    """The panels of 3DDFA_V3's result picture and after them ours, those whose product is given.

    Args:
        image: the photo in the panel frame.
        shape: the grey shape laid over it.
        textured: the textured face laid over it.
        landmarks: name -> [N, 2] panel pixels.
        labels: [H, W] visible parts, 0…8.
        part_bits: [H, W], bit p is set where part p is, each part drawn alone.
        seen: [H, W] what the photo shows, numbers of `networks.encoder.SEEN_NAMES`.
        turned: title -> the grey shape from another side.
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
    if seen is not None:
        panels.append(Panel("seen, with what covers it", overlay_labels(image, seen)))
    panels += [Panel(title, picture) for title, picture in (turned or {}).items()]
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


def draw_sheet(
    face: Face,
    image: np.ndarray,
    choice: OutputChoice,
    parts: Parts | None,
    appearance: Appearance,
) -> np.ndarray:
    """Contact sheet [H, W, 3] uint8 of a face: see `reconstruction_panels`."""
    matrix = panel_matrix(to_numpy(face.points_photo), face.image_size)
    size = (PANEL_SIZE, PANEL_SIZE)
    panel = panel_image(image, matrix)
    to_panel_frame = compose_affine_2d(torch.from_numpy(matrix), face.batch.crop.inverse_matrix)
    faces = face.model.faces
    with full_precision(), threads_limited(1):  # small steps, as in `segment.segment_both`
        from_crop = to_panel_frame.to(face.points_photo)
        clip = to_clip(face.decoded.vertices, face.camera, size, from_crop)
        fragments = rasterize(clip, faces, size, face.batch.rasterizer)
        shape, mask = render_shape(appearance.normals, fragments, faces)
        textured, _ = render_image(appearance.colors, fragments, faces)
    drawn = mask[0, 0].cpu().numpy() > 0
    labels, bits = None, None
    if parts is not None and matrix[0, 0] > 1:  # enlarged: drawn again, to be sharp
        arguments = (face.decoded, face.model, face.camera, size, from_crop, face.batch.rasterizer)
        labels, bits = (drawn[0].cpu().numpy() for drawn in segment_both(*arguments))
    elif parts is not None:
        labels = panel_labels(parts.labels, matrix)
        bits = panel_labels(parts.part_bits, matrix)
    panels = reconstruction_panels(
        panel,
        shape=overlay(panel, _picture(shape), drawn),
        textured=overlay(panel, _picture(textured), drawn),
        landmarks={
            key: to_panel(to_numpy(getattr(face, LANDMARK_SETS[key])), matrix)
            for key in choice.landmarks
        },
        labels=labels if choice.seg_visible else None,
        part_bits=bits if choice.seg else None,
        seen=(
            seen_in_photo(face.seen[None], to_panel_frame, face.camera, size)[0]
            if choice.seg_seen and face.seen is not None
            else None
        ),
        turned=_turned_shapes(face, appearance),
    )
    return contact_sheet(panels)


def _turned_shapes(face: Face, appearance: Appearance) -> dict[str, Image]:
    """The grey shape of a whole head from three sides; nothing of a model of the face alone."""
    model = face.model
    if model.group_labels is None:
        return {}
    shape = face.decoded.model_vertices
    middle = (shape.amin(1) + shape.amax(1)) / 2
    yaw = torch.deg2rad(torch.tensor(list(_SIDES.values())))
    rotation = euler_to_matrix(torch.stack([0 * yaw, yaw, 0 * yaw], 1)).to(shape)
    size = (PANEL_SIZE, PANEL_SIZE)
    with full_precision(), threads_limited(1):
        vertices = _SMALLER * (shape - middle) @ rotation
        vertices = vertices - vertices.new_tensor([0, 0, _AWAY])
        normals = appearance.normals @ face.decoded.rotation.transpose(1, 2) @ rotation
        clip = to_clip(vertices, face.camera, size)
        fragments = rasterize(clip, model.faces, size, face.batch.rasterizer)
        pictures, masks = render_shape(normals, fragments, model.faces)
    pictures = pictures * masks + (1 - masks) * (_BACKGROUND / 255)
    return {title: _picture(pictures[k : k + 1]) for k, title in enumerate(_SIDES)}


def _picture(image: torch.Tensor) -> np.ndarray:
    """[1, 3, H, W] 0…1 as [H, W, 3] uint8."""
    return (image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
