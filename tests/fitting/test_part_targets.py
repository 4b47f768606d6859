import cv2
import naive
import numpy as np
import pytest
import torch
from PIL import Image

from v3recon.fitting.part_targets import (
    cut_forehead,
    part_masks,
    part_target_statistics,
)
from v3recon.geometry.point_sets import anchor_grid
from v3recon.io.celebamask import labels_from_celebamask


@pytest.mark.parametrize("method", ["fft", "direct", "auto"])
def test_statistics_equal_brute_force(method):
    generator = np.random.default_rng(0)
    masks = np.zeros((4, 30, 37), bool)
    masks[0] = generator.random((30, 37)) < 0.02
    masks[1, 8:20, 5:9] = True
    masks[2, 29, 36] = True  # one pixel in the corner; part 3 stays empty
    anchors = anchor_grid((30, 37), (6, 7)).numpy()
    targets = part_target_statistics(masks, anchors, method)
    assert targets.present.tolist() == [True, True, True, False]
    assert (targets.statistics[3] == 0).all()
    for part in range(3):
        rows, columns = np.nonzero(masks[part])
        expected = naive.statistics(np.stack([columns, rows], 1), anchors)
        np.testing.assert_allclose(targets.statistics[part], expected, rtol=1e-5, atol=1e-4)


def test_anchors_off_the_pixels_are_refused():
    masks = np.ones((1, 8, 8), bool)
    for anchor in ([0.5, 0.0], [0.0, 8.0], [-1.0, 0.0]):
        with pytest.raises(ValueError, match="pixel centres inside the 8 x 8"):
            part_target_statistics(masks, np.array([anchor]))


def test_forehead_cut_follows_the_brows():
    labels = np.full((20, 20), 8, np.uint8)
    assert cut_forehead(labels) is labels  # no brow seen
    labels[5, 4] = 3  # right brow, lower on the picture's left: the head is rolled
    labels[9, 12] = 4
    cut = cut_forehead(labels)
    for row in range(20):
        for column in range(20):
            above = row < 5 + 0.5 * (column - 4)
            expected = 0 if above and labels[row, column] == 8 else labels[row, column]
            assert cut[row, column] == expected
    assert (labels == 8).sum() == 398  # the input was not written to
    labels[9, 12] = 8
    assert ((cut_forehead(labels) == 0).sum(1) == [20] * 5 + [0] * 15).all()


def test_part_masks():
    labels = np.array([[0, 1, 8]], np.uint8)
    masks = part_masks(labels)
    assert masks.shape == (8, 1, 3) and masks.sum() == 2 and masks[0, 0, 1] and masks[7, 0, 2]
    with pytest.raises(ValueError, match="not a part label map"):
        part_masks(labels + 1)


@pytest.mark.needs_shared
def test_hand_made_mask(shared_dir):
    """Right is on the viewer's left, brows over eyes over lips, and statistics are exact."""
    path = sorted((shared_dir / "photos" / "celebamask" / "masks").iterdir())[0]
    labels = labels_from_celebamask(np.asarray(Image.open(path)))
    labels = cv2.resize(labels, (112, 112), interpolation=cv2.INTER_NEAREST)
    masks = part_masks(cut_forehead(labels))
    centre = [np.argwhere(mask).mean(0) for mask in masks]
    assert centre[0][1] < centre[1][1] and centre[2][1] < centre[3][1]
    assert centre[2][0] < centre[0][0] < centre[4][0] < centre[5][0] < centre[6][0]
    anchors = anchor_grid((112, 112), (5, 5))
    targets = part_target_statistics(masks, anchors.numpy())
    for part in range(8):
        rows, columns = np.nonzero(masks[part])
        distance = torch.cdist(
            anchors.double(), torch.from_numpy(np.stack([columns, rows], 1)).double()
        )
        expected = torch.stack([distance.amin(1), distance.amax(1), distance.mean(1)])
        np.testing.assert_allclose(targets.statistics[part], expected.numpy(), atol=1e-3)
