import json

import numpy as np
import pytest
import torch

from v3recon.cli.evaluate import main
from v3recon.evaluation.geometry import (
    REGIONS,
    _start_without_points,
    model_regions,
    now_ball,
)
from v3recon.evaluation.scan_fit import mean_vertices, neutral_vertices
from v3recon.evaluation.surface import (
    Similarity,
    Surface,
    align,
    closest_on_triangle,
    similarity_of,
    vertex_normals,
)
from v3recon.face_models.load import load_face_model
from v3recon.io.scan import SEVEN_OF_68, Scan


@pytest.fixture(scope="module")
def model():
    return load_face_model("photohead")


def turned(vector, scale=1.0, shift=(0, 0, 0)) -> Similarity:
    matrix = torch.matrix_exp(
        torch.tensor(
            [[0, -vector[2], vector[1]], [vector[2], 0, -vector[0]], [-vector[1], vector[0], 0]]
        ).double()
    )
    return Similarity(scale, matrix.numpy().T, np.array(shift, float))


def naive_closest(point, corner, steps=400):
    """Nearest point of a triangle among a fine grid of its points."""
    v, w = np.meshgrid(np.linspace(0, 1, steps), np.linspace(0, 1, steps))
    inside = v + w <= 1
    v, w = v[inside], w[inside]
    places = corner[0] + v[:, None] * (corner[1] - corner[0]) + w[:, None] * (corner[2] - corner[0])
    return np.linalg.norm(places - point, axis=1).min()


