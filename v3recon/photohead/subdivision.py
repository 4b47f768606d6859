"""Catmull-Clark subdivision as a sparse matrix (Catmull and Clark 1978), borders as curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Subdivided:
    """One round of subdivision of a mesh of quads.

    Attributes:
        operator: [V, Vc] sparse; dense vertices = operator @ control vertices. The first Vc rows
            are the control vertices' own, then one row an edge, then one a quad.
        quads: [4 Q, 4] dense quads; quads 4 q … 4 q + 3 come from control quad q.
        edges: [E, 2] control edges, in the order of their rows.
    """

    operator: sparse.csr_matrix
    quads: np.ndarray
    edges: np.ndarray

    @property
    def vertex_count(self) -> int:
        """Number of dense vertices."""
        return len(self.operator.indptr) - 1


def subdivide(quads: np.ndarray, count: int) -> Subdivided:
    """One round of Catmull-Clark subdivision.

    An inner vertex of valence n becomes (Q + 2 R + (n - 3) P) / n with the means Q of the
    neighboring quads' centers and R of the neighboring edges' middles; a border vertex becomes
    6/8 of itself and 1/8 of each border neighbor; the ends of a border strip stay.

    Args:
        quads: [Q, 4] control quads.
        count: number of control vertices.
    """
    faces = len(quads)
    half = np.stack([quads, np.roll(quads, -1, axis=1)], 2)  # [Q, 4, 2] directed edges
    edges, edge_of, uses = np.unique(
        np.sort(half.reshape(-1, 2), 1), axis=0, return_inverse=True, return_counts=True
    )
    edge_of = edge_of.reshape(faces, 4)
    corner = _matrix(np.repeat(np.arange(faces), 4), quads.ravel(), 0.25, (faces, count))
    middle = _matrix(np.repeat(np.arange(len(edges)), 2), edges.ravel(), 0.5, (len(edges), count))
    inner = uses == 2
    around = _matrix(edge_of.ravel(), np.repeat(np.arange(faces), 4), 0.25, (len(edges), faces))
    edge_rows = sparse.diags(np.where(inner, 0.5, 1.0)) @ middle
    edge_rows = edge_rows + sparse.diags(inner.astype(float)) @ around @ corner
    rows = sparse.vstack(
        [_vertex_rows(quads, edges, uses, corner, middle, count), edge_rows, corner]
    )
    first_edge, first_quad = count, count + len(edges)
    dense = np.stack(
        [
            quads,
            first_edge + edge_of,
            np.broadcast_to(first_quad + np.arange(faces)[:, None], quads.shape),
            first_edge + np.roll(edge_of, 1, axis=1),
        ],
        2,
    )
    operator = sparse.csr_matrix(rows)
    operator.sum_duplicates()
    operator.eliminate_zeros()
    return Subdivided(operator, dense.reshape(-1, 4), edges)


def _vertex_rows(
    quads: np.ndarray,
    edges: np.ndarray,
    uses: np.ndarray,
    corner: sparse.csr_matrix,
    middle: sparse.csr_matrix,
    count: int,
) -> sparse.csr_matrix:
    """New places [Vc, Vc] of the control vertices."""
    faces = len(quads)
    to_quads = _matrix(quads.ravel(), np.repeat(np.arange(faces), 4), 1.0, (count, faces))
    to_edges = _matrix(edges.ravel(), np.repeat(np.arange(len(edges)), 2), 1.0, (count, len(edges)))
    valence = np.maximum(np.asarray(to_edges.sum(1)).ravel(), 1.0)
    quad_count = np.maximum(np.asarray(to_quads.sum(1)).ravel(), 1.0)
    inner = (
        sparse.diags(1 / (valence * quad_count)) @ to_quads @ corner
        + sparse.diags(2 / valence**2) @ to_edges @ middle
        + sparse.diags(1 - 3 / valence)
    )
    border_edges = edges[uses == 1]
    both = np.concatenate([border_edges, border_edges[:, ::-1]])
    neighbors = _matrix(both[:, 0], both[:, 1], 1.0, (count, count))
    degree = np.asarray(neighbors.sum(1)).ravel()
    border = sparse.diags((degree == 2) / 8.0) @ neighbors
    border = border + sparse.diags(np.where(degree == 2, 0.75, 1.0))
    on_border = degree > 0
    return (
        sparse.diags((~on_border).astype(float)) @ inner
        + sparse.diags(on_border.astype(float)) @ border
    )


def _matrix(
    rows: np.ndarray, columns: np.ndarray, value: float, shape: tuple[int, int]
) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.full(len(rows), value), (rows, columns)), shape=shape)
