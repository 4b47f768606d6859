"""Target side of the part distribution loss: from label maps to distance statistics.

It never changes for a photo, so it is computed once: the least distance is the mask's Euclidean
distance transform, the greatest the distance to the corners of its convex hull, the mean the mask
convolved with |x| (Wang et al., 3DDFA_V3, CVPR 2024, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import scipy.fft
import torch
from torch import Tensor

from v3recon.decode import seen_from_front
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.parts import BROW_LABELS, SKIN_LABEL
from v3recon.face_models.surfaces import GROUP_NAMES
from v3recon.geometry.point_sets import anchor_grid
from v3recon.losses.part_distribution import above_brows, part_index_sets
from v3recon.losses.part_distribution_kernels import convex_hull, farthest, mean_distances

PART_SIDE, PART_GRID = 112, 14
"""Side of the pictures on which distances of parts are taken, and anchors along it."""
PART_WEIGHTS = (4.0, 4.0, 3.0, 3.0, 1.0, 4.0, 4.0, 0.15)
"""Weights of `PART_NAMES` in the part loss: squared distances grow with the part."""
MIN_PART_PIXELS = 10
"""Smaller remains of a part, behind hair or at the border, say nothing about its place."""
_PAIRS_PER_FFT = 1 << 25  # about as many direct distances as one pair of transforms costs


@dataclass(frozen=True)
class PartTargets:
    """What the part distribution loss compares with, for one photo.

    Attributes:
        statistics: [P, 3, A] float32 min, max, mean distance from the anchors, pixels.
        present: [P] bool, False where the part has no pixel (its statistics are 0).
    """

    statistics: np.ndarray
    present: np.ndarray


def _center(mask: np.ndarray) -> np.ndarray | None:
    """Mean (x, y) of a mask's pixels, None if it has none."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()]) if len(rows) else None


def cut_forehead(labels: np.ndarray) -> np.ndarray:
    """Take the skin above the brows away, where hair decides what is seen.

    The border is the straight line through the centres of the two brows, so the head may be
    rolled. With one brow seen the line is level with it; without brows nothing is cut.

    Args:
        labels: [H, W] part labels 0 … 8.

    Returns:
        [H, W] the labels with that skin set to 0. The counterpart on the mesh is
        `losses.part_distribution.above_brows`.
    """
    right, left = (_center(labels == label) for label in BROW_LABELS)
    first = right if right is not None else left
    if first is None:
        return labels
    (x, y), slope = first, 0.0
    if right is not None and left is not None and left[0] > right[0]:
        slope = (left[1] - y) / (left[0] - x)
    rows = np.arange(labels.shape[0])[:, None]
    columns = np.arange(labels.shape[1])
    above = rows < y + slope * (columns - x)
    return np.where((labels == SKIN_LABEL) & above, 0, labels).astype(labels.dtype)


def part_masks(labels: np.ndarray) -> np.ndarray:
    """Eight masks [8, H, W] bool of a label map [H, W] with labels 0 … 8."""
    if labels.ndim != 2 or (labels.size and labels.max() > len(PART_NAMES)):
        raise ValueError(f"not a part label map: shape {labels.shape}, largest {labels.max()}")
    return labels[None] == np.arange(1, len(PART_NAMES) + 1)[:, None, None]


