"""Face profiling: turn a photo's own 3D mesh further to the side and draw it again.

After Zhu et al. (TPAMI 2017): the face is the detected mesh with eyes and mouth closed by fans,
the background four rings around its outline that follow the turn less and less, so the outermost
ring and everything beyond it stay where they were. Nothing is drawn here but a *source map*: for
every output pixel the photo coordinates that it shows. One `cv2.remap` then makes the picture,
and the same map carries part labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from v3recon._fast.compiled import compiled
from v3recon.face_models.detector_mesh import POINT_COUNT, load_face_mesh, rotation_between

RING_SCALES = (1.12, 1.3, 1.6, 2.6)
"""Distance of each ring from the face's centre over that of the outline."""
RING_WEIGHTS = (0.85, 0.5, 0.2, 0.0)
"""Share of the turn that each ring follows."""
RING_PUSH = (0.22, 0.55, 1.0, 1.5)
"""Depth of each ring behind the outline, over the outline's mean distance from the centre."""


@dataclass(frozen=True)
class Sheet:
    """Topology of mesh + fans + rings.

    Attributes:
        triangles: [F, 3] int32 over 468 + 3 + 4 * 36 vertices.
        fans: the three vertex loops closed by fans; their centres are vertices 468…470.
    """

    triangles: np.ndarray
    fans: tuple[np.ndarray, ...]


@cache
def sheet_topology() -> Sheet:
    """Triangles of the profiling sheet, made once."""
    mesh = load_face_mesh()
    fans = (mesh.right_eye, mesh.left_eye, mesh.mouth)
    triangles = [mesh.triangles]
    for k, loop in enumerate(fans):
        centre = np.full(len(loop), POINT_COUNT + k)
        triangles.append(np.stack([loop, np.roll(loop, -1), centre], 1))
    inner = mesh.outline
    for k in range(len(RING_SCALES)):
        first = POINT_COUNT + len(fans) + k * len(mesh.outline)
        outer = np.arange(first, first + len(mesh.outline))
        inner_next, outer_next = np.roll(inner, -1), np.roll(outer, -1)
        triangles.append(np.stack([inner, outer, inner_next], 1))
        triangles.append(np.stack([inner_next, outer, outer_next], 1))
        inner = outer
    return Sheet(np.concatenate(triangles).astype(np.int32), fans)


def face_center(points: np.ndarray) -> np.ndarray:
    """Point [3] that a face turns about: the mean of the outline, in the frame of `points`."""
    return points[load_face_mesh().outline].mean(0)


def build_sheet(points: np.ndarray, push: float = 1.0) -> np.ndarray:
    """Vertices of mesh, fan centres and background rings of one photo.

    Args:
        points: [468, 3] pixels, x right, y down, z toward the camera.
        push: factor on the rings' depth (1: ears come out a little wide, 0.6: narrow).

    Returns:
        [615, 3] in the same frame.
    """
    mesh = load_face_mesh()
    fans = np.stack([points[loop].mean(0) for loop in sheet_topology().fans])
    outline = points[mesh.outline]
    center = outline.mean(0)
    offset = outline - center
    radius = np.linalg.norm(offset[:, :2], axis=1).mean()
    rings = []
    for scale, depth in zip(RING_SCALES, RING_PUSH, strict=True):
        ring = center + offset * [scale, scale, 1.0]
        ring[:, 2] -= push * depth * radius
        rings.append(ring)
    return np.concatenate([points, fans, *rings])


