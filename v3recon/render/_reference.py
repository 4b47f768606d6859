"""The definition of `rasterize.py`, one pixel and triangle at a time, in float64; tests only."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def find_faces(
    clip: Tensor, faces: Tensor, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Owner [B, H, W] (-1 = none), barycentrics [B, H, W, 3] and depth [B, H, W] of each pixel."""
    height, width = image_size
    face_id = np.full((len(clip), height, width), -1)
    bary = np.zeros((len(clip), height, width, 3))
    depth = np.zeros((len(clip), height, width))
    for item, vertices in enumerate(clip.detach().double().cpu().numpy()):
        for row in range(height):
            for column in range(width):
                for face, corners in enumerate(vertices[faces.cpu().numpy()]):
                    weights = weights_at(corners, column, row, image_size)
                    if weights is None:
                        continue
                    w = np.float32(weights @ corners[:, 3])
                    if face_id[item, row, column] < 0 or w < depth[item, row, column]:
                        face_id[item, row, column] = face
                        bary[item, row, column] = weights
                        depth[item, row, column] = w
    return face_id, bary, depth


def weights_at(
    corners: np.ndarray, column: int, row: int, image_size: tuple[int, int]
) -> np.ndarray | None:
    """Barycentrics [3] of a pixel in a triangle [3, 4] (clip), None where it is not the owner."""
    if not np.isfinite(corners).all():
        return None
    height, width = image_size
    w = corners[:, 3]
    x = 0.5 * ((corners[:, 0] + w) * width - w)
    y = 0.5 * ((corners[:, 1] + w) * height - w)
    edges = np.zeros(3)
    ties = []
    for vertex in range(3):
        one, two = (vertex + 1) % 3, (vertex + 2) % 3
        a = y[one] * w[two] - y[two] * w[one]
        b = x[two] * w[one] - x[one] * w[two]
        c = x[one] * y[two] - x[two] * y[one]
        edges[vertex] = a * column + (b * row + c)
        if edges[vertex] == 0:
            ties.append((a, b))
    total = edges[0] + edges[1] + edges[2]
    if total == 0 or (edges * total < 0).any():
        return None
    for a, b in ties:  # to the right of a left edge, or below a top edge
        if not (a * total > 0 or (a == 0 and b * total > 0)):
            return None
    weights = edges / total
    depth, z = weights @ w, weights @ corners[:, 2]
    return weights if depth > 0 and -depth <= z <= depth else None
