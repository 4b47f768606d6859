"""Kernels of the part distribution loss on the CPU: no distance matrix is ever stored.

For every face and part:
  max   only vertices of the convex hull can be farthest: monotone chain, then a few per anchor;
  min   vertices in cells of a grid; a cell is looked at only when its box is near enough;
  mean  every pair, as two vectorised reductions: distances over the vertices for each anchor,
        then unit vectors over the anchors for each vertex (the gradient).
The loss is a sum of squares, so its gradient is known in the forward pass up to the factor that
arrives from outside; value and gradient come from one call.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from v3recon._fast.compiled import compiled

_CELL = 16  # vertices a cell of the grid holds on average


@compiled(error_model="numpy")
def convex_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of the convex hull's corners (Andrew's monotone chain), counter-clockwise."""
    count = len(x)
    order = np.argsort(y, kind="mergesort")
    order = order[np.argsort(x[order], kind="mergesort")]
    if count < 3:
        return order
    hull = np.empty(2 * count, np.int64)
    size = 0
    for sweep in range(2):
        floor = size + 1 if sweep == 0 else size
        for step in range(count):
            if sweep == 0:
                point = order[step]
            else:
                if step == 0:
                    continue
                point = order[count - 1 - step]
            while size > floor:
                a, b = hull[size - 2], hull[size - 1]
                cross = (x[b] - x[a]) * (y[point] - y[a]) - (y[b] - y[a]) * (x[point] - x[a])
                if cross > 0:
                    break
                size -= 1
            hull[size] = point
            size += 1
    return hull[: size - 1]


