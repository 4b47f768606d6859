"""Filters over time: lines pass, noise goes, movement stays where it was."""

from __future__ import annotations

import numpy as np
import pytest

from v3recon.video.filters import OneEuro, one_euro, smooth_two_sided


@pytest.fixture
def times() -> np.ndarray:
    """Four seconds at an uneven rate of about 25 a second."""
    random = np.random.default_rng(1)
    return np.cumsum(random.uniform(0.03, 0.05, 100))


def jitter(values: np.ndarray) -> float:
    return float(np.diff(values, axis=0).std())


def test_lines_pass_the_two_sided_filter_unchanged(times):
    lines = np.stack([times, 3 - 2 * times, np.ones_like(times)], 1)
    np.testing.assert_allclose(smooth_two_sided(times, lines), lines, atol=1e-9)


def test_rest_loses_its_noise(times):
    noise = np.random.default_rng(0).standard_normal((100, 40)) * 0.01
    smooth = smooth_two_sided(times, noise)
    assert smooth.std() < noise.std() / 3
    assert jitter(smooth) < jitter(noise) / 6
    assert jitter(one_euro(times, noise)) < jitter(noise) / 3


def test_a_blink_keeps_its_height_and_its_time(times):
    blink = np.exp(-0.5 * ((times - 2) / 0.06) ** 2)[:, None]
    noisy = blink + np.random.default_rng(0).standard_normal(blink.shape) * 0.02
    smooth = smooth_two_sided(times, noisy)
    assert smooth.max() > 0.85
    assert abs(times[smooth.argmax()] - times[blink.argmax()]) < 0.045
    rest = np.abs(times - 2) > 0.5
    assert smooth[rest].std() < 0.5 * noisy[rest].std()


def lag(times: np.ndarray, truth: np.ndarray, filtered: np.ndarray) -> float:
    """Seconds by which a filtered signal is late: the shift that explains it best."""
    shifts = np.arange(-0.2, 0.2, 0.002)
    errors = [np.square(np.interp(times - s, times, truth) - filtered).sum() for s in shifts]
    return float(shifts[int(np.argmin(errors))])


def test_movement_is_not_late(times):
    truth = np.sin(2 * np.pi * times / 1.5)
    noisy = (truth + np.random.default_rng(0).standard_normal(100) * 0.02)[:, None]
    assert abs(lag(times, truth, smooth_two_sided(times, noisy)[:, 0])) < 0.008
    assert lag(times, truth, one_euro(times, noisy)[:, 0]) < 0.04  # a frame


def test_one_euro_is_a_low_pass_of_first_order_at_rest():
    step = OneEuro(min_cutoff=1.0, beta=0.0)
    assert step(0.0, np.zeros(1)) == 0
    alpha = 1 / (1 + 1 / (2 * np.pi * 0.1))
    np.testing.assert_allclose(step(0.1, np.ones(1)), alpha)
    np.testing.assert_allclose(step(0.2, np.ones(1)), 1 - (1 - alpha) ** 2)


def test_a_few_frames_are_left_alone(times):
    values = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(smooth_two_sided(times[:4], values), values)
