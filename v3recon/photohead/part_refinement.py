"""Part labels that overlap best with hand-made masks when they are drawn back on the photos.

Votes pool all photos; the figure that counts is a mean over photos, and the label of a vertex
changes it by what the vertex draws in each of them. Both directions are counted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from torch import Tensor

from v3recon.photohead.part_votes import MIRROR_LABELS, SKIN, SeenFace, clean_labels

MAX_ROUNDS = 20


@dataclass(frozen=True)
class DrawnPixels:
    """Which pixels each vertex draws in N photos.

    A vertex draws the pixels in which it has the largest barycentric weight.

    Attributes:
        drawn: [N, V] pixels of each vertex.
        hits: for labels 1…7, [N, V] those of them that the mask gives this label.
        sizes: [N, 7] pixels of each part in the mask, drawn or not.
    """

    drawn: sparse.csr_matrix
    hits: tuple[sparse.csr_matrix, ...]
    sizes: np.ndarray


def pixels_of_photo(face: SeenFace, labels: np.ndarray, faces: Tensor) -> DrawnPixels:
    """Count the pixels of one photo.

    Args:
        face: the fitted face.
        labels: [H, W] uint8 hand-made labels.
        faces: [F, 3].
    """
    owner = face.fragments.face_id[0].numpy()
    pixel = owner >= 0
    corners = faces.numpy()[owner[pixel]]
    weight = face.fragments.bary[0].numpy()[pixel] * face.visible[corners]
    chosen = weight.argmax(1)[:, None]
    seen = np.take_along_axis(weight, chosen, 1)[:, 0] > 0
    vertex = np.take_along_axis(corners, chosen, 1)[seen, 0]
    truth = labels[pixel][seen]
    count = len(face.visible)

    def row(ids: np.ndarray) -> sparse.csr_matrix:
        return sparse.csr_matrix(np.bincount(ids, minlength=count)[None].astype(np.float32))

    hits = tuple(row(vertex[truth == label]) for label in range(1, SKIN))
    sizes = np.bincount(labels.ravel(), minlength=SKIN + 1)[None, 1:SKIN].astype(float)
    return DrawnPixels(row(vertex), hits, sizes)


def stack_pixels(photos: Sequence[DrawnPixels]) -> DrawnPixels:
    """The photos of several sets as one set."""
    return DrawnPixels(
        sparse.csr_matrix(sparse.vstack([photo.drawn for photo in photos])),
        tuple(
            sparse.csr_matrix(sparse.vstack([photo.hits[part] for photo in photos]))
            for part in range(SKIN - 1)
        ),
        np.concatenate([photo.sizes for photo in photos]),
    )


def refine_labels(
    pixels: DrawnPixels, labels: np.ndarray, faces: np.ndarray, mirror: np.ndarray | None
) -> np.ndarray:
    """Move the borders of parts to where the mean overlap over photos is greatest.

    A photo's overlap J = I / U gains 1 / U by a pixel that is drawn rightly and loses J / U by one
    drawn wrongly. A vertex belongs to a part where its gains over all photos are more than its
    losses; as J and U depend on the others, this is repeated while the sum of overlaps grows.

    Args:
        pixels: of the photos.
        labels: [V] uint8 to start from, 1…8.
        faces: [F, 3].
        mirror: [V] mirror images; None leaves the sides as they are.

    Returns:
        [V] uint8, symmetric, each part in one piece.
    """
    gains = np.zeros((len(labels), SKIN))
    for label in range(1, SKIN):
        gains[:, label] = _best_gains(pixels, label, labels == label, mirror)
    refined = np.where(gains.max(1) > 0, gains.argmax(1), SKIN).astype(np.uint8)
    return clean_labels(refined, faces)


def mean_overlap(pixels: DrawnPixels, labels: np.ndarray) -> np.ndarray:
    """Mean over photos of the intersection over union of labels 1…7; NaN for absent parts."""
    result = np.full(SKIN - 1, np.nan)
    for label in range(1, SKIN):
        present = pixels.sizes[:, label - 1] > 0
        if present.any():
            result[label - 1] = _overlap(pixels, label, labels == label)[0][present].mean()
    return result


def _best_gains(
    pixels: DrawnPixels, label: int, chosen: np.ndarray, mirror: np.ndarray | None
) -> np.ndarray:
    """Gains [V] whose positive ones are the best set of vertices that the rounds came to."""
    best, best_score = np.where(chosen, 1.0, -1.0), -1.0
    for _ in range(MAX_ROUNDS):
        score, gain = _score_and_gain(pixels, label, chosen)
        if mirror is not None:
            other = int(MIRROR_LABELS[label])
            other_score, other_gain = _score_and_gain(pixels, other, chosen[mirror])
            score, gain = score + other_score, gain + other_gain[mirror]
        if score <= best_score:
            break
        best, best_score = np.where(chosen, np.maximum(gain, 1e-9), np.minimum(gain, 0)), score
        chosen = gain > 0
    return best


def _overlap(pixels: DrawnPixels, label: int, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Overlap [N] of a part with its mask, 0 where the photo has none, and 1 / union [N]."""
    indicator = chosen.astype(np.float32)
    hit = pixels.hits[label - 1] @ indicator
    size = pixels.sizes[:, label - 1]
    inverse = np.where(size > 0, 1 / np.maximum(pixels.drawn @ indicator + size - hit, 1), 0)
    return hit * inverse, inverse


def _score_and_gain(
    pixels: DrawnPixels, label: int, chosen: np.ndarray
) -> tuple[float, np.ndarray]:
    """The sum of overlaps, and what each vertex [V] adds to it, to first order."""
    overlap, inverse = _overlap(pixels, label, chosen)
    right = pixels.hits[label - 1].T @ (inverse * (1 + overlap))
    return float(overlap.sum()), np.asarray(right - pixels.drawn.T @ (inverse * overlap))
