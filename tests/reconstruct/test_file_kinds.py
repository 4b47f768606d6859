"""Files as Deep3D, PRNet and 3DDFA write them: exact values, on every face model."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from skimage.data import astronaut
from synthetic_assets import synthetic_face_model

from v3recon.cli.reconstruct import ALSO, parse_arguments
from v3recon.detection.crop import CropTransform, crop_of_square
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.io.obj import read_obj
from v3recon.reconstruct.alignment import dense_pose, points_photo_3d
from v3recon.reconstruct.deep3d_values import DEEP3D_KEYS, deep3d_values
from v3recon.reconstruct.faces import Face, Faces, join_faces, make_faces
from v3recon.reconstruct.file_kinds import FILE_KINDS, known_kinds
from v3recon.reconstruct.photo_camera import photo_camera
from v3recon.reconstruct.photo_maps import (
    depth_map,
    depth_steps,
    draw_in_photo,
    paf_anchors,
    paf_image,
    pncc_image,
    sampled_colors,
)
from v3recon.reconstruct.pose_picture import draw_pose, pose_axes
from v3recon.reconstruct.save import OutputChoice
from v3recon.types import FaceCoeffs

PHOTO = np.ascontiguousarray(astronaut()[:300, :400])
MODELS = ("photohead", "bfm")


@pytest.fixture(scope="module", params=MODELS)
def faces(request) -> Faces:
    """An upright face, one on its side in a stretched photo, one partly outside of it."""
    name = request.param
    model = synthetic_face_model() if name == "bfm" else load_face_model(name)
    zeros = FaceCoeffs.zeros(3, model.sizes).to_tensor()
    packed = zeros + 0.1 * torch.randn(zeros.shape, generator=torch.Generator().manual_seed(0))
    coeffs, camera = FaceCoeffs.from_tensor(packed, model.sizes), Camera()
    side = torch.tensor([[0.0, 1.1, -20.0], [-1.0, 0.0, 250.0]], dtype=torch.float64)
    upright = crop_of_square(torch.tensor([180.0, 150.0]), 200.0, camera)
    outside = crop_of_square(torch.tensor([390.0, 290.0]), 150.0, camera)
    crops = [upright, CropTransform(side), outside]
    return join_faces(make_faces(coeffs, model, camera, crops, [PHOTO] * 3, [None] * 3))


@pytest.fixture(scope="module")
def face(faces) -> Face:
    return faces[0]


def parsed_ply(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, colors and triangles, read by the file's own header."""
    head, data = path.read_bytes().split(b"end_header\n", 1)
    words = head.decode("ascii").split()
    assert words[:3] == ["ply", "format", "binary_little_endian"]
    counts = [int(words[words.index(name) + 1]) for name in ("vertex", "face")]
    vertex = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    face = np.dtype([("count", "u1"), ("ids", "<i4", 3)])
    rows = np.frombuffer(data, vertex, counts[0])
    triangles = np.frombuffer(data[rows.nbytes :], face)
    assert len(triangles) == counts[1] and (triangles["count"] == 3).all()
    return rows["xyz"], rows["rgb"], triangles["ids"]


def test_written_cameras_project_to_the_points(faces):
    for face in faces:
        camera, points = photo_camera(face), face.points_photo.double().numpy()
        model, posed = face.decoded.model_vertices[0].numpy(), face.vertices.numpy()
        np.testing.assert_allclose(camera.project(model), points, atol=0.01)
        np.testing.assert_allclose(camera.project(posed, posed=True), points, atol=0.01)
        k, rotation = camera.intrinsics, camera.rotation
        assert k[1, 0] == 0 and k[0, 0] > 0 < k[1, 1] and (k[2] == [0, 0, 1]).all()
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(rotation) > 0
        seen, _ = cv2.projectPoints(
            model.astype(float), cv2.Rodrigues(rotation)[0], camera.translation, k, np.zeros(4)
        )
        if abs(k[0, 1]) < 1e-9:  # OpenCV knows no skew
            np.testing.assert_allclose(seen[:, 0], points, atol=0.01)
        for matrix, vertices in (
            (camera.gl_projection() @ camera.gl_view(), model),
            (camera.gl_projection() @ camera.gl_view(posed=True), posed),
        ):
            clip = np.column_stack([vertices, np.ones(len(vertices))]) @ matrix.T
            ndc = clip[:, :3] / clip[:, 3:]
            column = (ndc[:, 0] + 1) / 2 * 400 - 0.5
            row = (1 - ndc[:, 1]) / 2 * 300 - 0.5
            np.testing.assert_allclose(np.column_stack([column, row]), points, atol=0.01)
            assert (np.abs(ndc[:, 2]) < 1).all()