@compiled(error_model="numpy")
def _grid(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices sorted into cells: order [N], first of each cell [C + 1], boxes [4, C]."""
    count = len(x)
    side = max(1, int(math.sqrt(count / _CELL)))
    low_x, low_y = x.min(), y.min()
    step_x = (x.max() - low_x) / side + 1e-9
    step_y = (y.max() - low_y) / side + 1e-9
    cell = np.empty(count, np.int64)
    sizes = np.zeros(side * side + 1, np.int64)
    for k in range(count):
        column = min(side - 1, int((x[k] - low_x) / step_x))
        row = min(side - 1, int((y[k] - low_y) / step_y))
        cell[k] = row * side + column
        sizes[cell[k] + 1] += 1
    first = np.cumsum(sizes)
    cursor = first[:-1].copy()
    order = np.empty(count, np.int64)
    for k in range(count):
        order[cursor[cell[k]]] = k
        cursor[cell[k]] += 1
    used = 0
    starts = np.empty(side * side + 1, np.int64)
    box = np.empty((4, side * side), x.dtype)
    for c in range(side * side):
        if first[c] == first[c + 1]:
            continue
        inside = order[first[c] : first[c + 1]]
        starts[used] = first[c]
        box[0, used] = x[inside].min()
        box[1, used] = x[inside].max()
        box[2, used] = y[inside].min()
        box[3, used] = y[inside].max()
        used += 1
    starts[used] = count
    return order, starts[: used + 1], box[:, :used].copy()


@compiled(fastmath=True, error_model="numpy")
def _box_distances(ax: float, ay: float, box: np.ndarray, out: np.ndarray) -> None:
    """Squared distance from a point to each box."""
    for c in range(box.shape[1]):
        dx = max(max(box[0, c] - ax, ax - box[1, c]), 0)
        dy = max(max(box[2, c] - ay, ay - box[3, c]), 0)
        out[c] = dx * dx + dy * dy


@compiled(error_model="numpy")
def _nearest(
    x: np.ndarray,
    y: np.ndarray,
    starts: np.ndarray,
    box: np.ndarray,
    anchors: np.ndarray,
    index: np.ndarray,
) -> None:
    """Index of the nearest point of each anchor; points sorted by `_grid`."""
    bound = np.empty(box.shape[1], x.dtype)
    best_index = 0
    for a in range(anchors.shape[1]):
        ax, ay = anchors[0, a], anchors[1, a]
        _box_distances(ax, ay, box, bound)
        # The neighbouring anchor's answer is a good first guess.
        best = (x[best_index] - ax) ** 2 + (y[best_index] - ay) ** 2
        for c in range(len(bound)):
            if bound[c] >= best:
                continue
            for k in range(starts[c], starts[c + 1]):
                squared = (x[k] - ax) ** 2 + (y[k] - ay) ** 2
                if squared < best:
                    best = squared
                    best_index = k
        index[a] = best_index


@compiled(fastmath=True, error_model="numpy")
def farthest(
    x: np.ndarray, y: np.ndarray, hull: np.ndarray, anchors: np.ndarray, index: np.ndarray
) -> None:
    """Index of the farthest point of each anchor, out of the hull's corners."""
    best = np.full(anchors.shape[1], -1, x.dtype)
    slot = np.zeros(anchors.shape[1], np.int32)
    for h in range(len(hull)):
        px, py = x[hull[h]], y[hull[h]]
        for a in range(anchors.shape[1]):
            squared = (anchors[0, a] - px) ** 2 + (anchors[1, a] - py) ** 2
            more = squared > best[a]
            best[a] = squared if more else best[a]
            slot[a] = h if more else slot[a]
    for a in range(anchors.shape[1]):
        index[a] = hull[slot[a]]


@compiled(fastmath=True, error_model="numpy")
def mean_distances(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, anchors: np.ndarray, mean: np.ndarray
) -> None:
    """Weighted sum of the distances from each anchor to all points."""
    tiny = x.dtype.type(1e-12)
    for a in range(anchors.shape[1]):
        ax, ay = anchors[0, a], anchors[1, a]
        total = x.dtype.type(0)
        for k in range(len(x)):
            dx, dy = x[k] - ax, y[k] - ay
            total += weight[k] * np.sqrt(dx * dx + dy * dy + tiny)
        mean[a] = total


@compiled(fastmath=True, error_model="numpy")
def _mean_gradient(
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    anchors: np.ndarray,
    slope: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """Adds weight_k * sum_a slope_a (v_k - a) / |v_k - a| to the gradient of each point."""
    one, tiny = x.dtype.type(1), x.dtype.type(1e-12)
    for k in range(len(x)):
        px, py = x[k], y[k]
        sum_x = x.dtype.type(0)
        sum_y = x.dtype.type(0)
        for a in range(anchors.shape[1]):
            dx, dy = px - anchors[0, a], py - anchors[1, a]
            share = slope[a] * (one / np.sqrt(dx * dx + dy * dy + tiny))
            sum_x += share * dx
            sum_y += share * dy
        gradient[k, 0] += weight[k] * sum_x
        gradient[k, 1] += weight[k] * sum_y


@compiled(error_model="numpy")
def _extreme(
    x: np.ndarray,
    y: np.ndarray,
    anchors: np.ndarray,
    index: np.ndarray,
    target: np.ndarray,
    factor: float,
    gradient: np.ndarray,
) -> float:
    """Loss and gradient of a statistic that is the distance to one selected point."""
    loss = 0.0
    for a in range(anchors.shape[1]):
        k = index[a]
        dx, dy = x[k] - anchors[0, a], y[k] - anchors[1, a]
        distance = math.sqrt(dx * dx + dy * dy)
        residual = distance - target[a]
        loss += factor * residual * residual
        if distance > 0:
            share = 2 * factor * residual / distance
            gradient[k, 0] += share * dx
            gradient[k, 1] += share * dy
    return loss


@compiled(error_model="numpy")
def _face_loss(
    points: np.ndarray,
    weights: np.ndarray,
    index: np.ndarray,
    anchors: np.ndarray,
    target: np.ndarray,
    factors: np.ndarray,
    gradient: np.ndarray,
    need_gradient: bool,
) -> float:
    """Loss of one face; its gradient is added to `gradient` [V, 2].

    points [V, 2], weights [V], index [P, N] (-1 = no vertex), anchors [2, A], target [P, 3, A],
    factors [P, 3] (0 = leave out).
    """
    loss = 0.0
    anchor_count = anchors.shape[1]
    picked = np.empty(anchor_count, np.int64)
    mean = np.empty(anchor_count, points.dtype)
    for part in range(index.shape[0]):
        if factors[part].max() <= 0:
            continue
        members = index[part]
        members = members[members >= 0]
        members = members[weights[members] > 0]
        if len(members) == 0:
            continue
        x, y = points[members, 0].copy(), points[members, 1].copy()
        order, starts, box = _grid(x, y)
        members, x, y = members[order], x[order], y[order]
        weight = weights[members]
        weight = (weight / weight.sum()).astype(points.dtype)
        local = np.zeros((len(members), 2), points.dtype)
        if factors[part, 0] > 0:
            _nearest(x, y, starts, box, anchors, picked)
            loss += _extreme(x, y, anchors, picked, target[part, 0], factors[part, 0], local)
        if factors[part, 1] > 0:
            farthest(x, y, convex_hull(x, y), anchors, picked)
            loss += _extreme(x, y, anchors, picked, target[part, 1], factors[part, 1], local)
        if factors[part, 2] > 0:
            mean_distances(x, y, weight, anchors, mean)
            for a in range(anchor_count):
                residual = mean[a] - target[part, 2, a]
                loss += factors[part, 2] * residual * residual
                mean[a] = 2 * factors[part, 2] * residual
            if need_gradient:
                _mean_gradient(x, y, weight, anchors, mean, local)
        for k in range(len(members)):
            gradient[members[k], 0] += local[k, 0]
            gradient[members[k], 1] += local[k, 1]
    return loss


def face_losses(
    points: np.ndarray,
    weights: np.ndarray,
    index: np.ndarray,
    anchors: np.ndarray,
    target: np.ndarray,
    factors: np.ndarray,
    need_gradient: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss [B] (float64) and gradient [B, V, 2] of a batch; faces are shared among threads.

    Args:
        points: [B, V, 2] float32 or float64, pixels.
        weights: [B, V] >= 0, same type.
        index: [P, N] int64, -1 = no vertex.
        anchors: [2, A], same type.
        target: [B, P, 3, A], same type.
        factors: [B, P, 3] float64, what each squared difference is multiplied by.
        need_gradient: False leaves the gradient incomplete.
    """
    loss = np.zeros(len(points))
    gradient = np.zeros_like(points)

    def work(face: int) -> None:
        loss[face] = _face_loss(
            points[face],
            weights[face],
            index,
            anchors,
            target[face],
            factors[face],
            gradient[face],
            need_gradient,
        )

    threads = min(torch.get_num_threads(), len(points))
    if threads == 1:
        for face in range(len(points)):
            work(face)
    else:  # threads live for one call, so that forked data loaders inherit none
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(len(points))))
    return loss, gradient


@compiled(error_model="numpy")
def nearest_index(
    source: np.ndarray, target: np.ndarray, target_mask: np.ndarray, index: np.ndarray
) -> None:
    """Index [B, N] of the nearest target [B, M, D] that is there, of each source [B, N, D]."""
    for b in range(source.shape[0]):
        for n in range(source.shape[1]):
            best = np.inf
            for m in range(target.shape[1]):
                squared = 0.0
                for axis in range(source.shape[2]):
                    squared += (source[b, n, axis] - target[b, m, axis]) ** 2
                if squared < best and target_mask[b, m]:
                    best = squared
                    index[b, n] = m
