"""Triangles that would turn over: the exact distance of a stretch, and modes after unfolding."""

import numpy as np
import pytest

from v3recon.photohead.registration import triangulate
from v3recon.photohead.subdivision import subdivide
from v3recon.photohead.unfold import DEVIATIONS, turning_distances, unfold


@pytest.fixture(scope="module")
def sheet():
    side = 7
    number = np.arange(side * side).reshape(side, side)
    corners = (number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1])
    quads = np.stack([corner.ravel() for corner in corners], 1)
    row, column = np.divmod(np.arange(side * side), side)
    mean = np.stack([column, row, 0 * row], 1).astype(float)
    return subdivide(quads, side * side), quads, mean


def test_a_sheet_stretched_by_a_tenth_a_deviation_turns_over_at_ten(sheet):
    dense, _, mean = sheet
    stretch = 0.1 * mean[None] * [1.0, 0.0, 0.0]
    distance = turning_distances(dense, triangulate(dense.quads), mean, stretch)
    assert distance == pytest.approx(np.full(len(distance), 10.0))
    both = np.concatenate([stretch, 0.1 * mean[None] * [0.0, 1.0, 0.0]])
    distance = turning_distances(dense, triangulate(dense.quads), mean, both)
    assert distance == pytest.approx(np.full(len(distance), 10 / np.sqrt(2)))


def test_unfolding_changes_only_what_folds(sheet):
    dense, quads, mean = sheet
    gentle = 0.05 * mean * [1.0, 0.0, 0.0]
    folding = gentle.copy()
    folding[24, 0] += 0.6  # the middle vertex runs over its neighbor
    triangles = triangulate(dense.quads)
    assert turning_distances(dense, triangles, mean, folding[None]).min() < DEVIATIONS
    mended = unfold(dense, quads, mean, np.stack([gentle, folding]))
    assert turning_distances(dense, triangles, mean, mended).min() >= DEVIATIONS
    assert np.abs(mended[1] - folding).max() < 0.6
    same = unfold(dense, quads, mean, gentle[None])
    assert np.array_equal(same[0], gentle)
