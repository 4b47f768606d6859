"""Seamless joining of pictures: feathered masks and the membrane (Poisson) equation.

Poisson image editing (Perez, Gangnet and Blake, 2003) looks for the picture whose gradients are
those of a source and whose values agree with a target at the border. With result = source + e the
correction e is harmonic, a membrane stretched over the border's differences: smooth, so a pyramid
from coarse to fine with a few relaxation sweeps per level finds it to well below one grey level.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from v3recon._fast.compiled import compiled

FloatArray = npt.NDArray[np.floating]
MaskArray = npt.NDArray[np.bool_]

OUTSIDE, UNKNOWN, KNOWN = 0, 1, 2
_COARSEST = 4  # side of a level that is solved by relaxation alone
_MULTIPLE = 32


def feather(mask: MaskArray, width: float, domain: MaskArray | None = None) -> FloatArray:
    """Weight that is 0 outside a mask and rises smoothly to 1 inside it.

    Args:
        mask: [H, W].
        width: distance from the mask's border at which the weight reaches 1, pixels.
        domain: [H, W]; the mask's border with pixels outside the domain is no border, so the
            weight stays 1 along the domain's outline. Default everything.

    Returns:
        [H, W] float32 in 0…1.
    """
    assert mask.ndim == 2, mask.shape
    inside = mask if domain is None else mask | ~domain
    if inside.all():
        return mask.astype(np.float32)
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
    ramp = np.clip(distance / max(width, 1e-6), 0, 1)
    return np.where(mask, ramp * ramp * (3 - 2 * ramp), 0).astype(np.float32)


def poisson_blend(
    source: FloatArray, target: FloatArray, mask: MaskArray, sweeps: int = 2, cycles: int = 1
) -> FloatArray:
    """Put a source's detail into a target's place and tone.

    Args:
        source: [H, W, C] whose gradients are wanted under the mask.
        target: [H, W, C] kept outside the mask.
        mask: [H, W], where the source goes.
        sweeps: relaxation sweeps at the finest level, see `solve_membrane`.
        cycles: corrections, see `solve_membrane`.

    Returns:
        [H, W, C] float32; equal to the target outside the mask.
    """
    assert source.shape == target.shape and source.shape[:2] == mask.shape, source.shape
    difference = target.astype(np.float32) - source
    return source + solve_membrane(difference, ~mask, sweeps=sweeps, cycles=cycles)


def solve_membrane(
    values: FloatArray,
    known: MaskArray,
    domain: MaskArray | None = None,
    flux: FloatArray | None = None,
    sweeps: int = 2,
    cycles: int = 1,
) -> FloatArray:
    """Fill unknown pixels with the solution of sum over neighbours q of (e_p - e_q) = flux_p.

    Neighbours are the four adjacent pixels inside the domain; its outline is free (no flow across
    it). Pixels that no known pixel can reach get the mean of the known ones.

    Args:
        values: [H, W, C], used where known.
        known: [H, W].
        domain: [H, W]; pixels outside are left at 0. Default everything.
        flux: [H, W, C] right-hand side at the unknown pixels; default 0 (the membrane).
        sweeps: Gauss-Seidel sweeps at the finest level; coarser levels, being cheaper, get more.
        cycles: corrections on the coarser levels after the first solution; each leaves a small
            part of the error, a tenth where the domain is simple.

    Returns:
        [H, W, C] float32: the values where known, the solution where unknown, 0 outside.
    """
    assert values.ndim == 3 and values.shape[:2] == known.shape, (values.shape, known.shape)
    height, width, channels = values.shape
    state = np.where(known, KNOWN, UNKNOWN).astype(np.uint8)
    if domain is not None:
        state[~domain] = OUTSIDE
    # A frame of outside pixels spares the kernels every test for the picture's border; the size is
    # filled up so that halving comes out even on the large levels.
    shape = tuple(-(-side // _MULTIPLE) * _MULTIPLE + 2 for side in (height, width))
    window = slice(1, height + 1), slice(1, width + 1)
    padded_state = np.zeros(shape, np.uint8)
    padded_state[window] = state
    solution = np.zeros((*shape, channels), np.float32)
    _copy_known(state, values, solution[window])
    right = None
    if flux is not None:
        right = np.zeros_like(solution)
        right[window] = flux
    _solve_level(padded_state, solution, right, sweeps, cycles, 1)
    return solution[window]


def _solve_level(
    state: np.ndarray,
    solution: np.ndarray,
    flux: np.ndarray | None,
    sweeps: int,
    cycles: int,
    coarse_cycles: int,
) -> None:
    """Solve one level in place, starting from the solution of the next coarser one."""
    height, width, channels = solution.shape
    halves = _chessboard(state)
    if not len(halves[0]) + len(halves[1]):
        return
    flat_state, flat = state.reshape(-1), solution.reshape(-1, channels)
    right = np.zeros((0, channels), np.float32) if flux is None else flux.reshape(-1, channels)
    if max(height, width) - 2 <= _COARSEST or height % 2 or width % 2:
        known = state == KNOWN
        if known.any():
            solution[state == UNKNOWN] = solution[known].mean(0)
        _relax(*halves, flat_state, flat, right, width, 2 * (height + width))
        return
    shape = (height // 2 + 1, width // 2 + 1)
    coarse_state = np.zeros(shape, np.uint8)
    coarse = np.zeros((*shape, channels), np.float32)
    coarse_flux = None if flux is None else np.zeros_like(coarse)
    _restrict(state, solution, coarse_state, coarse)
    if flux is not None:
        _add_children(state, flux, coarse_flux)
    more = min(2 * sweeps, 32)
    _solve_level(coarse_state, coarse, coarse_flux, more, coarse_cycles, coarse_cycles)
    _prolong(state, coarse_state, coarse, solution)
    _relax(*halves, flat_state, flat, right, width, sweeps)
    for _ in range(cycles):
        residual = np.zeros_like(flat)
        for pixels in halves:
            _residual(pixels, flat_state, flat, right, width, residual)
        coarse_flux = np.zeros_like(coarse)
        _add_children(state, residual.reshape(solution.shape), coarse_flux)
        correction = np.zeros_like(coarse)
        _solve_level(coarse_state, correction, coarse_flux, more, 0, 0)
        _prolong(state, coarse_state, correction, solution)
        _relax(*halves, flat_state, flat, right, width, sweeps)


@compiled()
def _copy_known(state, values, solution):
    height, width, channels = values.shape
    for row in range(height):
        for column in range(width):
            if state[row, column] == KNOWN:
                for c in range(channels):
                    solution[row, column, c] = values[row, column, c]


@compiled()
def _chessboard(state):
    """Flat ids of the unknown pixels on the red and on the black squares."""
    height, width = state.shape
    count = np.zeros(2, np.int64)
    for row in range(height):
        for column in range(width):
            if state[row, column] == UNKNOWN:
                count[(row + row * width + column) % 2] += 1
    red, black = np.empty(count[0], np.int32), np.empty(count[1], np.int32)
    count[:] = 0
    for row in range(height):
        for column in range(width):
            if state[row, column] == UNKNOWN:
                pixel = row * width + column
                square = (row + pixel) % 2
                if square == 0:
                    red[count[0]] = pixel
                else:
                    black[count[1]] = pixel
                count[square] += 1
    return red, black


@compiled()
def _restrict(state, values, coarse_state, coarse):
    """Coarse pixel: known if a child is (their mean), else unknown if a child is."""
    height, width, channels = coarse.shape
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            y, x = 2 * row - 1, 2 * column - 1
            known, unknown = 0, 0
            for k in range(4):
                child = state[y + k // 2, x + k % 2]
                known += child == KNOWN
                unknown += child == UNKNOWN
            if known:
                coarse_state[row, column] = KNOWN
                for c in range(channels):  # children that are not known still hold 0
                    total = values[y, x, c] + values[y, x + 1, c]
                    total += values[y + 1, x, c] + values[y + 1, x + 1, c]
                    coarse[row, column, c] = total / known
            elif unknown:
                coarse_state[row, column] = UNKNOWN


@compiled()
def _add_children(state, fine, coarse):
    """Sums of the unknown children: fluxes add up."""
    height, width, channels = fine.shape
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            if state[row, column] == UNKNOWN:
                for c in range(channels):
                    coarse[(row + 1) // 2, (column + 1) // 2, c] += fine[row, column, c]


@compiled()
def _prolong(state, coarse_state, coarse, values):
    """Add to the unknown pixels the bilinear value of the coarse pixels inside the domain."""
    height, width, channels = values.shape
    for row in range(1, height - 1):
        near_row = (row + 1) // 2
        far_row = near_row + 1 if row % 2 == 0 else near_row - 1
        for column in range(1, width - 1):
            if state[row, column] != UNKNOWN:
                continue
            near = (column + 1) // 2
            far = near + 1 if column % 2 == 0 else near - 1
            w0 = 9.0
            w1 = 3.0 if coarse_state[near_row, far] != OUTSIDE else 0.0
            w2 = 3.0 if coarse_state[far_row, near] != OUTSIDE else 0.0
            w3 = 1.0 if coarse_state[far_row, far] != OUTSIDE else 0.0
            scale = 1.0 / (w0 + w1 + w2 + w3)
            for c in range(channels):
                total = w0 * coarse[near_row, near, c] + w1 * coarse[near_row, far, c]
                total += w2 * coarse[far_row, near, c] + w3 * coarse[far_row, far, c]
                values[row, column, c] += total * scale


@compiled()
def _relax(red, black, state, values, flux, width, sweeps):
    """Gauss-Seidel in two colours: pixels of one colour depend on the other colour only."""
    channels = values.shape[1]
    for half in range(2 * sweeps):
        pixels = red if half % 2 == 0 else black
        for k in range(len(pixels)):
            p = pixels[k]
            degree = int(state[p - 1] != OUTSIDE) + int(state[p + 1] != OUTSIDE)
            degree += int(state[p - width] != OUTSIDE) + int(state[p + width] != OUTSIDE)
            if degree == 0:
                continue
            scale = np.float32(1.0) / np.float32(degree)
            for c in range(channels):
                # Outside pixels hold 0, so they may be added without a test.
                total = values[p - 1, c] + values[p + 1, c]
                total += values[p - width, c] + values[p + width, c]
                if len(flux):
                    total += flux[p, c]
                values[p, c] = total * scale


@compiled()
def _residual(unknown, state, values, flux, width, residual):
    """What is missing in the equation of every unknown pixel."""
    channels = values.shape[1]
    for k in range(len(unknown)):
        p = unknown[k]
        degree = int(state[p - 1] != OUTSIDE) + int(state[p + 1] != OUTSIDE)
        degree += int(state[p - width] != OUTSIDE) + int(state[p + width] != OUTSIDE)
        for c in range(channels):
            total = values[p - 1, c] + values[p + 1, c]
            total += values[p - width, c] + values[p + width, c]
            if len(flux):
                total += flux[p, c]
            residual[p, c] = total - degree * values[p, c]
