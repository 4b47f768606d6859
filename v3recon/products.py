"""What can be made of a reconstruction: segmentation, texture, meshes; each a separate call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from v3recon.decode import posed_normals
from v3recon.geometry.camera import to_clip
from v3recon.geometry.spherical_harmonics import shade_sh
from v3recon.io import obj
from v3recon.pipeline import Reconstruction
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import visible_vertices
from v3recon.segmentation import segment_both
from v3recon.threads import threads_limited
from v3recon.uv.bake import uv_layout
from v3recon.uv.texture_extraction import ExtractedTexture
from v3recon.uv.texture_extraction import extract_texture as extract_uv_texture

MAX_DRAWN_SIDE = 1024
"""Larger faces are segmented in a picture of this size, which is enlarged to the photo's."""


@dataclass(frozen=True)
class Segmentation:
    """Parts of one face in its photo.

    Attributes:
        labels: [H, W] uint8, the part that is seen: 0 none, 1…8 = PART_NAMES.
        part_bits: [H, W] uint8, bit p is set where part p projects, seen or not.
    """

    labels: np.ndarray
    part_bits: np.ndarray


@dataclass(frozen=True)
class Appearance:
    """What several products of one face share.

    Attributes:
        normals: [1, V, 3] unit normals, world frame.
        visible: [1, V] bool, vertices that the camera sees at the resolution of the crop.
        colors: [1, V, 3] RGB, the model's albedo under the estimated light; 0…1 where not over-lit.
    """

    normals: Tensor
    visible: Tensor
    colors: Tensor


def make_appearance(face: Reconstruction, rasterizer: str = "auto") -> Appearance:
    """Normals, visibility and colours of a face's vertices.

    Args:
        face: the face.
        rasterizer: see `render.rasterize.rasterize`.
    """
    model, size = face.model, (face.camera.image_size, face.camera.image_size)
    with torch.no_grad(), threads_limited(1):  # small steps, as in `segmentation.segment_both`
        normals = posed_normals(face.decoded, model)
        clip = to_clip(face.decoded.vertices, face.camera, size)
        fragments = rasterize(clip, model.faces, size, rasterizer)
        visible = visible_vertices(fragments, model.faces, normals)
        colors = shade_sh(model.albedo(face.coeffs.alb), normals, face.coeffs.sh)
    return Appearance(normals, visible, colors)


def segment(face: Reconstruction, rasterizer: str = "auto") -> Segmentation:
    """Draw the parts of a face into its photo.

    Args:
        face: the face.
        rasterizer: see `render.rasterize.rasterize`.
    """
    height, width = face.image_size
    points = face.points_2d.cpu().numpy().T.copy()  # numpy reduces rows 30 times faster
    low = np.maximum(np.floor(points.min(1)), 0)
    high = np.minimum(np.ceil(points.max(1)) + 1, [width, height])
    labels = np.zeros((height, width), np.uint8)
    bits = np.zeros((height, width), np.uint8)
    left, top, right, bottom = (int(edge) for edge in (*low, *high))
    if right <= left or bottom <= top:
        return Segmentation(labels, bits)  # the face lies outside of the photo
    window = (bottom - top, right - left)
    shrink = min(1.0, MAX_DRAWN_SIDE / max(window))
    size = (max(1, round(window[0] * shrink)), max(1, round(window[1] * shrink)))
    # Pixel p of the drawing is photo pixel (p + 0.5) / ratio - 0.5 + (left, top).
    ratio = torch.tensor([size[1] / window[1], size[0] / window[0]], dtype=torch.float64)
    to_drawing = torch.cat(
        [ratio.diag(), (0.5 * ratio - 0.5 - ratio * ratio.new_tensor([left, top]))[:, None]], 1
    )
    from_crop = _compose(to_drawing, face.crop.inverse_matrix).to(face.points_2d)[None]
    arguments = (face.decoded, face.model, face.camera, size, from_crop, rasterizer)
    drawings = segment_both(*arguments, cut_out=True)
    for whole, map_ in zip((labels, bits), drawings, strict=True):
        drawn = map_[0].cpu().numpy()
        if shrink < 1:
            drawn = cv2.resize(drawn, window[::-1], interpolation=cv2.INTER_NEAREST)
        whole[top:bottom, left:right] = drawn
    return Segmentation(labels, bits)


def extract_texture(
    face: Reconstruction,
    image_np: np.ndarray,
    size: int = 1024,
    *,
    rasterizer: str = "auto",
    appearance: Appearance | None = None,
    workers: int | None = None,
) -> ExtractedTexture:
    """Unwrap a face of its photo, completed where it is hidden.

    Args:
        face: the face.
        image_np: [H, W, 3] uint8 RGB, the photo that the face was found in.
        size: side of the texture, texels.
        rasterizer: see `render.rasterize.rasterize`.
        appearance: of the face, where it is known already.
        workers: threads; default as many as torch's.

    Raises:
        ValueError: if the photo has another size.
    """
    if image_np.shape[:2] != face.image_size:
        raise ValueError(f"the face is of a photo {face.image_size}, not {image_np.shape[:2]}")
    appearance = appearance or make_appearance(face, rasterizer)
    with torch.no_grad():
        return extract_uv_texture(
            image_np,
            face.points_2d[None],
            visible=appearance.visible,
            normals=appearance.normals,
            model_colors=appearance.colors,
            layout=uv_layout(face.model, size),
            workers=workers,
        )


def write_obj(
    path: str | Path,
    face: Reconstruction,
    *,
    colors: Tensor | np.ndarray | None = None,
    texture: np.ndarray | None = None,
) -> None:
    """Write a face's posed mesh, in the world frame (decimetres, y up, z toward the camera).

    Args:
        path: the .obj file.
        face: the face.
        colors: [V, 3] RGB 0…1, for a mesh with vertex colours.
        texture: [S, S, 3] uint8 RGB, for a mesh with texture coordinates.
    """
    obj.write_obj(
        path,
        face.decoded.vertices[0].cpu().numpy(),
        face.model.faces.cpu().numpy(),
        colors=None if colors is None else np.asarray(torch.as_tensor(colors).cpu()),
        uv_coords=None if texture is None else face.model.uv_coords.cpu().numpy(),
        texture=texture,
    )


def _compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Affine maps [2, 3]: first `inner`, then `outer`."""
    linear = outer[:, :2] @ inner[:, :2]
    return torch.cat([linear, (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]], 1)
