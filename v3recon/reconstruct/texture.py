"""How a face looks: normals, visibility, colours, and the texture taken from its photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from v3recon._fast.threads import threads_limited
from v3recon.decode import posed_normals
from v3recon.geometry.camera import to_clip
from v3recon.geometry.spherical_harmonics import shade_sh
from v3recon.reconstruct.faces import Reconstruction
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import visible_vertices
from v3recon.uv.bake import uv_layout
from v3recon.uv.texture_extraction import ExtractedTexture
from v3recon.uv.texture_extraction import extract_texture as extract_uv_texture


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
    with torch.no_grad(), threads_limited(1):  # small steps, as in `segment.segment_both`
        normals = posed_normals(face.decoded, model)
        clip = to_clip(face.decoded.vertices, face.camera, size)
        fragments = rasterize(clip, model.faces, size, rasterizer)
        visible = visible_vertices(fragments, model.faces, normals)
        colors = shade_sh(model.albedo(face.coeffs.alb), normals, face.coeffs.sh)
    return Appearance(normals, visible, colors)


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
