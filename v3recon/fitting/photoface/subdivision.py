"""Loop subdivision (Loop 1987; crease rules of Hoppe et al. 1994) as one sparse operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Subdivided:
    """A mesh after some rounds of subdivision.

    Attributes:
        faces: [F, 3] triangles.
        operator: sparse [V, Vc], dense vertices = operator @ control vertices.
        mirror: [V] mirror image of each vertex.
        parents: [V, 2] the two vertices of the previous round whose edge a vertex halves; a
            vertex that was there before has itself twice.
        crease_edges: [E, 2] crease edges of this round.
    """

    faces: np.ndarray
    operator: sparse.csr_matrix
    mirror: np.ndarray
    parents: np.ndarray
    crease_edges: np.ndarray


def subdivide(
    faces: np.ndarray,
    mirror: np.ndarray,
    crease_edges: np.ndarray,
    corners: np.ndarray,
    rounds: int,
) -> list[Subdivided]:
    """Subdivide a control mesh; vertices keep their ids, new ones follow in order of their edge.

    Creases and boundaries follow cubic B-splines of their own vertices only, so a closed lid or
    lip of the control mesh is a closed one of the dense mesh.

    Args:
        faces: [F, 3] control triangles, consistently oriented.
        mirror: [Vc] mirror images; the faces must be symmetric under it.
        crease_edges: [E, 2] edges to keep crisp, besides the boundary.
        corners: vertex ids that stay where they are.
        rounds: number of rounds; each has four times the triangles.

    Returns:
        One `Subdivided` a round, operators relative to the control mesh, coarse first.
    """
    result = []
    operator = sparse.csr_matrix(sparse.identity(len(mirror)))
    for _ in range(rounds):
        step = _subdivide_once(faces, mirror, crease_edges, corners)
        operator = sparse.csr_matrix(step.operator @ operator)
        operator.sort_indices()
        result.append(
            Subdivided(step.faces, operator, step.mirror, step.parents, step.crease_edges)
        )
        faces, mirror, crease_edges = step.faces, step.mirror, step.crease_edges
    return result


def _subdivide_once(
    faces: np.ndarray, mirror: np.ndarray, crease_edges: np.ndarray, corners: np.ndarray
) -> Subdivided:
    count = len(mirror)
    half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    opposite = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    edges, edge_of_half, uses = np.unique(
        np.sort(half, 1), axis=0, return_inverse=True, return_counts=True
    )
    edge_of_half = edge_of_half.reshape(-1)
    edge_key = edges[:, 0] * count + edges[:, 1]
    crease_key = np.sort(crease_edges, 1) @ np.array([count, 1])
    sharp = (uses == 1) | np.isin(edge_key, crease_key)

    rows, cols, values = [], [], []

    def add(row: np.ndarray, col: np.ndarray, value: np.ndarray | float) -> None:
        rows.append(row)
        cols.append(col)
        values.append(np.broadcast_to(value, row.shape).astype(float))

    # New vertices on edges: 1/2 1/2 on creases, else 3/8 3/8 1/8 1/8.
    new = count + np.arange(len(edges))
    for column in range(2):
        add(new, edges[:, column], np.where(sharp, 0.5, 0.375))
    smooth_half = ~sharp[edge_of_half]
    add(new[edge_of_half[smooth_half]], opposite[smooth_half], 0.125)

    # Old vertices.
    sharp_degree = np.bincount(edges[sharp].ravel(), minlength=count)
    fixed = (sharp_degree == 1) | (sharp_degree > 2)
    fixed[corners] = True
    on_crease = (sharp_degree == 2) & ~fixed
    interior = ~fixed & ~on_crease
    vertices = np.arange(count)
    add(vertices[fixed], vertices[fixed], 1.0)
    add(vertices[on_crease], vertices[on_crease], 0.75)
    both = np.concatenate([edges, edges[:, ::-1]])
    both_sharp = np.concatenate([sharp, sharp])
    chosen = both_sharp & on_crease[both[:, 0]]
    add(both[chosen, 0], both[chosen, 1], 0.125)
    degree = np.bincount(edges.ravel(), minlength=count)
    weight = np.where(degree == 3, 3 / 16, 3 / (8 * np.maximum(degree, 1)))
    add(vertices[interior], vertices[interior], (1 - degree * weight)[interior])
    chosen = interior[both[:, 0]]
    add(both[chosen, 0], both[chosen, 1], weight[both[chosen, 0]])

    operator = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))),
        shape=(count + len(edges), count),
    )
    mid = new[edge_of_half].reshape(3, -1)  # of edges 01, 12, 20 of every face
    v0, v1, v2 = faces.T
    finer = np.stack(
        [
            np.stack([v0, mid[0], mid[2]], 1),
            np.stack([mid[0], v1, mid[1]], 1),
            np.stack([mid[2], mid[1], v2], 1),
            np.stack([mid[0], mid[1], mid[2]], 1),
        ],
        1,
    ).reshape(-1, 3)
    image = np.sort(mirror[edges], 1) @ np.array([count, 1])
    position = np.searchsorted(edge_key, image)
    if not np.array_equal(edge_key[position % len(edge_key)], image):
        raise ValueError("the mesh is not symmetric under its mirror table")
    return Subdivided(
        faces=finer,
        operator=operator,
        mirror=np.concatenate([mirror, count + position]),
        parents=np.concatenate([np.stack([vertices, vertices], 1), edges]),
        crease_edges=np.concatenate(
            [np.stack([edges[sharp, column], new[sharp]], 1) for column in range(2)]
        ),
    )