def test_depth_is_the_distance_from_the_camera(faces):
    for face in faces:
        depth, raster = depth_map(face), draw_in_photo(face)
        assert depth.shape == (300, 400) and raster.fragments is not None
        rows, columns = np.nonzero(depth)
        k = photo_camera(face).intrinsics
        ray = np.linalg.solve(k, np.stack([columns, rows, np.ones(len(rows))]))
        places = (ray * depth[rows, columns]).T - photo_camera(face).posed_translation
        world = places @ photo_camera(face).posed_rotation
        pick = np.random.default_rng(0).integers(0, len(world), 40)
        distance = np.linalg.norm(world[pick, None] - face.vertices.numpy()[None], axis=2).min(1)
        assert distance.max() < 0.1, "places lie on the mesh, within its triangles' size"
        steps = depth_steps(depth)
        assert steps.dtype == np.uint16 and ((steps > 0) == (depth > 0)).all()
        np.testing.assert_allclose(steps[rows, columns] / 1000, depth[rows, columns], atol=6e-4)
        outside = depth[: raster.window[0].start].sum() + depth[:, : raster.window[1].start].sum()
        assert outside == 0


def test_pncc_tells_places_of_the_mean_face(face):
    image = pncc_image(face)
    model, mean = face.model, face.model.mean_vertices()
    code = ((mean - mean.amin(0)) / (mean.amax(0) - mean.amin(0)) * 255).numpy()
    tip = int(model.landmarks_68[30])
    column, row = face.points_photo[tip].round().int().tolist()
    assert np.abs(image[row, column].astype(float) - code[tip]).max() < 12
    assert (image[depth_map(face) == 0] == 0).all()


def test_paf_shows_patches_around_the_anchors(faces):
    anchors = paf_anchors(faces[0])
    ramp = np.zeros((300, 400, 3), np.uint8)
    ramp[..., 0] = np.arange(400)[None] // 2
    ramp[..., 1] = np.arange(300)[:, None] // 2
    paf = paf_image(faces[0], ramp).astype(float)
    assert anchors.shape == (64, 64, 2) and paf.shape == (192, 192, 3)
    inside = anchors.clip(0, [399, 299])
    np.testing.assert_allclose(paf[1::3, 1::3, :2] * 2, inside, atol=2)
    step = 200 / 120  # the crop's side in the photo over 3DDFA's
    across = np.median(paf[1::3, 2::3, 0] - paf[1::3, 0::3, 0]) * 2
    down = np.median(paf[2::3, 1::3, 1] - paf[0::3, 1::3, 1]) * 2
    assert abs(across - 2 * step) < 1 and abs(down - 2 * step) < 1
    assert paf_image(faces[0], ramp, 5).shape == (320, 320, 3)
    with pytest.raises(ValueError, match="patch"):
        paf_image(faces[0], ramp, 4)


def test_sampled_colors_are_bilinear_and_go_on_outside(faces):
    ramp = np.repeat(np.arange(0, 200, 0.5).astype(np.uint8)[None, :, None], 300, 0)
    ramp = np.repeat(ramp, 3, 2)
    for face in faces:
        columns = face.points_photo[:, 0].clamp(0, 399)
        expected = columns / 2
        found = sampled_colors(face, ramp)[:, 0] * 255
        torch.testing.assert_close(found, expected, atol=0.6, rtol=0)


def test_pose_of_all_vertices(faces):
    points, pose = points_photo_3d(faces), dense_pose(faces)
    torch.testing.assert_close(points[..., :2], faces.points_photo)
    per_decimeter = 10.15 * 200 / 224 * 10  # of the upright face, at 10 decimeters
    assert abs(float(pose.scale[0]) / per_decimeter - 1) < 0.05
    apart = (pose.angle_degrees[0] - faces.angle_degrees[0]).abs().max()
    assert float(apart) < 3
    nearer = faces[0].vertices[:, 2] > faces[0].coeffs.trans[0, 2]
    assert ((points[0, :, 2] > 0) == nearer).all()


def test_pose_picture_has_axes_where_the_head_looks(face):
    axes = pose_axes(face)
    drawn = draw_pose(face)
    assert drawn.shape == PHOTO.shape and (drawn != PHOTO).any() and face.image is not None
    assert axes[1, 0] > axes[0, 0] + 20, "x to the viewer's right"
    assert axes[2, 1] < axes[0, 1] - 20, "y up"
    middle = (0.5 * (axes[0] + axes[1])).round().astype(int)
    assert drawn[middle[1], middle[0]].argmax() == 0


