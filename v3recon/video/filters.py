"""Filters of signals over time: One Euro for live use, a two-sided one for recorded takes.

The two-sided filter has no lag. It is strong where a signal rests and light where it moves.
"""

from __future__ import annotations

import numpy as np

MIN_CUTOFF, BETA = 1.0, 12.0
"""Of One Euro: hertz at rest, and hertz more per unit of normalised speed a second."""

_SPEED_CUTOFF = 1.0  # hertz
_STRONG, _LIGHT = 4.0, 0.6  # standard deviations of the two kernels, frames
_LONGEST = 0.2  # seconds; the strong kernel is no wider
_REST, _MOVED = 2.5, 5.0  # differences of the two in noise: from here on mixed, from there light
_REACH = 4.0  # kernel widths


class OneEuro:
    """One Euro filter of C signals (Casiez, Roussel and Vogel, CHI 2012), one step a frame.

    Low-pass of first order whose cutoff rises with the signal's speed:
    cutoff = min_cutoff + beta |speed|, alpha = 1 / (1 + 1 / (2 pi cutoff dt)).
    """

    def __init__(self, min_cutoff: float = MIN_CUTOFF, beta: float = BETA) -> None:
        """Start without a past.

        Args:
            min_cutoff: hertz at rest; less is smoother and slower.
            beta: hertz per unit of speed; more has less lag.
        """
        self.min_cutoff = min_cutoff
        self.beta = beta
        self._time = 0.0
        self._value: np.ndarray | None = None
        self._speed: np.ndarray | None = None

    def __call__(self, time: float, value: np.ndarray) -> np.ndarray:
        """The filtered values [C] at a time.

        Args:
            time: seconds, later than at the last call.
            value: [C], in units in which a usual movement is about 1.
        """
        if self._value is None or self._speed is None:
            self._time, self._value, self._speed = time, value.copy(), np.zeros_like(value)
            return value.copy()
        step = max(time - self._time, 1e-6)
        keep = _alpha(step, np.full_like(value, _SPEED_CUTOFF))
        self._speed = keep * (value - self._value) / step + (1 - keep) * self._speed
        alpha = _alpha(step, self.min_cutoff + self.beta * np.abs(self._speed))
        self._value = alpha * value + (1 - alpha) * self._value
        self._time = time
        return self._value.copy()


def _alpha(step: float, cutoff: np.ndarray) -> np.ndarray:
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


def one_euro(
    times: np.ndarray, values: np.ndarray, min_cutoff: float = MIN_CUTOFF, beta: float = BETA
) -> np.ndarray:
    """One Euro over a whole signal: what a live filter would have given.

    Args:
        times: [T] seconds, rising.
        values: [T, C].
        min_cutoff: see `OneEuro`.
        beta: see `OneEuro`.

    Returns:
        [T, C].
    """
    step = OneEuro(min_cutoff, beta)
    return np.stack([step(float(time), value) for time, value in zip(times, values, strict=True)])


def smooth_two_sided(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Recorded signals without their noise and without lag.

    Two local linear regressions under Gaussian windows, a wide and a narrow one, which have no lag.
    Where they differ by more than the signal's noise explains the signal moves, and the narrow one
    is taken; elsewhere the wide one. The noise is told from second differences (median), so that
    movement hardly counts.

    Args:
        times: [T] seconds, rising, not necessarily evenly.
        values: [T, C].

    Returns:
        [T, C].
    """
    if len(times) < 5:
        return values.copy()
    frame = float(np.median(np.diff(times)))
    strong = _local_linear(times, values, min(_STRONG * frame, _LONGEST))
    light = _local_linear(times, values, _LIGHT * frame)
    second = values[2:] - 2 * values[1:-1] + values[:-2]
    noise = 1.4826 * np.median(np.abs(second), axis=0) / np.sqrt(6)
    apart = _widest(np.abs(light - strong)) / np.maximum(noise, 1e-9)
    moved = np.clip((apart - _REST) / (_MOVED - _REST), 0, 1)
    return strong + moved * (light - strong)


def _local_linear(times: np.ndarray, values: np.ndarray, width: float) -> np.ndarray:
    """Value at each time of the line that fits best under a Gaussian window of `width` seconds."""
    result = np.empty_like(values)
    first = np.searchsorted(times, times - _REACH * width)
    last = np.searchsorted(times, times + _REACH * width, side="right")
    for row, time in enumerate(times):
        near = slice(first[row], last[row])
        offset = times[near] - time
        weight = np.exp(-0.5 * (offset / width) ** 2)
        s0, s1, s2 = weight.sum(), (weight * offset).sum(), (weight * offset**2).sum()
        determinant = s0 * s2 - s1**2
        if determinant < 1e-12 * s0 * s0 * width**2:  # a frame alone
            kernel = weight / s0
        else:
            kernel = weight * (s2 - s1 * offset) / determinant
        result[row] = kernel @ values[near]
    return result


def _widest(values: np.ndarray) -> np.ndarray:
    """The greatest of three neighbours in time, so that a movement's ends count as movement."""
    padded = np.pad(values, ((1, 1), (0, 0)))
    return np.maximum(np.maximum(padded[:-2], padded[2:]), values)
