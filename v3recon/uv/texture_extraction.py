"""The texture of a face from a photo: its own colours where seen, a plausible rest elsewhere.

Every texel knows its place in the photo through the projected vertices. What the camera cannot
see, or sees at a grazing angle, is filled from the mirrored side of the same face, and where that
is hidden too from the model's own texture. The filling is joined in the gradient domain (see
`blending`): it takes the photo's tone at the border, and the photo's own texels never change.
Weights and corrections are smooth, so they are found on a coarse map; detail is composed at full
size in one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from v3recon._fast.threads import share_out
from v3recon.uv._texture_kernels import apply_tone, fill, find_gap, limit_steps
from v3recon.uv.bake import UvLayout, bake, bake_part, sample_map
from v3recon.uv.blending import feather, solve_membrane

MIN_FACING = 0.35
"""Cosine between normal and view below which a texel's colours are too smeared to use."""

_COARSE_SIZE = 256  # texels of the map on which weights and corrections are found
_CLOSING = 5  # coarse texels: holes of a raster whose triangles are smaller than its pixels
_EROSION = 3  # coarse texels taken off the seen region's border, where the fit is least exact
_FEATHER = 5.0  # coarse texels over which photo and filling are mixed
_SMALLEST_REGION = 0.01  # of the map; smaller seen islands are dropped
_LARGEST_POCKET = 0.015  # of the map; smaller grazing patches (nostrils, lip edges) are kept
_LARGEST_HOLE = 0.003  # of the map; smaller unseen holes (folds at lids and lips) are kept
_BLOCK = 16  # coarse texels: side of the blocks in which the photo is looked up
_ROWS = 32  # texels: the strips in which the filling is shared out
_STRIDE = 5  # every fifth coarse texel is enough for medians and percentiles
_GAIN_RANGE = (0.5, 2.0)  # limits of relighting the mirrored side and of the model's tone


@dataclass(frozen=True)
class ExtractedTexture:
    """Textures of B faces of one photo; an index gives one face's, without B.

    Attributes:
        texture: [B, S, S, 3] uint8 RGB, row 0 at v = 1.
        seen: [B, S, S] bool, texels that have the photo's colours unchanged.
        mirrored: [B, S, S] bool, filled texels that show the face's other side.
    """

    texture: npt.NDArray[np.uint8]
    seen: npt.NDArray[np.bool_]
    mirrored: npt.NDArray[np.bool_]

    def __getitem__(self, index: int | slice) -> ExtractedTexture:
        return ExtractedTexture(self.texture[index], self.seen[index], self.mirrored[index])


def extract_texture(
    image: npt.NDArray[np.uint8],
    points_2d: Tensor,
    *,
    visible: Tensor,
    normals: Tensor,
    model_colors: Tensor,
    layout: UvLayout,
    min_facing: float = MIN_FACING,
    workers: int | None = None,
) -> ExtractedTexture:
    """Unwrap the faces of a photo.

    Args:
        image: [H, W, 3] uint8 RGB photo.
        points_2d: [B, V, 2] projected vertices, pixels of that photo (x right, y down).
        visible: [B, V] bool, see `render.visibility.visible_vertices`.
        normals: [B, V, 3] posed unit normals, world frame.
        model_colors: [B, V, 3] RGB 0…1, the model's own lit colours.
        layout: of the face model, see `bake.uv_layout`.
        min_facing: smallest cosine between normal and view that counts as seen.
        workers: threads that the maps of full size are divided among; default as many as torch's.

    Returns:
        One texture a face.
    """
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8, image.shape
    points = points_2d.detach().cpu().numpy().astype(np.float32)
    colors = 255 * model_colors.detach().cpu().numpy().astype(np.float32).clip(0, 1)
    coarse_layout = layout.at_size(_coarse_size(layout.size))
    seen = _seen_region(image.shape[:2], points, visible, normals, coarse_layout, min_facing)
    layouts = layout, coarse_layout
    workers = workers or torch.get_num_threads()
    faces = [
        _extract_one(image, points[index], colors[index], seen[index], *layouts, workers)
        for index in range(len(points))
    ]
    if len(faces) == 1:  # spares copies
        texture, kept, from_mirror = faces[0]
        return ExtractedTexture(texture[None], kept[None], from_mirror[None])
    return ExtractedTexture(*(np.stack(maps) for maps in zip(*faces, strict=True)))


