"""Topology, subdivision, alignment and control vertices of PhotoFace's builder."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from v3recon.fitting.photoface.alignment import align, head_angles, solve_similarities
from v3recon.fitting.photoface.control_shape import ControlFit, fill_eyes
from v3recon.fitting.photoface.statistics import principal_modes, ridge, smooth_modes
from v3recon.fitting.photoface.subdivision import subdivide
from v3recon.fitting.photoface.topology import (
    DETECTOR_POINTS,
    EYE_ROWS,
    boundary_loops,
    find_mirror,
    make_topology,
)


@pytest.fixture(scope="module")
def arrays():
    path = resources.files("v3recon.face_models") / "data" / "photoface.npz"
    with resources.as_file(path) as file, np.load(file, allow_pickle=False) as content:
        return {key: content[key] for key in content.files}


@pytest.fixture(scope="module")
def topology(arrays):
    faces = arrays["control_faces"]
    faces = faces[(faces < DETECTOR_POINTS).all(1)]
    edges = {tuple(sorted((int(f[i]), int(f[(i + 1) % 3])))) for f in faces for i in range(3)}
    names = arrays["expression_names"].tolist()
    opened = arrays["exp_basis"] @ arrays["expression_coeffs"][names.index("mouth_open")]
    return make_topology(edges, (arrays["mean_shape"] + opened)[:DETECTOR_POINTS].astype(float))


def square(count: int = 2):
    """A flat symmetric square [-1, 1]^2 of count x count cells and its mirror table."""
    line = np.linspace(-1, 1, count + 1)
    points = np.array([(x, y, 0.0) for y in line for x in line])
    faces = []
    for row in range(count):
        for column in range(count):
            a = row * (count + 1) + column
            b, c, d = a + 1, a + count + 1, a + count + 2
            # diagonals lean toward the middle, so the mesh is symmetric
            faces += [(a, b, d), (a, d, c)] if column < count / 2 else [(a, b, c), (b, d, c)]
    mirror = np.arange(len(points)).reshape(count + 1, count + 1)[:, ::-1].ravel()
    return points, np.array(faces), mirror


def oriented(faces: np.ndarray) -> set[tuple[int, ...]]:
    """Triangles with their smallest vertex first, in the same sense."""
    return {tuple(int(v) for v in np.roll(face, -face.argmin())) for face in faces}


def test_topology_of_the_shipped_model_is_rebuilt(topology, arrays):
    assert topology.vertex_count == 482
    assert oriented(topology.faces) == oriented(arrays["control_faces"])
    assert [len(loop) for loop in boundary_loops(topology.faces)] in ([36, 20], [20, 36])
    mirror = topology.mirror
    assert np.array_equal(mirror[mirror], np.arange(482))
    assert mirror[33] == 263 and mirror[61] == 291 and mirror[1] == 1


def test_mirror_of_an_asymmetric_set_is_refused():
    with pytest.raises(ValueError, match="too asymmetric"):
        find_mirror(np.random.default_rng(0).normal(size=(468, 3)))


def test_subdivision_keeps_constants_and_planes():
    points, faces, mirror = square()
    level = subdivide(faces, mirror, np.zeros((0, 2), int), np.array([0, 2, 6, 8]), 2)[-1]
    np.testing.assert_allclose(np.asarray(level.operator.sum(1)).ravel(), 1, atol=1e-12)
    dense = level.operator @ points
    assert np.abs(dense[:, 2]).max() == 0
    assert len(level.faces) == 16 * len(faces)
    # corners stay, straight borders stay straight: the square keeps its area
    a, b, c = (dense[level.faces[:, i]] for i in range(3))
    area = np.cross(b - a, c - a)[:, 2] / 2
    assert area.min() > 0 and area.sum() == pytest.approx(4.0)


def test_subdivision_is_symmetric():
    points, faces, mirror = square(4)
    level = subdivide(faces, mirror, np.zeros((0, 2), int), np.array([], int), 2)[-1]
    points = points + np.random.default_rng(0).normal(size=points.shape) * 0.05
    points = (points + points[mirror] * [-1, 1, 1]) / 2
    dense = level.operator @ points
    np.testing.assert_allclose(dense[level.mirror] * [-1, 1, 1], dense, atol=1e-12)


def test_crease_follows_its_own_vertices_only():
    _, faces, mirror = square(4)
    middle = np.arange(10, 15)  # the row y = 0
    crease = np.stack([middle[:-1], middle[1:]], 1)
    level = subdivide(faces, mirror, crease, middle[[0, -1]], 1)[-1]
    row = np.abs(level.operator[middle]).toarray()
    assert row[:, np.setdiff1d(np.arange(25), middle)].max() == 0
    assert row[1].tolist() == pytest.approx([0] * 10 + [0.125, 0.75, 0.125] + [0] * 12)


def test_asymmetric_mesh_is_refused():
    _, faces, mirror = square()
    faces[[2, 3]] = [(1, 2, 5), (1, 5, 4)]  # the right lower diagonal turned round
    with pytest.raises(ValueError, match="not symmetric"):
        subdivide(faces, mirror, np.zeros((0, 2), int), np.array([], int), 1)


def test_control_vertices_meet_the_points(topology, arrays):
    dense = subdivide(topology.faces, topology.mirror, topology.crease_edges, topology.corners, 3)
    fit = ControlFit(topology, dense[-1].operator)
    points = (dense[-1].operator @ arrays["mean_shape"].astype(float))[:DETECTOR_POINTS]
    control = fit.solve(points[:, :, None])[:, :, 0]
    error = np.linalg.norm((dense[-1].operator @ control)[:DETECTOR_POINTS] - points, axis=1)
    assert error.mean() < 0.002
    lids = [vertex for rows in EYE_ROWS for row in rows for vertex in row]
    assert error[lids].max() < 1e-9
    twice = fit.solve(np.stack([points, 2 * points], 2))
    np.testing.assert_allclose(twice[..., 1], 2 * twice[..., 0])


def test_eye_rows_vanish_between_closed_lids():
    points = np.random.default_rng(0).normal(size=(468, 3))
    for upper, lower in EYE_ROWS:
        points[list(upper)] = points[list(lower)]
    filled = fill_eyes(points)
    assert filled.shape == (482, 3)
    np.testing.assert_allclose(filled[468:475], points[list(EYE_ROWS[0][0][1:-1])])


def test_similarities_are_recovered(topology):
    rng = np.random.default_rng(0)
    target = rng.normal(size=(20, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    source = ((target - [1, 2, 3]) @ rotation.T / 2.5)[None]
    scale, found, shift = solve_similarities(source, target, np.ones(20))
    assert scale[0] == pytest.approx(2.5)
    np.testing.assert_allclose(found[0], rotation, atol=1e-10)
    np.testing.assert_allclose(shift[0], [1, 2, 3], atol=1e-10)


def test_alignment_undoes_poses(topology, arrays):
    import torch

    from v3recon.geometry.rotation import euler_to_matrix

    points = arrays["mean_shape"][:DETECTOR_POINTS].astype(float)
    angle = torch.tensor([[0.1, 0.3, -0.2], [0.0, -0.4, 0.1], [-0.2, 0.1, 0.0]])
    pose = euler_to_matrix(angle.double()).numpy()
    photos = 200 * points @ pose + 50
    aligned = align(photos, topology.mirror[:468], np.ones(468), points)
    assert np.abs(aligned.points - aligned.points[0]).max() < 1e-9
    np.testing.assert_allclose(head_angles(aligned.rotation), angle.numpy(), atol=0.02)
    assert np.linalg.norm(aligned.mean[33] - aligned.mean[263]) == pytest.approx(0.9)


def test_principal_modes_of_known_data():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(5000, 2)) @ np.array([[3.0, 0, 0, 0], [0, 0, -1, 0]])
    modes, deviation = principal_modes(data - data.mean(0), 2)
    np.testing.assert_allclose(deviation, [3, 1], rtol=0.05)
    np.testing.assert_allclose(np.abs(modes[0, 0]), deviation[0], rtol=1e-3)
    assert modes[np.abs(modes).argmax(0), [0, 1]].min() > 0


def test_ridge_recovers_linear_maps():
    rng = np.random.default_rng(0)
    inputs, truth = rng.normal(size=(500, 3)), rng.normal(size=(3, 7))
    np.testing.assert_allclose(ridge(inputs, inputs @ truth, 0.0), truth, atol=1e-9)


def test_smooth_modes_leave_known_ones_and_similarities_alone():
    points, _, mirror = square(6)
    points = points + np.array([0, 0, 0.3]) * (points[:, :1] ** 2)
    known = np.random.default_rng(0).normal(size=(points.size, 3))
    modes = smooth_modes(points, mirror, known, 5, lambda field: field)
    assert np.abs(known.T @ modes).max() < 1e-9
    assert np.abs(points.reshape(-1) @ modes).max() < 1e-9
    shift = modes.reshape(-1, 3, 5).mean(0)
    assert np.abs(shift).max() < 1e-9
    norms = np.linalg.norm(modes, axis=0)
    assert (np.diff(norms) <= 1e-12).all() and norms[-1] > 0
