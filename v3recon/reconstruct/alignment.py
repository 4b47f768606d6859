"""All vertices of a face in its photo (dense alignment), and the pose they give together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from v3recon.geometry.rotation import matrix_to_euler
from v3recon.geometry.similarity import solve_similarity
from v3recon.reconstruct.faces import Face, Faces
from v3recon.reconstruct.photo_maps import PhotoRaster
from v3recon.reconstruct.texture import Appearance
from v3recon.render.visibility import visible_vertices


@dataclass(frozen=True)
class DensePose:
    """Similarity from a head to all vertices in the photo (PRNet, section 4).

    Row vectors: (x, -y, z) = scale * head @ rotation + translation, photo pixels with y up.

    Attributes:
        scale: [N] photo pixels per decimeter.
        rotation: [N, 3, 3], acts on row vectors.
        translation: [N, 3] photo pixels, y up.
        angle_degrees: [N, 3] pitch, yaw, roll of the rotation.
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor
    angle_degrees: Tensor


def points_photo_3d(faces: Faces) -> Tensor:
    """Vertices in the photo with their depth, all in photo pixels (3DDFA's and PRNet's frame).

    Args:
        faces: N faces.

    Returns:
        [N, V, 3]: x right, y down as `Faces.points_photo`; z toward the camera, 0 at the origin of
        the head, in the photo's pixels at that depth.
    """
    camera = faces.camera
    away = (camera.distance - faces.coeffs.trans[:, 2]).clamp(min=camera.near)
    zoom = torch.linalg.det(faces.crop.inverse_matrix[:, :, :2]).abs().sqrt().to(away)
    per_unit = camera.focal / away * zoom
    z = (faces.vertices[..., 2] - faces.coeffs.trans[:, 2:]) * per_unit[:, None]
    return torch.cat([faces.points_photo, z[..., None]], -1)


def visible_in_photo(face: Face, appearance: Appearance, raster: PhotoRaster) -> Tensor:
    """Which vertices the photo shows.

    At the crop's resolution (`Appearance.visible`), which suits the fine triangles of a small face;
    vertices that belong to no part, of which some lie outside of the crop, in the photo itself.

    Args:
        face: the face.
        appearance: of the face.
        raster: of the face.

    Returns:
        [V] bool.
    """
    visible = appearance.visible[0]
    if raster.fragments is None:
        return visible
    others = visible_vertices(raster.fragments, face.model.faces, appearance.normals)[0]
    return visible | (others & (face.model.part_labels == 0))


def dense_pose(faces: Faces, heads: Tensor | None = None) -> DensePose:
    """Pose of faces from all of their vertices, expressions and all.

    Args:
        faces: N faces.
        heads: [N, V, 3] unposed heads that are posed, decimeters; default the mean face.
    """
    heads = faces.model.mean_vertices() if heads is None else heads
    points = points_photo_3d(faces).double()
    up = points * points.new_tensor([1.0, -1.0, 1.0])
    scale, rotation, translation = solve_similarity(heads.double().expand_as(up), up)
    degrees = torch.rad2deg(matrix_to_euler(rotation))
    return DensePose(scale.float(), rotation.float(), translation.float(), degrees.float())