def _coarse_size(size: int) -> int:
    """Largest divisor of a map's size that is at most `_COARSE_SIZE`."""
    return next(s for s in range(min(size, _COARSE_SIZE), 0, -1) if size % s == 0)


def _seen_region(
    image_size: tuple[int, ...],
    points: npt.NDArray[np.float32],
    visible: Tensor,
    normals: Tensor,
    layout: UvLayout,
    min_facing: float,
) -> npt.NDArray[np.bool_]:
    """Cleaned masks [B, s, s] of what the photo shows well enough to be used."""
    height, width = image_size
    x, y = points[..., 0], points[..., 1]
    in_photo = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    facing = normals[..., 2].detach().cpu().numpy()
    flags = np.stack([visible.detach().cpu().numpy(), in_photo, facing], -1)
    maps = bake(flags, layout)
    return np.stack([_clean(one[..., 0], one[..., 1], one[..., 2], min_facing) for one in maps])


def _clean(
    visible: npt.NDArray[np.float32],
    in_photo: npt.NDArray[np.float32],
    facing: npt.NDArray[np.float32],
    min_facing: float,
) -> npt.NDArray[np.bool_]:
    """Close pinholes, drop what faces away or lies outside the photo, drop specks, shrink."""
    shown = _morph((visible > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, _CLOSING)
    shown[in_photo < 0.999] = 0
    grazing = shown & (facing <= min_facing).astype(np.uint8)
    # A narrow grazing patch inside the seen face is better shown smeared than replaced.
    pockets = _regions(grazing & (facing > 0).astype(np.uint8), 0, _LARGEST_POCKET)
    mask = (shown ^ grazing) | pockets
    mask = _regions(_morph(mask, cv2.MORPH_OPEN, _CLOSING), _SMALLEST_REGION, 1)
    mask |= _regions(1 - mask, 0, _LARGEST_HOLE)
    # The map runs on beyond the outline, so only true borders are eroded.
    return _morph(mask, cv2.MORPH_ERODE, 2 * _EROSION + 1).astype(bool)


def _morph(mask: npt.NDArray[np.uint8], operation: int, side: int) -> npt.NDArray[np.uint8]:
    """A morphological operation with a disc."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.morphologyEx(mask, operation, disc), np.uint8)


def _regions(mask: npt.NDArray[np.uint8], smallest: float, largest: float) -> npt.NDArray[np.uint8]:
    """The connected regions of a mask whose share of the map is between two limits."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    labels = np.asarray(labels, np.int32)
    share = stats[:, cv2.CC_STAT_AREA] / mask.size
    wanted = (share >= smallest) & (share <= largest)
    wanted[0] = False
    return wanted[labels].astype(np.uint8)


def _extract_one(
    image: npt.NDArray[np.uint8],
    points: npt.NDArray[np.float32],
    colors: npt.NDArray[np.float32],
    seen: npt.NDArray[np.bool_],
    layout: UvLayout,
    coarse: UvLayout,
    workers: int,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Texture, seen and mirrored texels of one face; `seen` and `coarse` at the coarse size."""
    weight = feather(seen, _FEATHER)
    # Beside the seen texels the step from mirror to model is read.
    photo = _sample_photo(image, points, layout, _near(weight > 0, 4), workers)
    if seen.all():
        return photo, np.ones_like(layout.inside), np.zeros_like(layout.inside)
    mirror = np.ascontiguousarray(coarse.mirror)
    mirror_weight = sample_map(weight, mirror)
    with ThreadPoolExecutor(1) as other_side:
        wanted = _near(weight < 1) & _near(mirror_weight > 0)
        mirrored = other_side.submit(_sample_where, photo, layout.mirror, wanted, workers - 1)
        shrink = (coarse.size, coarse.size)
        small_photo = cv2.resize(photo, shrink, interpolation=cv2.INTER_AREA).astype(np.float32)
        model = bake(colors[None], coarse)[0]
        tone = _model_tone(small_photo, model, weight)
        colors, model = tone(colors), tone(model)
        relight = _relight(model, mirror)
        other = sample_map(small_photo, mirror) * relight[..., None]
        correction = _correction(small_photo, other, model, weight, mirror_weight)
        smooth = np.dstack([weight, mirror_weight, correction, relight])
        mirrored = mirrored.result()
    kept = np.zeros(layout.inside.shape, bool)
    from_mirror = np.zeros(layout.inside.shape, bool)

    def fill_rows(index: int) -> None:
        fill(index * _ROWS, min((index + 1) * _ROWS, layout.size), photo, mirrored, colors,
              layout.faces, layout.triangle, layout.bary, smooth, kept, from_mirror)  # fmt: skip

    share_out(fill_rows, -(-layout.size // _ROWS), workers)
    return photo, kept, from_mirror


def _near(mask: npt.NDArray[np.bool_], reach: int = 1) -> npt.NDArray[np.bool_]:
    """A mask and what lies next to it; by default where the mask, read bilinearly, is not 0."""
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return cv2.dilate(mask.astype(np.uint8), square).astype(bool)


def _parts(wanted: npt.NDArray[np.bool_], size: int) -> list[tuple[slice, slice]]:
    """Rectangles of a map of `size` texels that hold all wanted ones.

    Args:
        wanted: [s, s], s a divisor of the size.
        size: of the map.
    """
    scale, starts = size // len(wanted), np.arange(0, len(wanted), _BLOCK)
    blocks = np.logical_or.reduceat(np.logical_or.reduceat(wanted, starts, 0), starts, 1)
    side, parts = _BLOCK * scale, []
    for row, line in enumerate(blocks):
        # Neighbouring blocks are taken together: the line's changes are their first and last edges.
        edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]])))
        rows = slice(row * side, min((row + 1) * side, size))
        parts += [
            (rows, slice(first * side, min(last * side, size)))
            for first, last in edges.reshape(-1, 2).tolist()
        ]
    return parts


def _sample_where(
    picture: npt.NDArray[np.uint8],
    places: npt.NDArray[np.float32],
    wanted: npt.NDArray[np.bool_],
    workers: int,
) -> npt.NDArray[np.uint8]:
    """`sample_map` in the blocks that hold a wanted texel, 0 in the others.

    Args:
        picture: [S, S, 3].
        places: [S, S, 2], texels of the picture.
        wanted: [s, s], s a divisor of S.
        workers: threads.
    """
    sampled, parts = np.zeros_like(picture), _parts(wanted, len(picture))

    def sample(index: int) -> None:
        sampled[parts[index]] = sample_map(picture, places[parts[index]])

    share_out(sample, len(parts), workers)
    return sampled


def _sample_photo(
    image: npt.NDArray[np.uint8],
    points: npt.NDArray[np.float32],
    layout: UvLayout,
    wanted: npt.NDArray[np.bool_],
    workers: int,
) -> npt.NDArray[np.uint8]:
    """The photo at the places of the texels [S, S, 3], bilinear; shrunk first where it is finer.

    Args:
        image: the photo.
        points: [V, 2] the vertices in it.
        layout: of the texture.
        wanted: [s, s], s a divisor of S: blocks without a wanted texel stay 0.
        workers: threads.
    """
    height, width = image.shape[:2]
    columns = points.T.copy()  # numpy reduces rows 30 times faster
    low = np.clip(np.floor(columns.min(1)).astype(int) - 2, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(columns.max(1)).astype(int) + 3, low + 1, [width, height])
    region = image[low[1] : high[1], low[0] : high[0]]
    scale = min(1.0, 1 / _pixels_per_texel(points, layout))
    if scale < 0.8:
        size = max(1, round(region.shape[1] * scale)), max(1, round(region.shape[0] * scale))
        factor = np.array(size, np.float32) / [region.shape[1], region.shape[0]]
        region = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
    else:
        factor = np.ones(2, np.float32)
    places = ((points - low + 0.5) * factor - 0.5).astype(np.float32)
    photo = np.zeros((layout.size, layout.size, 3), np.uint8)
    parts = _parts(wanted, layout.size)

    def sample(index: int) -> None:
        photo[parts[index]] = sample_map(region, bake_part(places, layout, parts[index]))

    share_out(sample, len(parts), workers)
    return photo


def _pixels_per_texel(points: npt.NDArray[np.float32], layout: UvLayout) -> float:
    """How many photo pixels one texel spans where the face is seen best (upper quartile)."""
    some = layout.faces[:: max(1, len(layout.faces) // 4096)]
    a, b, c = some[:, 0], some[:, 1], some[:, 2]

    def areas(p: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        first, second = p[b] - p[a], p[c] - p[a]
        return np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])

    ratio = areas(points) / np.maximum(areas(layout.uv_pixels), 1e-9)
    return float(np.sqrt(np.quantile(ratio, 0.75)))


def _relight(
    model: npt.NDArray[np.float32], mirror: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Brightness [s, s] of this side's light over the other's, from the lit model.

    Symmetric albedo cancels in the ratio. It has no colour: that of an estimated light is not
    sure enough to tint a cheek.
    """
    brightness = (model[..., 0] + model[..., 1] + model[..., 2]) / 3 + 8  # faster than mean(-1)
    ratio = cv2.GaussianBlur(brightness / sample_map(brightness, mirror), (0, 0), 4)
    return np.clip(ratio, *_GAIN_RANGE).astype(np.float32)


def _model_tone(
    photo: npt.NDArray[np.float32],
    model: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Function of model colours [..., 3] that gives them the photo's tone.

    A factor per channel makes the mean colours equal where the face is seen. Colours that occur
    nowhere there are cut off: an estimated light is unreliable on slopes that it never lit.
    """
    some = np.flatnonzero(weight >= 1)[::_STRIDE]
    if not len(some):
        return lambda colors: colors
    wanted, found = photo.reshape(-1, 3)[some], model.reshape(-1, 3)[some]
    gain = np.clip(wanted.mean(0) / np.maximum(found.mean(0), 1), *_GAIN_RANGE)
    low, high = np.percentile(found, [1, 99], axis=0) * gain
    limits = np.stack([gain, low, high]).astype(np.float32)

    def change(colors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        toned = np.empty_like(colors)
        apply_tone(colors.reshape(-1, 3), limits, toned.reshape(-1, 3))
        return toned

    return change


def _correction(
    photo: npt.NDArray[np.float32],
    other: npt.NDArray[np.float32],
    model: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    mirror_weight: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """What to add to the filling so that it meets the photo, and mirror meets model, without step.

    The filling w M + (1 - w) T has the gradients w dM + (1 - w) dT that are wanted plus
    (M - T) dw, the step between mirror and model, which the flux takes away again.
    """
    known = weight >= 1
    if not known.any():
        return np.zeros_like(photo)
    gap, flux = np.zeros_like(photo), np.zeros_like(photo)
    find_gap(photo, other, model, mirror_weight, gap, flux)
    return solve_membrane(_without_outliers(gap, known), known, flux=flux)


def _without_outliers(
    gap: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Limit the step [s, s, 3] at the seen border by what is usual where the face is seen.

    Where the fit is off by a pixel the border shows hair or background; carried into the hidden
    side it would tint it. Brightness may differ more than colour, light does that.
    """
    some = gap.reshape(-1, 3)[np.flatnonzero(known)[::_STRIDE]]
    gray = some.mean(-1, keepdims=True)
    limits = np.zeros((2, 2, 3), np.float32)  # of grey and of what remains: low, high
    for limit, part, spreads in zip(limits, (gray, some - gray), (4.0, 2.0), strict=True):
        middle = np.median(part, axis=0)
        spread = 1.4826 * np.median(np.abs(part - middle), axis=0) + 1
        limit[:] = middle - spreads * spread, middle + spreads * spread
    limited = np.empty_like(gap)
    limit_steps(gap.reshape(-1, 3), limits, limited.reshape(-1, 3))
    return limited
