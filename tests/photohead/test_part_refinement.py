"""Refined labels: pixels a vertex draws, the best set of vertices, symmetry."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import sparse

from v3recon.geometry.mesh import vertex_faces_of
from v3recon.photohead import part_refinement, part_votes


def fan(count: int) -> np.ndarray:
    """Triangles of a row of vertices and of one that all of them touch, the last: it is skin."""
    row = np.arange(count - 2)
    return np.stack([row, row + 1, np.full(count - 2, count - 1)], 1)


def random_pixels(photos: int, vertices: int, seed: int) -> part_refinement.DrawnPixels:
    """Only the nose: right pixels near the middle, in every photo another number of them."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(4, 30, (photos, vertices))
    drawn[:, -1] = 0
    chance = np.exp(-(((np.arange(vertices) - vertices / 2) / 5) ** 2))
    hit = rng.binomial(drawn, chance[None] * rng.uniform(0.4, 1, (photos, 1)))
    sizes = np.zeros((photos, 7))
    sizes[:, 4] = hit.sum(1) + rng.integers(0, 20, photos)
    empty = sparse.csr_matrix((photos, vertices), dtype=np.float32)
    hits = [sparse.csr_matrix(hit.astype(np.float32)) if p == 4 else empty for p in range(7)]
    return part_refinement.DrawnPixels(
        sparse.csr_matrix(drawn.astype(np.float32)), tuple(hits), sizes
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_other_interval_overlaps_better(seed: int) -> None:
    count = 40
    pixels = random_pixels(5, count, seed)
    start = np.full(count, 8, np.uint8)
    start[12:28] = 5
    refined = part_refinement.refine_labels(pixels, start, fan(count), None)
    assert np.isin(refined, (5, 8)).all()
    place = np.arange(count)
    best = max(
        part_refinement.mean_overlap(pixels, np.where((place >= a) & (place < b), 5, 8))[4]
        for a, b in itertools.combinations(range(count + 1), 2)
    )
    begun = part_refinement.mean_overlap(pixels, start)[4]
    reached = part_refinement.mean_overlap(pixels, refined)
    assert reached[4] > begun + 0.05 and reached[4] > best - 0.005
    assert np.isnan(np.delete(reached, 4)).all()


def test_both_sides_learn_from_each_other() -> None:
    """The right brow is seen in one photo only, the left one in the other."""
    mirror, faces = np.array([*range(7, -1, -1), 8]), fan(9)
    drawn = np.array([[10] * 8 + [0]] * 2)
    hits = np.zeros((7, 2, 9))
    hits[2, 0, [1, 2]] = 10
    hits[3, 1, [5, 4]] = 10
    pixels = part_refinement.DrawnPixels(
        sparse.csr_matrix(drawn.astype(np.float32)),
        tuple(sparse.csr_matrix(hit.astype(np.float32)) for hit in hits),
        hits.sum(2).T,
    )
    start = np.array([8, 3, 8, 8, 8, 8, 4, 8, 8], np.uint8)
    alone = part_refinement.refine_labels(pixels, start, faces, None)
    assert alone.tolist() == [8, 3, 3, 8, 4, 4, 8, 8, 8]
    together = part_refinement.refine_labels(pixels, start, faces, mirror)
    assert (part_votes.MIRROR_LABELS[together[mirror]] == together).all()
    assert together[2] == 3 and together[5] == 4  # what both photos say


def test_pixels_of_a_square_seen_from_the_front() -> None:
    """Four vertices share a square of pixels; a mask covers its upper half."""
    corners = np.array([[2.0, -2, 1], [14, -2, 1], [2, -14, 1], [14, -14, 0]])
    faces = torch.tensor([[0, 2, 1], [1, 2, 3]])
    face = part_votes.see_mesh(corners, faces, vertex_faces_of(faces, 4), (17, 17))
    assert face.visible.all()
    labels = np.full((17, 17), 8, np.uint8)
    labels[:8] = 5
    pixels = part_refinement.pixels_of_photo(face, labels, faces)
    drawn, nose = pixels.drawn.toarray()[0], pixels.hits[4].toarray()[0]
    assert drawn.sum() == (face.fragments.face_id >= 0).sum() and (drawn > 10).all()
    assert (nose <= drawn).all() and nose[:2].sum() > 0.75 * drawn[:2].sum()
    assert nose[2:].sum() < 0.25 * drawn[2:].sum()
    assert pixels.sizes[0].tolist() == [0, 0, 0, 0, 8 * 17, 0, 0]
    both = part_refinement.stack_pixels([pixels, pixels])
    assert both.drawn.shape == (2, 4) and len(both.hits) == 7 and both.sizes.shape == (2, 7)
    upper = np.array([5, 5, 8, 8])
    hit, all_of_it = nose[:2].sum(), drawn[:2].sum()
    expected = hit / (all_of_it + 8 * 17 - hit)
    assert part_refinement.mean_overlap(both, upper)[4] == pytest.approx(expected)
