"""Texture coordinates: no folds, symmetric, inside the square."""

from __future__ import annotations

import numpy as np
import pytest

from v3recon.fitting.photoface.uv import signed_areas, stretch_energy, unwrap

SIDE = 9


def bump(hole: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A symmetric steep bump over a grid, with a hole in the middle if asked for."""
    x, y = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(1, -1, SIDE))
    z = 2.5 * np.exp(-4 * (x**2 + y**2))
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    ids = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    a, b, c, d = ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]
    faces = np.concatenate(
        [np.stack([a, b, d], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    )
    if hole:
        middle = ids[SIDE // 2, SIDE // 2]
        faces = faces[(faces != middle).all(1)]
        keep = np.setdiff1d(np.arange(len(vertices)), middle)
        place = np.full(len(vertices), -1)
        place[keep] = np.arange(len(keep))
        mirror = place[np.fliplr(ids).reshape(-1)[keep]]
        return vertices[keep], place[faces], mirror
    return vertices, faces, np.fliplr(ids).reshape(-1)


@pytest.mark.parametrize("hole", [False, True])
def test_no_fold_symmetric_and_inside(hole: bool) -> None:
    vertices, faces, mirror = bump(hole)
    uv = unwrap(vertices, faces, mirror)
    assert (signed_areas(uv, faces) > 0).all()
    assert uv.min() >= 0.0099 and uv.max() <= 0.9901
    np.testing.assert_allclose(uv[mirror], np.stack([1 - uv[:, 0], uv[:, 1]], 1), atol=1e-9)
    assert uv[np.argmax(vertices[:, 1]), 1] > uv[np.argmin(vertices[:, 1]), 1]  # v up
    assert np.ptp(uv, axis=0).min() > 0.95  # the square is used


def test_evener_than_looking_from_the_front() -> None:
    vertices, faces, mirror = bump(False)
    front = vertices[:, :2]
    ours = stretch_energy(vertices, faces, unwrap(vertices, faces, mirror))
    assert 1.0 <= ours < 0.9 * stretch_energy(vertices, faces, front)


def test_stretch_of_a_plane_is_one() -> None:
    vertices, faces, _ = bump(False)
    flat = vertices * [1, 1, 0]
    assert stretch_energy(flat, faces, 0.3 * flat[:, :2]) == pytest.approx(1.0)
    assert stretch_energy(flat, faces, flat[:, :2] * [2.0, 0.5]) > 1.4


def test_closed_surface_is_refused() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    with pytest.raises(ValueError, match="closed surface"):
        unwrap(vertices, faces, np.arange(4))
