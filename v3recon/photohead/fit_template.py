"""The template takes the shape of the mean head, and the head's identity modes with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from v3recon.photohead.loops import HeadLoops, arc_lengths, points_along, split_loop
from v3recon.photohead.registration import (
    Pull,
    closest_points,
    displace,
    edges_of,
    graph_laplacian,
    solve_similarity,
    spread_change,
    triangulate,
    vertex_normals,
)
from v3recon.photohead.scan_model import ScanModel
from v3recon.photohead.subdivision import Subdivided
from v3recon.photohead.template import HeadTemplate

ROUNDS = 24
_SMOOTH = (300.0, 0.02)
"""Weight of the smoothness term in the first and the last round, falling by a constant factor."""
_REACH = (3.0, 0.25)
"""Farthest closest points that count (centimeters), first and last round."""
_AGREEMENT = 0.6
"""Least cosine between the normals of a vertex and of its closest point."""
_SLIDE = 0.3
"""Share of the tangential way to the closest point that a round goes."""
_EAR_STIFFNESS = 5.0
"""Ears fold over under the plain smoothness term."""
_UNFOLDING = 4.0
"""Factor on the stiffness around triangles that turned over, before the next attempt."""
_ATTEMPTS = 10
_CAVITY_TENSION = 0.05
"""Weight of squared differences of the modes between neighbors inside the mouth, which no scan
shows: unlike the smoothness term they do not extrapolate."""
_FREE_CORNER = 4
"""Points of the lips' seam at each corner that only smoothness moves."""
_JOINED = 0.85
"""Share of half the mouth's width within which the closed lips share one curve; beyond it, toward
the corners, the halves of the seam fold into each other."""
_TRIAL_HEADS = 400
TRIAL_LIMIT = 3.0
"""Random heads that tell where modes turn triangles over, coefficients cut at this many
deviations."""
_NEARLY = 0.03
"""Triangles that keep less than this share of their area toward their normal count as turned."""
_TONGUE_WIDTH, _TONGUE_HEIGHT = 0.85, 0.8
"""The template's tongue fills the whole mouth and hides the lower teeth when the jaw opens."""
_UP_AND_FORWARD = {"upper_teeth": (-0.4, 0.2), "lower_teeth": (0.1, -0.1), "tongue": (0.0, -0.6)}
"""Centimeters that teeth and tongue stand off the place that the cavity's walls say: edges of the
upper teeth are 2 mm below the lips' seam, and no gum comes through a chin."""
EYEBALL_RADIUS = 1.28
"""Centimeters; 0.3 mm and more inside ICT's lids, whose eyeballs are not spheres."""
EYEBALL_CENTER = (3.16, 3.61, 8.2)
"""Center of the left eyeball (centimeters): sphere through the front of ICT's iris and sclera."""


@dataclass(frozen=True)
class FittedTemplate:
    """The template in the shape of the mean head, centimeters.

    Attributes:
        start: [Vc, 3] the template moved by a similarity.
        similarity: scale and rotation [3, 3] of that (row vectors).
        mean: [Vc, 3] control vertices; the subdivided mesh follows the mean head.
        modes: [K, Vc, 3] identity modes per standard deviation.
        matched: [M] dense vertices that have a point of the mean head.
    """

    start: np.ndarray
    similarity: tuple[float, np.ndarray]
    mean: np.ndarray
    modes: np.ndarray
    matched: np.ndarray


