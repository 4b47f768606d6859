"""Faces followed through drawn videos whose movement is known exactly."""

from __future__ import annotations

import csv
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from drawn_video import SIZE, moved_photo, similarity, write_video
from glb_reader import read_glb, values_of

from v3recon.cli.track import main
from v3recon.decode import decode
from v3recon.detection.crop import CropTransform
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.reconstruct.faces import make_faces
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.types import FaceCoeffs
from v3recon.video import track
from v3recon.video.follow import Follower
from v3recon.video.frames import Frame
from v3recon.video.live_link import ROTATIONS, SHAPES, time_code, write_live_link
from v3recon.video.outputs import places_of, write_take_arrays, write_take_glb
from v3recon.video.take import Take, make_takes
from v3recon.video.track import TrackOptions, follow_video, track_video


@pytest.fixture(scope="module")
def reconstructor() -> FaceReconstructor:
    return FaceReconstructor.from_pretrained(device="cpu")


def moving(count: int) -> list[np.ndarray]:
    """Maps of a face that wanders, turns in the plane and comes nearer."""
    t = np.arange(count) / 25
    return [
        similarity(
            240 + 50 * np.sin(3 * x), 170 + 12 * np.sin(5 * x), 1 + 0.2 * x, 0.25 * np.sin(x)
        )
        for x in t
    ]


def frames_of(images: list[np.ndarray]) -> list[Frame]:
    return [Frame(index, index / 25, image) for index, image in enumerate(images)]


def takes_of(reconstructor: FaceReconstructor, images: list[np.ndarray], **options) -> list[Take]:
    follower = Follower(reconstructor)
    sightings = [one for frame in frames_of(images) for one in follower(frame)]
    tool = reconstructor
    scene = (tool.model, tool.camera, tool.crop_rule, tool.points_3d)
    return make_takes(sightings, *scene, **options)


