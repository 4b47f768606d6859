from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from v3recon.evaluation import nme
from v3recon.geometry.rotation import matrix_to_euler


def test_error_by_hand():
    # Box 40 wide and 10 high: size 20. One point of four is 5 off: mean 1.25, error 1.25 / 20.
    target = torch.tensor([[[0.0, 0], [40, 0], [0, 10], [40, 10]]])
    points = target + torch.tensor([[[3.0, 4], [0, 0], [0, 0], [0, 0]]])
    size = nme.box_size(target)
    assert size.tolist() == [20.0]
    assert nme.normalized_mean_error(points, target, size).tolist() == [0.0625]


def test_error_does_not_depend_on_scale_or_place(generator):
    target = torch.randn(5, 68, 2, generator=generator, dtype=torch.float64)
    points = target + 0.1 * torch.randn(5, 68, 2, generator=generator, dtype=torch.float64)
    once = nme.normalized_mean_error(points, target, nme.box_size(target))
    points, target = 7 * points + 100, 7 * target + 100
    again = nme.normalized_mean_error(points, target, nme.box_size(target))
    torch.testing.assert_close(once, again)
    eyes = nme.inter_ocular_distance(target)
    torch.testing.assert_close(eyes[0], (target[0, 36] - target[0, 45]).norm())


def test_bins_by_hand():
    yaw = torch.tensor([0.0, -30.0, 30.01, -60.0, 60.01, -89.0])
    assert nme.yaw_bin(yaw).tolist() == [0, 0, 1, 1, 2, 2]
    error = torch.tensor([0.01, 0.03, 0.04, 0.04, 0.06, 0.08])
    result = nme.bin_errors(error, yaw)
    assert result.bins == pytest.approx((0.02, 0.04, 0.07))
    assert result.counts == (2, 2, 2)
    assert result.mean == pytest.approx(0.13 / 3)
    assert result.plain == pytest.approx(0.26 / 6)
    assert result.std == pytest.approx(np.std([0.02, 0.04, 0.07]))
    assert result.std_sample == pytest.approx(np.std([0.02, 0.04, 0.07], ddof=1))


def test_published_summary_of_3ddfa():
    # Its released program prints these three means with mean 3.75 and deviation 0.83; its paper
    # gives 5.42 +- 2.21 for the three of the first version.
    def summary(*bins):
        return nme.bin_errors(torch.tensor(bins), torch.tensor([0.0, 45.0, 80.0]))

    assert summary(2.82, 3.58, 4.84).mean == pytest.approx(3.75, abs=0.005)
    assert summary(2.82, 3.58, 4.84).std == pytest.approx(0.83, abs=0.005)
    assert summary(3.78, 4.54, 7.93).mean == pytest.approx(5.42, abs=0.005)
    assert summary(3.78, 4.54, 7.93).std_sample == pytest.approx(2.21, abs=0.005)


def test_empty_bins_are_left_out():
    result = nme.bin_errors(torch.tensor([0.02, 0.04]), torch.tensor([10.0, 70.0]))
    assert math.isnan(result.bins[1]) and result.counts == (1, 0, 1)
    assert result.mean == pytest.approx(0.03)
    empty = nme.bin_errors(torch.zeros(0), torch.zeros(0))
    assert math.isnan(empty.mean) and math.isnan(empty.plain)


def test_rotation_of_300wlp_is_its_matrix_product(generator):
    angle = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    for one, rotation in zip(angle, nme.rotation_from_300wlp(angle), strict=True):
        (sx, sy, sz), (cx, cy, cz) = one.sin().tolist(), one.cos().tolist()
        about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
        about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
        column = about_x @ about_y @ about_z
        np.testing.assert_allclose(rotation.numpy(), column.T, atol=1e-12)


def test_angles_of_300wlp_round_trip(generator):
    angle = 1.4 * (2 * torch.rand(50, 3, generator=generator, dtype=torch.float64) - 1)
    torch.testing.assert_close(nme.rotation_to_300wlp(nme.rotation_from_300wlp(angle)), angle)


def test_signs_of_300wlp():
    # Positive yaw there: the nose (toward the camera) points to the viewer's left.
    yaw = torch.deg2rad(torch.tensor([[0.0, 40.0, 0.0]]))
    nose = torch.tensor([0.0, 0.0, 1.0]) @ nme.rotation_from_300wlp(yaw)[0]
    assert nose[0] < -0.6
    ours = torch.rad2deg(matrix_to_euler(nme.rotation_from_300wlp(yaw)))
    torch.testing.assert_close(ours, torch.tensor([[0.0, -40.0, 0.0]]), atol=1e-4, rtol=0)


def test_angle_differences_wrap():
    error = nme.angle_errors(torch.tensor([[179.0, 10, -5]]), torch.tensor([[-179.0, 13, -5]]))
    assert error.tolist() == [[2.0, 3.0, 0.0]]


def test_rotation_distance_of_a_known_turn():
    start = torch.eye(3, dtype=torch.float64)[None]
    for degrees in (0.0, 1e-4, 25.0, 180.0):
        angle = torch.deg2rad(torch.tensor([[0.0, 0.0, degrees]], dtype=torch.float64))
        turned = nme.rotation_from_300wlp(angle)
        assert nme.rotation_distance(start, turned).item() == pytest.approx(degrees, abs=1e-6)
