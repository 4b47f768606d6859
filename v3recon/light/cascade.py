"""MTCNN's cascade in numpy; `detection._cascade` is the same in torch, with paper and terms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from v3recon.detection.sum_table import SumTable
from v3recon.light.files import Network

_CELL, _STRIDE = 12, 2
_BATCH = 512


def run_cascade(
    picture: np.ndarray,
    detector: Sequence[Network],
    min_size: int,
    thresholds: Sequence[float],
    pyramid_step: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces of a picture in no particular order.

    Args:
        picture: [H, W, 3] uint8 RGB.
        detector: the three networks.
        min_size: smallest face, pixels.
        thresholds: least score that each network keeps.
        pyramid_step: size of each copy over the one before.

    Returns:
        Boxes [N, 4], scores [N] and points [N, 5, 2] in pixels that count from 1.
    """
    table = SumTable(picture)
    boxes = _propose(table, detector[0], min_size, thresholds[0], pyramid_step)
    boxes, score, correction = _look_closer(table, boxes, detector[1], 24, thresholds[1])[:3]
    kept = _best(boxes, score, 0.7)
    boxes = _squared(_corrected(boxes[kept], correction[kept], 1))
    boxes, score, correction, offsets = _look_closer(table, boxes, detector[2], 48, thresholds[2])
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    points = offsets.reshape(-1, 2, 5).transpose(0, 2, 1)
    points = points * sides[:, None] + boxes[:, None, :2] - 1
    boxes = _corrected(boxes, correction, 1)
    kept = _best_apart(boxes, score, 0.7)
    return boxes[kept], score[kept], points[kept]


def _propose(
    table: SumTable, network: Network, min_size: int, threshold: float, step: float
) -> np.ndarray:
    height, width = table.size
    scale, found = _CELL / min_size, [np.zeros((0, 9), np.float32)]
    while min(height, width) * scale >= _CELL:
        views = _planes(table.resized(int(height * scale + 1), int(width * scale + 1))[None])
        score, correction = network(views=views).values()
        row, column = np.nonzero(score[0] >= threshold)
        place = np.stack([column, row], 1)
        start = np.floor((_STRIDE * place + 1) / scale)
        end = np.floor((_STRIDE * place + _CELL) / scale)
        own = score[0, row, column]
        boxes = np.concatenate([start, end], 1).astype(np.float32)
        rows = np.concatenate([boxes, own[:, None], correction[0][:, row, column].T], 1)
        found.append(rows[_best(boxes, own, 0.5)])
        scale *= step
    rows = np.concatenate(found)
    rows = rows[_best(rows[:, :4], rows[:, 4], 0.7)]
    return _squared(_corrected(rows[:, :4], rows[:, 5:], 0))


def _look_closer(
    table: SumTable, boxes: np.ndarray, network: Network, size: int, threshold: float
) -> tuple[np.ndarray, ...]:
    height, width = table.size
    whole = np.trunc(boxes).astype(np.int64)
    low = np.maximum(whole[:, :2], 1) - 1
    high = np.minimum(whole[:, 2:], [width, height])
    inside = (high > low).all(1)
    boxes, corners = boxes[inside], np.concatenate([low, high], 1)[inside]
    parts = [
        tuple(network(views=_planes(table.views(corners[start : start + _BATCH], size))).values())
        for start in range(0, max(len(corners), 1), _BATCH)
    ]
    score, *others = (np.concatenate(values) for values in zip(*parts, strict=True))
    sure = score > threshold
    return boxes[sure], score[sure], *(values[sure] for values in others)


def _planes(views: np.ndarray) -> np.ndarray:
    """[N, H, W, 3] as [N, 3, H, W]."""
    return np.ascontiguousarray(views.transpose(0, 3, 1, 2))


def _corrected(boxes: np.ndarray, correction: np.ndarray, extra: int) -> np.ndarray:
    sides = boxes[:, 2:] - boxes[:, :2] + extra
    return boxes + correction * np.tile(sides, 2)


def _squared(boxes: np.ndarray) -> np.ndarray:
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(1, keepdims=True, initial=0)
    start = boxes[:, :2] + (sides - longer) / 2
    return np.concatenate([start, start + longer], 1)


def _best(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Indices of boxes that share at most `overlap` of the union with a better one."""
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        common = _common(boxes[best], boxes[order], 0)
        order = order[common <= overlap * (area[best] + area[order] - common)]
    return np.array(kept, np.int64)


def _best_apart(boxes: np.ndarray, scores: np.ndarray, share: float) -> np.ndarray:
    """Indices of boxes that share at most `share` of the smaller one with a better one."""
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    kept: list[int] = []
    for number in order.tolist():
        common = _common(boxes[number], boxes[kept], 1)
        if not (common > share * np.minimum(area[kept], area[number])).any():
            kept.append(number)
    return np.array(kept, np.int64)


def _common(box: np.ndarray, others: np.ndarray, extra: int) -> np.ndarray:
    """[N] area that boxes [N, 4] share with one box [4]."""
    low = np.maximum(others[:, :2], box[:2])
    high = np.minimum(others[:, 2:], box[2:])
    return np.maximum(high - low + extra, 0).prod(1)
