"""Slow, obvious versions of what the package computes cleverly; plain loops, no tricks."""

from __future__ import annotations

import math

import numpy as np


def distances(point, points) -> list[float]:
    return [math.hypot(float(q[0] - point[0]), float(q[1] - point[1])) for q in points]


def statistics(points, anchors) -> np.ndarray:
    """[3, A] min, max, mean."""
    rows = [distances(anchor, points) for anchor in anchors]
    return np.array(
        [[min(r) for r in rows], [max(r) for r in rows], [sum(r) / len(r) for r in rows]]
    )


def part_distribution(points, index, target, anchors, part_weights) -> float:
    """points [B, V, 2], index lists of ids, target [B, P, 3, A], part_weights [B, P]."""
    total = 0.0
    for b in range(len(points)):
        for p, ids in enumerate(index):
            predicted = statistics([points[b][i] for i in ids], anchors)
            for f in range(3):
                for a in range(len(anchors)):
                    difference = predicted[f, a] - float(target[b][p][f][a])
                    total += float(part_weights[b][p]) * difference**2 / len(anchors)
    return total / len(points)


def part_distribution_gradient_min(points, anchors, target) -> np.ndarray:
    """The paper's gradient of the min term alone: +2 (v - a) (d_n - d_m) / d_n / A."""
    gradient = np.zeros((len(points), 2))
    for a, anchor in enumerate(anchors):
        row = distances(anchor, points)
        n = row.index(min(row))
        offset = np.asarray(points[n], float) - np.asarray(anchor, float)
        gradient[n] += 2 * offset * (1 - float(target[a]) / row[n]) / len(anchors)
    return gradient


def squared_nearest(points, target) -> tuple[list[float], list[int]]:
    value, index = [], []
    for p in points:
        row = [sum((float(a) - float(b)) ** 2 for a, b in zip(p, q, strict=True)) for q in target]
        value.append(min(row))
        index.append(row.index(min(row)))
    return value, index


def chamfer(points, target) -> float:
    there, back = squared_nearest(points, target)[0], squared_nearest(target, points)[0]
    return sum(there) / len(there) + sum(back) / len(back)


def icp(points, target) -> float:
    there, back = squared_nearest(points, target)[0], squared_nearest(target, points)[0]
    return sum(map(math.sqrt, there)) / len(there) + sum(map(math.sqrt, back)) / len(back)


def density_aware_chamfer(points, target, alpha) -> float:
    total = 0.0
    for one, two in ((points, target), (target, points)):
        value, index = squared_nearest(one, two)
        ratio = max(1.0, len(one) / len(two))
        terms = [
            1 - ratio * math.exp(-alpha * math.sqrt(v)) / index.count(i)
            for v, i in zip(value, index, strict=True)
        ]
        total += sum(terms) / len(terms)
    return total / 2


def farthest_points(points, count) -> list[int]:
    chosen = [0]
    while len(chosen) < count:
        gaps = [min(math.dist(p, points[c]) for c in chosen) for p in points]
        chosen.append(gaps.index(max(gaps)))
    return chosen


def triangle_distance(point, triangle) -> tuple[float, bool]:
    """Squared distance to the outline, and whether the point is inside."""
    best, signs = math.inf, []
    for k in range(3):
        a, b = np.asarray(triangle[k], float), np.asarray(triangle[(k + 1) % 3], float)
        edge, offset = b - a, np.asarray(point, float) - a
        along = min(1.0, max(0.0, float(edge @ offset) / float(edge @ edge)))
        best = min(best, float(((offset - along * edge) ** 2).sum()))
        signs.append(edge[0] * offset[1] - edge[1] * offset[0] >= 0)
    return best, all(signs) or not any(signs)


def soft_silhouette(points, faces, pixels, sigma) -> np.ndarray:
    coverage = np.zeros(len(pixels))
    for i, pixel in enumerate(pixels):
        free = 1.0
        for face in faces:
            squared, inside = triangle_distance(pixel, [points[v] for v in face])
            free *= 1 - 1 / (1 + math.exp(-(squared if inside else -squared) / sigma))
        coverage[i] = 1 - free
    return coverage


def wpdc_weights(parameters, target, reconstruct) -> np.ndarray:
    """One face; reconstruct takes and gives numpy arrays."""
    truth = reconstruct(target)
    weights = []
    for i in range(len(parameters)):
        mixed = target.copy()
        mixed[i] = parameters[i]
        weights.append(np.linalg.norm(reconstruct(mixed) - truth))
    return np.array(weights) / max(weights)