def turn_sheet(sheet: np.ndarray, pose: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Turn a sheet to a new yaw and pitch; the rings follow by their weights.

    Args:
        sheet: [615, 3] from `build_sheet`.
        pose: [3] the face's own pitch, yaw, roll, radians.
        yaw: new yaw, radians.
        pitch: new pitch, radians.

    Returns:
        [615, 3], of which the first 468 are the rigidly turned face points.
    """
    center = face_center(sheet)
    own_pitch, own_yaw, _ = pose
    face = POINT_COUNT + len(sheet_topology().fans)
    turned = np.empty_like(sheet)
    turned[:face] = (sheet[:face] - center) @ rotation_between(pose, yaw, pitch) + center
    count = len(load_face_mesh().outline)
    for k, weight in enumerate(RING_WEIGHTS):
        part = slice(face + k * count, face + (k + 1) * count)
        turn = rotation_between(
            pose, own_yaw + weight * (yaw - own_yaw), own_pitch + weight * (pitch - own_pitch)
        )
        turned[part] = (sheet[part] - center) @ turn + center
    return turned


def profile_map(
    sheet: np.ndarray, turned: np.ndarray, to_output: np.ndarray, size: int
) -> np.ndarray:
    """Source map of a turned face: which photo pixel each output pixel shows.

    Args:
        sheet: [V, 3] where the sheet lies in the photo (x, y used).
        turned: [V, 3] where it has turned to, same frame.
        to_output: [2, 3] affine map from photo pixels to output pixels.
        size: side S of the square output.

    Returns:
        [S, S, 2] float32 photo x, y; outside the sheet the plain affine map.
    """
    source_map = affine_map(to_output, size)
    scale = np.sqrt(abs(np.linalg.det(to_output[:, :2])))
    target = np.empty((len(turned), 3), np.float32)
    target[:, :2] = turned[:, :2] @ to_output[:, :2].T + to_output[:, 2]
    target[:, 2] = turned[:, 2] * scale
    draw_sheet(
        target,
        np.ascontiguousarray(sheet[:, :2], dtype=np.float32),
        sheet_topology().triangles,
        source_map,
    )
    return source_map


def affine_map(to_output: np.ndarray, size: int) -> np.ndarray:
    """Source map [size, size, 2] float32 of a plain affine warp (to_output: photo to output)."""
    inverse = np.linalg.inv(np.vstack([to_output, [0, 0, 1]]))[:2]
    return _fill_affine(inverse.astype(np.float32), size)


@compiled()
def _fill_affine(inverse: np.ndarray, size: int) -> np.ndarray:
    source_map = np.empty((size, size, 2), np.float32)
    for row in range(size):
        for column in range(size):
            for k in range(2):
                source_map[row, column, k] = (
                    inverse[k, 0] * column + inverse[k, 1] * row + inverse[k, 2]
                )
    return source_map


@compiled(fastmath=True)
def draw_sheet(
    target: np.ndarray, source: np.ndarray, triangles: np.ndarray, source_map: np.ndarray
) -> None:
    """Z-buffer raster of source coordinates into `source_map`; nearer = larger z, any winding."""
    height, width = source_map.shape[:2]
    depth = np.full((height, width), -np.inf, np.float32)
    for f in range(len(triangles)):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ax, ay, az = target[a, 0], target[a, 1], target[a, 2]
        bx, by, bz = target[b, 0], target[b, 1], target[b, 2]
        cx, cy, cz = target[c, 0], target[c, 1], target[c, 2]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if abs(area) < np.float32(1e-6):
            continue
        low_x = max(int(np.ceil(min(ax, bx, cx))), 0)
        high_x = min(int(np.floor(max(ax, bx, cx))), width - 1)
        low_y = max(int(np.ceil(min(ay, by, cy))), 0)
        high_y = min(int(np.floor(max(ay, by, cy))), height - 1)
        inverse = np.float32(1) / area
        for row in range(low_y, high_y + 1):
            for column in range(low_x, high_x + 1):
                x, y = np.float32(column), np.float32(row)
                u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) * inverse
                v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) * inverse
                w = np.float32(1) - u - v
                if u < 0 or v < 0 or w < 0:
                    continue
                z = u * az + v * bz + w * cz
                if z > depth[row, column]:
                    depth[row, column] = z
                    source_map[row, column, 0] = (
                        u * source[a, 0] + v * source[b, 0] + w * source[c, 0]
                    )
                    source_map[row, column, 1] = (
                        u * source[a, 1] + v * source[b, 1] + w * source[c, 1]
                    )


@compiled()
def sample_labels(labels: np.ndarray, source_map: np.ndarray) -> np.ndarray:
    """Labels at half the resolution of a source map, by a vote of each 2 x 2 block.

    Args:
        labels: [H, W] uint8 part labels of the photo, 0…8.
        source_map: [2 S, 2 S, 2] photo coordinates.

    Returns:
        [S, S] uint8; 0 outside the photo.
    """
    size = source_map.shape[0] // 2
    height, width = labels.shape
    result = np.zeros((size, size), np.uint8)
    found = np.zeros(4, np.uint8)
    for row in range(size):
        for column in range(size):
            for k in range(4):
                x = int(np.floor(source_map[2 * row + k // 2, 2 * column + k % 2, 0] + 0.5))
                y = int(np.floor(source_map[2 * row + k // 2, 2 * column + k % 2, 1] + 0.5))
                inside = 0 <= x < width and 0 <= y < height
                found[k] = labels[y, x] if inside else 0
            best, best_count = found[0], 0
            for k in range(4):
                count = 0
                for j in range(4):
                    count += found[j] == found[k]
                if count > best_count:
                    best, best_count = found[k], count
            result[row, column] = best
    return result
