"""Meshes of the builder: subdivision, closest points, displacements."""

import numpy as np
import pytest
from scipy import sparse

from v3recon.photohead.registration import (
    Pull,
    Surface,
    closest_points,
    displace,
    edges_of,
    graph_laplacian,
    solve_similarity,
    triangulate,
)
from v3recon.photohead.subdivision import subdivide
from v3recon.photohead.uv_atlas import eye_radius

CUBE = np.array(
    [[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)], dtype=float
)
CUBE_QUADS = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
)


def test_catmull_clark_of_a_cube():
    dense = subdivide(CUBE_QUADS, 8)
    places = dense.operator @ CUBE
    assert places.shape == (8 + 12 + 6, 3) and len(dense.quads) == 24
    assert dense.vertex_count == 26
    assert np.allclose(np.asarray(dense.operator.sum(1)), 1)
    # Valence 3: (Q + 2 R) / 3 with Q the mean of three face centers, R of three edge middles.
    assert np.allclose(np.abs(places[:8]), (1 / 3 + 2 * 2 / 3) / 3)
    assert np.allclose(np.abs(places[8:20]).max(1), 0.75)
    assert np.allclose(np.abs(places[20:]).max(1), 1.0)


def test_a_flat_patch_stays_flat_and_its_border_follows_the_border_alone():
    grid = np.array([[x, y, 0.0] for y in range(4) for x in range(4)])
    quads = np.array(
        [
            [r * 4 + c, r * 4 + c + 1, r * 4 + c + 5, r * 4 + c + 4]
            for r in range(3)
            for c in range(3)
        ]
    )
    dense = subdivide(quads, 16)
    moved = grid.copy()
    moved[[5, 6, 9, 10], 2] = 1.0  # the inner vertices
    places, raised = dense.operator @ grid, dense.operator @ moved
    border = (places[:, :2] < 0.3).any(1) | (places[:, :2] > 2.7).any(1)
    on_rim = (places[:, :2] <= 1e-9).any(1) | (places[:, :2] >= 3 - 1e-9).any(1)
    assert np.allclose(places[:, 2], 0)
    assert np.allclose(raised[on_rim, 2], 0) and border.any()


def test_closest_points_equal_a_dense_search():
    rng = np.random.default_rng(0)
    triangles = triangulate(CUBE_QUADS)
    points = rng.uniform(-2, 2, (50, 3))
    found = closest_points(Surface.of(CUBE, triangles), points)
    weights = rng.dirichlet([1, 1, 1], 4000)
    cloud = np.einsum("nk,fkx->fnx", weights, CUBE[triangles]).reshape(-1, 3)
    nearest = np.linalg.norm(points[:, None] - cloud[None], axis=2).min(1)
    distance = np.linalg.norm(points - found.points, axis=1)
    assert (distance <= nearest + 1e-9).all() and (nearest - distance < 0.12).all()
    inside = np.clip(points, -1, 1)
    outside = (np.abs(points) > 1).any(1)
    assert np.allclose(found.points[outside], inside[outside])
    rebuilt = np.einsum("nk,nkx->nx", found.bary, CUBE[triangles[found.triangle]])
    assert np.allclose(rebuilt, found.points)


def test_similarity_is_recovered():
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    points = rng.standard_normal((10, 3))
    scale, found, shift = solve_similarity(points, 2.5 * points @ rotation + [1, 2, 3])
    assert scale == pytest.approx(2.5) and np.allclose(found, rotation)
    assert np.allclose(shift, [1, 2, 3])


def test_displacement_meets_its_pulls_and_is_smooth_between():
    line = np.stack([np.arange(11.0), np.zeros(11), np.zeros(11)], 1)
    edges = edges_of(np.array([[i, i + 1, i + 1, i] for i in range(10)]))
    smooth = graph_laplacian(edges[edges[:, 0] != edges[:, 1]], 11)
    rows = sparse.csr_matrix(sparse.identity(11))[[0, 10]]
    target = line[[0, 10]] + [[0, 0, 0], [0, 1, 0]]
    moved = displace(line, [Pull(rows, target, 1e6)], smooth)
    assert np.allclose(moved[[0, 10]], target, atol=1e-4)
    assert np.all(np.diff(moved[:, 1]) > 0)


def test_eye_island_is_monotone():
    radius = eye_radius(np.linspace(0, np.pi, 20))
    assert radius[0] == 0 and radius[-1] == 1 and (np.diff(radius) > 0).all()
