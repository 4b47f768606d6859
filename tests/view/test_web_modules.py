"""The page's arithmetic, run by node, against Python's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from glb_reader import read_glb, values_of

from v3recon.detection.crop_pixels import crop_image
from v3recon.detection.sum_table import SumTable
from v3recon.face_models.load import load_face_model
from v3recon.io.glb import GlbMesh, GlbPart, MorphTargets, write_glb
from v3recon.light import cascade
from v3recon.light.reconstructor import OnnxReconstructor
from v3recon.reconstruct.glb import albedo_texture

ROOT = Path(__file__).resolve().parents[2]
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """A function of tasks for modules.mjs; returns what each gave."""
    folder = tmp_path_factory.mktemp("modules")
    shutil.copytree(ROOT / "v3recon" / "view" / "web", folder / "web")
    shutil.copy(ROOT / "tests" / "view" / "modules.mjs", folder)
    (folder / "package.json").write_text('{"type": "module"}')

    def run(*tasks: dict[str, Any]) -> list[Any]:
        (folder / "in.json").write_text(json.dumps(tasks, default=plain))
        command = [str(NODE), "modules.mjs", "in.json", "out.json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "out.json").read_text())

    return run


def plain(values: Any) -> Any:
    return values.tolist()


def as_picture(image: np.ndarray) -> dict[str, Any]:
    return {"width": image.shape[1], "height": image.shape[0], "data": image.reshape(-1)}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)
    return cv2.resize(rough, (217, 161), interpolation=cv2.INTER_LINEAR)


def test_transparency_lies_over_white(ask):
    data = [10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 51]
    (found,) = ask({"task": "picture", "image": {"width": 3, "height": 1, "data": data}})
    assert found == [10, 20, 30, 255, 255, 255, 204, 204, 204]


def test_averages_are_equal(ask, image):
    table = SumTable(image)
    corners = np.array([[0, 0, 217, 161], [10, 20, 33, 41], [216, 160, 217, 161], [3, 7, 60, 19]])
    small, large, views = ask(
        {"task": "resized", "image": as_picture(image), "width": 50, "height": 31},
        {"task": "resized", "image": as_picture(image), "width": 300, "height": 200},
        {"task": "views", "image": as_picture(image), "corners": corners, "size": 24},
    )
    for found, (width, height) in ((small, (50, 31)), (large, (300, 200))):
        expected = table.resized(height, width).transpose(2, 0, 1)
        np.testing.assert_array_equal(np.float32(found), expected.reshape(-1))
    expected = table.views(corners, 24).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(np.float32(views), expected.reshape(-1))


def test_smaller_and_smoother_pictures_differ_by_one_level(ask, image):
    sizes = [(100, 70), (108, 80), (217, 161), (1, 1)]
    tasks = [
        {"task": "shrunk", "image": as_picture(image), "width": w, "height": h} for w, h in sizes
    ]
    sigmas = [0.15, 0.45, 0.78]
    tasks += [{"task": "blurred", "image": as_picture(image), "sigma": one} for one in sigmas]
    expected = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for size in sizes]
    expected += [cv2.GaussianBlur(image, (0, 0), one) for one in sigmas]
    for found, wanted in zip(ask(*tasks), expected, strict=True):
        apart = np.abs(np.array(found) - wanted.reshape(-1).astype(int))
        assert apart.max() <= 1 and apart.mean() < 0.35


@pytest.mark.parametrize("scale", [0.2, 0.34, 0.5, 0.7, 0.96, 1.0, 1.7])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (20.3, -31.8), (-40.25, 12.5), (900.0, 0.0)])
def test_crops_are_those_of_python(ask, image, scale, shift):
    square = {"ratio": scale, "x": shift[0], "y": shift[1]}
    (found,) = ask({"task": "crop", "image": as_picture(image), "square": square, "size": 64})
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    expected = crop_image(image, matrix, 64).astype(int)
    apart = np.abs(np.array(found).reshape(64, 64, 3) - expected)
    assert apart.max() <= 3 and apart.mean() < 0.3  # OpenCV 4 samples at 1/32 of a pixel


def test_boxes_are_kept_as_in_python(ask):
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 80, (60, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 40, (60, 2))], 1).round(2)
    scores = rng.uniform(0, 1, 60).round(1)  # with equal ones
    asked = [
        {"task": task, "boxes": boxes, "scores": scores, "overlap": overlap}
        for task in ("best", "bestApart")
        for overlap in (0.1, 0.5, 0.7)
    ]
    found = ask(*asked)
    for task, kept in zip(asked, found, strict=True):
        function = cascade._best if task["task"] == "best" else cascade._best_apart
        assert kept == function(boxes, scores, task["overlap"]).tolist()
    assert 1 < len(found[0]) < len(found[2]) < 60
    correction = rng.normal(0, 0.2, 4)
    moved, square = ask(
        {"task": "corrected", "box": boxes[0], "correction": correction, "extra": 1},
        {"task": "squared", "box": boxes[0]},
    )
    np.testing.assert_allclose(moved, cascade._corrected(boxes[:1], correction[None], 1)[0])
    np.testing.assert_allclose(square, cascade._squared(boxes[:1])[0])


def test_crops_of_boxes_and_landmarks(ask):
    rule = {"scale": 1.4, "box_shift": [0.01, 0.13], "box_scale": 0.8}
    light = object.__new__(OnnxReconstructor)
    light._about = {"crop_rule": rule, "camera": {"image_size": 224}}
    box = np.array([10.5, 20.0, 60.0, 90.5])
    points = np.random.default_rng(2).normal(50, 20, (68, 2))
    of_box, of_points = ask(
        {"task": "ofDetection", "box": box, "rule": rule, "frame": 224},
        {"task": "ofLandmarks", "points": points, "rule": rule, "frame": 224},
    )
    for found, matrix in (
        (of_box, light._crop_of_detection(box)),
        (of_points, light._crop_of_landmarks(points)),
    ):
        expected = [[found["ratio"], 0, found["x"]], [0, found["ratio"], found["y"]]]
        np.testing.assert_allclose(expected, matrix)
    inside = points * of_box["ratio"] + [of_box["x"], of_box["y"]]
    (again,) = ask({"task": "toPhoto", "values": inside.reshape(-1), "square": of_box})
    np.testing.assert_allclose(again, points, atol=1e-5)


def test_normals_and_skin_are_the_models(ask):
    model = load_face_model("photohead")
    vertices, faces = model.mean_vertices(), model.faces
    texture = model.albedo_texture
    assert texture is not None
    alb = torch.randn(1, 80, generator=torch.Generator().manual_seed(0))
    names = ("mean", "fine", "coarse", "fine_unit", "coarse_unit")
    arrays = {f"albedo_{name}": getattr(texture, name).reshape(-1) for name in names}
    normals, skin = ask(
        {"task": "normals", "vertices": vertices.reshape(-1), "triangles": faces.reshape(-1)},
        {"task": "texture", "alb": alb[0], "arrays": arrays, "size": 512},
    )
    np.testing.assert_allclose(
        np.reshape(normals, (-1, 3)), model.normals(vertices[None])[0], atol=2e-5
    )
    found = np.reshape(skin, (512, 512, 4))
    assert (found[..., 3] == 255).all()
    apart = np.abs(found[..., :3] - albedo_texture(alb, model, 512)[0].astype(int))
    assert apart.max() <= 1 and apart.mean() < 0.01


def test_the_nearest_part_is_seen(ask):
    # A triangle over all, a nearer one in its corner, and a nearest one that shows its back.
    points = np.array([[0, 0], [0, 8], [8, 0], [0, 0], [0, 3], [3, 0], [0, 0], [3, 0], [0, 3]])
    triangles, labels = list(range(9)), [1] * 3 + [2] * 3 + [3] * 3
    task = {"task": "partMap", "points": points.reshape(-1), "triangles": triangles}
    (found,) = ask(
        task | {"depth": [0] * 3 + [1] * 3 + [2] * 3, "labels": labels, "width": 10, "height": 9}
    )
    y, x = np.mgrid[:9, :10]
    expected = np.where(x + y <= 3, 2, np.where(x + y <= 8, 1, 0))
    np.testing.assert_array_equal(np.reshape(found, (9, 10)), expected)
    rows = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 0, 0]]
    inner = np.ones((5, 5), int)
    edge, ring = ask(
        {"task": "borders", "map": np.ravel(rows), "width": 4, "height": 5},
        {"task": "borders", "map": inner.reshape(-1), "width": 5, "height": 5},
    )
    np.testing.assert_array_equal(np.reshape(edge, (5, 4)), np.array(rows) > 0)
    assert np.sum(ring) == 16 and ring[6] == 0 and ring[0] == 1


def test_texels_of_triangles(ask):
    uv = np.array([[0, 1], [1, 1], [0, 0]])  # the upper left half of the picture
    (found,) = ask(
        {"task": "layout", "uvCoords": uv.reshape(-1), "triangles": [0, 1, 2], "size": 4}
    )
    inside = np.reshape(found["triangle"], (4, 4)) == 0
    row, column = np.mgrid[:4, :4]
    np.testing.assert_array_equal(inside, row + column <= 3)
    shares = np.reshape(found["shares"], (4, 4, 2))
    np.testing.assert_allclose(shares[0, 0], [1 - 0.25, 0.125])
    np.testing.assert_allclose(shares[..., 1][inside], ((column + 0.5) / 4)[inside])


def test_holes_are_filled_from_around(ask):
    values = np.zeros((4, 4, 3))
    values[:, :2] = [1, 2, 3]
    weights = np.zeros((4, 4))
    weights[:, :2] = 1
    (found,) = ask(
        {"task": "filled", "values": values.reshape(-1), "weights": weights.reshape(-1), "side": 4}
    )
    np.testing.assert_allclose(np.reshape(found, (4, 4, 3)), np.broadcast_to([1, 2, 3], (4, 4, 3)))


def test_glb_is_that_of_python(ask, tmp_path):
    rng = np.random.default_rng(3)
    vertices = rng.normal(size=(300, 3)).astype(np.float32)
    normals = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    normals[5] = 0
    faces = rng.permutation(300).reshape(100, 3)
    offsets = np.zeros((3, 300, 3), np.float32)
    offsets[0, :20] = rng.normal(size=(20, 3))  # few
    offsets[1] = rng.normal(size=(300, 3))  # all; none of the third
    turns = (offsets * 0.5).astype(np.float32)
    uv = rng.uniform(size=(300, 2)).astype(np.float32)
    surface = (np.arange(100) >= 70).astype(int)
    names, weights = ["a", "b", "c"], [0.0, 0.25, 1.0]
    head = {
        "name": "h",
        "vertices": vertices.reshape(-1),
        "normals": normals.reshape(-1),
        "uvCoords": uv.reshape(-1),
        "triangles": faces.reshape(-1),
        "triangleSurfaces": surface,
        "offsets": offsets.reshape(3, -1),
        "turns": turns.reshape(3, -1),
    }
    surfaces = [{"name": "skin", "roughness": 0.65}, {"name": "eyes", "roughness": 0.25}]
    (data,) = ask(
        {
            "task": "glb",
            "head": head,
            "surfaces": surfaces,
            "shapes": names,
            "weights": weights,
            "texture": [255, 216, 255, 217, 7],
        }
    )
    (tmp_path / "js.glb").write_bytes(bytes(data))
    mesh = GlbMesh(
        name="h",
        vertices=vertices,
        faces=faces,
        normals=normals,
        uv_coords=uv,
        texture=np.zeros((2, 2, 3), np.uint8),
        parts=[
            GlbPart(one["name"], np.flatnonzero(surface == place), one["roughness"])
            for place, one in enumerate(surfaces)
        ],
        targets=MorphTargets(names, offsets, np.array(weights), turns),
    )
    write_glb(tmp_path / "py.glb", mesh)
    (js, js_data), (py, py_data) = read_glb(tmp_path / "js.glb"), read_glb(tmp_path / "py.glb")
    for key in ("scene", "scenes", "nodes", "materials", "samplers", "textures", "images"):
        for document in (js, py):
            document.get("images", [{}])[0].pop("bufferView", None)
        assert js[key] == py[key], key
    assert js["meshes"] == py["meshes"]
    assert len(js["accessors"]) == len(py["accessors"])
    for number, (one, other) in enumerate(zip(js["accessors"], py["accessors"], strict=True)):
        for key in ("componentType", "count", "type"):
            assert one[key] == other[key]
        assert ("sparse" in one) == ("sparse" in other) and ("min" in one) == ("min" in other)
        np.testing.assert_allclose(
            values_of(js, js_data, number), values_of(py, py_data, number), atol=1e-6
        )
        np.testing.assert_allclose(one.get("min", 0), other.get("min", 0), atol=1e-6)
