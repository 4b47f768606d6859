"""Votes: mask classes, sides, thresholds, cleaning."""

from __future__ import annotations

import numpy as np
import pytest

from v3recon.photohead import part_votes


def grid(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat square grid: vertices, triangles, mirror images (left and right exchanged)."""
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(1, -1, side))
    ids = np.arange(side * side).reshape(side, side)
    a, b, c, d = ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]
    faces = np.concatenate(
        [np.stack([a, b, d], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    )
    vertices = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    return vertices, faces, np.fliplr(ids).reshape(-1)


def test_sides_are_exchanged_only_where_they_contradict_the_face() -> None:
    labels = np.zeros((10, 20), np.uint8)
    labels[4:6, 2:6], labels[4:6, 14:18] = 1, 2  # right eye on the viewer's left
    labels[1, 2:6] = 3
    right, left = np.array([4.0, 5.0]), np.array([16.0, 5.0])
    same, exchanged = part_votes.repair_sides_by_eyes(labels, right, left)
    assert not exchanged and same is labels
    mirrored = labels[:, ::-1].copy()
    repaired, exchanged = part_votes.repair_sides_by_eyes(mirrored, right, left)
    assert exchanged
    assert (repaired[4:6, 2:6] == 1).all() and (repaired[1, 14:18] == 4).all()
    assert (mirrored == labels[:, ::-1]).all()  # the input is left alone


def test_votes_are_of_visible_vertices_inside_the_mask() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 9
    points = np.array([[0.4, 0.4], [3.4, 2.2], [3.6, 0.0], [-0.6, 1.0], [1.0, 1.0]])
    visible = np.array([True, True, True, True, False])
    vertex, label = part_votes.votes_of_photo(points, visible, labels)
    assert vertex.tolist() == [0, 1] and label.tolist() == [labels[0, 0], labels[2, 3]]


def test_best_threshold_against_all_subsets() -> None:
    rng = np.random.default_rng(0)
    share, weight = rng.random(9), rng.random(9) + 0.1
    _, found = part_votes.best_threshold(share, weight)
    hits = weight * share
    best = 0.0
    for bits in range(1, 2**9):
        chosen = (bits >> np.arange(9)) & 1 == 1
        best = max(best, hits[chosen].sum() / (weight[chosen].sum() + hits[~chosen].sum()))
    assert found == pytest.approx(best)


def test_threshold_is_below_one_half_where_people_disagree() -> None:
    share = np.concatenate([np.full(10, 0.45), np.full(90, 0.01)])
    threshold, overlap = part_votes.best_threshold(share, np.ones(100))
    assert threshold == pytest.approx(0.45) and 0.35 < overlap < 0.45


def test_labels_are_symmetric_connected_and_filled() -> None:
    vertices, faces, mirror = grid(13)
    truth = np.full((13, 13), 8)
    truth[2:5, 1:5], truth[2:5, 8:12] = 1, 2
    truth[6:11, 4:9] = 5
    votes = np.zeros((169, 9))
    votes[np.arange(169), truth.reshape(-1)] = 20
    votes[8 * 13 + 6] = np.eye(9)[8] * 20  # a hole in the nose
    votes[12 * 13] = np.eye(9)[5] * 20  # a nose vertex in the corner
    votes[3 * 13 + 2] = 0  # nobody saw a vertex of the right eye; its mirror image was seen
    labels = part_votes.labels_from_votes(votes, vertices, faces, mirror)
    assert (labels.reshape(13, 13) == truth).all()
    assert (part_votes.MIRROR_LABELS[labels[mirror]] == labels).all()


def test_no_votes_are_refused() -> None:
    vertices, faces, mirror = grid(3)
    with pytest.raises(ValueError, match="no vertex received a vote"):
        part_votes.labels_from_votes(np.zeros((9, 9)), vertices, faces, mirror)


def test_overlap_of_parts() -> None:
    truth = np.zeros((10, 10), np.uint8)
    truth[:5], truth[9, :3] = 5, 6
    drawn = np.zeros_like(truth)
    drawn[2:7] = 5
    overlap = part_votes.part_overlap(drawn, truth)
    assert overlap[4] == pytest.approx(30 / 70)
    assert np.isnan(overlap[[0, 1, 2, 3, 5, 6, 7]]).all()  # absent, or too small to judge
