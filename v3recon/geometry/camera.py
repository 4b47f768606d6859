"""The perspective camera of the crop. Frames change here, in functions named for it.

Frames (see docs/conventions.md):
  world   x to the viewer's right, y up, z toward the camera; decimetres; origin at the face.
  camera  x, y as world; z = distance from the camera along the optical axis, positive in front.
  image   pixels, x right, y down, the centre of the top-left pixel is (0, 0).
  clip    homogeneous, y down, w = camera z; what the rasterisers take.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """Pinhole camera of the aligned crop (values of 3DDFA_V3).

    Attributes:
        focal: focal length, pixels.
        center: principal point in x, and in y counted upward from the bottom row, pixels.
        distance: from the camera to the world origin, decimetres.
        image_size: side of the square crop, pixels.
        near: nearest depth that is drawn, decimetres.
        far: farthest depth that is drawn, decimetres.
    """

    focal: float = 1015.0
    center: float = 112.0
    distance: float = 10.0
    image_size: int = 224
    near: float = 5.0
    far: float = 15.0


def to_camera(vertices: Tensor, camera: Camera) -> Tensor:
    """World to camera frame: z becomes the distance from the camera.

    Args:
        vertices: [..., 3] world, decimetres.
        camera: the camera.

    Returns:
        [..., 3] camera frame, decimetres.
    """
    assert vertices.shape[-1] == 3, vertices.shape
    x, y, z = vertices.unbind(-1)
    return torch.stack([x, y, camera.distance - z], -1)


def project(vertices: Tensor, camera: Camera) -> Tensor:
    """World points to image pixels.

    x = focal X / z + center; y = (image_size - 1) - (focal Y / z + center).

    Args:
        vertices: [..., 3] world, decimetres, in front of the camera.
        camera: the camera.

    Returns:
        [..., 2] pixels, x right, y down.
    """
    x, y, z = to_camera(vertices, camera).unbind(-1)
    column = camera.focal * x / z + camera.center
    row = (camera.image_size - 1 - camera.center) - camera.focal * y / z
    return torch.stack([column, row], -1)


def to_grid(points_2d: Tensor, camera: Camera) -> Tensor:
    """Crop pixels [..., 2] as places for `grid_sample`: -1…1 between the crop's borders."""
    return (2 * points_2d + 1) / camera.image_size - 1


def from_grid(places: Tensor, camera: Camera) -> Tensor:
    """Crop pixels of places [..., 2] for `grid_sample`; inverse of `to_grid`."""
    return ((places + 1) * camera.image_size - 1) / 2


def unproject(points_2d: Tensor, depth: Tensor, camera: Camera) -> Tensor:
    """Image pixels with depth back to the world; inverse of `project`.

    Args:
        points_2d: [..., 2] pixels, x right, y down.
        depth: [...] camera z, decimetres.
        camera: the camera.

    Returns:
        [..., 3] world, decimetres.
    """
    assert points_2d.shape[-1] == 2 and points_2d.shape[:-1] == depth.shape, points_2d.shape
    x = (points_2d[..., 0] - camera.center) * depth / camera.focal
    y = (camera.image_size - 1 - camera.center - points_2d[..., 1]) * depth / camera.focal
    return torch.stack([x, y, camera.distance - depth], -1)


def solve_translation(rotated: Tensor, points_2d: Tensor, camera: Camera) -> Tensor:
    """Least-squares translation that projects rotated points onto image points.

    With u = column - center and v = row upward from it, the camera's equation
    u (distance - Z - tz) = focal (X + tx) is linear in the translation: each point gives
    focal tx + u tz = u (distance - Z) - focal X and the same for y.

    Args:
        rotated: [B, N, 3] rotated points before translation, decimetres; N >= 2.
        points_2d: [B, N, 2] where they lie, pixels, x right, y down.
        camera: the camera.

    Returns:
        [B, 3] translation, world, decimetres.
    """
    assert rotated.shape[:-1] == points_2d.shape[:-1], (rotated.shape, points_2d.shape)
    u = points_2d[..., 0] - camera.center
    v = camera.image_size - 1 - camera.center - points_2d[..., 1]
    x, y, z = rotated.unbind(-1)
    right_x = u * (camera.distance - z) - camera.focal * x
    right_y = v * (camera.distance - z) - camera.focal * y
    # Eliminate tx and ty, which are means given tz.
    u_0, v_0 = u - u.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    top = (u_0 * right_x + v_0 * right_y).sum(1)
    shift_z = top / (u_0**2 + v_0**2).sum(1)
    shift_x = (right_x.mean(1) - u.mean(1) * shift_z) / camera.focal
    shift_y = (right_y.mean(1) - v.mean(1) * shift_z) / camera.focal
    return torch.stack([shift_x, shift_y, shift_z], -1)


def to_clip(
    vertices: Tensor,
    camera: Camera,
    image_size: tuple[int, int] | None = None,
    from_crop: Tensor | None = None,
) -> Tensor:
    """World points to clip space, so that a rasterised pixel agrees with `project`.

    Pixel (column, row) of an H x W raster has its centre at clip (2 column + 1) / W - 1,
    (2 row + 1) / H - 1 after division by w: y points down, row 0 is the top.

    Args:
        vertices: [B, V, 3] world, decimetres.
        camera: the camera.
        image_size: (H, W) of the raster; default the crop's own size.
        from_crop: [B, 2, 3] affine map from crop pixels to the raster's pixels (for drawing
            into the original photo or at another resolution); default identity.

    Returns:
        [B, V, 4] clip coordinates; w = camera z, z/w in -1 (near) … 1 (far).
    """
    assert vertices.ndim == 3 and vertices.shape[-1] == 3, vertices.shape
    height, width = image_size or (camera.image_size, camera.image_size)
    x, y, depth = to_camera(vertices, camera).unbind(-1)
    # Pixels times depth: nothing is divided, so points beside or behind the camera are fine too.
    column = camera.focal * x + camera.center * depth
    row = (camera.image_size - 1 - camera.center) * depth - camera.focal * y
    if from_crop is not None:
        assert from_crop.shape[-2:] == (2, 3), from_crop.shape
        affine = from_crop.reshape(-1, 2, 3, 1)
        column, row = (
            affine[:, k, 0] * column + affine[:, k, 1] * row + affine[:, k, 2] * depth
            for k in range(2)
        )
    x = (2 * column + depth) / width - depth
    y = (2 * row + depth) / height - depth
    scale = (camera.far + camera.near) / (camera.far - camera.near)
    z = scale * depth - 2 * camera.far * camera.near / (camera.far - camera.near)
    return torch.stack([x, y, z, depth], -1)
