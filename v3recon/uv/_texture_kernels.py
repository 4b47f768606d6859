"""The compiled loops of `texture_extraction`: whole maps, one texel after the other."""

from __future__ import annotations

import numpy as np

from v3recon._fast.compiled import compiled


@compiled()
def find_gap(photo, other, model, mirror_weight, gap, flux):
    """Photo less filling, and the flux that takes the step between mirror and model away."""
    height, width, channels = photo.shape
    half = np.float32(0.5)
    for row in range(height):
        for column in range(width):
            weight = mirror_weight[row, column]
            for down, right in ((0, 1), (1, 0)):
                r, c = row + down, column + right
                if r < height and c < width and mirror_weight[r, c] != weight:
                    change = (mirror_weight[r, c] - weight) * half
                    for k in range(channels):
                        here = other[row, column, k] - model[row, column, k]
                        there = other[r, c, k] - model[r, c, k]
                        flux[row, column, k] += change * (here + there)
                        flux[r, c, k] -= change * (here + there)
            for k in range(channels):
                step = other[row, column, k] - model[row, column, k]
                gap[row, column, k] = photo[row, column, k] - model[row, column, k] - weight * step


@compiled()
def apply_tone(colors, limits, toned):
    """Colours times a gain, between two limits."""
    for i in range(colors.shape[0]):
        for k in range(3):
            toned[i, k] = min(max(colors[i, k] * limits[0, k], limits[1, k]), limits[2, k])


@compiled()
def limit_steps(gap, limits, limited):
    """Grey and the rest of each colour, each between its limits, added again."""
    for i in range(gap.shape[0]):
        gray = (gap[i, 0] + gap[i, 1] + gap[i, 2]) / np.float32(3)
        for k in range(3):
            rest = min(max(gap[i, k] - gray, limits[1, 0, k]), limits[1, 1, k])
            limited[i, k] = min(max(gray, limits[0, 0, k]), limits[0, 1, k]) + rest


@compiled(fastmath=True)
def fill(first, last, texture, mirrored, colors, faces, triangle, bary, smooth, kept, from_mirror):
    """Mix mirrored photo and model into the photo where it is not seen, in rows first…last - 1.

    `smooth` holds weight, mirror weight, correction (3) and relighting on the coarse map and is
    read bilinearly, first down (once for each row of texels), then across.
    """
    size, coarse = texture.shape[0], smooth.shape[0]
    scale, half, one = np.float32(coarse / size), np.float32(0.5), np.float32(1)
    border = np.float32(coarse - 1)
    base, share = np.empty(size, np.int32), np.empty(size, np.float32)
    for i in range(size):
        place = min(max((np.float32(i) + half) * scale - half, np.float32(0)), border)
        base[i] = min(int(place), coarse - 2)
        share[i] = place - np.float32(base[i])
    line = np.empty((coarse, 6), np.float32)
    low = np.empty(6, np.float32)
    for row in range(first, last):
        above, below, down = smooth[base[row]], smooth[base[row] + 1], share[row]
        for i in range(coarse):
            for k in range(6):
                line[i, k] = above[i, k] + down * (below[i, k] - above[i, k])
        for column in range(size):
            left, across = base[column], share[column]
            weight = line[left, 0] + across * (line[left + 1, 0] - line[left, 0])
            if weight > np.float32(0.9999):
                kept[row, column] = True
                continue
            for k in range(1, 6):
                low[k] = line[left, k] + across * (line[left + 1, k] - line[left, k])
            from_mirror[row, column] = low[1] > half
            face = triangle[row, column]
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            wa, wb, wc = bary[row, column]
            for k in range(3):
                model = wa * colors[a, k] + wb * colors[b, k] + wc * colors[c, k]
                other = np.float32(mirrored[row, column, k]) * low[5]
                filling = low[1] * other + (one - low[1]) * model + low[2 + k]
                value = weight * np.float32(texture[row, column, k]) + (one - weight) * filling
                value = min(max(value + half, np.float32(0)), np.float32(255))
                texture[row, column, k] = np.uint8(value)
