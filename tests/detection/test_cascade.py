"""MTCNN's cascade: exact small cases, and twins with facenet-pytorch where it is installed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from v3recon.detection import _cascade
from v3recon.detection._cascade import PairMax, load_stages, run_cascade
from v3recon.detection.sum_table import SumTable


@pytest.fixture(scope="module")
def stages():
    return load_stages()


def two_faces() -> np.ndarray:
    picture = np.full((520, 800, 3), 90, np.uint8)
    picture[:512, :512] = astronaut()
    picture[256:512, 530:786] = cv2.resize(astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    return picture


@pytest.mark.parametrize("picture", [two_faces(), astronaut()[:300, 100:400], two_faces() // 3])
def test_the_same_as_facenet_pytorch(stages, picture):
    facenet = pytest.importorskip("facenet_pytorch", reason="a twin of facenet-pytorch's MTCNN")
    twin = facenet.MTCNN(keep_all=True, min_face_size=20).eval()
    boxes, scores, points = twin.detect(np.ascontiguousarray(picture), landmarks=True)
    boxes, scores, points = (np.array(values, float) for values in (boxes, scores, points))
    found = run_cascade(picture, stages, 20)
    order, own = np.argsort(-scores), found.scores.argsort(descending=True)
    assert len(boxes) == len(found.boxes) >= 1
    np.testing.assert_allclose(found.boxes[own], boxes[order], atol=1e-2)
    np.testing.assert_allclose(found.points[own], points[order], atol=1e-2)
    np.testing.assert_allclose(found.scores[own], scores[order], atol=1e-5)


def test_values_of_facenet_pytorch(stages):
    """What facenet-pytorch 2.6.0 found in the same pixels."""
    found = run_cascade(astronaut()[:300, 100:400], stages, 20)
    np.testing.assert_allclose(found.boxes, [[82.029, 60.552, 168.114, 173.833]], atol=0.02)
    np.testing.assert_allclose(found.scores, [0.999909], atol=1e-5)
    points = [[104.357, 100.714], [147.125, 103.981], [124.469, 128.911]]
    points += [[102.017, 139.907], [145.084, 141.804]]
    np.testing.assert_allclose(found.points[0], points, atol=0.02)


@pytest.mark.parametrize("size", [(12, 400), (20, 20), (1, 1), (300, 300)])
def test_pictures_without_a_face(stages, size):
    found = run_cascade(np.full((*size, 3), 128, np.uint8), stages, 20)
    assert found.boxes.shape == (0, 4) and found.points.shape == (0, 5, 2)
    assert found.scores.shape == (0,)


def test_squares_and_corrections():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    torch.testing.assert_close(_cascade._squared(boxes), torch.tensor([[0.0, 20, 40, 60]]))
    moved = _cascade._corrected(boxes, torch.tensor([[0.1, 0.2, -0.1, 0.0]]), 0)
    torch.testing.assert_close(moved, torch.tensor([[12.0, 28, 28, 60]]))


def test_a_detail_of_a_better_face_is_dropped():
    boxes = torch.tensor([[0.0, 0, 100, 100], [60, 60, 90, 90], [80, 80, 180, 180]])
    kept = _cascade._best_apart(boxes, torch.tensor([0.9, 0.8, 0.95]), 0.7)
    assert kept.tolist() == [2, 0]


def test_views_beyond_the_border_are_cut(stages):
    picture = SumTable(astronaut())
    boxes = torch.tensor([[-50.0, -50, 60, 60], [600, 600, 700, 700], [180, 70, 280, 190]])
    with torch.no_grad():
        kept, score, *_ = _cascade._look_closer(picture, boxes, stages[1], 0)
    assert torch.equal(kept, boxes[2:]) and float(score[0]) > 0.9


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (5, 4), (1, 1)])
def test_pairs_are_pooled_as_torch_does(size):
    values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.max_pool2d(values, 2, 2, ceil_mode=True)
    assert torch.equal(PairMax()(values), expected)


def test_views_are_torchs_area_averages():
    picture = np.random.default_rng(0).integers(0, 255, (61, 83, 3)).astype(np.uint8)
    table, tensor = SumTable(picture), torch.from_numpy(picture).permute(2, 0, 1)[None].float()

    def averaged(part: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        views = torch.nn.functional.interpolate(part, size=size, mode="area")
        return views[0].permute(1, 2, 0).numpy()

    for size in ((61, 83), (20, 31), (7, 100)):
        np.testing.assert_allclose(table.resized(*size), averaged(tensor, size), atol=1e-3)
    corners = np.array([[0, 0, 83, 61], [10, 5, 30, 40], [80, 59, 83, 61]])
    views = table.views(corners, 24)
    for view, (left, top, right, bottom) in zip(views, corners, strict=True):
        part = tensor[:, :, top:bottom, left:right]
        np.testing.assert_allclose(view, averaged(part, (24, 24)), atol=1e-3)
    assert table.views(corners[:0], 24).shape == (0, 24, 24, 3)
