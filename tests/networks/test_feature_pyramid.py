from __future__ import annotations

import torch

from v3recon.networks.feature_pyramid import FeaturePyramid

WIDTHS = (2, 3, 4, 5, 6)


def pyramid_of(size: int) -> list[torch.Tensor]:
    return [torch.rand(1, width, size >> i, size >> i) for i, width in enumerate(WIDTHS)]


def test_the_pyramid_sees_every_level_at_its_place():
    """A change in one corner of any level changes that corner of the result most."""
    torch.manual_seed(0)
    pyramid = FeaturePyramid(WIDTHS, 8).eval()
    maps = pyramid_of(64)
    with torch.no_grad():
        before = pyramid(maps)
        for level in range(len(maps)):
            changed = [m.clone() for m in maps]
            changed[level][..., -1, -1] += 5
            moved = (pyramid(changed) - before).abs().sum(1)[0]
            assert moved[-4:, -4:].mean() > 0, level
            if level < 2:  # the coarse ones see everything
                assert moved[:16, :16].max() == 0, level
