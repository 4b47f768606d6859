"""Texture coordinates without seams: the skin as a disc, eyes, teeth and tongue in the corners."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from v3recon.photohead.loops import HeadLoops
from v3recon.photohead.registration import edges_of, triangulate
from v3recon.photohead.subdivision import Subdivided
from v3recon.photohead.template import SURFACES, HeadTemplate, boundary_edges

DISC_RADIUS = 0.485
_ROUNDS = 12
"""Rounds of the stretch-minimizing weights."""
_STEP = 0.5
"""Power of the stretch by which weights change in a round."""
_SOCKET_SIZE, _CAVITY_SIZE = 0.5, 0.6
"""Wanted size of sockets and mouth cavity relative to their own (lengths): less squeezes the lids
and lips around them."""
_FACE_SIZE, _BACK_SIZE = 1.6, 0.55
"""Wanted size of the face and of the back of the head, relative lengths."""
ISLANDS = {
    "right_eye": (0.066, 0.934, (0.06, 0.06)),
    "left_eye": (0.934, 0.934, (0.06, 0.06)),
    "upper_teeth": (0.068, 0.098, (0.06, 0.028)),
    "lower_teeth": (0.068, 0.034, (0.06, 0.028)),
    "tongue": (0.935, 0.065, (0.045, 0.06)),
}
"""Middle (u, v) and half width and height of the islands in the corners the disc leaves free."""


def unwrap_head(
    template: HeadTemplate, dense: Subdivided, loops: HeadLoops, mean: np.ndarray
) -> np.ndarray:
    """Texture coordinates [V, 2] of the dense vertices, v up, one a vertex.

    The skin's only border, the collar, is laid on a circle; inside, each vertex is a positive
    average of its neighbors (Tutte 1963), so that no triangle turns over. The averages' weights
    begin with the inverse lengths of the edges and are divided by each vertex's stretch, in rounds
    (Yoshizawa, Belyaev and Seidel 2004), which makes the map's scale follow the wanted one: face
    larger, back of the head and pockets smaller.

    Args:
        template: the mesh.
        dense: its subdivision.
        loops: eyes and mouth.
        mean: [Vc, 3] control vertices, model frame.
    """
    coordinates = np.full((len(mean), 2), 0.5)
    quads = template.quads[template.quad_surface == 0]
    skin = template.ids_of("skin")
    coordinates[skin] = _skin_disc(template, loops, mean, quads)[skin]
    for name, (u, v, half) in ISLANDS.items():
        ids, flat = _island(template, mean, name)
        coordinates[ids] = flat / np.abs(flat).max(0) * half + [u, v]
    return dense.operator @ coordinates


def _skin_disc(
    template: HeadTemplate, loops: HeadLoops, mean: np.ndarray, quads: np.ndarray
) -> np.ndarray:
    """The skin's control vertices [Vc, 2] on a disc of DISC_RADIUS around (0.5, 0.5)."""
    count = len(mean)
    rim = _rim(quads, mean)
    angle = _rim_angles(mean[rim])
    on_rim = np.stack([np.cos(angle), np.sin(angle)], 1)
    wanted = _wanted_size(template, loops, mean)
    triangles = triangulate(quads)
    edges = np.concatenate([edges_of(quads), quads[:, [0, 2]], quads[:, [1, 3]]])
    length = np.linalg.norm(mean[edges[:, 0]] - mean[edges[:, 1]], axis=1)
    base = 1 / np.maximum(length, 1e-6)
    factor = np.ones(count)
    flat = _tutte(edges, base, factor, rim, on_rim, count)
    best, best_score = flat, np.inf
    for _ in range(_ROUNDS):
        stretch = _stretch(flat, mean, wanted, triangles, count)
        score = float(np.var(np.log(stretch[np.unique(quads)])))
        if score < best_score:
            best, best_score = flat, score
        factor = factor / stretch**_STEP
        factor = (factor + factor[template.mirror]) / 2
        factor /= factor[np.unique(quads)].mean()
        flat = _tutte(edges, base, factor, rim, on_rim, count)
    return 0.5 + DISC_RADIUS * best


def _rim(quads: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The collar's vertices in order, counter-clockwise seen from above, from the front."""
    following: dict[int, list[int]] = {}
    for a, b in boundary_edges(quads).tolist():
        following.setdefault(a, []).append(b)
        following.setdefault(b, []).append(a)
    middle = [vertex for vertex in following if abs(mean[vertex, 0]) < 1e-6]
    first = max(middle, key=lambda vertex: mean[vertex, 2])
    ring, before = [first], -1
    step = max(following[first], key=lambda vertex: mean[vertex, 0])
    while step != first:
        ring.append(step)
        before, here = ring[-2], step
        step = next(vertex for vertex in following[here] if vertex != before)
    return np.array(ring)


def _rim_angles(places: np.ndarray) -> np.ndarray:
    """Angles of the collar's vertices: the front below, the back above, by arc length."""
    closed = np.concatenate([places, places[:1]])
    length = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1)))
    return -np.pi / 2 + 2 * np.pi * length[:-1] / length[-1]