def test_deep3d_values(faces):
    for face in faces:
        values = deep3d_values(face)
        assert tuple(values) == DEEP3D_KEYS
        count = face.model.vertex_count
        assert values["cropped_img"].shape == (224, 224, 3)
        assert values["cropped_img"].dtype == np.uint8
        assert values["recon_img"].shape == (224, 224, 4)
        assert set(np.unique(values["recon_img"][..., 3])) == {0.0, 1.0}
        assert 100 < values["recon_img"].max() <= 255
        assert values["coeff"].shape == (1, sum(face.model.sizes) + 33)
        for key in ("face_shape", "face_texture", "face_color"):
            assert values[key].shape == (count, 3), key
        assert 20 < values["face_texture"].mean() < 255 and values["lm_5p"].shape == (5, 2)
        landmarks = values["lm_68p"]
        back = face.crop.from_crop(torch.from_numpy(landmarks))
        torch.testing.assert_close(back, face.landmarks_68, atol=0.01, rtol=0)
        column, row = landmarks[30].round().astype(int)
        assert values["recon_img"][row, column, 3] == 1
        posed = values["face_shape"] - [0, 0, 10]  # Deep3D's own formula
        up = 1015 * posed[:, :2] / -posed[:, 2:] + 112
        index = face.model.landmarks_68.numpy()
        np.testing.assert_allclose(up[index, 0], landmarks[:, 0], atol=0.01)
        np.testing.assert_allclose(223 - up[index, 1], landmarks[:, 1], atol=0.01)


def test_all_kinds_are_written_for_every_face(faces, tmp_path):
    assert ALSO == tuple(FILE_KINDS)
    choice = OutputChoice(
        landmarks=(), seg=False, seg_visible=False, model_texture=False, mask=True,
        texture_size=64, also=known_kinds(["all"]), front=True,
    )  # fmt: skip
    some = faces[:2]
    written = some.save(tmp_path, "a", choice=choice)
    assert set(written) == set(tmp_path.iterdir())
    for name, face in (("a", some[0]), ("a_face2", some[1])):
        for kind in FILE_KINDS.values():
            assert all((tmp_path / f"{name}{ending}").is_file() for ending in kind.endings)
        unposed = face.decoded.model_vertices[0].numpy()
        vertices, colors, triangles = parsed_ply(tmp_path / f"{name}.ply")
        assert 40 < colors.mean() < 220
        np.testing.assert_allclose(vertices, unposed, atol=1e-5)
        np.testing.assert_array_equal(triangles, face.triangles.numpy())
        sampled = read_obj(tmp_path / f"{name}_sampled.obj")
        np.testing.assert_allclose(sampled.vertices, unposed, atol=1e-5)
        found = scipy.io.loadmat(tmp_path / f"{name}.mat")
        assert set(DEEP3D_KEYS) <= set(found) and found["coeff"].shape[0] == 1
        dense = scipy.io.loadmat(tmp_path / f"{name}_vertices.mat")
        np.testing.assert_allclose(dense["vertices"][:, :2], face.points_photo, atol=1e-3)
        assert set(np.unique(dense["visible"])) == {0, 1}
        points = np.loadtxt(tmp_path / f"{name}_ldm68.txt")
        np.testing.assert_allclose(points[:, :2], face.landmarks_68, atol=1e-3)
        camera = json.loads((tmp_path / f"{name}_camera.json").read_text())
        model = face.decoded.model_vertices[0].numpy()
        seen = (model @ np.array(camera["R"]).T + camera["t"]) @ np.array(camera["K"]).T
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], face.points_photo, atol=0.01)
        light = np.array(camera["light"])
        np.testing.assert_allclose(light.mean(0), camera["white_light"], atol=1e-6)
        depth = cv2.imread(str(tmp_path / f"{name}_depth.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(depth, depth_steps(depth_map(face)))
    picture = cv2.imread(str(tmp_path / "a_uv.png"))
    assert (picture == 0).all(2).mean() > 0.02, "texels that are not seen are black"


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match="also: 'plyy' is not known; known: all, ply"):
        known_kinds(["plyy"])


def test_switches_of_the_ancestors(capsys):
    words = "-f a.jpg --dump_ply true --dump_depth=False --isFront 1 --isDepth 1 -o out"
    config = parse_arguments([str(word) for word in words.split()])
    assert config.also == ("ply", "depth") and config.front and not config.mask
    assert str(config.savepath) == "out" and [str(one) for one in config.inputpath] == ["a.jpg"]
    both = parse_arguments(["--also", "ply", "paf", "--dump_pose", "1"])
    assert both.also == ("ply", "paf", "pose")
    for wrong in (["--dump_ply"], ["--dump_ply", "maybe"], ["--also", "plyy"]):
        with pytest.raises(SystemExit):
            parse_arguments(wrong)
    assert "expected one argument" in capsys.readouterr().err