def fit_template(
    template: HeadTemplate, dense: Subdivided, loops: HeadLoops, scans: ScanModel
) -> FittedTemplate:
    """Register the template to the mean head, then carry the identity modes over.

    Each round pulls the subdivided surface to its closest points on the head, lids and lips
    along curves, under a smoothness of the displacements that falls. Sockets follow the
    eyeballs, the mouth cavity follows smoothly, teeth and tongue the cavity.
    """
    start, scale, rotation = _align(template, loops, scans)
    stiffness = _ear_stiffness(start)
    laplacian = graph_laplacian(edges_of(template.quads[template.quad_surface == 0]), len(start))
    triangles = triangulate(dense.quads)
    normals = _normals(dense.operator @ start, triangles)
    for _ in range(_ATTEMPTS):
        smooth = sparse.csr_matrix(sparse.diags(stiffness) @ laplacian)
        mean, matched = _fit_mean(template, dense, loops, scans, start, smooth)
        turned = (_normals(dense.operator @ mean, triangles) * normals).sum(1) < 0
        if not turned.any():
            break
        stiffness[shaping_vertices(dense, triangles[turned])] *= _UNFOLDING
    mean = _follow(template, loops, start, mean)
    edges = edges_of(template.quads[template.quad_surface == 0])
    trusted = matched
    tension = np.where(np.isin(edges, loops.cavity).all(1), _CAVITY_TENSION, 0.0)
    smooth = sparse.diags(np.sqrt(_SMOOTH[1]) * _ear_stiffness(start)) @ laplacian
    for _ in range(_ATTEMPTS):
        stretch = sparse.diags(np.sqrt(tension)) @ _differences(edges, len(start))
        both = sparse.csr_matrix(sparse.vstack([smooth, stretch]))
        modes = _carry_modes(template, dense, loops, scans, mean, trusted, both)
        turned = turned_in_trials(dense, triangles, mean, modes, _TRIAL_HEADS)
        if not turned.any():
            break
        folded = np.unique(triangles[turned])
        near = np.isin(edges, shaping_vertices(dense, triangles[turned])).all(1)
        tension = np.where(near, np.maximum(tension * _UNFOLDING, _CAVITY_TENSION), tension)
        trusted = trusted[~np.isin(trusted, folded)]
    mean, modes = _join_lips(template, loops, mean, modes, laplacian)
    return FittedTemplate(start, (scale, rotation), mean, modes, matched)