def _wanted_size(template: HeadTemplate, loops: HeadLoops, mean: np.ndarray) -> np.ndarray:
    """Relative length [Vc] that each vertex's surroundings should have on the map."""
    share = np.clip((mean[:, 2] + 0.2) / 0.9, 0, 1)
    size = _BACK_SIZE + (_FACE_SIZE - _BACK_SIZE) * share
    neck = np.clip((-0.75 - mean[:, 1]) / 0.2, 0, 1)
    size = size * (1 - neck) + _BACK_SIZE * neck
    lids = loops.behind_lids
    size[np.concatenate([lids, template.mirror[lids]])] *= _SOCKET_SIZE
    size[loops.cavity] *= _CAVITY_SIZE
    return size


def _tutte(
    edges: np.ndarray,
    base: np.ndarray,
    factor: np.ndarray,
    rim: np.ndarray,
    on_rim: np.ndarray,
    count: int,
) -> np.ndarray:
    """Each inner vertex as the mean of its neighbors, weights base x factor of the neighbor."""
    rows = np.concatenate([edges[:, 0], edges[:, 1]])
    columns = np.concatenate([edges[:, 1], edges[:, 0]])
    weight = np.concatenate([base, base]) * factor[columns]
    graph = sparse.csr_matrix((weight, (rows, columns)), shape=(count, count))
    total = np.asarray(graph.sum(1)).ravel()
    fixed = total == 0
    fixed[rim] = True
    inner = np.flatnonzero(~fixed)
    average = sparse.diags(1 / total[inner]) @ graph[inner]
    flat = np.zeros((count, 2))
    flat[rim] = on_rim
    system = sparse.identity(len(inner)) - average[:, inner]
    flat[inner] = splu(sparse.csc_matrix(system)).solve(average[:, rim] @ on_rim)
    return flat


def _stretch(
    flat: np.ndarray, mean: np.ndarray, wanted: np.ndarray, triangles: np.ndarray, count: int
) -> np.ndarray:
    """Length on the wanted surface over length on the map, mean around each vertex [Vc]."""
    corners = mean[triangles]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    area = area * wanted[triangles].mean(1) ** 2
    one, two = (
        flat[triangles[:, 1]] - flat[triangles[:, 0]],
        flat[triangles[:, 2]] - flat[triangles[:, 0]],
    )
    mapped = np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
    total, total_mapped = np.full(count, 1e-9), np.full(count, 1e-12)
    for corner in range(3):
        np.add.at(total, triangles[:, corner], area)
        np.add.at(total_mapped, triangles[:, corner], mapped)
    ratio = np.sqrt(total / total_mapped)
    return ratio / np.exp(np.mean(np.log(ratio[np.unique(triangles)])))


def eye_radius(polar: np.ndarray) -> np.ndarray:
    """Distance from the middle of an eye's island, 0…1, of an angle from the pupil in radians.

    The square root gives the iris, 28 degrees of 180, two fifths of the radius.
    """
    return np.sqrt(np.clip(polar / np.pi, 0, 1))


def _island(template: HeadTemplate, mean: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertex ids and flat places [N, 2] around 0 of an eye, a row of teeth or the tongue.

    Eyes are seen from the front, see `eye_radius`; the back of the ball is squeezed into the
    rim. Teeth unroll along their arc. The tongue is seen from above.
    """
    if name.endswith("eye"):
        ids = template.ids_of("eyes")
        ids = ids[mean[ids, 0] < 0] if name == "right_eye" else ids[mean[ids, 0] > 0]
        way = mean[ids] - (mean[ids].max(0) + mean[ids].min(0)) / 2
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        polar = np.arccos(np.clip(way[:, 2], -1, 1))
        side = np.linalg.norm(way[:, :2], axis=1, keepdims=True)
        return ids, way[:, :2] / np.maximum(side, 1e-9) * eye_radius(polar)[:, None]
    ids = template.ids_of(name)
    assert name in SURFACES, name
    places = mean[ids] - (mean[ids].max(0) + mean[ids].min(0)) / 2
    if name == "tongue":
        return ids, places[:, [0, 2]] * [1.0, -1.0]
    back = places[:, 2].min() - 0.1
    around = np.arctan2(places[:, 0], places[:, 2] - back)
    radius = np.hypot(places[:, 0], places[:, 2] - back)
    return ids, np.stack([around, places[:, 1] + 0.6 * (radius - radius.mean())], 1)
