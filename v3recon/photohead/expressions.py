"""The template's ARKit shapes carried to the mean head: local size, eyeballs, lids that meet."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.photohead.fit_template import (
    EYEBALL_RADIUS,
    FittedTemplate,
    eyeball_centers,
)
from v3recon.photohead.loops import HeadLoops, split_loop
from v3recon.photohead.registration import edges_of, graph_laplacian, spread_change
from v3recon.photohead.template import HeadTemplate

_RIDGE = 0.5
"""Pull of the local affine maps toward the common similarity, relative to their neighborhoods."""
_SMOOTHING = 8
"""Rounds of averaging the local maps with their neighbors'."""
_CLEARANCE = 0.012
"""Least distance of a lid from the eyeball, centimeters."""
_FRACTIONS = (0.25, 0.5, 0.75, 1.0)
"""Weights of a shape at which lids are kept off the eyeball."""
_LID_REACH = 0.9
"""Skin within this distance of a lid margin (centimeters) is kept off the eyeball."""
BLINKS = {"eyeBlinkLeft": 1, "eyeBlinkRight": 0}
"""Shapes that close an eye, with the index of the eye in `eyeball_centers`."""


def carry_expressions(
    template: HeadTemplate, loops: HeadLoops, fitted: FittedTemplate
) -> np.ndarray:
    """Displacements [52, Vc, 3] of the fitted template, centimeters.

    Each vertex's displacement goes through the affine map of its neighborhood from the template
    to the fitted template, so that a wider mouth smiles wider. Eyeballs turn about their
    centers. Blinks end with the lids' margins on one curve. Lids stay off the eyeballs.
    """
    scale, rotation = fitted.similarity
    moved = scale * template.expressions @ rotation  # as the similarity alone carries them
    maps = _local_maps(template, fitted)
    shapes = np.einsum("vxy,evx->evy", maps, moved)
    eyes = template.ids_of("eyes")
    shapes[:, eyes] = _turned_eyes(fitted, eyes, moved[:, eyes])
    for name, eye in BLINKS.items():
        number = ARKIT_NAMES.index(name)
        shapes[number] = _close_lids(template, loops, fitted, shapes[number], eye)
    for number in range(len(shapes)):
        shapes[number] = _keep_off_eyeballs(template, loops, fitted.mean, shapes[number])
    return shapes


def _local_maps(template: HeadTemplate, fitted: FittedTemplate) -> np.ndarray:
    """Affine maps [Vc, 3, 3] (row vectors) of each vertex's two-ring, ridge toward identity."""
    count = len(fitted.start)
    edges = edges_of(template.quads)
    both = np.concatenate([edges, edges[:, ::-1]])
    graph = sparse.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    ring = sparse.csr_matrix(((graph @ graph + graph) > 0).astype(float))
    rows = np.repeat(np.arange(count), np.diff(ring.indptr))
    before = fitted.start[ring.indices] - fitted.start[rows]
    after = fitted.mean[ring.indices] - fitted.mean[rows]
    gram, cross = np.zeros((count, 3, 3)), np.zeros((count, 3, 3))
    np.add.at(gram, rows, before[:, :, None] * before[:, None])
    np.add.at(cross, rows, before[:, :, None] * after[:, None])
    ridge = _RIDGE * np.trace(gram, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
    maps = np.linalg.solve(gram + ridge, cross + ridge)
    smooth = sparse.diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph
    for _ in range(_SMOOTHING):
        maps = (maps + (smooth @ maps.reshape(count, 9)).reshape(count, 3, 3)) / 2
    return maps


def _turned_eyes(fitted: FittedTemplate, eyes: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Displacements [52, N, 3] of the eyeballs: the template's turns about the new centers."""
    result = np.zeros_like(moved)
    for center in eyeball_centers():
        part = fitted.mean[eyes, 0] * center[0] > 0
        start, mean = fitted.start[eyes[part]], fitted.mean[eyes[part]] - center
        old = start - start.mean(0)
        for number in np.flatnonzero(np.abs(moved[:, part]).max((1, 2)) > 1e-6):
            new = old + moved[number, part]
            left, _, right = np.linalg.svd(old.T @ (new - new.mean(0)))
            turn = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
            result[number, part] = mean @ turn - mean
    return result


def _close_lids(
    template: HeadTemplate,
    loops: HeadLoops,
    fitted: FittedTemplate,
    shape: np.ndarray,
    eye: int,
) -> np.ndarray:
    """A blink whose upper and lower lid margins end on one curve.

    Upper and lower vertices of each margin loop meet at a point three quarters of the way down,
    on the eyeball; a smooth change carries the rest of the lids along.
    """
    center = eyeball_centers()[eye]
    ids, targets = [], []
    for depth, loop in enumerate(loops.lids[:3]):
        loop = loop if eye == 1 else template.mirror[loop]
        upper, lower = split_loop(loop, fitted.mean)
        closed = fitted.mean + shape
        line = _meeting_line(closed[upper], closed[lower], center, 0.02 + 0.02 * depth)
        for half in (upper, lower):
            ids.append(half[1:-1])
            x = closed[half[1:-1], 0]
            targets.append(
                np.stack([np.interp(x, line[:, 0], line[:, axis]) for axis in range(3)], 1)
            )
    ids, aims = np.concatenate(ids), np.concatenate(targets)
    change = aims - (fitted.mean + shape)[ids]
    skin = template.quads[template.quad_surface == 0]
    return shape + spread_change(graph_laplacian(edges_of(skin), len(shape)), ids, change)


def _meeting_line(
    upper: np.ndarray, lower: np.ndarray, center: np.ndarray, height: float
) -> np.ndarray:
    """The curve [N, 3] on which a closed eye's margins meet, `height` outside the eyeball."""
    x = np.linspace(
        max(upper[:, 0].min(), lower[:, 0].min()), min(upper[:, 0].max(), lower[:, 0].max()), 60
    )
    one, other = (
        np.stack([np.interp(x, half[:, 0], half[:, axis]) for axis in range(3)], 1)
        for half in (upper[np.argsort(upper[:, 0])], lower[np.argsort(lower[:, 0])])
    )
    line = 0.35 * one + 0.65 * other
    way = line - center
    length = np.linalg.norm(way, axis=1, keepdims=True)
    return center + way / length * np.maximum(length, EYEBALL_RADIUS + _CLEARANCE + height)


def _keep_off_eyeballs(
    template: HeadTemplate, loops: HeadLoops, mean: np.ndarray, shape: np.ndarray
) -> np.ndarray:
    """The shape with lid vertices pushed outward where a part of it would cut into an eyeball."""
    shape = shape.copy()
    for eye, center in enumerate(eyeball_centers()):
        margin = loops.lids[0] if eye == 1 else template.mirror[loops.lids[0]]
        hidden = loops.behind_lids if eye == 1 else template.mirror[loops.behind_lids]
        gap = np.linalg.norm(mean[:, None] - mean[margin], axis=2).min(1)
        near = np.flatnonzero((gap < _LID_REACH) & (template.vertex_surface == 0))
        near = np.setdiff1d(near, np.setdiff1d(hidden, margin))
        for _ in range(3):
            for weight in _FRACTIONS:
                way = mean[near] + weight * shape[near] - center
                length = np.linalg.norm(way, axis=1, keepdims=True)
                missing = np.maximum(EYEBALL_RADIUS + _CLEARANCE - length, 0.0)
                still = np.linalg.norm(shape[near], axis=1, keepdims=True) < 1e-6
                shape[near] += np.where(still, 0.0, way / length * missing / weight)
    return shape
