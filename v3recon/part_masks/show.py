"""A picture of a face model's parts: front and both sides, with a legend."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.parts import PartMasks, color_table, faces_of_labels, part_masks
from v3recon.geometry.camera import Camera, project, to_clip
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.render.interpolate import interpolate
from v3recon.render.rasterize import rasterize

Image = npt.NDArray[np.uint8]

VIEWS = {"front": 0.0, "the person's right side": 65.0, "the person's left side": -65.0}
"""Yaw of each view, degrees."""

_NO_PART = (128, 128, 128)
_BACKGROUND, _INK = 250, (45, 45, 50)
_OVERSAMPLING = 2
_MARGIN = 0.06  # of a view's side
_LINE = 26  # pixels a legend line


def masks_with_labels(model: LinearFaceModel, labels: Tensor) -> PartMasks:
    """Part masks of a model under other labels [V]."""
    own = part_masks(model)
    vertices = tuple((labels == part + 1).nonzero()[:, 0] for part in range(len(PART_NAMES)))
    faces = faces_of_labels(labels.long(), model.faces)
    return PartMasks(own.names, own.colors, labels.to(torch.uint8), vertices, faces)


def draw_parts(model: LinearFaceModel, masks: PartMasks | None = None, size: int = 384) -> Image:
    """Draw the mean face with coloured parts.

    Args:
        model: the face model.
        masks: other part masks than the model's own.
        size: side of each view, pixels.

    Returns:
        [H, W, 3] uint8 RGB: the views of `VIEWS` side by side, below them the legend with the
        numbers of vertices and triangles.
    """
    masks = part_masks(model) if masks is None else masks
    views = [_titled(_draw_view(model, masks, yaw, size), title) for title, yaw in VIEWS.items()]
    drawn = np.hstack(views)
    return np.vstack([drawn, _legend(masks, len(model.faces), drawn.shape[1])])


def _draw_view(model: LinearFaceModel, masks: PartMasks, yaw: float, size: int) -> Image:
    """The mean face turned by `yaw` degrees, each part in its colour, shaded by its slope."""
    with torch.no_grad():
        shape = model.mean_vertices()[None]
        rotation = euler_to_matrix(torch.tensor([[0.0, math.radians(yaw), 0.0]]))
        vertices = (shape - shape.mean(1, keepdim=True)) @ rotation
        slope = (model.normals(shape) @ rotation)[..., 2:].clamp(min=0)
        camera, side = Camera(), size * _OVERSAMPLING
        clip = to_clip(vertices, camera, (side, side), _fit(project(vertices, camera), side))
        fragments = rasterize(clip, model.faces, (side, side), rasterizer="cpu")
        colors = color_table().float()
        colors[0] = torch.tensor(_NO_PART)
        shaded = colors[masks.labels.long()] * (0.35 + 0.65 * slope)
        picture = interpolate(shaded, fragments, model.faces)[0]
        picture[fragments.face_id[0] < 0] = _BACKGROUND
    pixels = picture.round().clamp(0, 255).to(torch.uint8).numpy()
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _fit(points: Tensor, side: int) -> Tensor:
    """Affine map [1, 2, 3] that centres projected points [1, V, 2] in a square of `side`."""
    low, high = points[0].amin(0), points[0].amax(0)
    scale = side * (1 - 2 * _MARGIN) / (high - low).max()
    shift = (side - 1) / 2 - scale * (low + high) / 2
    return torch.cat([scale * torch.eye(2), shift[:, None]], 1)[None]


def _titled(view: Image, title: str) -> Image:
    drawn = np.vstack([np.full((28, view.shape[1], 3), _BACKGROUND, np.uint8), view])
    _write(drawn, title, 8, 20)
    return drawn


def _legend(masks: PartMasks, face_count: int, width: int) -> Image:
    """Colour, name and counts of each part in two columns, and what belongs to none."""
    in_parts = sum(len(faces) for faces in masks.faces)
    entries = [
        (color, name.replace("_", " "), len(vertices), len(faces))
        for color, name, vertices, faces in zip(
            masks.colors, masks.names, masks.vertices, masks.faces, strict=True
        )
    ]
    unlabelled = int((masks.labels == 0).sum())
    entries.append((_NO_PART, "none or across a border", unlabelled, face_count - in_parts))
    rows = -(-len(entries) // 2)
    legend = np.full(((rows + 1) * _LINE, width, 3), _BACKGROUND, np.uint8)
    for index, (color, name, vertex_count, triangle_count) in enumerate(entries):
        left, top = 12 + index // rows * (width // 2), index % rows * _LINE + _LINE // 2
        legend[top : top + 16, left : left + 16] = color
        text = f"{index + 1 if index < len(PART_NAMES) else 0}  {name}: "
        text += f"{vertex_count:,} vertices, {triangle_count:,} triangles"
        _write(legend, text, left + 26, top + 13)
    return legend


def _write(picture: Image, text: str, left: int, baseline: int) -> None:
    cv2.putText(
        picture, text, (left, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA
    )
