"""Coefficients to geometry: the one path for reconstruction, fitting and training."""

from __future__ import annotations

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.geometry.spherical_harmonics import shade_sh
from v3recon.types import Decoded, FaceCoeffs


def decode(
    coeffs: FaceCoeffs,
    model: LinearFaceModel,
    camera: Camera,
    rotation: Tensor | None = None,
) -> Decoded:
    """Shape, pose and projection of a batch of faces (3DDFA_V3, section 3.1).

    Args:
        coeffs: coefficients of B faces.
        model: the face model they belong to.
        camera: camera of the crop.
        rotation: [B, 3, 3] used instead of `coeffs.angle`; training passes the network's own
            matrix because angles have no useful gradient near 90 degrees of yaw.

    Returns:
        Dense geometry, see `Decoded`.
    """
    shape = model.vertices(coeffs.id, coeffs.exp)
    if rotation is None:
        rotation = euler_to_matrix(coeffs.angle)
    vertices = shape @ rotation + coeffs.trans[:, None]
    return Decoded(shape, rotation, vertices, project(vertices, camera))


def posed_normals(decoded: Decoded, model: LinearFaceModel) -> Tensor:
    """Unit vertex normals [B, V, 3] in the world frame (taken unposed, then rotated)."""
    shape = decoded.shape
    wanted = torch.is_grad_enabled() and shape.requires_grad
    if shape.device.type == "cpu" and shape.dtype == torch.float32 and not wanted:
        from v3recon.render._normals import vertex_normals_cpu  # compiled only where it is used

        return vertex_normals_cpu(shape, model.faces, model.vertex_faces) @ decoded.rotation
    return model.normals(shape) @ decoded.rotation


def lit_colors(coeffs: FaceCoeffs, decoded: Decoded, model: LinearFaceModel) -> Tensor:
    """Model albedo under the estimated light, [B, V, 3] RGB, 0…1 where not over-exposed."""
    return shade_sh(model.albedo(coeffs.alb), posed_normals(decoded, model), coeffs.sh)
