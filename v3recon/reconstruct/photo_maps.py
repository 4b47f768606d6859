"""A face drawn into its photo as values: depth, PNCC, and PAF patches around its anchors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.affine2d import compose_affine_2d, resize_affine_2d
from v3recon.geometry.camera import to_clip
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.precision import full_precision
from v3recon.render.interpolate import interpolate
from v3recon.render.rasterize import rasterize
from v3recon.types import Fragments
from v3recon.uv.bake import bake, sample_map, uv_layout

DEPTH_STEP = 0.001
"""Decimeters in one step of a 16-bit depth picture: a tenth of a millimeter."""

ANCHORS = 64
"""Side of the grid of PAF anchors on the face (3DDFA)."""

_PAF_CROP = 120  # side of 3DDFA's crop: a patch's pixels are as far apart as those of that crop
_FARTHEST_GRAY = 60  # of the preview


@dataclass(frozen=True)
class PhotoRaster:
    """A face's triangles in the part of the photo that they can reach.

    Attributes:
        window: rows and columns of the photo.
        fragments: of that window, B = 1; None where the face lies outside of the photo.
    """

    window: tuple[slice, slice]
    fragments: Fragments | None


def draw_in_photo(face: Face, rasterizer: str | None = None) -> PhotoRaster:
    """Rasterize a face in the pixels of its photo.

    Args:
        face: the face.
        rasterizer: see `render.rasterize.rasterize`; default the face's own.
    """
    height, width = face.image_size
    points = face.points_photo
    limit = points.new_tensor([width, height])
    left, top = points.amin(0).floor().clamp(min=0).minimum(limit).int().tolist()
    right, bottom = (points.amax(0).ceil() + 1).clamp(min=0).minimum(limit).int().tolist()
    window = slice(top, bottom), slice(left, right)
    if right <= left or bottom <= top:
        return PhotoRaster(window, None)
    size = (bottom - top, right - left)
    shift = resize_affine_2d(1, (left, top))
    from_crop = compose_affine_2d(shift, face.crop.inverse_matrix).to(face.vertices)
    with full_precision():
        clip = to_clip(face.batch.vertices, face.camera, size, from_crop[None])
        name = rasterizer or face.batch.rasterizer
        return PhotoRaster(window, rasterize(clip, face.model.faces, size, name))


def depth_map(face: Face, raster: PhotoRaster | None = None) -> npt.NDArray[np.float32]:
    """Distance of the face's surface from the camera along the optical axis.

    Args:
        face: the face.
        raster: of the face, where it is known already.

    Returns:
        [H, W] decimeters, 0 where the face is not.
    """
    raster = raster or draw_in_photo(face)
    depth = np.zeros(face.image_size, np.float32)
    if raster.fragments is not None:
        depth[raster.window] = raster.fragments.depth[0].float().cpu().numpy()
    return depth


def depth_steps(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """A depth map [H, W] in tenths of a millimeter, 0 where nothing is."""
    steps = np.rint(depth / DEPTH_STEP).clip(1, np.iinfo(np.uint16).max)
    return np.where(depth > 0, steps, 0).astype(np.uint16)


def depth_preview(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A depth map [H, W] for the eye: the nearest place is white, the farthest dark gray."""
    there = depth > 0
    if not there.any():
        return np.zeros(depth.shape, np.uint8)
    near, far = depth[there].min(), depth[there].max()
    share = (far - depth) / max(float(far - near), 1e-6)
    gray = np.rint(_FARTHEST_GRAY + (255 - _FARTHEST_GRAY) * share)
    return np.where(there, gray, 0).astype(np.uint8)


def normalized_coordinates(model: LinearFaceModel) -> Tensor:
    """Color of each vertex [V, 3] 0…1: its place in the mean face's box (3DDFA's NCC).

    Red is x (to the viewer's right), green y (up), blue z (toward the camera).
    """
    mean = model.mean_vertices()
    low, high = mean.amin(0), mean.amax(0)
    return (mean - low) / (high - low)


def pncc_image(face: Face, raster: PhotoRaster | None = None) -> npt.NDArray[np.uint8]:
    """Projected normalized coordinate code: the mean face's coordinates drawn as colors (3DDFA).

    Args:
        face: the face.
        raster: of the face, where it is known already.

    Returns:
        [H, W, 3] RGB of the photo's size, see `normalized_coordinates`; black where the face is
        not.
    """
    raster = raster or draw_in_photo(face)
    image = np.zeros((*face.image_size, 3), np.uint8)
    if raster.fragments is not None:
        codes = normalized_coordinates(face.model).to(face.vertices)[None]
        drawn = interpolate(codes, raster.fragments, face.model.faces)[0]
        image[raster.window] = (255 * drawn).round().clamp(0, 255).byte().cpu().numpy()
    return image


def paf_anchors(face: Face) -> npt.NDArray[np.float32]:
    """Where 64 x 64 fixed places of the face's surface lie in the photo (3DDFA's PAF anchors).

    Anchors are the centers of a 64 x 64 grid over the model's texture, row 0 at v = 1. A center
    that no triangle covers takes the nearest place that one covers.

    Args:
        face: the face.

    Returns:
        [64, 64, 2] photo pixels.
    """
    return bake(face.batch.points_photo, uv_layout(face.model, ANCHORS))[0]


def paf_image(
    face: Face, image: npt.NDArray[np.uint8] | None = None, patch: int = 3
) -> npt.NDArray[np.uint8]:
    """Pose adaptive features: the photo's patches around the anchors, side by side (3DDFA).

    A patch's pixels are 1/120 of the crop's side apart, as those of 3DDFA's crop. The photo is read
    bilinearly; its border goes on outside.

    Args:
        face: the face.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it.
        patch: side of a patch, odd.

    Returns:
        [64 patch, 64 patch, 3] uint8 RGB.

    Raises:
        ValueError: if `patch` is even or out of 1…15, or there is no photo.
    """
    if patch not in range(1, 16, 2):
        raise ValueError(f"patch: an odd number in 1…15, not {patch}")
    photo = face.batch.photo(image)
    step = face.camera.image_size / face.crop.scale / _PAF_CROP
    offsets = (np.arange(patch, dtype=np.float32) - patch // 2) * step
    places = np.empty((ANCHORS, patch, ANCHORS, patch, 2), np.float32)
    places[:] = paf_anchors(face)[:, None, :, None]
    places[..., 0] += offsets
    places[..., 1] += offsets[:, None, None]
    flat = places.reshape(ANCHORS * patch, ANCHORS * patch, 2)
    return sample_map(photo, flat)


def sampled_colors(face: Face, image: npt.NDArray[np.uint8] | None = None) -> Tensor:
    """Colors of the photo at the projected vertices, bilinear, hidden ones as well (3DDFA's OBJ).

    Args:
        face: the face.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it.

    Returns:
        [V, 3] RGB 0…1.
    """
    photo, points = face.batch.photo(image), face.points_photo.double().cpu().numpy()
    places = points.T[::-1]  # rows, columns
    sampled = [
        map_coordinates(channel, places, np.float32, order=1, mode="nearest")
        for channel in np.moveaxis(photo, 2, 0)
    ]
    return torch.from_numpy(np.stack(sampled, 1) / 255)
