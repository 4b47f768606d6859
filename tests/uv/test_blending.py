"""Membrane solver against a sparse direct solve, Poisson blending, feathered masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from v3recon.uv.blending import feather, poisson_blend, solve_membrane


def solve_directly(values, known, domain, flux):
    """The same linear system, assembled pixel by pixel and solved exactly."""
    height, width, channels = values.shape
    unknown = domain & ~known
    number = -np.ones((height, width), int)
    number[unknown] = np.arange(unknown.sum())
    rows, columns, entries = [], [], []
    right = np.zeros((unknown.sum(), channels))
    for y, x in np.argwhere(unknown):
        own, degree = number[y, x], 0
        right[own] += flux[y, x]
        for down, along in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            v, u = y + down, x + along
            if not (0 <= v < height and 0 <= u < width and domain[v, u]):
                continue
            degree += 1
            if known[v, u]:
                right[own] += values[v, u]
            else:
                rows.append(own), columns.append(number[v, u]), entries.append(-1.0)
        rows.append(own), columns.append(own), entries.append(float(degree))
    matrix = coo_matrix((entries, (rows, columns))).tocsc()
    result = np.where((known & domain)[..., None], values, 0).astype(float)
    result[unknown] = spsolve(matrix, right).reshape(-1, channels)
    return result


def scene(height, width):
    """A disc-shaped domain, known on its left half, with smooth values and a line of flux."""
    y, x = np.mgrid[:height, :width]
    domain = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (0.47 * min(height, width)) ** 2
    known = domain & (x < 0.45 * width)
    values = np.stack([np.sin(x / 9 + c) + np.cos(y / 7 - c) for c in range(3)], -1)
    flux = np.zeros((height, width, 3))
    flux[height // 3 : height // 2, width * 2 // 3] = 0.02
    return values.astype(np.float32), known, domain, flux.astype(np.float32)


@pytest.mark.parametrize("size", [(64, 64), (50, 71)])
def test_equals_direct_solve(size):
    arguments = scene(*size)
    expected = solve_directly(*arguments)
    np.testing.assert_allclose(solve_membrane(*arguments, cycles=60), expected, atol=3e-4)


def test_default_is_near_the_direct_solve():
    arguments = scene(96, 96)
    error = np.abs(solve_membrane(*arguments) - solve_directly(*arguments))
    assert error.max() < 0.02 * np.ptp(arguments[0])


def test_linear_values_are_continued():
    x = np.tile(np.arange(40, dtype=np.float32), (40, 1))[..., None]
    known = (x[..., 0] < 8) | (x[..., 0] > 31)
    values = np.where(known[..., None], x, 99)
    np.testing.assert_allclose(solve_membrane(values, known, cycles=12), x, atol=1e-3)


def test_unreachable_pixels_get_the_mean_of_the_known():
    known = np.zeros((64, 64), bool)
    known[:20, :20] = True
    domain = known.copy()
    domain[40:60, 40:60] = True
    solved = solve_membrane(np.full((64, 64, 1), 5, np.float32), known, domain)
    np.testing.assert_allclose(solved[40:60, 40:60], 5, atol=1e-3)
    assert (solved[~domain] == 0).all()


def test_poisson_blend_keeps_the_target_and_forgets_an_offset():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(48, 48, 3)).astype(np.float32)
    mask = np.zeros((48, 48), bool)
    mask[10:30, 12:40] = True
    before = target.copy()
    blended = poisson_blend(target + 7, target, mask, cycles=12)
    np.testing.assert_allclose(blended, target, atol=1e-3)
    np.testing.assert_array_equal(target, before)


def test_feather_rises_from_the_border_but_not_from_the_outline():
    mask = np.zeros((20, 40), bool)
    mask[:, :25] = True
    domain = np.zeros_like(mask)
    domain[:, 5:] = True
    weight = feather(mask & domain, 6, domain)
    assert (weight[:, 25:] == 0).all() and (weight[:, :5] == 0).all()
    assert (weight[:, 5:18] == 1).all()
    across = weight[10, 17:26]
    assert (np.diff(across) <= 0).all() and 0 < across[5] < 1
