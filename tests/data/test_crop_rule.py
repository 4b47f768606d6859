"""Training and inference cut the same crop from the same landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from v3recon.data.augment import Placement, crop_matrix
from v3recon.detection.crop import BOX_FACTOR, crop_again
from v3recon.geometry.camera import Camera


@pytest.mark.parametrize("seed", range(3))
def test_training_and_inference_crop_alike(seed):
    random = np.random.default_rng(seed)
    points = random.normal([300, 200], [60, 40], (68, 2))
    rule = {"name": "box", "scale": BOX_FACTOR}
    inference = crop_again(torch.from_numpy(points), rule, torch.zeros(5, 3), Camera()).matrix
    np.testing.assert_allclose(crop_matrix(points, Placement()), inference, atol=1e-9)