def part_target_statistics(
    masks: np.ndarray,
    anchors: np.ndarray,
    mean_method: Literal["auto", "fft", "direct"] = "auto",
) -> PartTargets:
    """Distance statistics of the masks' pixel centres at the anchors.

    Args:
        masks: [P, H, W] bool.
        anchors: [A, 2] (x, y) pixels, on pixel centres inside the picture
            (`geometry.point_sets.anchor_grid`).
        mean_method: convolution over the whole picture or a sum over the mask's pixels; both are
            exact, "auto" takes the cheaper one for each part.

    Returns:
        the statistics.

    Raises:
        ValueError: for anchors between pixels or outside.
    """
    assert masks.ndim == 3 and anchors.ndim == 2, (masks.shape, anchors.shape)
    height, width = masks.shape[1:]
    columns, rows = anchors.T.round().astype(np.int64)
    if (
        np.abs(anchors - np.stack([columns, rows], 1)).max(initial=0) > 1e-6
        or not ((columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)).all()
    ):
        raise ValueError(f"anchors must be pixel centres inside the {height} x {width} picture")
    places = np.ascontiguousarray(anchors.T, np.float32)
    statistics = np.zeros((len(masks), 3, len(anchors)), np.float32)
    for part, mask in enumerate(masks):
        y, x = np.nonzero(mask)
        if not len(x):
            continue
        transform = cv2.distanceTransform(
            (~mask.astype(bool)).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        statistics[part, 0] = transform[rows, columns]
        statistics[part, 1] = _greatest(x, y, places)
        direct = len(x) * len(anchors) <= _PAIRS_PER_FFT
        if mean_method == "direct" or (mean_method == "auto" and direct):
            weight = np.full(len(x), 1 / len(x), np.float32)
            points = (x.astype(np.float32), y.astype(np.float32))
            mean_distances(*points, weight, places, statistics[part, 2])
        else:
            statistics[part, 2] = _convolved(mask)[rows, columns] / len(x)
    return PartTargets(statistics, np.asarray(masks.any((1, 2))))


@lru_cache(maxsize=1)
def part_anchors() -> np.ndarray:
    """Anchors [A, 2] of the part loss on a picture of `PART_SIDE` pixels."""
    return anchor_grid((PART_SIDE, PART_SIDE), (PART_GRID, PART_GRID)).numpy()


def names_parts(model: LinearFaceModel) -> bool:
    """Whether a face model says where the parts are: some label the skin only."""
    return bool(torch.isin(torch.tensor(BROW_LABELS), model.part_labels.cpu()).all())


def part_points(model: LinearFaceModel, max_points: int) -> Tensor:
    """Vertices of each part that the part loss compares with pixels, thinned.

    Pixels show surfaces: what lies behind lids and lips in the mean face is left out, and so are
    eyeballs, which lids cover more or less; the rims of the lids move with them. The forehead is
    left out as in `cut_forehead`.

    Args:
        model: the face model; its part labels must name brows.
        max_points: most vertices of one part.

    Returns:
        [8, N] vertex ids filled up with -1, see `losses.part_distribution.part_index_sets`.
    """
    vertices = model.mean_vertices()
    keep = seen_from_front(model) | (model.part_labels == SKIN_LABEL)
    if model.group_labels is not None:
        keep = keep & (model.group_labels != GROUP_NAMES.index("eyeballs"))
    keep = keep & ~above_brows(model.part_labels, vertices)
    return part_index_sets(model.part_labels, vertices, max_points, keep=keep)


def crop_anchors(crop_size: int) -> np.ndarray:
    """The same anchors [A, 2] float32 in pixels of a crop of another side."""
    return ((part_anchors() + 0.5) * (crop_size / PART_SIDE) - 0.5).astype(np.float32)


def no_parts() -> tuple[np.ndarray, np.ndarray]:
    """What `part_aims` is where there is no mask."""
    count = len(PART_NAMES)
    return np.zeros((count, 3, PART_GRID**2), np.float32), np.zeros(count, np.float32)


def part_aims(seen: np.ndarray, crop_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets of the part loss (`losses.part_distribution`) of a picture of what is seen.

    Args:
        seen: [112, 112] uint8, labels 1 … 8 of parts; others are none.
        crop_size: side of the crop that the picture covers, pixels.

    Returns:
        statistics [8, 3, A] in crop pixels, and [8] 1 where the part is there.
    """
    labels = cut_forehead(np.where(seen <= len(PART_NAMES), seen, 0).astype(np.uint8))
    found = part_target_statistics(part_masks(labels), part_anchors())
    pixels = np.bincount(labels.ravel(), minlength=len(PART_NAMES) + 1)[1:]
    present = found.present & (pixels >= MIN_PART_PIXELS)
    return found.statistics * np.float32(crop_size / PART_SIDE), present.astype(np.float32)


def _greatest(x: np.ndarray, y: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Distance from each place [2, A] to the farthest mask pixel."""
    # Only the first and last pixel of a row can be corners of the hull.
    first = np.flatnonzero(np.diff(y, prepend=-1))
    ends = np.unique(np.concatenate([first, np.append(first[1:], len(y)) - 1]))
    hull_x, hull_y = x[ends].astype(np.float32), y[ends].astype(np.float32)
    index = np.empty(places.shape[1], np.int64)
    farthest(hull_x, hull_y, convex_hull(hull_x, hull_y), places, index)
    return np.hypot(hull_x[index] - places[0], hull_y[index] - places[1])


def _convolved(mask: np.ndarray) -> np.ndarray:
    """Sum over the mask of the distance to every pixel [H, W], by convolution with |x|."""
    kernel, size = _kernel_transform(mask.shape)
    transform = scipy.fft.rfft2(mask.astype(np.float64), size)
    height, width = mask.shape
    total = np.asarray(scipy.fft.irfft2(transform * kernel, size))
    return total[height - 1 : 2 * height - 1, width - 1 : 2 * width - 1]


@lru_cache(maxsize=4)
def _kernel_transform(shape: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Transform of |x| on the offsets -(H - 1) … H - 1 of a picture, and its padded size."""
    height, width = shape
    rows = np.arange(1 - height, height)[:, None]
    columns = np.arange(1 - width, width)
    # 2 H - 1 is enough: what wraps around falls outside the part that is read.
    size = (1 << (2 * height - 1).bit_length(), 1 << (2 * width - 1).bit_length())
    return np.asarray(scipy.fft.rfft2(np.hypot(rows, columns), size)), size
