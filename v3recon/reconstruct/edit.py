"""Faces changed in their photo: parts from another face, colors from a picture, faces swapped.

A texture is drawn on the mesh of a face, where the photo shows it, and joined in the gradient
domain: the drawing keeps its detail and takes the photo's tone at the border (Perez, Gangnet and
Blake, 2003; PRNet's applications, section 5). Tone is a factor, not a sum: the equation is solved
for the logarithm of gray and for shares of color, so that a dark face keeps its contrast in a
bright photo.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import KDTree
from torch import Tensor

from v3recon.decode import posed_normals
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.networks.encoder import SEEN_NAMES
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.photo_maps import draw_in_photo
from v3recon.reconstruct.precision import full_precision
from v3recon.reconstruct.seen import FIRST_COVER
from v3recon.render.interpolate import interpolate
from v3recon.uv.bake import bake, sample_map, uv_layout
from v3recon.uv.blending import feather, poisson_blend, solve_membrane

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

EDITABLE = {
    "eyes": ("right_eye", "left_eye"),
    "brows": ("right_eyebrow", "left_eyebrow"),
    "nose": ("nose",),
    "lips": ("up_lip", "down_lip"),
}
"""Names of parts for people, and those of `PART_NAMES` that they stand for."""

PART_GROWTH = 0.07
"""Decimeters around a part that change with it, so that the border lies in plain skin."""

_FOREHEAD = 0.3  # of the distance from brows to the nose's tip, above the brows: what is swapped
_INNER = 0.94  # share of that outline, so that its border lies in plain skin
_FACING = 0.15  # cosine between normal and view below which nothing is painted
_TONE = 0.03  # of the face's width: how far the tone at the border is averaged
_SOFT = 0.07  # of the face's width: over which the drawing fades into the photo
_SOFT_TEXELS = 0.015  # the same in the texture, of its side
_GRAY = (0.299, 0.587, 0.114)
_BLACK, _DARK = 12.0, 30.0  # gray levels added before logarithm and division
_LARGEST_STEP = 1.4  # of the logarithm: gray is never changed by more than a factor of 4
_GRAY_STEP, _COLOR_STEP = 0.35, 0.04  # of logarithm and shares, along the border
_BRIGHTEST, _KNEE = 99.0, 0.25  # percentile of the photo's face, and what is left of more light
_SKIN = PART_NAMES.index("skin") + 1
_COLOR_BLUR = 0.02  # of the texture's side: what is color and not detail


def part_region(
    model: LinearFaceModel, parts: Sequence[str], growth: float = PART_GROWTH
) -> Tensor:
    """Vertices [V] bool of parts and of the skin around them.

    Args:
        model: the face model.
        parts: names of `EDITABLE`, or of `PART_NAMES`.
        growth: decimeters around the parts, on the mean face.

    Raises:
        ValueError: for a part that is not known, or that the model does not have.
    """
    wanted = torch.zeros_like(model.part_labels, dtype=torch.bool)
    for part in parts:
        for name in EDITABLE.get(part, (part,)):
            if name not in PART_NAMES:
                raise ValueError(f"parts: {part!r} is not known; known: {', '.join(EDITABLE)}")
            own = model.part_labels == PART_NAMES.index(name) + 1
            if not own.any():
                raise ValueError(f"parts: the face model {model.name} has no {name}")
            wanted |= own
    mean = model.mean_vertices().cpu().numpy()
    near = KDTree(mean[wanted.cpu().numpy()]).query(mean, distance_upper_bound=growth)[0]
    return torch.from_numpy(np.isfinite(near)).to(wanted.device) & (model.part_labels > 0)


def face_region(model: LinearFaceModel) -> Tensor:
    """Vertices [V] bool of the middle of the face, above the brows to the jaw: what is swapped.

    The hull of the 68 landmarks of the mean face seen from the front, with the brows raised.
    """
    mean = model.mean_vertices().cpu()
    outline = mean[model.landmarks_68.cpu(), :2].clone()
    brows = outline[17:27]
    outline[17:27, 1] += _FOREHEAD * (brows[:, 1].mean() - outline[30, 1])
    outline = outline.mean(0) + _INNER * (outline - outline.mean(0))
    hull = cv2.convexHull(outline.numpy().astype(np.float32))
    inside = [
        cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y, _ in mean.tolist()
    ]
    return torch.tensor(inside, device=model.part_labels.device) & (model.part_labels > 0)


def edit_texture(
    own: Image,
    other: Image,
    region: Tensor,
    model: LinearFaceModel,
    *,
    colors_only: bool = False,
    opacity: npt.NDArray[np.floating] | None = None,
) -> Image:
    """A face's texture with the region of another one's.

    Args:
        own: [S, S, 3] uint8 RGB texture.
        other: [S, S, 3] uint8 RGB texture of the same face model.
        region: [V] bool, vertices whose place changes.
        model: the face model.
        colors_only: take the other's colors, as they differ from its skin, and keep the own detail:
            make-up.
        opacity: [S, S] 0…1 of the other; default 1.

    Returns:
        [S, S, 3] uint8 RGB.
    """
    size = len(own)
    assert own.shape == other.shape == (size, size, 3), (own.shape, other.shape)
    layout = uv_layout(model, size)
    mask = bake(region.float()[None, :, None], layout)[0, ..., 0] > 0.5
    first, second = _tones(own), _tones(other)
    if colors_only:
        skin = bake((model.part_labels == _SKIN).float()[None, :, None], layout)[0, ..., 0] > 0.5
        change = second - first - np.median((second - first)[skin & layout.inside], axis=0)
        edited = first + cv2.GaussianBlur(change, (0, 0), _COLOR_BLUR * size)
    elif opacity is None:
        edited = poisson_blend(second, first, mask, cycles=2)
    else:
        edited = second
    weight = _soft(mask, _SOFT_TEXELS * size)
    if opacity is not None:
        weight = weight * opacity
    return _picture(own + weight[..., None] * (_colors(edited) - own))


def paint_into_photo(
    face: Face, texture: Image, region: Tensor, image: Image | None = None, *, tone: bool = True
) -> Image:
    """The photo with a region of a face drawn anew.

    Nothing is painted where hair, glasses or a hand are before the face (networks with a part head
    tell), or where the face turns away.

    Args:
        face: the face.
        texture: [S, S, 3] uint8 RGB of the face's model.
        region: [V] bool.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it; or the photo with
            other faces changed already.
        tone: take the photo's tone at the border of the region.

    Returns:
        [H, W, 3] uint8 RGB, a new picture.
    """
    painted = face.batch.photo(image).copy()
    raster, model = draw_in_photo(face), face.model
    if raster.fragments is None:
        return painted
    with full_precision():
        facing = posed_normals(face.decoded, model)[0, :, 2]
        flags = torch.cat(
            [
                model.uv_coords,
                torch.stack([region, model.part_labels > 0], 1).to(facing),
                facing[:, None],
            ],
            1,
        )
        drawn = interpolate(flags[None], raster.fragments, model.faces)[0].cpu().numpy()
    size = len(texture)
    places = np.stack([drawn[..., 0] * size - 0.5, (1 - drawn[..., 1]) * size - 0.5], -1)
    source = _tones(sample_map(_smaller(texture, face), places.astype(np.float32)))
    there = (drawn[..., 3] > 0.5) & (drawn[..., 4] > 0)
    width = float(np.ptp(face.landmarks_68[:, 0].cpu().numpy())) + 1
    covered = _covered(face, raster.window)
    mask = (drawn[..., 2] > 0.5) & (drawn[..., 4] > _FACING) & ~covered
    mask &= cv2.erode(there.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    if not mask.any():
        return painted
    target = painted[raster.window]
    new = _colors(source)
    if tone:
        source = _calmer(source, _tones(target), mask)
        gap = _averaged(_tones(target) - source, there & ~covered, _TONE * width)
        gap = _without_outliers(gap, mask)
        new = _colors(source + solve_membrane(gap, ~mask, cycles=2))
        brightest = np.percentile(target[mask], _BRIGHTEST, axis=0)
        new = np.where(new > brightest, brightest + _KNEE * (new - brightest), new)
    weight = _soft(mask, _SOFT * width)[..., None]
    painted[raster.window] = _picture(target + weight * (new - target))
    return painted


def _calmer(
    source: npt.NDArray[np.float32], target: npt.NDArray[np.float32], mask: Mask
) -> npt.NDArray[np.float32]:
    """A source whose colors vary the less, the more its brightness is to change.

    The colors of a dark photo's shadows are noise and reflections; brightened they would be spots.
    """
    middle = np.median(source[mask], axis=0)
    change = abs(float(np.median(target[mask], axis=0)[0] - middle[0]))
    kept = np.array([1.0, *([np.exp(-change)] * 2)], np.float32)
    return (middle + kept * (source - middle)).astype(np.float32)


def _without_outliers(gap: npt.NDArray[np.float32], mask: Mask) -> npt.NDArray[np.float32]:
    """Steps [H, W, 3] of tones with limits around the usual one under the mask.

    At the border a photo shows hair, collar or background where the fit is off by some pixels.
    Brightness may change along it, light does that; colors hardly do.
    """
    usual = np.median(gap[mask], axis=0)
    usual[0] = usual[0].clip(-_LARGEST_STEP, _LARGEST_STEP)
    limit = np.array([_GRAY_STEP, _COLOR_STEP, _COLOR_STEP], np.float32)
    return (usual + (gap - usual).clip(-limit, limit)).astype(np.float32)


def _tones(image: npt.NDArray) -> npt.NDArray[np.float32]:
    """A picture 0…255 as [..., 3]: the logarithm of its gray, and the colors' share of it.

    A sum in these numbers is a change of exposure and of white balance.
    """
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    gray = _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue
    shares = [(color - gray) / (gray + _DARK) for color in (red, blue)]
    return np.stack([np.log(gray + _BLACK), *shares], -1)


def _colors(tones: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The picture 0…255 of `_tones`."""
    level, of_red, of_blue = np.moveaxis(tones, -1, 0)
    gray = np.exp(np.minimum(level, 10)) - _BLACK
    red, blue = (gray + share * (gray + _DARK) for share in (of_red, of_blue))
    green = (gray - _GRAY[0] * red - _GRAY[2] * blue) / _GRAY[1]
    return np.stack([red, green, blue], -1).clip(0, 255)