def _fit_mean(
    template: HeadTemplate,
    dense: Subdivided,
    loops: HeadLoops,
    scans: ScanModel,
    start: np.ndarray,
    smooth: sparse.csr_matrix,
) -> tuple[np.ndarray, np.ndarray]:
    """Control vertices [Vc, 3] in the mean head's shape and the dense vertices matched to it."""
    visible = _visible_rows(template, dense, loops)
    curves = _curve_pull(template, loops, scans)
    eyes = _socket_pull(template, loops, start)
    triangles = triangulate(dense.quads)
    surface = scans.surface()
    mean, matched = start, np.zeros(len(visible), bool)
    for number in range(ROUNDS):
        progress = number / (ROUNDS - 1)
        weight = _SMOOTH[0] * (_SMOOTH[1] / _SMOOTH[0]) ** progress
        reach = _REACH[0] * (_REACH[1] / _REACH[0]) ** progress
        places = dense.operator @ mean
        normals = vertex_normals(places, triangles)[visible]
        closest = closest_points(surface, places[visible])
        way = closest.points - places[visible]
        matched = ((normals * closest.normals).sum(1) > _AGREEMENT) & (
            np.linalg.norm(way, axis=1) < reach
        )
        along = closest.normals * (closest.normals * way).sum(1, keepdims=True)
        target = places[visible] + along + _SLIDE * (way - along)
        pulls = [
            Pull(dense.operator[visible], target, matched.astype(float)),
            Pull(curves.rows, curves.targets, 3.0 + 30.0 * progress),
            eyes,
        ]
        mean = displace(start, pulls, np.sqrt(weight) * smooth)
        mean = (mean + mean[template.mirror] * [-1.0, 1.0, 1.0]) / 2
    return mean, visible[matched]


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Normals [F, 3] of triangles, as long as twice their area."""
    corners = vertices[triangles]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def shaping_vertices(dense: Subdivided, triangles: np.ndarray) -> np.ndarray:
    """Control vertices that shape some dense triangles."""
    return np.unique(dense.operator[np.unique(triangles)].indices)


def _differences(edges: np.ndarray, count: int) -> sparse.csr_matrix:
    """Difference of the values at both ends of each edge, [E, Vc]."""
    rows = np.repeat(np.arange(len(edges)), 2)
    values = np.tile([1.0, -1.0], len(edges))
    return sparse.csr_matrix((values, (rows, edges.ravel())), shape=(len(edges), count))


def turned_in_trials(
    dense: Subdivided,
    triangles: np.ndarray,
    mean: np.ndarray,
    modes: np.ndarray,
    heads: int,
    seed: int = 0,
) -> np.ndarray:
    """Which triangles [F] turn over, or nearly, in some of a number of random heads."""
    normals = _normals(dense.operator @ mean, triangles)
    limit = _NEARLY * (normals**2).sum(1)
    random = np.random.default_rng(seed).standard_normal((heads, len(modes)))
    random = random.clip(-TRIAL_LIMIT, TRIAL_LIMIT)
    turned = np.zeros(len(triangles), bool)
    for coeffs in random:
        places = dense.operator @ (mean + np.tensordot(coeffs, modes, 1))
        turned |= (_normals(places, triangles) * normals).sum(1) < limit
    return turned


def eyeball_centers() -> np.ndarray:
    """Centers [2, 3] of the right and the left eyeball, centimeters."""
    return np.array(EYEBALL_CENTER) * [[-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


def _align(
    template: HeadTemplate, loops: HeadLoops, scans: ScanModel
) -> tuple[np.ndarray, float, np.ndarray]:
    """Similarity by the corners of eyes and mouth and the tip of the nose."""
    vertices = template.vertices
    lid, seam = loops.lids[0], loops.mouth[1]
    inner, outer = lid[vertices[lid, 0].argmin()], lid[vertices[lid, 0].argmax()]
    right, left = seam[vertices[seam, 0].argmin()], seam[vertices[seam, 0].argmax()]
    ids = [
        template.mirror[outer],
        template.mirror[inner],
        inner,
        outer,
        right,
        left,
        loops.nose_tip,
    ]
    target = scans.mean[scans.landmarks_68[[36, 39, 42, 45, 60, 64, 30]]]
    scale, rotation, shift = solve_similarity(vertices[ids], target)
    return scale * vertices @ rotation + shift, scale, rotation


def _ear_stiffness(start: np.ndarray) -> np.ndarray:
    """Factor [Vc] of the smoothness term."""
    x, y, z = np.abs(start[:, 0]), start[:, 1], start[:, 2]
    ears = (x > 6.6) & (y > -3.5) & (y < 4.5) & (z > -3) & (z < 3)
    return np.where(ears, _EAR_STIFFNESS, 1.0)


def _visible_rows(template: HeadTemplate, dense: Subdivided, loops: HeadLoops) -> np.ndarray:
    """Dense vertices that only visible skin shapes."""
    hidden = template.vertex_surface != 0
    for ids in (loops.behind_lids, loops.lids[1]):
        hidden[ids] = hidden[template.mirror[ids]] = True
    hidden[np.concatenate([loops.cavity, *loops.mouth[:2]])] = True
    return np.flatnonzero(dense.operator @ hidden.astype(float) < 1e-9)


def _curve_pull(template: HeadTemplate, loops: HeadLoops, scans: ScanModel) -> Pull:
    """Lid margins and lips' seam onto the same curves of the mean head."""
    ids, targets = [], []
    lids = split_loop(loops.lids[0], template.vertices)
    for half, way in zip(lids, ([42, 43, 44, 45], [42, 47, 46, 45]), strict=True):
        places = points_along(scans.mean[scans.path(way)], arc_lengths(template.vertices[half]))
        ids += [half, template.mirror[half]]
        targets += [places, places * [-1.0, 1.0, 1.0]]
    lips = split_loop(loops.mouth[1], template.vertices)
    for half, way in zip(lips, ([60, 61, 62, 63, 64], [60, 67, 66, 65, 64]), strict=True):
        part = slice(_FREE_CORNER, -_FREE_CORNER)
        places = points_along(scans.mean[scans.path(way)], arc_lengths(template.vertices[half]))
        ids.append(half[part])
        targets.append(places[part])
    return Pull(_rows(np.concatenate(ids), len(template.vertices)), np.concatenate(targets), 1.0)