def test_landmarks_move_as_the_photo_does(reconstructor):
    maps = moving(24)
    (take,) = takes_of(reconstructor, moved_photo(maps, noise=3))
    assert take.frames.tolist() == list(range(24)) and take.shots.max() == 0
    on_photo = np.stack(
        [
            (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            for points, matrix in zip(take.landmarks_68.astype(float), maps, strict=True)
        ]
    )
    apart = np.linalg.norm(on_photo - on_photo.mean(0), axis=2).mean()
    assert apart < 0.012 * np.ptp(on_photo.mean(0), axis=0).max()
    assert (take.coeffs.id == take.coeffs.id[0]).all()
    # The mesh lies where the landmarks are.
    model, camera = reconstructor.model, reconstructor.camera
    points = decode(take.coeffs, model, camera).points_2d[:, model.landmarks_68]
    matrix = take.crop_matrix.float()
    crop = torch.from_numpy(take.landmarks_68) @ matrix[:, :, :2].mT + matrix[:, None, :, 2]
    assert float((points - crop).norm(dim=2).mean()) < 2.5  # pixels of 224


def test_two_people_keep_their_numbers_while_one_hides(reconstructor):
    half = (SIZE[0] // 2, SIZE[1])
    left = moved_photo([similarity(120 + 2 * k, 150, 0.8) for k in range(26)], 2, size=half)
    right = moved_photo([similarity(120 - k, 190, 0.9) for k in range(26)], 2, 1, size=half)
    for hidden in range(8, 14):
        left[hidden][60:260, 70:230] = 120  # something passes before the face
    images = [np.concatenate(pair, 1) for pair in zip(left, right, strict=True)]
    follower = Follower(reconstructor, check_every=6)
    seen = [follower(frame) for frame in frames_of(images)]
    assert [one.person for one in seen[0]] == [1, 2]
    sides = {one.person: one.landmarks_68[:, 0].mean() > half[0] for one in seen[0]}
    assert [one.person for one in seen[-1]] == [1, 2] and follower.shot == 0
    for one in seen[-1]:
        assert (one.landmarks_68[:, 0].mean() > half[0]) == sides[one.person]
    counts = [len(one) for one in seen]
    assert min(counts[8:14]) == 1 and counts[20:] == [2] * 6


def test_a_cut_begins_a_new_shot(reconstructor):
    first = moved_photo([similarity(200, 150, 1.0)] * 6, 2)
    second = [255 - image for image in moved_photo([similarity(330, 260, 0.5)] * 2)]
    third = moved_photo([similarity(330, 170, 1.3)] * 6, 2)
    takes = takes_of(reconstructor, first + second + third)
    assert [take.frames.tolist() for take in takes] == [list(range(6)), list(range(8, 14))]
    assert [int(take.shots[0]) for take in takes] == [0, 2]


def test_a_stopped_run_goes_on_to_the_same_result(reconstructor, tmp_path, monkeypatch):
    monkeypatch.setattr(track, "PART", 8)
    path = write_video(tmp_path / "a.mp4", moved_photo(moving(20), 2))
    whole, count, shots = follow_video(path, reconstructor, tmp_path / "whole")
    assert (count, shots) == (20, 1)

    def stop(step: str, done: int) -> None:
        if done == 19:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_video(path, reconstructor, tmp_path / "kept", stop)
    done: list[int] = []
    resumed, count, _ = follow_video(
        path, reconstructor, tmp_path / "kept", lambda _, n: done.append(n)
    )
    assert done == [17, 18, 19, 20] and count == 20
    assert len(resumed) == len(whole)
    for one, other in zip(resumed, whole, strict=True):
        assert (one.person, one.frame, one.time) == (other.person, other.frame, other.time)
        np.testing.assert_array_equal(one.coeffs, other.coeffs)
        np.testing.assert_array_equal(one.landmarks_68, other.landmarks_68)
    # Another video of the same name begins anew, a damaged part is found again.
    (tmp_path / "kept" / "000000016.npz").write_bytes(b"damaged")
    done.clear()
    follow_video(path, reconstructor, tmp_path / "kept", lambda _, n: done.append(n))
    assert done[0] == 9
    path.touch()
    done.clear()
    follow_video(path, reconstructor, tmp_path / "kept", lambda _, n: done.append(n))
    assert done[0] == 1


def test_the_program_writes_overlay_and_values(tmp_path, capsys):
    path = write_video(tmp_path / "my take.mp4", moved_photo(moving(10), 2), sound=True)
    assert main([str(path), "-s", str(tmp_path / "out"), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "face 1: 10 frames" in out and "10 frames, 1 shots, 1 faces" in out
    names = {one.name for one in (tmp_path / "out").iterdir()}
    stem = next(name for name in names if name.endswith(".mp4"))[:-4]
    assert {f"{stem}.mp4", f"{stem}_face1.npz"} <= names
    with np.load(tmp_path / "out" / f"{stem}_face1.npz") as values:
        assert values["exp"].shape == (10, 64) and values["landmarks_68"].shape == (10, 68, 2)
        assert values["id"].shape == (80,)


def test_videos_without_a_face_and_files_that_are_none(tmp_path, capsys, reconstructor):
    meadow = [np.full((120, 160, 3), (60, 140, 60), np.uint8)] * 6
    path = write_video(tmp_path / "meadow.mp4", meadow)
    result = track_video(path, reconstructor, tmp_path / "out")
    assert result.takes == [] and result.frame_count == 6
    assert [one.name for one in result.files] == ["meadow.mp4"]
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["meadow.mp4"]
    (tmp_path / "text.mp4").write_text("words")
    assert main([str(tmp_path / "text.mp4"), "-s", str(tmp_path / "out")]) == 2
    assert "is not a video" in capsys.readouterr().err
    assert main([str(path), "--texture-size", "3"]) == 2


@pytest.fixture(scope="module")
def head_take() -> Take:
    """A drawn take of PhotoHead: it nods, opens its mouth and comes nearer."""
    model, count = load_face_model("photohead"), 12
    zeros = FaceCoeffs.zeros(count, model.sizes)
    exp, angle, trans = zeros.exp.clone(), zeros.angle.clone(), zeros.trans.clone()
    exp[:, model.exp_names.index("jawOpen")] = torch.linspace(0, 1, count)
    angle[:, 0] = torch.linspace(-0.3, 0.3, count)
    matrix = torch.zeros(count, 2, 3, dtype=torch.float64)
    matrix[:, 0, 0] = matrix[:, 1, 1] = torch.linspace(1, 0.5, count, dtype=torch.float64)
    random = np.random.default_rng(0)
    return Take(
        person=1,
        frames=np.arange(count),
        times=np.arange(count) / 25 + 2,
        shots=np.zeros(count, int),
        coeffs=FaceCoeffs(zeros.id, exp, zeros.alb, angle, zeros.sh, trans),
        crop_matrix=matrix,
        landmarks_68=random.uniform(50, 150, (count, 68, 2)).astype(np.float32),
        quality=np.ones(count),
    )


def test_live_link_has_61_values_by_name(head_take, tmp_path):
    write_live_link(tmp_path / "a.csv", head_take, Fraction(25))
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and len(SHAPES) + len(ROTATIONS) == 61
    assert list(rows[0]) == ["Timecode", "BlendShapeCount", *SHAPES, *ROTATIONS]
    opened = [float(row["JawOpen"]) for row in rows]
    np.testing.assert_allclose(opened, np.linspace(0, 1, 12), atol=1e-6)
    assert all(float(row["MouthSmileLeft"]) == 0 for row in rows)
    np.testing.assert_allclose(
        [float(row["HeadPitch"]) for row in rows], np.linspace(-0.3, 0.3, 12), atol=1e-6
    )
    assert rows[0]["Timecode"] == "00:00:02:00.000" and rows[1]["Timecode"] == "00:00:02:01.000"
    assert time_code(3661.9999999, Fraction(30)) == "01:01:02:00.000"
    assert time_code(0.02, Fraction(25)) == "00:00:00:00.500"


def test_an_animated_head_has_weights_and_place_of_every_frame(head_take, tmp_path):
    model, camera = load_face_model("photohead"), Camera()
    image = np.full((300, 300, 3), 128, np.uint8)
    row = slice(head_take.best, head_take.best + 1)
    crop = CropTransform(head_take.crop_matrix[head_take.best])
    (face,) = make_faces(head_take.coeffs[row], model, camera, [crop], [image], [None])
    write_take_glb(tmp_path / "a.glb", head_take, face, 64)
    document, binary = read_glb(tmp_path / "a.glb")
    (animation,) = document["animations"]
    found = {
        one["target"]["path"]: animation["samplers"][one["sampler"]]["output"]
        for one in animation["channels"]
    }
    weights = values_of(document, binary, found["weights"]).reshape(12, 52)
    names = document["meshes"][0]["extras"]["targetNames"]
    np.testing.assert_allclose(weights[:, names.index("jawOpen")], np.linspace(0, 1, 12), atol=1e-6)
    rotation = values_of(document, binary, found["rotation"])
    np.testing.assert_allclose(np.linalg.norm(rotation, axis=1), 1, atol=1e-6)
    # Pitch turns about x: the quaternion of a positive one has the same sign in x.
    np.testing.assert_allclose(
        np.abs(rotation[:, 0]), np.abs(np.sin(head_take.coeffs.angle[:, 0].numpy() / 2)), atol=1e-6
    )
    # A crop of half the scale is of a face twice as near: half of 10 decimetres.
    place = values_of(document, binary, found["translation"])
    np.testing.assert_allclose(place[0], 0, atol=1e-6)
    np.testing.assert_allclose(place[-1, 2], 0.5, atol=1e-5)
    np.testing.assert_allclose(places_of(head_take, camera)[-1], place[-1], atol=1e-6)
    times = values_of(document, binary, animation["samplers"][0]["input"])
    np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-6)


def test_values_name_their_coefficients(head_take, tmp_path):
    write_take_arrays(tmp_path / "a.npz", head_take, load_face_model("photohead"))
    with np.load(tmp_path / "a.npz") as values:
        assert str(values["exp_names"][24]) == "jawOpen" and values["trans"].shape == (12, 3)
        assert str(values["face_model"]).startswith("photohead ")


def test_a_head_model_gets_csv_and_glb(reconstructor, tmp_path, monkeypatch, head_take):
    """With a model of ARKit's shapes the program writes all files; what is followed is given."""
    path = write_video(tmp_path / "a.mp4", moved_photo([similarity(240, 180)] * 12))
    monkeypatch.setattr(track, "follow_video", lambda *_: ([], 12, 1))
    monkeypatch.setattr(track, "make_takes", lambda *_: [head_take])
    tool = replace(reconstructor, model=load_face_model("photohead"))
    options = TrackOptions(texture_size=64, overlay=False)
    result = track_video(path, tool, tmp_path / "out", options)
    assert [one.suffix for one in result.files] == [".npz", ".csv", ".glb"]
    assert all(one.is_file() for one in result.files)
