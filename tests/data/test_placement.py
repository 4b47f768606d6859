from __future__ import annotations

from dataclasses import replace

import numpy as np

from v3recon.data.augment import FAR_SCALE, FAR_SHIFT, AugmentSettings, draw_placement


def drawn(settings: AugmentSettings, count: int = 400):
    rng = np.random.default_rng(0)
    return [draw_placement(rng, settings) for _ in range(count)]


def reach(placements) -> np.ndarray:
    return np.array([max(np.abs(placement.shift)) for placement in placements])


def test_far_crops_come_in_their_share_and_range():
    settings = AugmentSettings(far=0.25)
    placements = drawn(settings)
    far = reach(placements) > settings.shift
    assert 0.2 < far.mean() / (1 - (settings.shift / FAR_SHIFT) ** 2) < 0.3
    assert reach(placements).max() <= FAR_SHIFT
    scales = np.array([placement.scale for placement in placements])
    assert scales[far].min() < settings.scale[0] and scales[far].max() > settings.scale[1]
    assert FAR_SCALE[0] <= scales.min() and scales.max() <= FAR_SCALE[1]


def test_without_far_crops_the_usual_ranges_hold():
    settings = AugmentSettings()
    assert reach(drawn(settings)).max() <= settings.shift
    low, high = settings.scale
    assert all(low <= placement.scale <= high for placement in drawn(settings))
    assert all(p.shift == (0, 0) and p.scale == 1 for p in drawn(replace(settings, far=1).plain()))