def _socket_pull(template: HeadTemplate, loops: HeadLoops, start: np.ndarray) -> Pull:
    """Eyeballs and sockets onto the mean head's eyeballs."""
    ids, targets = [], []
    eyes = template.ids_of("eyes")
    for sign, socket in ((1, loops.socket), (-1, template.mirror[loops.socket])):
        ball = eyes[start[eyes, 0] * sign > 0]
        center = _sphere_center(start[ball])
        radius = np.linalg.norm(start[ball] - center, axis=1).mean()
        part = np.concatenate([ball, socket])
        ids.append(part)
        aim = eyeball_centers()[(1 + sign) // 2]
        targets.append((start[part] - center) * (EYEBALL_RADIUS / radius) + aim)
    return Pull(_rows(np.concatenate(ids), len(start)), np.concatenate(targets), 100.0)


def _sphere_center(points: np.ndarray) -> np.ndarray:
    """Center of the sphere nearest to points [N, 3] (linear least squares)."""
    matrix = np.c_[2 * points, np.ones(len(points))]
    return np.linalg.lstsq(matrix, (points**2).sum(1), rcond=None)[0][:3]


def _join_lips(
    template: HeadTemplate,
    loops: HeadLoops,
    mean: np.ndarray,
    modes: np.ndarray,
    laplacian: sparse.csr_matrix,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and modes whose closed lips have no slit between them, in any head.

    Both halves of each of the seam's loops go to the curve midway between them, in the mean head
    and in every mode; a smooth change carries the rest of the lips along.
    """
    stacked = np.concatenate([mean[None], modes])  # [1 + K, Vc, 3]
    ids, aims = [], []
    for loop in loops.mouth[1:]:
        halves = [half[np.argsort(mean[half, 0])] for half in split_loop(loop, mean)]
        reach = _JOINED * min(np.abs(mean[half, 0]).max() for half in halves)
        for own, other in (halves, halves[::-1]):
            own = own[np.abs(mean[own, 0]) < reach]
            x, grid = mean[own, 0], mean[other, 0]
            right = np.searchsorted(grid, x).clip(1, len(grid) - 1)
            share = ((x - grid[right - 1]) / np.maximum(grid[right] - grid[right - 1], 1e-9))[
                :, None
            ]
            across = stacked[:, other[right - 1]] * (1 - share) + stacked[:, other[right]] * share
            ids.append(own)
            aims.append((stacked[:, own] + across) / 2)
    joined, aim = np.concatenate(ids), np.concatenate(aims, 1)
    change = (aim - stacked[:, joined]).transpose(1, 0, 2).reshape(len(joined), -1)
    spread = spread_change(laplacian, joined, change)
    stacked = stacked + spread.reshape(len(mean), -1, 3).transpose(1, 0, 2)
    return stacked[0], stacked[1:]


def _rows(ids: np.ndarray, count: int) -> sparse.csr_matrix:
    return sparse.csr_matrix(
        (np.ones(len(ids)), (np.arange(len(ids)), ids)), shape=(len(ids), count)
    )


def _follow(
    template: HeadTemplate, loops: HeadLoops, start: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """Teeth and tongue moved by the affine map of the cavity's walls next to them."""
    mean = mean.copy()
    for surface in ("upper_teeth", "lower_teeth", "tongue"):
        ids = template.ids_of(surface)
        gap = np.linalg.norm(start[loops.cavity][:, None] - start[ids], axis=2).min(1)
        walls = loops.cavity[np.argsort(gap)[:120]]
        scale, rotation, shift = solve_similarity(start[walls], mean[walls])
        mean[ids] = scale * start[ids] @ rotation + shift
        mean[ids, 1:] += _UP_AND_FORWARD[surface]
    tongue = template.ids_of("tongue")
    floor = mean[tongue, 1].min()
    mean[tongue, 0] *= _TONGUE_WIDTH
    mean[tongue, 1] = floor + _TONGUE_HEIGHT * (mean[tongue, 1] - floor)
    return (mean + mean[template.mirror] * [-1.0, 1.0, 1.0]) / 2


def _carry_modes(
    template: HeadTemplate,
    dense: Subdivided,
    loops: HeadLoops,
    scans: ScanModel,
    mean: np.ndarray,
    matched: np.ndarray,
    smooth: sparse.csr_matrix,
) -> np.ndarray:
    """Identity modes [K, Vc, 3]: closest points take their triangles' displacements along.

    Eyeballs and sockets move with ICT's eyeballs as a whole, teeth and tongue with its teeth.
    """
    count, number = len(mean), len(scans.modes)
    lids = np.concatenate([*loops.lids[:2], *(template.mirror[loop] for loop in loops.lids[:2])])
    halves = split_loop(loops.mouth[1], template.vertices)
    seam = [half[_FREE_CORNER:-_FREE_CORNER] for half in halves]
    seen = np.concatenate([lids, *seam])
    operator = sparse.vstack([dense.operator[matched], _rows(seen, count)])
    closest = closest_points(scans.surface(), operator @ mean)
    corners = scans.modes[:, scans.outside[closest.triangle]]  # [K, N, 3 corners, 3]
    target = np.einsum("nc,kncx->knx", closest.bary, corners)
    rigid, aims = [], []
    eyes = template.ids_of("eyes")
    for sign, side, socket in (
        (1, "left", loops.socket),
        (-1, "right", template.mirror[loops.socket]),
    ):
        part = np.concatenate([eyes[mean[eyes, 0] * sign > 0], socket])
        shift = scans.modes[:, scans.eyeball_ids(side)].mean(1)
        rigid.append(part)
        aims.append(np.broadcast_to(shift[:, None], (number, len(part), 3)))
    teeth = np.concatenate([template.ids_of(name) for name in ("upper_teeth", "lower_teeth")])
    mouth = np.concatenate([teeth, template.ids_of("tongue")])
    rigid.append(mouth)
    aims.append(_affine_modes(scans, mean[mouth]))
    fixed = _rows(np.concatenate(rigid), count)
    matrix = operator.T @ operator + 100.0 * fixed.T @ fixed + smooth.T @ smooth
    pull = operator.T @ target.transpose(1, 0, 2).reshape(len(closest.points), -1)
    fixed_aims = np.concatenate(aims, 1).transpose(1, 0, 2)
    pull += 100.0 * fixed.T @ fixed_aims.reshape(len(fixed_aims), -1)
    solved = splu(sparse.csc_matrix(matrix)).solve(pull)
    return solved.reshape(count, number, 3).transpose(1, 0, 2)


def _affine_modes(scans: ScanModel, points: np.ndarray) -> np.ndarray:
    """Displacements [K, N, 3] of points near the teeth: ICT's teeth's, as affine maps."""
    teeth = scans.mean[scans.teeth_ids()]
    center = teeth.mean(0)
    design = np.c_[teeth - center, np.ones(len(teeth))]
    flat = scans.modes[:, scans.teeth_ids()].transpose(1, 0, 2).reshape(len(teeth), -1)
    maps = np.linalg.lstsq(design, flat, rcond=None)[0]
    moved = np.c_[points - center, np.ones(len(points))] @ maps
    return moved.reshape(len(points), -1, 3).transpose(1, 0, 2)
