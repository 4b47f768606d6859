"""Training and inference cut the same crop from the same landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from v3recon.data.augment import Placement, crop_matrix, resize_matrix
from v3recon.detection.crop import BOX_FACTOR, crop_again
from v3recon.geometry.camera import Camera


@pytest.mark.parametrize("seed", range(3))
def test_training_and_inference_crop_alike(seed):
    random = np.random.default_rng(seed)
    points = random.normal([300, 200], [60, 40], (68, 2))
    rule = {"name": "box", "scale": BOX_FACTOR}
    inference = crop_again(torch.from_numpy(points), rule, torch.zeros(5, 3), Camera()).matrix
    np.testing.assert_allclose(crop_matrix(points, Placement()), inference, atol=1e-9)


def test_the_box_fills_its_share_of_the_crop():
    points = np.random.default_rng(0).uniform(40, 140, (68, 2))
    matrix = crop_matrix(points, Placement())
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    low, high = mapped.min(0), mapped.max(0)
    np.testing.assert_allclose((low + high) / 2, 111.5)
    np.testing.assert_allclose(max(high - low), 224 / BOX_FACTOR)
    half = resize_matrix(matrix, 112)  # pixel i of 112 covers pixels 2i and 2i + 1 of 224
    np.testing.assert_allclose(points @ half[:, :2].T + half[:, 2], (mapped + 0.5) / 2 - 0.5)
