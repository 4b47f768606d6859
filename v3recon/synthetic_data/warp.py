"""Source maps: which pixel of the photo each pixel of the edited picture shows."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from v3recon.face_models.detector_mesh import POINT_COUNT, load_face_mesh
from v3recon.synthetic_data.expressions import LOWER_LOOP, UPPER_LOOP, side_ids
from v3recon.synthetic_data.profiling import affine_map, build_sheet, draw_sheet, sheet_topology

RING_FOLLOW = (0.9, 0.62, 0.3, 0.0)
"""Share of the outline's displacement that each background ring follows."""
FOLD_LIMIT = 0.02
"""Share of the face's triangles (by area) that may turn over."""
_CREASE = (130, 247, 30, 29, 27, 28, 56, 190, 243)
_UNDER_BROW = (226, 113, 225, 224, 223, 222, 221, 189, 244)
_COLUMNS, _ROWS, _EYE_ROWS = 41, 14, 8
LID_REACH = 0.35
"""How far above the lid's crease the stretched skin starts, share of the way to the brow."""
LID_INSET = 0.075
"""Distance of the lowest lid skin used from the detected lid margin, over the eye's width."""


def move_sheet(points: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mesh, fans and background rings before and after.

    Args:
        points: [468, 3] canvas pixels.
        moved: [468, 3].

    Returns:
        Two [615, 3]; the rings follow the outline's displacement less and less.
    """
    before, after = build_sheet(points), build_sheet(moved)
    outline = load_face_mesh().outline
    shift = moved[outline] - points[outline]
    first = POINT_COUNT + len(sheet_topology().fans)
    for k, follow in enumerate(RING_FOLLOW):
        part = slice(first + k * len(outline), first + (k + 1) * len(outline))
        after[part] = before[part] + follow * shift
    return before, after


def expression_map(
    points: np.ndarray, moved: np.ndarray, closed: tuple[str, ...], size: int, gaze: float = 0.0
) -> np.ndarray:
    """Source map of an edited face.

    Args:
        points: [468, 3] where the photo's points lie, canvas pixels.
        moved: [468, 3] where they go.
        closed: sides whose upper lid is drawn down over the eye.
        size: side of the canvas.
        gaze: share of the upper lid's way that the eye below it follows, where it is not closed.

    Returns:
        [size, size, 2] float32 canvas x, y of the photo.
    """
    before, after = move_sheet(points, moved)
    source_map = affine_map(np.eye(2, 3), size)
    draw_sheet(
        after.astype(np.float32),
        np.ascontiguousarray(before[:, :2], dtype=np.float32),
        sheet_topology().triangles,
        source_map,
    )
    for side in closed:
        if slit_height(moved, side) > 0.5:
            source, target = eye_sheet(points, moved, side, gaze)
            draw_sheet(target, source, grid_triangles(_EYE_ROWS), source_map)
        source, target = lid_sheet(points, moved, side)
        draw_sheet(target, source, grid_triangles(), source_map)
    return source_map


def fold_share(points: np.ndarray, moved: np.ndarray) -> float:
    """Share of the face's area, seen from the front before, that is turned over after."""
    triangles = load_face_mesh().triangles
    before, after = _areas(points, triangles), _areas(moved, triangles)
    sign = np.sign(before.sum())
    seen = before * sign > 0
    folded = seen & (after * sign < -0.05 * np.abs(before))
    return float(np.abs(before[folded]).sum() / np.abs(before[seen]).sum())


def lid_sheet(points: np.ndarray, moved: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Grid that pulls the skin between brow and upper lid down to the closed line.

    Downward the skin is stretched more and more; at the top the grid joins the mesh smoothly.

    Returns:
        [R * C, 2] where the skin comes from and [R * C, 3] where it goes, float32.
    """
    mirror = load_face_mesh().mirror
    rows = [side_ids(ids, side, mirror) for ids in (_UNDER_BROW, _CREASE, UPPER_LOOP)]
    brow, crease, upper = (smooth_curve(points[ids, :2]) for ids in rows)
    brow_to, crease_to, line = (smooth_curve(moved[ids, :2]) for ids in rows)
    width = np.linalg.norm(points[rows[2][0], :2] - points[rows[2][-1], :2])
    top = crease + LID_REACH * (brow - crease)
    top_to = crease_to + LID_REACH * (brow_to - crease_to)
    # The margin itself carries lashes and white of the eye: take skin from above it only.
    up = top - upper
    length = np.linalg.norm(up, axis=1, keepdims=True)
    inset = np.minimum(LID_INSET * width / np.maximum(length, 1e-6), 0.5)
    bottom = upper + inset * up
    available = np.linalg.norm(bottom - top, axis=1)
    needed = np.linalg.norm(line - top_to, axis=1)
    share = np.clip(available / np.maximum(needed, 1e-6), 0.05, 0.95)[None, :]
    t = np.linspace(0, 1, _ROWS)[:, None]
    # g(0) = 0, g'(0) = 1, g(1) = share: the skin leaves the top unstretched.
    travelled = (t - (1 - share) * t ** (0.97 / (1 - share))) / share
    source = top + travelled[..., None] * (bottom - top)
    target = top_to + t[..., None] * (line - top_to)
    flat = target.reshape(-1, 2)
    target = np.concatenate([flat, np.zeros((len(flat), 1))], 1)
    return source.reshape(-1, 2).astype(np.float32), target.astype(np.float32)


def eye_sheet(
    points: np.ndarray, moved: np.ndarray, side: str, gaze: float
) -> tuple[np.ndarray, np.ndarray]:
    """Grid of what still shows between lids: the eye stays, or looks down a little.

    Returns:
        [R * C, 2] where it comes from and [R * C, 3] where it goes, float32.
    """
    upper, lower = (lid_line(points, side, loop) for loop in (UPPER_LOOP, LOWER_LOOP))
    upper_to, lower_to = (lid_line(moved, side, loop) for loop in (UPPER_LOOP, LOWER_LOOP))
    s = np.linspace(0, 1, _COLUMNS)[:, None]
    shift = (1 - s) * (upper_to[0] - upper[0]) + s * (upper_to[-1] - upper[-1])
    t = np.linspace(0, 1, _EYE_ROWS)[:, None, None]
    target = upper_to + t * (lower_to - upper_to)
    source = target - shift - gaze * (upper_to - shift - upper)
    # Never beyond the eye that the photo shows.
    down = lower - upper
    share = ((source - upper) * down).sum(2) / np.maximum((down**2).sum(1), 1e-6)
    source = source + (share.clip(0.06, 0.97) - share)[..., None] * down
    target = np.concatenate([target.reshape(-1, 2), np.zeros((target[..., 0].size, 1))], 1)
    return source.reshape(-1, 2).astype(np.float32), target.astype(np.float32)


def slit_height(moved: np.ndarray, side: str) -> float:
    """Greatest gap between the lids, pixels."""
    lines = [lid_line(moved, side, loop) for loop in (UPPER_LOOP, LOWER_LOOP)]
    return float(np.linalg.norm(np.subtract(*lines), axis=1).max())


def lid_line(points: np.ndarray, side: str, loop: tuple[int, ...]) -> np.ndarray:
    """Smooth margin [N, 2] of a lid, outer to inner corner; lids of closed eyes share theirs."""
    return smooth_curve(points[side_ids(loop, side, load_face_mesh().mirror), :2])


def lid_outline(moved: np.ndarray, side: str) -> np.ndarray:
    """Closed outline [N, 2] of a closed eye's upper lid: from the crease to the closed line."""
    mirror = load_face_mesh().mirror
    crease = smooth_curve(moved[side_ids(_CREASE, side, mirror), :2])
    return np.concatenate([crease, lid_line(moved, side, UPPER_LOOP)[::-1]])


def eye_outline(points: np.ndarray, side: str) -> np.ndarray:
    """Closed outline [N, 2] of an open eye."""
    upper, lower = (lid_line(points, side, loop) for loop in (UPPER_LOOP, LOWER_LOOP))
    return np.concatenate([upper, lower[-2:0:-1]])


def smooth_curve(points: np.ndarray) -> np.ndarray:
    """A cubic through points [N, 2], sampled evenly at _COLUMNS parameters."""
    return _cubic_weights(len(points)) @ points


@cache
def _cubic_weights(count: int) -> np.ndarray:
    """[_COLUMNS, count] Catmull-Rom weights."""
    weights = np.zeros((_COLUMNS, count))
    for row, u in enumerate(np.linspace(0, count - 1, _COLUMNS)):
        first = min(int(u), count - 2)
        t = u - first
        values = (
            (-t + 2 * t**2 - t**3) / 2,
            (2 - 5 * t**2 + 3 * t**3) / 2,
            (t + 4 * t**2 - 3 * t**3) / 2,
            (t**3 - t**2) / 2,
        )
        for k, value in enumerate(values):
            place = first - 1 + k
            if place < 0:  # ends: extrapolated linearly
                weights[row, 0] += 2 * value
                weights[row, 1] -= value
            elif place >= count:
                weights[row, -1] += 2 * value
                weights[row, -2] -= value
            else:
                weights[row, place] += value
    return weights


@cache
def grid_triangles(rows: int = _ROWS, columns: int = _COLUMNS) -> np.ndarray:
    """Triangles of a grid of vertices, rows first."""
    ids = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b = ids[:-1, :-1].ravel(), ids[:-1, 1:].ravel()
    c, d = ids[1:, :-1].ravel(), ids[1:, 1:].ravel()
    return np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


def _areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (points[triangles[:, k], :2] for k in range(3))
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]


def remap(canvas: np.ndarray, source_map: np.ndarray) -> np.ndarray:
    """The picture a source map shows."""
    x, y = np.ascontiguousarray(source_map.transpose(2, 0, 1))
    return cv2.remap(canvas, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
