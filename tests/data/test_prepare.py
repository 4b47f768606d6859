import json

import cv2
import numpy as np
import pytest
from PIL import Image

from v3recon.data import prepare, regions
from v3recon.data.mesh_detection import command_detector, stored_detector
from v3recon.data.samples import LABELS_PSEUDO, AugmentSettings, TrainingDataset
from v3recon.data.shards import BrokenShardError, PreparedSet, open_shard
from v3recon.face_models.detector_mesh import load_face_mesh

MESH = load_face_mesh()
SIZE = 200


def photo_points(scale: float = 55.0) -> np.ndarray:
    """The mean face in a photo of 200 pixels."""
    points = MESH.mean * np.array([scale, -scale, scale])
    return points + np.array([110.0, 95.0, 0.0], np.float32)


def write_pts(path, points) -> None:
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points[:, :2] + 1)
    path.write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")


@pytest.fixture
def folder(tmp_path):
    """Seven photos: detected, with points, with mask, without face, broken, bad points, val."""
    photos = tmp_path / "photos"
    (photos / "set").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"set/{name}.jpg" for name in ("detected", "hand", "mask", "empty", "bad", "val")]
    for name in names:
        noise = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 3)).save(photos / name)
    (photos / "set/broken.jpg").write_bytes(b"not a picture")
    write_pts(photos / "set/hand.pts", photo_points()[MESH.landmarks_68])
    (photos / "set/bad.pts").write_text("version: 1\n{\n1 2\nthree four\n}\n")
    classes = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(classes, [photo_points()[MESH.outline, :2].astype(np.int32)], 1)
    x, y = photo_points()[MESH.left_eye, :2].mean(0).astype(int)
    classes[y - 4 : y + 5, x - 8 : x + 9] = 4
    Image.fromarray(classes, "L").save(photos / "set/mask.png")
    index = ["file,source,subject,split,landmarks,mask"]
    index += [f"set/{n}.jpg,set,,train,," for n in ("detected", "empty", "broken")]
    index += ["set/hand.jpg,other,,train,set/hand.pts,", "set/bad.jpg,set,,train,set/bad.pts,"]
    index += ["set/mask.jpg,set,,train,,set/mask.png", "set/val.jpg,set,,val,,"]
    (photos / "index.csv").write_text("\n".join(index) + "\n")
    found = ["set/detected.jpg", "set/mask.jpg", "set/val.jpg", "set/hand.jpg", "set/bad.jpg"]
    np.savez(tmp_path / "meshes.npz", names=np.array(found), pts=np.stack([photo_points()] * 5))
    return tmp_path


def run(folder, *more: str, out: str = "out") -> int:
    argv = ["--photos", str(folder / "photos"), "--out", str(folder / out), "--workers", "1"]
    return prepare.main([*argv, "--meshes", str(folder / "meshes.npz"), "--size", "96", *more])


