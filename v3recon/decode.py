"""Coefficients to geometry to image: the one path for reconstruction, fitting and training."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.affine2d import resize_affine_2d
from v3recon.geometry.camera import Camera, project, to_clip
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.geometry.spherical_harmonics import shade_sh
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_image
from v3recon.render.visibility import visible_vertices
from v3recon.types import Decoded, FaceCoeffs

_FRONT_SIDE = 896
"""Side of the picture in which `seen_from_front` looks, pixels: lids' rims are 0.5 mm wide."""


def decode(
    coeffs: FaceCoeffs,
    model: LinearFaceModel,
    camera: Camera | None = None,
    rotation: Tensor | None = None,
) -> Decoded:
    """Shape, pose and projection of a batch of faces (3DDFA_V3, section 3.1).

    Args:
        coeffs: coefficients of B faces.
        model: the face model they belong to.
        camera: camera of the crop; default the 224-pixel crop of the official networks.
        rotation: [B, 3, 3] used instead of `coeffs.angle`; training passes the network's own
            matrix because angles have no useful gradient near 90 degrees of yaw.

    Returns:
        Dense geometry, see `Decoded`.
    """
    model_vertices = model.vertices(coeffs.id, coeffs.exp)
    if rotation is None:
        rotation = euler_to_matrix(coeffs.angle)
    vertices = model_vertices @ rotation + coeffs.trans[:, None]
    return Decoded(model_vertices, rotation, vertices, project(vertices, camera or Camera()))


def posed_normals(decoded: Decoded, model: LinearFaceModel) -> Tensor:
    """Unit vertex normals [B, V, 3] in the world frame (taken unposed, then rotated)."""
    vertices = decoded.model_vertices
    wanted = torch.is_grad_enabled() and vertices.requires_grad
    if vertices.device.type == "cpu" and vertices.dtype == torch.float32 and not wanted:
        from v3recon.render._normals import vertex_normals_cpu  # compiled only where it is used

        return vertex_normals_cpu(vertices, model.faces, model.vertex_faces) @ decoded.rotation
    return model.normals(vertices) @ decoded.rotation


@lru_cache(maxsize=4)
def seen_from_front(model: LinearFaceModel) -> Tensor:
    """Vertices [V] bool that the mean face shows to a camera before it: none behind lids and lips.

    Args:
        model: the face model; one answer is kept for each.
    """
    with torch.no_grad():
        mean = decode(FaceCoeffs.zeros(1, model.sizes, model.mean_shape.device), model)
        normals = posed_normals(mean, model)
        to_view = resize_affine_2d(_FRONT_SIDE / Camera().image_size)
        size = (_FRONT_SIDE, _FRONT_SIDE)
        clip = to_clip(mean.vertices, Camera(), size, to_view[None].to(normals))
        return visible_vertices(rasterize(clip, model.faces, size), model.faces, normals)[0]


def lit_colors(coeffs: FaceCoeffs, decoded: Decoded, model: LinearFaceModel) -> Tensor:
    """Model albedo under the estimated light, [B, V, 3] RGB, 0…1 where not over-exposed."""
    return shade_sh(model.albedo(coeffs.alb), posed_normals(decoded, model), coeffs.sh)


def render(
    coeffs: FaceCoeffs,
    model: LinearFaceModel,
    camera: Camera | None = None,
    *,
    decoded: Decoded | None = None,
    image_size: tuple[int, int] | None = None,
    from_crop: Tensor | None = None,
    rasterizer: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Draw faces in their model's colors under the estimated light (3DDFA_V3, section 3.1).

    Colors are differentiable in all coefficients. Which triangle owns a pixel is not, so that
    outlines carry no gradient: landmarks and `part_distribution_loss` move them.

    Args:
        coeffs: coefficients of B faces.
        model: the face model they belong to.
        camera: camera of the crop; default as in `decode`.
        decoded: `decode(coeffs, model, camera)`, where it is known already.
        image_size: (H, W); default the crop's.
        from_crop: [B, 2, 3] affine map from crop pixels to the image's pixels; default identity.
        rasterizer: see `render.rasterize.rasterize`.

    Returns:
        image [B, 3, H, W] RGB, 0…1 where not over-lit, 0 outside of the face, and mask
        [B, 1, H, W], 0 or 1.
    """
    camera = camera or Camera()
    if decoded is None:
        decoded = decode(coeffs, model, camera)
    size = image_size or (camera.image_size, camera.image_size)
    clip = to_clip(decoded.vertices, camera, size, from_crop)
    fragments = rasterize(clip, model.faces, size, rasterizer)
    return render_image(lit_colors(coeffs, decoded, model), fragments, model.faces)
