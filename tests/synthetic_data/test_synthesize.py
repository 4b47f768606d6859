from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_photo import mean_mesh, paint_photo

from v3recon.cli.synthesize import main
from v3recon.data.mesh_detection import stored_detector
from v3recon.io.celebamask import read_celebamask
from v3recon.io.photo_index import read_photo_index, read_pts
from v3recon.synthetic_data.manifest import plan_jobs, read_manifest


@pytest.fixture
def photos(tmp_path, head):
    """Two good photos of one name in two folders, one broken, one without a face."""
    folder = tmp_path / "photos"
    mesh = mean_mesh(head)
    for name in ("a/same.png", "a__same.png", "empty.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint_photo(mesh)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"not a picture")
    np.savez(tmp_path / "m.npz", names=["a/same.png", "a__same.png"], pts=[mesh, mesh])
    return folder


def run(photos, out, *more, program="expressions"):
    command = [program, "--photos", str(photos), "--out", str(out), "--size", "96"]
    meshes = photos.parent / "m.npz"
    return main([*command, "--workers", "1", "--meshes", str(meshes), *more])


def test_expressions_end_to_end(photos, tmp_path, capsys):
    out = tmp_path / "out"
    kinds = ("--kinds", "eyes_closed", "mouth_open", "--check", "none")
    assert run(photos, out, *kinds) == 0
    records = list(read_manifest(out / "manifest.jsonl"))
    status = {(r["photo"], r["kind"]): (r["status"], r["reason"]) for r in records}
    assert len(records) == len(status) == 8
    assert status["a/same.png", "eyes_closed"] == ("written", "")
    assert status["empty.png", "eyes_closed"] == ("skipped", "no face found")
    assert status["broken.jpg", "mouth_open"][0] == "skipped"
    report = json.loads((out / "report.json").read_text())
    assert report["written"] == 4 and report["skipped_reasons"]["no face found"] == 2
    # What training needs: index, points, masks and meshes that belong together.
    entries = read_photo_index(out)
    detect = stored_detector([out / "meshes.npz"])
    assert len(entries) == 4
    written = {record["file"]: record for record in records if record["status"] == "written"}
    for entry in entries:
        picture = np.asarray(Image.open(out / entry.file))
        assert picture.shape == (96, 96, 3)
        # Neither points nor masks of these photos were made by hand.
        assert entry.landmarks == "" and entry.mask_from == "polygons"
        points = read_pts(out / written[entry.file]["landmarks"])
        mask = read_celebamask(out / entry.mask).labels
        assert points.shape == (68, 2) and mask.shape == (96, 96)
        (mesh,) = detect(out, entry.file, picture)
        assert abs(mesh[1, :2] - points[30]).max() < 8  # both at the tip of the nose
        eyes = np.isin(mask, (1, 2)).sum()
        assert (eyes == 0) == (entry.source == "synthetic_eyes_closed")
    assert (out / "contact_sheet.jpg").is_file()
    capsys.readouterr()


def test_photos_without_a_face_give_the_reason_and_an_empty_set(photos, tmp_path, capsys):
    for name in ("a/same.png", "a__same.png", "broken.jpg"):
        (photos / name).unlink()
    out = tmp_path / "out"
    assert run(photos, out, "--kinds", "eyes_closed", "--check", "none") == 1
    assert "no picture was written" in capsys.readouterr().err
    assert [record["reason"] for record in read_manifest(out / "manifest.jsonl")] == [
        "no face found"
    ]
    with np.load(out / "meshes.npz") as stored:
        assert len(stored["names"]) == 0 and stored["pts"].shape == (0, 468, 3)
    stored_detector([out / "meshes.npz"])


def test_kinds_are_drawn_by_shares_and_eyes_close_by_amounts(photos, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--kinds", "eyes_closed", "frown", "--check", "none", "--shares", "1", "1000000")
    assert run(photos, out, *options) == 0
    kinds = [record["kind"] for record in read_manifest(out / "manifest.jsonl")]
    assert kinds == ["frown"] * 4
    out = tmp_path / "both"
    assert run(photos, out, *options, "--per-photo", "2", "--amount", "0.5", "0.6") == 0
    written = [r for r in read_manifest(out / "manifest.jsonl") if r["status"] == "written"]
    assert sorted(r["kind"] for r in written) == ["eyes_closed"] * 2 + ["frown"] * 2
    amounts = [value for r in written if r["kind"] == "eyes_closed" for value in r["amounts"]]
    assert 0.5 <= min(amounts) < max(amounts) <= 0.6
    capsys.readouterr()
    for more in (("--shares", "1"), ("--shares", "1", "0"), ("--amount", "0.9", "0.5")):
        assert run(photos, tmp_path / "no", *options[:4], *more) == 2
        assert capsys.readouterr().err
    assert run(photos, tmp_path / "no", *options, "--per-photo", "3") == 2


def test_a_real_photo_is_read_as_intended(tmp_path):
    """The detector finds the drawn expression in the finished pictures."""
    pytest.importorskip("mediapipe")
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    example = Path(__file__).parents[2] / "examples" / "astronaut.jpg"
    (photos / example.name).write_bytes(example.read_bytes())
    command = ["expressions", "--photos", str(photos), "--out", str(out), "--workers", "1"]
    kinds = ["--kinds", "eyes_closed", "mouth_open+eyes_closed"]
    assert main([*command, *kinds, "--check", "detector"]) == 0
    records = list(read_manifest(out / "manifest.jsonl"))
    assert [record["status"] for record in records] == ["written", "written"]
    assert all(0.5 < record["response"] < 1.3 for record in records)


def test_restart_makes_only_what_is_missing_and_the_same(photos, tmp_path):
    out = tmp_path / "out"
    options = ("--kinds", "mouth_open", "--check", "none")
    assert run(photos, out, *options) == 0
    written = sorted((out / "images").rglob("*.jpg"))
    before = [path.read_bytes() for path in written]
    kept, lost = written
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    record = out / "records" / f"{lost.stem[:-2]}.json"
    assert record.is_file()
    record.unlink()
    assert run(photos, out, *options) == 0
    assert kept.stat().st_mtime_ns == stamp
    assert [path.read_bytes() for path in written] == before


def test_other_options_do_not_mix(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(photos, out, "--kinds", "frown", "--check", "none") == 0
    assert run(photos, out, "--kinds", "frown", "--check", "none", "--seed", "1") == 2
    assert "other" in capsys.readouterr().err


def test_poses(photos, tmp_path):
    out = tmp_path / "out"
    assert run(photos, out, "--per-photo", "2", "--yaw", "40", "60", program="poses") == 0
    records = [r for r in read_manifest(out / "manifest.jsonl") if r["status"] == "written"]
    assert len(records) == 4
    hidden = []
    for record in records:
        assert 40 <= abs(record["yaw"]) <= 60
        with np.load(out / record["labels"]) as arrays:
            yaw = np.rad2deg(arrays["coeffs"][-32])
            assert yaw == pytest.approx(record["yaw"], abs=2)
            jaw = arrays["visible_68"][:17]
            near, far = (jaw[:5], jaw[12:]) if yaw > 0 else (jaw[12:], jaw[:5])
            # An ear may hide the two points beside it.
            assert near.sum() >= max(3, far.sum()), "the side that is turned to the camera"
            hidden.append(not far.all())
    assert sum(hidden) >= 2, "the jaw's far side hides from about 45 degrees"


def test_generator_draws_the_picture(photos, tmp_path):
    out = tmp_path / "out"
    options = ("--kinds", "frown", "--check", "none", "--generator", "test_mask_editing:brighten")
    # A flat picture has no gradients at all, so the seam filter lets it pass.
    assert run(photos, out, *options) == 0
    picture = next((out / "images").rglob("*.jpg"))
    assert (np.asarray(Image.open(picture)) == 7).all()


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["paint"],
        ["expressions"],
        ["expressions", "--photos", "nowhere", "--out", "x", "--kinds", "wink"],
        ["poses", "--photos", "nowhere", "--out", "x", "--yaw", "80", "20"],
    ],
)
def test_wrong_usage(argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert capsys.readouterr().err


def test_keys_are_unique(photos):
    keys = [job.key for job in plan_jobs(photos, None)]
    assert len(set(keys)) == len(keys) == 4


def test_published_folder(photos, tmp_path):
    assert main(["published", "--photos", str(photos), "--out", str(tmp_path / "i.csv")]) == 0
    entries = read_photo_index(photos, tmp_path / "i.csv")
    assert {entry.source for entry in entries} == {"published_a", "published_photos"}