def test_prepare_writes_every_usable_photo_and_says_why_not(folder, capsys):
    assert run(folder) == 0
    report = json.loads((folder / "out/report.json").read_text())
    assert report["faces"] == 4 and report["faces_by_split"] == {"train": 3, "val": 1}
    assert report["with_hand_made_mask"] == 1 and report["with_hand_made_points"] == 1
    reasons = {item["file"]: item["reason"] for item in report["skipped"]}
    assert set(reasons) == {"set/empty.jpg", "set/broken.jpg", "set/bad.jpg"}
    assert "no face" in reasons["set/empty.jpg"] and "bad.pts" in reasons["set/bad.jpg"]
    assert (folder / "out/contact_sheet_train.jpg").stat().st_size > 1000
    assert "skipped 1: no face found" in capsys.readouterr().out

    train, val = PreparedSet(folder / "out"), PreparedSet(folder / "out", "val")
    assert sorted(train.names()) == ["set/detected.jpg", "set/hand.jpg", "set/mask.jpg"]
    assert val.names() == ["set/val.jpg"] and train.sources == ["other", "set"]
    by_name = {train.record(i).name: i for i in range(3)}
    for name, i in by_name.items():
        record, matrix = train.record(i), train.matrix(i)
        expected = photo_points()[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(record.points[:, :2], expected, atol=1e-3)
        np.testing.assert_allclose(
            record.points[:, 2], photo_points()[:, 2] * matrix[0, 0], atol=1e-3
        )
        assert record.has_landmarks == (name == "set/hand.jpg")
        assert record.labels_source == (1 if name == "set/mask.jpg" else 2)
    hand = train.record(by_name["set/hand.jpg"])
    np.testing.assert_allclose(hand.landmarks_68, hand.points[MESH.landmarks_68], atol=0.05)
    masked = train.record(by_name["set/mask.jpg"])
    x, y, _ = masked.points[MESH.left_eye].mean(0).round().astype(int)
    assert masked.labels[y, x] == 2 and set(np.unique(masked.labels)) == {0, 2, 8}


def test_masks_that_nobody_drew_are_not_called_hand_made(folder, capsys):
    index = folder / "photos/index.csv"
    head, *rows = index.read_text().splitlines()
    rows = [row + ("," if "mask.png" not in row else ",polygons") for row in rows]
    index.write_text("\n".join([f"{head},mask_from", *rows]) + "\n")
    assert run(folder) == 0
    train = PreparedSet(folder / "out")
    (masked,) = (r for r in map(train.record, range(3)) if r.name == "set/mask.jpg")
    assert masked.labels_source == LABELS_PSEUDO
    assert set(np.unique(masked.labels)) == {0, 2, 8}  # the mask's, no polygons drawn anew
    index.write_text(index.read_text().replace("polygons", "dice"))
    assert run(folder, out="other") == 2
    assert "dice" in capsys.readouterr().err


def test_prepared_samples_can_be_drawn(folder):
    run(folder)
    data = TrainingDataset(PreparedSet(folder / "out"), AugmentSettings(size=32))
    for index in range(9):
        sample = data[index]
        assert sample.image.shape == (32, 32, 3) and np.isfinite(sample.points).all()


def test_prepare_resumes_and_repairs(folder):
    assert run(folder, "--shard-size", "2") == 0
    shards = sorted((folder / "out/train").iterdir())
    assert len(shards) == 3
    kept = (shards[0] / "image.npy").stat().st_mtime_ns
    (shards[1] / "points.npy").write_bytes(b"torn")
    with pytest.raises(BrokenShardError, match=r"points\.npy is broken.*run prepare again"):
        PreparedSet(folder / "out")
    before = [PreparedSet(folder / "out", "val").record(0).points]
    assert run(folder, "--shard-size", "2") == 0
    assert (shards[0] / "image.npy").stat().st_mtime_ns == kept
    assert len(PreparedSet(folder / "out")) == 3
    np.testing.assert_array_equal(PreparedSet(folder / "out", "val").record(0).points, before[0])
    assert not list((folder / "out/train").glob(".*"))


def test_prepare_refuses_to_mix_runs(folder, capsys):
    assert run(folder) == 0
    assert run(folder, "--no-pseudo-labels") == 1
    assert "other photos or options" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_the_same_as_one(folder):
    assert run(folder, "--shard-size", "2") == 0
    assert run(folder, "--shard-size", "2", "--workers", "2", out="two") == 0
    one, two = PreparedSet(folder / "out"), PreparedSet(folder / "two")
    assert one.names() == two.names()
    for i in range(len(one)):
        np.testing.assert_array_equal(one.record(i).image, two.record(i).image)


def test_prepare_without_faces_fails_clearly(folder, capsys):
    np.savez(folder / "meshes.npz", names=np.array(["x"]), pts=np.zeros((1, 468, 3)))
    (folder / "photos/index.csv").write_text("file\nset/empty.jpg\n")
    assert run(folder) == 1
    assert "no photo has a usable face" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no prepared 'val' photos"):
        PreparedSet(folder / "out", "val")
    with pytest.raises(ValueError, match=r"has a face.*report"):
        PreparedSet(folder / "out")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--photos", "nowhere", "--out", "o"], "not a folder"),
        (["--photos", ".", "--out", "o", "--size", "3"], "--size"),
        (["--photos", ".", "--out", "o"], "no photos"),
    ],
)
def test_prepare_wrong_usage_is_status_2(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert prepare.main(argv) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_prepare_mask_without_parts_is_skipped(folder):
    Image.fromarray(np.full((SIZE, SIZE), 13, np.uint8), "L").save(folder / "photos/set/mask.png")
    assert run(folder) == 0
    report = json.loads((folder / "out/report.json").read_text())
    reasons = {item["file"]: item["reason"] for item in report["skipped"]}
    assert "holds no face part" in reasons["set/mask.jpg"]


def test_wrong_face_is_not_taken(folder):
    """A detection far from the hand-made points or the mask is of somebody else."""
    moved = photo_points() + np.array([60, 0, 0])
    hand = photo_points()[MESH.landmarks_68, :2]
    shape = (SIZE, SIZE, 3)
    assert regions.choose_mesh([moved], hand, None, shape) is None
    chosen = regions.choose_mesh([moved, photo_points()], hand, None, shape)
    np.testing.assert_array_equal(chosen, photo_points())


def test_region_is_an_exact_map(folder):
    """A spot in a large photo lands where the matrix says, after the prefilter too."""
    y, x = np.mgrid[:900, :900]
    spot = 255 * np.exp(-((x - 431.5) ** 2 + (y - 507.25) ** 2) / (2 * 25.0**2))
    image = np.repeat(spot.astype(np.uint8)[..., None], 3, 2)
    matrix = np.array([[0.13, 0, 5.3], [0, 0.13, -2.1]])
    cut = regions._cut(image, matrix, 128, False)[..., 0].astype(float)
    rows, columns = np.mgrid[:128, :128]
    found = [(columns * cut).sum() / cut.sum(), (rows * cut).sum() / cut.sum()]
    expected = matrix[:, :2] @ [431.5, 507.25] + matrix[:, 2]
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_polygons_have_all_parts_on_their_sides():
    points = MESH.mean * np.array([55.0, -55, 55]) + np.array([100.0, 100, 0], np.float32)
    labels = regions.polygon_labels(points, SIZE)
    assert set(np.unique(labels)) == set(range(9))
    for label, side in ((1, -1), (2, 1), (3, -1), (4, 1)):  # the person's right, viewer's left
        assert np.sign(np.nonzero(labels == label)[1].mean() - 100) == side
    assert np.nonzero(labels == 6)[0].mean() < np.nonzero(labels == 7)[0].mean()
    assert labels[int(points[4, 1]), 100] == 5


def test_command_detector(tmp_path):
    np.savetxt(tmp_path / "ready.txt", photo_points())
    copy = f"sh -c 'cp {tmp_path}/ready.txt \"$1\"' sh {{points}} {{photo}}"
    detect = command_detector(copy)
    meshes = detect(tmp_path / "a.jpg", "a.jpg", np.zeros((2, 2, 3), np.uint8))
    assert len(meshes) == 1
    np.testing.assert_allclose(meshes[0], photo_points())
    nothing = command_detector("true {photo} {points}")
    assert nothing(tmp_path / "a.jpg", "a.jpg", np.zeros((2, 2, 3), np.uint8)) == []
    with pytest.raises(ValueError, match="ended with 1"):
        command_detector("false {photo} {points}")(tmp_path, "a", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="needs"):
        command_detector("detect {photo}")


def test_stored_detections_are_checked(tmp_path):
    np.savez(tmp_path / "m.npz", names=np.array(["a"]), pts=np.zeros((1, 5, 3)))
    with pytest.raises(ValueError, match=r"pts is \(1, 5, 3\)"):
        stored_detector([tmp_path / "m.npz"])
    (tmp_path / "t.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"t\.npz: not a \.npz file"):
        stored_detector([tmp_path / "t.npz"])


def test_open_shard_refuses_wrong_arrays(folder):
    run(folder)
    shard = folder / "out/val/00000"
    np.save(shard / "pose.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(BrokenShardError, match=r"pose\.npy is float32 \(2, 3\)"):
        open_shard(shard)
    np.save(shard / "pose.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BrokenShardError, match=r"pose\.npy"):
        open_shard(shard)
    (shard / "meta.json").write_text("{")
    with pytest.raises(BrokenShardError, match=r"meta\.json cannot be read"):
        open_shard(shard)


def test_exchanged_sides_of_a_mask_are_repaired():
    points = MESH.mean * np.array([55.0, -55, 55]) + np.array([100.0, 100, 0], np.float32)
    labels = regions.polygon_labels(points, SIZE)
    np.testing.assert_array_equal(regions.repair_sides_by_mesh(labels, points), labels)
    exchanged = np.array([0, 2, 1, 4, 3, 5, 6, 7, 8], np.uint8)[labels]
    np.testing.assert_array_equal(regions.repair_sides_by_mesh(exchanged, points), labels)
    one_eye = np.where(labels == 1, 2, 0).astype(np.uint8)
    np.testing.assert_array_equal(regions.repair_sides_by_mesh(one_eye, points), (labels == 1) * 1)
    empty = np.zeros_like(labels)
    np.testing.assert_array_equal(regions.repair_sides_by_mesh(empty, points), empty)


def test_full_disk_leaves_no_half_shard(folder, monkeypatch, capsys):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("v3recon.data.shards.np.save", fail)
    assert run(folder) == 1
    message = capsys.readouterr().err
    assert "No space left" in message and "run the same command again" in message
    assert not list((folder / "out/train").iterdir())
    monkeypatch.undo()
    assert run(folder) == 0


@pytest.mark.needs_shared
def test_real_photos_with_mediapipe(shared_dir, tmp_path):
    pytest.importorskip("mediapipe")
    lines = (shared_dir / "photos/index.csv").read_text().splitlines()
    chosen = [
        next(line for line in lines if f",{name}," in line)
        for name in ("lfw", "helen", "celebamask")
    ]
    index = tmp_path / "index.csv"
    index.write_text("\n".join([lines[0], *chosen]) + "\n")
    argv = ["--photos", str(shared_dir / "photos"), "--index", str(index), "--workers", "1"]
    assert prepare.main([*argv, "--out", str(tmp_path / "out"), "--face-model", "none"]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["faces"] == report["with_mesh"] == 3, report
    assert report["with_hand_made_points"] == report["with_hand_made_mask"] == 1
    records = PreparedSet(tmp_path / "out", *report["faces_by_split"])
    for i in range(3):
        record = records.record(i)
        if record.has_landmarks:
            error = np.linalg.norm(
                (record.points[MESH.landmarks_68] - record.landmarks_68)[:, :2], axis=1
            )
            assert error.mean() / np.ptp(record.landmarks_68[:, 1]) < 0.06
        if record.labels_source == 1:
            x, y, _ = record.points[MESH.right_eye].mean(0).round().astype(int)
            assert 1 in record.labels[y - 3 : y + 4, x - 3 : x + 4]