def test_nearest_point_of_a_triangle():
    """All seven regions around a triangle occur among the random points."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        corner, point = rng.normal(size=(3, 3)), 2 * rng.normal(size=3)
        v, w = closest_on_triangle(point, corner)
        assert v >= 0 and w >= 0 and v + w <= 1 + 1e-12
        place = corner[0] + v * (corner[1] - corner[0]) + w * (corner[2] - corner[0])
        distance = np.linalg.norm(place - point)
        assert distance <= naive_closest(point, corner) + 1e-9
        assert distance > naive_closest(point, corner) - 0.02


def test_nearest_point_of_a_surface():
    """Small and huge triangles together, where the nearest middle misleads."""
    rng = np.random.default_rng(1)
    vertices = np.concatenate([rng.normal(size=(300, 3)), 30 * rng.normal(size=(9, 3))])
    faces = np.concatenate([rng.integers(0, 300, (500, 3)), 300 + np.arange(9).reshape(3, 3)])
    faces = faces[(np.diff(np.sort(faces, axis=1), axis=1) > 0).all(1)]
    points = 5 * rng.normal(size=(50, 3))
    surface = Surface(vertices, faces)
    places, ids, weights = surface.closest(points)
    np.testing.assert_allclose((weights[..., None] * vertices[faces[ids]]).sum(1), places)
    for point, distance in zip(points, surface.distance(points), strict=True):
        each = []
        for corner in vertices[faces]:
            v, w = closest_on_triangle(point, corner)
            place = (1 - v - w) * corner[0] + v * corner[1] + w * corner[2]
            each.append(np.linalg.norm(place - point))
        assert distance == pytest.approx(min(each), abs=1e-9)


@pytest.mark.parametrize("with_scale", [True, False])
def test_alignment_undoes_a_motion(model, with_scale):
    vertices, faces = mean_vertices(model), model.faces.numpy()
    motion = turned((0.1, -0.08, 0.05), 1.06 if with_scale else 1.0, (4, -3, 5))
    points, normals = motion(vertices), vertex_normals(vertices, faces) @ motion.rotation
    start = Similarity(1.0, np.eye(3), np.zeros(3))
    found = align(points, normals, Surface(vertices, faces), start, with_scale=with_scale)
    assert np.abs(found(points) - vertices).max() < 0.1
    assert found.scale == pytest.approx(1 / motion.scale, abs=1e-3)
    back = found.inverse()
    np.testing.assert_allclose(back(found(points)), points, atol=1e-9)


def test_similarity_of_points():
    rng = np.random.default_rng(2)
    points, motion = rng.normal(size=(7, 3)), turned((0.3, 0.2, -0.4), 2.5, (1, 2, 3))
    found = similarity_of(points, motion(points))
    np.testing.assert_allclose(found(points), motion(points), atol=1e-9)
    rigid = similarity_of(points, turned((0.3, 0.2, -0.4))(points), with_scale=False)
    assert rigid.scale == 1 and np.abs(rigid.rotation - motion.rotation).max() < 1e-9


def test_regions_are_mirror_symmetric_and_where_they_should_be(model):
    region, mean = model_regions(model), mean_vertices(model)
    middle = {name: mean[region == n + 1].mean(0) for n, name in enumerate(REGIONS)}
    assert all((region == n + 1).sum() > 400 for n in range(4))
    assert middle["forehead"][1] > middle["nose"][1] > middle["mouth"][1]
    assert middle["nose"][2] > middle["cheek"][2]
    assert all(abs(place[0]) < 2 for place in middle.values())
    assert (region == region[model.mirror.numpy()]).mean() > 0.98


def test_now_ball_holds_the_face(model):
    mean = mean_vertices(model)
    points = mean[model.landmarks_68.numpy()]
    middle, radius = now_ball(points[list(SEVEN_OF_68)])
    assert 80 < radius < 110
    assert (np.linalg.norm(points[17:] - middle, axis=1) < radius).all()


def run(tmp_path, *flags) -> tuple[int, dict]:
    status = main(["geometry", "--json", str(tmp_path / "g.json"), "--device", "cpu", *flags])
    text = (tmp_path / "g.json").read_text() if (tmp_path / "g.json").exists() else "{}"
    return status, json.loads(text)


def test_scans_end_to_end(tmp_path, model, random_weights):
    """A head of the model in centimeters and turned is found again; a broken scan is named."""
    generator = torch.Generator().manual_seed(3)
    identity = torch.randn(1, model.sizes[0], generator=generator)
    vertices, faces = neutral_vertices(model, identity), model.faces.numpy()
    scans = tmp_path / "scans"
    scans.mkdir()
    motion = turned((0.4, -0.5, 0.3), 0.1, (20, 3, -7))
    np.savez(scans / "a.npz", vertices=motion(vertices), faces=faces)
    np.save(scans / "a.npy", motion(vertices[model.landmarks_68.numpy()]))
    np.savez(scans / "c.npz", vertices=vertices, faces=faces[:0])
    status, figures = run(
        tmp_path,
        *("--scans", str(scans), "--weights", str(random_weights), "--samples", "2000"),
        *("--worst", str(tmp_path / "w.png"), "--curve", str(tmp_path / "c.png")),
    )
    assert status == 1  # because of c
    assert [(one["file"], "no triangle" in one["reason"]) for one in figures["unusable"]] == [
        ("c.npz", True)
    ]
    assert any("a.npz: in cm (the outer eye" in note for note in figures["notes"])
    fit, mean = (figures["geometry_mm"][kind] for kind in ("fit to the scan", "mean face"))
    assert fit["count"] == mean["count"] == 1
    assert fit["scaled"]["median"] < 0.1 < 0.3 < mean["scaled"]["median"]
    assert fit["regions_mean"] < 0.15 < mean["regions_mean"] and mean["over_mean_face"] == 1
    for name in ("w.png", "c.png"):
        assert (tmp_path / name).stat().st_size > 5000


def test_scan_without_points(model):
    """Its nose is found where it looks along +z, wherever it lies."""
    identity = torch.randn(1, model.sizes[0], generator=torch.Generator().manual_seed(5))
    vertices, faces = neutral_vertices(model, identity), model.faces.numpy()
    mean = mean_vertices(model)
    seven = model.landmarks_68.numpy()[list(SEVEN_OF_68)]
    scan = Scan("b", vertices + np.array([0, 30, 400]), faces, None, "mm", "")
    used = np.arange(len(vertices))
    found = _start_without_points(scan, used, Surface(mean, faces), mean[seven])
    assert np.linalg.norm(found(scan.vertices)[seven] - mean[seven], axis=1).max() < 7


def test_other_programs_meshes(tmp_path, model, random_weights):
    """The scan itself as somebody's reconstruction has no error, in whatever unit."""
    identity = torch.randn(1, model.sizes[0], generator=torch.Generator().manual_seed(4))
    vertices, faces = neutral_vertices(model, identity), model.faces.numpy()
    points = vertices[model.landmarks_68.numpy()]
    for folder, factor in (("scans", 1.0), ("meshes", 0.001)):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "a.npz", vertices=vertices * factor, faces=faces)
        np.save(tmp_path / folder / "a.npy", points * factor)
    status, figures = run(
        tmp_path,
        *("--scans", str(tmp_path / "scans"), "--meshes", str(tmp_path / "meshes")),
        *("--weights", str(random_weights), "--samples", "1500"),
    )
    assert status == 0
    given = figures["geometry_mm"]["given mesh"]
    assert given["scaled"]["median"] < 0.01 and given["metric"]["median"] < 0.01
    assert given["regions_mean"] < 0.01


def test_drawn_heads(tmp_path, random_weights):
    flags = ("--drawn", "1", "--views", "2", "--samples", "1500", "--weights", str(random_weights))
    status, figures = run(tmp_path, *flags)
    assert status == 0
    found = figures["geometry_mm"]
    assert found["one photo"]["count"] == 2 and found["photos averaged"]["count"] == 1
    assert found["fit to the scan"]["scaled"]["median"] < 0.15


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--scans", "absent"), "no such file or folder"),
        (("--drawn", "0"), "at least 1"),
        (("--drawn", "1", "--views", "9"), "views"),
        (("--photos", "."), "need --scans"),
        (("--radius", "3"), "20…200"),
    ],
)
def test_wrong_usage(tmp_path, flags, message, random_weights, capsys):
    assert run(tmp_path, "--weights", str(random_weights), *flags)[0] == 2
    assert message in capsys.readouterr().err