def _soft(mask: Mask, limit: float) -> npt.NDArray[np.floating]:
    """Weight 0…1 [H, W] that rises inside a mask, over a third of its half width at most."""
    inside = np.pad(mask.astype(np.uint8), 1)  # what lies outside of the picture is no neighbor
    widest = float(cv2.distanceTransform(inside, cv2.DIST_L2, 3).max())
    return feather(mask, max(1.0, min(limit, widest / 3)))


def _picture(values: npt.NDArray[np.floating]) -> Image:
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def _smaller(texture: Image, face: Face) -> Image:
    """The texture without detail that is finer than the photo's pixels; of the same size."""
    uv, points = face.model.uv_coords.cpu().numpy(), face.points_photo.cpu().numpy()
    index = face.model.landmarks_68.cpu().numpy()
    texels = np.ptp(uv[index], axis=0).max() * len(texture)
    ratio = texels / max(float(np.ptp(points[index], axis=0).max()), 1.0)
    if ratio <= 1.2:
        return texture
    return np.asarray(cv2.GaussianBlur(texture, (0, 0), 0.45 * ratio), np.uint8)


def _covered(face: Face, window: tuple[slice, slice]) -> Mask:
    """Pixels of the window that show something before the face."""
    if face.seen is None:
        return np.zeros((window[0].stop - window[0].start, window[1].stop - window[1].start), bool)
    shown = face.seg_seen()[window]
    return (shown >= FIRST_COVER) & (shown < len(SEEN_NAMES))


def _averaged(
    values: npt.NDArray[np.float32], known: Mask, sigma: float
) -> npt.NDArray[np.float32]:
    """Values [H, W, 3] averaged over known neighbors, so that a hair at the border tints little."""
    weight = known.astype(np.float32)
    total = cv2.GaussianBlur(values * weight[..., None], (0, 0), sigma)
    count = cv2.GaussianBlur(weight, (0, 0), sigma)
    return np.asarray(total / np.maximum(count, 1e-3)[..., None], np.float32)
