"""How faces look: normals, visibility, colors, and textures taken from the photo."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from v3recon._fast.threads import threads_limited
from v3recon.decode import posed_normals
from v3recon.face_models.parts import SKIN_LABEL
from v3recon.face_models.surfaces import outer_skin
from v3recon.geometry.camera import to_clip
from v3recon.geometry.spherical_harmonics import irradiance, shade_sh
from v3recon.reconstruct.faces import Face, Faces
from v3recon.reconstruct.precision import full_precision
from v3recon.reconstruct.seen import cover_at, other_than_face_at
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import visible_vertices
from v3recon.uv.bake import sample_map, uv_layout
from v3recon.uv.texture_extraction import ExtractedTexture
from v3recon.uv.texture_extraction import extract_texture as extract_uv_texture

_COVERED = 0.5
"""Probability of something before a vertex from which the photo does not show it."""
_SEEN_LIGHT = (-0.1, 0.5)
"""Cosines between normal and view from which the estimated light counts, and counts fully: what it
says of slopes that the camera does not see is extrapolated, and often black."""
_LIKE_SKIN = ((-32.0, 28.0), 9.0)
"""Lightness (lowest, highest) and chroma (farthest), CIELAB, of bare neck and scalp about the
median of the face's skin; the rest is clothes and hair."""
_LEAST_SKIN = 50
"""Seen vertices of the face's skin from which on that median is known."""


@dataclass(frozen=True)
class Appearance:
    """What several products of the same faces share.

    Attributes:
        normals: [N, V, 3] unit normals, world frame.
        visible: [N, V] bool, vertices that the camera sees at the resolution of the crop; those
            of the face's parts only where no hair, glasses or hand is before them.
        colors: [N, V, 3] RGB, the model's albedo under the estimated light; 0…1 where not over-lit.
    """

    normals: Tensor
    visible: Tensor
    colors: Tensor


def make_appearance(faces: Faces, rasterizer: str | None = None) -> Appearance:
    """Normals, visibility and colors of the vertices of faces.

    Args:
        faces: N faces.
        rasterizer: see `render.rasterize.rasterize`; default the faces' own.
    """
    model, size = faces.model, (faces.camera.image_size, faces.camera.image_size)
    with full_precision(), threads_limited(1):  # small steps, as in `segment.segment_both`
        normals = posed_normals(faces.decoded, model)
        clip = to_clip(faces.decoded.vertices, faces.camera, size)
        fragments = rasterize(clip, model.faces, size, rasterizer or faces.rasterizer)
        visible = visible_vertices(fragments, model.faces, normals)
        if faces.seen is not None:
            cover = cover_at(faces.seen, faces.decoded.points_2d, faces.camera)
            visible = visible & ~((cover > _COVERED) & (model.part_labels > 0))
        colors = shade_sh(model.albedo(faces.coeffs.alb), normals, faces.coeffs.sh)
    return Appearance(normals, visible, colors)


def extract_texture(
    faces: Faces | Face,
    image: np.ndarray | None = None,
    size: int = 1024,
    *,
    rasterizer: str | None = None,
    appearance: Appearance | None = None,
    workers: int | None = None,
) -> ExtractedTexture:
    """Unwrap faces of their photo, completed where they are hidden.

    Args:
        faces: faces of one photo, or one of them.
        image: [H, W, 3] uint8 RGB, the photo; default the one that the faces hold.
        size: side of the texture, texels, 16…8192.
        rasterizer: see `render.rasterize.rasterize`; default the faces' own.
        appearance: of the faces, where it is known already.
        workers: threads; default as many as torch's.

    Returns:
        Textures [N, S, S, 3] of `Faces`, [S, S, 3] of a `Face`.

    Raises:
        ValueError: if there is no photo, or it has another size.
    """
    if isinstance(faces, Face):
        options: dict = {"rasterizer": rasterizer, "appearance": appearance, "workers": workers}
        return extract_texture(faces.batch, image, size, **options)[0]
    if not 16 <= size <= 8192:
        raise ValueError(f"size: a texture's side is 16…8192 texels, not {size}")
    image = faces.photo(image)
    if len(faces) == 0:
        none = np.zeros((0, size, size), bool)
        return ExtractedTexture(np.zeros((0, size, size, 3), np.uint8), none, none)
    appearance = appearance or make_appearance(faces, rasterizer)
    with full_precision():
        return extract_uv_texture(
            image,
            faces.points_photo,
            visible=appearance.visible & ~_foreign(faces, image, appearance),
            normals=appearance.normals,
            model_colors=_evenly_lit(faces, appearance),
            layout=uv_layout(faces.model, size),
            workers=workers,
        )


def _evenly_lit(faces: Faces, appearance: Appearance) -> Tensor:
    """Colors [N, V, 3] of the model under the mean light of what is seen, where it is not seen."""
    albedo = faces.model.albedo(faces.coeffs.alb)
    light = irradiance(appearance.normals, faces.coeffs.sh)
    front = appearance.visible.to(light)[..., None]
    mean = (light * front).sum(1, keepdim=True) / front.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(front.sum(1, keepdim=True) > 0, mean, light.mean(1, keepdim=True))
    low, high = _SEEN_LIGHT
    share = ((appearance.normals[..., 2:] - low) / (high - low)).clamp(0, 1)
    share = share * share * (3 - 2 * share)
    return albedo * (share * light + (1 - share) * mean)


def _foreign(faces: Faces, image: np.ndarray, appearance: Appearance) -> Tensor:
    """Vertices [N, V] where the photo shows something else than the person's skin.

    The network tells hair, hands and background on the face and hair on the scalp; clothes before
    the neck are told by their color.
    """
    model, seen = faces.model, faces.seen
    beside = outer_skin(model) & (model.part_labels == 0)
    skin = model.part_labels == SKIN_LABEL
    foreign = beside & ~_like_skin(faces, image, skin & appearance.visible)
    if seen is not None:
        points, camera = faces.decoded.points_2d, faces.camera
        foreign |= beside & (cover_at(seen, points, camera) > _COVERED)
        foreign |= skin & (other_than_face_at(seen, points, camera) > _COVERED)
    return foreign


def _like_skin(faces: Faces, image: np.ndarray, skin: Tensor) -> Tensor:
    """Vertices [N, V] whose place in the photo has about the color of the seen skin [N, V]."""
    like = torch.ones_like(skin)
    for number, points in enumerate(faces.points_photo.cpu().numpy()):
        colors = sample_map(image, points.astype(np.float32)[:, None])
        lab = torch.from_numpy(
            cv2.cvtColor(colors.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0]
        )
        known = lab[skin[number].cpu()]
        if len(known) < _LEAST_SKIN:
            continue
        off = lab - known.median(0).values
        (lowest, highest), farthest = _LIKE_SKIN
        near = (off[:, 0] > lowest) & (off[:, 0] < highest) & (off[:, 1:].norm(dim=1) < farthest)
        like[number] = near.to(like.device)
    return like
