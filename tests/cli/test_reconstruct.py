"""The program on odd photos, bad files and wrong flags."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from argparse import ArgumentTypeError
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from v3recon.cli.reconstruct import main, parse_arguments, parse_bool
from v3recon.io.images import read_image
from v3recon.io.obj import read_obj
from v3recon.reconstruct import save as outputs
from v3recon.reconstruct.save import output_names

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(official_assets, tmp_path, capsys):
    """Run the program with small textures on made-up assets; returns status, output, errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        common = ["--assets", official_assets, "--backbone", "mbnetv3", "--texture-size", 64]
        savepath = [] if "-s" in arguments else ["-s", tmp_path / "out"]
        words = [str(word) for word in [*common, "--device", "cpu", *savepath, *arguments]]
        status = main(words)
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def face_photo() -> Image.Image:
    return Image.fromarray(astronaut()[:256, 96:352])


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def expected_files(folder: str, name: str) -> set[str]:
    ends = (".npy", ".npz", ".json", ".png", "_pcaTex.obj", "_extractTex.obj", "_uv.obj", "_uv.mtl")
    return {f"{folder}/{name}{end}" for end in (*ends, "_uv.png")}


def bomb(path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)))


def test_every_output_of_one_photo(run, tmp_path):
    face_photo().save(tmp_path / "me.JPG", "JPEG", quality=95)
    status, out, _ = run("-i", tmp_path / "me.JPG")
    assert status == 0 and "1 photos: 1 faces in 1, no face in 0, 0 failed" in out
    assert files_below(tmp_path / "out") == expected_files("me", "me")
    folder = tmp_path / "out" / "me"
    values = np.load(folder / "me.npy", allow_pickle=True).item()
    assert list(values) == ["ldm68", "ldm106", "ldm106_2d", "ldm134", "seg_visible", "seg"]
    for key, count in (("ldm68", 68), ("ldm106", 106), ("ldm106_2d", 106), ("ldm134", 134)):
        assert values[key].shape == (count, 2) and values[key].dtype == np.float32, key
    assert values["seg"].shape == (256, 256, 8) and values["seg"].dtype == np.float64
    assert set(np.unique(values["seg"])) == {0.0, 255.0}
    assert values["seg_visible"].shape == (256, 256, 1)
    assert values["seg_visible"].dtype == np.float64 and values["seg_visible"].max() == 8
    with np.load(folder / "me.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["vertices"].shape == (*arrays["visible"].shape, 3)
    assert arrays["visible"].dtype == bool and 0.1 < arrays["visible"].mean() < 1
    assert arrays["id"].shape == (80,) and arrays["sh"].shape == (27,)
    np.testing.assert_allclose(arrays["angle_degrees"], np.rad2deg(arrays["angle"]), rtol=1e-5)
    assert arrays["crop_matrix"].shape == (2, 3)
    top, left, bottom, right = arrays["seg_box"]
    inside = values["seg_visible"][top:bottom, left:right, 0]
    np.testing.assert_array_equal(arrays["seg_visible"], inside)
    assert inside.sum() == values["seg_visible"].sum()
    parts = np.unpackbits(arrays["seg_bits"][..., None], axis=-1, bitorder="little")
    np.testing.assert_array_equal(parts * 255.0, values["seg"][top:bottom, left:right])
    assert sum((folder / f"me.{kind}").stat().st_size for kind in ("npy", "npz", "json")) < 1e6
    twin = json.loads((folder / "me.json").read_text())
    assert next(iter(twin)) == "v3recon" and twin["camera"]["focal"] == 1015
    assert twin["photo"].endswith("me.JPG") and (twin["face"], twin["faces"]) == (1, 1)
    assert twin["settings"]["texture_size"] == 64 and 0 <= twin["quality"] <= 1
    assert set(twin["files"]) == {path.name for path in folder.iterdir()}
    assert json.loads(str(arrays["origin"]))["photo"] == twin["photo"]
    np.testing.assert_allclose(twin["ldm68"], values["ldm68"], atol=1e-4)
    colored = read_obj(folder / "me_pcaTex.obj")
    np.testing.assert_allclose(colored.vertices, arrays["vertices"], atol=1e-6)
    assert read_obj(folder / "me_extractTex.obj").colors is not None
    assert read_obj(folder / "me_uv.obj").material_library == "me_uv.mtl"
    assert read_image(folder / "me_uv.png").shape == (64, 64, 3)


def test_outputs_can_be_turned_off(run, tmp_path):
    face_photo().save(tmp_path / "me.png")
    flags = ["--ldm68", "0", "--ldm106", "false", "--ldm106_2d", "No", "--seg", "FALSE"]
    flags += ["--useTex", "no", "--extractTex", "0", "--seg_visible", "0"]
    status, _, _ = run("-i", tmp_path / "me.png", *flags)
    assert status == 0
    assert files_below(tmp_path / "out") == {
        f"me/me{end}" for end in (".npy", ".npz", ".json", ".png")
    }
    values = np.load(tmp_path / "out" / "me" / "me.npy", allow_pickle=True).item()
    assert "ldm134" in values
    assert not {"ldm68", "ldm106", "ldm106_2d", "seg", "seg_visible"} & set(values)


def test_heads_for_other_programs_are_one_file_each(run, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    face_photo().save(tmp_path / "me.png")
    assert run("-i", tmp_path / "me.png", "--usd", 1, "--glb", 1, "--useTex", 0)[0] == 0
    folder = tmp_path / "out" / "me"
    assert {"me.usdz", "me.glb"} <= set(json.loads((folder / "me.json").read_text())["files"])
    assert zipfile.is_zipfile(folder / "me.usdz")
    assert run("-i", tmp_path / "me.png", "--usd", 0, "--useTex", 0)[0] == 0
    assert not {"me.usdz", "me.glb"} & {path.name for path in folder.iterdir()}


def test_usd_without_its_library_ends_before_any_photo(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr", None)
    face_photo().save(tmp_path / "me.png")
    status, _, err = run("-i", tmp_path / "me.png", "--usd", 1)
    assert status == 2 and "pip install 'v3recon[usd]'" in err and "Traceback" not in err
    assert not files_below(tmp_path / "out")


def test_odd_photos_and_bad_files_in_one_folder(run, tmp_path):
    """Each odd photo gives the same face; each bad file is one line; the others go on."""
    photos = tmp_path / "in"
    (photos / "deep" / "er").mkdir(parents=True)
    face = face_photo()
    exif = Image.Exif()
    exif[0x0112] = 6
    face.rotate(90, expand=True).save(photos / "turned.png", exif=exif)
    face.convert("CMYK").save(photos / "cmyk.tif")
    face.quantize(255).save(photos / "palette.PNG")
    face.convert("RGBA").save(photos / "rgba.webp", lossless=True)
    face.save(photos / "deep" / "er" / "plain.bmp")
    face.convert("L").save(photos / "grey.jpeg", quality=95)
    grey_16 = np.asarray(face.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey_16).save(photos / "grey16.png")
    Image.new("RGB", (1, 1)).save(photos / "one_pixel.png")
    Image.new("RGB", (300, 200), "green").save(photos / "meadow.jpg")
    face.save(photos / "whole.jpg")
    data = (photos / "whole.jpg").read_bytes()
    (photos / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.jpg").write_text("no photo")
    (photos / "readme.txt").write_text("no photo either")
    bomb(photos / "bomb.png", 20_000)
    status, out, err = run("-i", photos, "--useTex", 0, "--extractTex", 0)
    assert status == 1 and "Traceback" not in err
    assert "14 photos: 8 faces in 8, no face in 2, 4 failed" in out
    listed = {line.split(":")[0].strip() for line in out.splitlines() if line.startswith("  ")}
    bad = {"truncated.jpg", "empty.png", "text.jpg", "bomb.png"}
    assert {Path(name).name for name in listed} == bad | {"one_pixel.png", "meadow.jpg"}
    found = {path.stem: dict(np.load(path)) for path in tmp_path.rglob("out/*/*.npz")}
    good = {"turned", "cmyk", "palette", "rgba", "plain", "grey", "grey16", "whole"}
    assert set(found) == good
    assert {path.name for path in (tmp_path / "out").iterdir()} == good
    boxes = {name: values["detection_box"] for name, values in found.items()}
    for name in good:
        assert np.abs(boxes[name] - boxes["plain"]).max() < 8, name
    np.testing.assert_array_equal(found["turned"]["ldm68"], found["plain"]["ldm68"])
    np.testing.assert_array_equal(found["rgba"]["ldm68"], found["plain"]["ldm68"])


def test_several_faces_and_names_that_clash(run, tmp_path):
    photos = tmp_path / "in"
    (photos / "sub").mkdir(parents=True)
    canvas = np.full((300, 620, 3), 90, np.uint8)
    canvas[:256, :256] = face_photo()
    canvas[20:212, 400:592] = cv2.resize(np.asarray(face_photo()), (192, 192))
    Image.fromarray(canvas).save(photos / "a.png")
    face_photo().save(photos / "a.jpg")
    face_photo().save(photos / "sub" / "a.jpg")
    status, out, _ = run("-i", photos, "--extractTex", 0)
    assert status == 0 and "3 photos: 4 faces in 3" in out
    found = files_below(tmp_path / "out")
    assert {name.split("/")[0] for name in found} == {"a_png", "in_a_jpg", "sub_a_jpg"}
    assert {"a_png/a_png.npy", "a_png/a_png_face2.npy", "a_png/a_png_face2_pcaTex.obj"} <= found
    one, two = (np.load(tmp_path / "out" / "a_png" / f"a_png{end}.npz") for end in ("", "_face2"))
    assert one["detection_box"][0] < 256 and two["detection_box"][0] > 400
    again, _, _ = run("-i", photos, "--max-faces", 1, "-s", tmp_path / "one", "--extractTex", 0)
    assert again == 0 and not [name for name in files_below(tmp_path / "one") if "face2" in name]


def test_aligned_crops(run, tmp_path):
    """--iscrop 0 takes any photo as a crop: no detection, the frame is the photo."""
    Image.fromarray(astronaut()[:224, 112:336]).save(tmp_path / "crop.png")
    Image.new("RGB", (100, 50), "green").save(tmp_path / "meadow.png")
    status, out, _ = run("-i", tmp_path / "crop.png", tmp_path / "meadow.png", "--iscrop", "0")
    assert status == 0 and "2 faces in 2" in out
    values = np.load(tmp_path / "out" / "crop" / "crop.npy", allow_pickle=True).item()
    arrays = np.load(tmp_path / "out" / "crop" / "crop.npz")
    np.testing.assert_allclose(arrays["crop_matrix"], np.eye(2, 3), atol=1e-12)
    assert "detection_box" not in arrays and values["seg"].shape == (224, 224, 8)
    meadow = np.load(tmp_path / "out" / "meadow" / "meadow.npy", allow_pickle=True).item()
    assert meadow["seg_visible"].shape == (50, 100, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seg", "maybe"], "maybe"),
        (["--seg", "2"], "2"),
        (["--detector", "haar"], "haar"),
        (["--nonsense", "1"], "nonsense"),
        (["--max-faces", "0"], "--max-faces"),
        (["--min-confidence", "1.5"], "--min-confidence"),
        (["--batch-size", "0"], "--batch-size"),
        (["--texture-size", "4"], "--texture-size"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--detector", "retinaface"], "retinaface"),
        (["--face-model", "flame"], "flame"),
        (["--weights", "none.pth"], "none.pth"),
    ],
)
def test_wrong_usage_is_status_2(run, tmp_path, arguments, message):
    face_photo().save(tmp_path / "me.png")
    status, _, err = run("-i", tmp_path / "me.png", *arguments)
    assert status == 2 and message in err and "Traceback" not in err
    assert not list((tmp_path / "out").glob("*"))


def test_missing_and_malformed_assets_are_status_2(tmp_path, official_assets, capsys):
    face_photo().save(tmp_path / "me.png")
    common = ["-i", str(tmp_path / "me.png"), "-s", str(tmp_path / "out"), "--backbone", "mbnetv3"]
    for file in ("face_model.npy", "net_recon_mbnet.pth", "similarity_Lm3D_all.mat"):
        folder = tmp_path / f"without_{file}"
        shutil.copytree(official_assets, folder)
        (folder / file).write_bytes(b"not what it should be")
        assert main([*common, "--assets", str(folder)]) == 2
        err = capsys.readouterr().err.strip()
        assert file in err and "\n" not in err, err
    for file in ("face_model.npy", "net_recon_mbnet.pth"):
        (tmp_path / f"without_{file}" / file).unlink()
        assert main([*common, "--assets", str(tmp_path / f"without_{file}")]) == 2
        assert f"{file}: no such file" in capsys.readouterr().err


def test_inputs_and_folders_that_cannot_be_used(run, tmp_path):
    status, _, err = run("-i", tmp_path / "nowhere")
    assert status == 2 and "no such file or folder" in err
    (tmp_path / "empty").mkdir()
    status, _, err = run("-i", tmp_path / "empty")
    assert status == 2 and "no photos" in err
    face_photo().save(tmp_path / "me.png")
    (tmp_path / "file").write_text("in the way")
    status, _, err = run("-i", tmp_path / "me.png", "-s", tmp_path / "file" / "below")
    assert status == 2 and "cannot write" in err
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        status, _, err = run("-i", tmp_path / "me.png", "-s", tmp_path / "locked")
        assert status == 2 and "cannot write" in err


def test_a_photo_that_cannot_be_written_fails_alone(run, tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        face_photo().save(tmp_path / f"{name}.png")
    whole = outputs.write_reference_npy

    def fail(path, values):
        if "b" in path.name:
            raise OSError("No space left on device")
        whole(path, values)

    monkeypatch.setattr(outputs, "write_reference_npy", fail)
    status, out, _ = run("-i", *(tmp_path / f"{name}.png" for name in "abc"), "--extractTex", 0)
    assert status == 1 and "2 faces in 2, no face in 0, 1 failed" in out
    assert "b.png: No space left on device" in out
    assert "b/b.npy" not in files_below(tmp_path / "out")


def test_one_bad_photo_does_not_spoil_its_batch(run, tmp_path, monkeypatch):
    from v3recon.reconstruct import reconstructor as pipeline

    for name, size in (("a", 256), ("b", 255), ("c", 256)):
        face_photo().resize((size, size)).save(tmp_path / f"{name}.png")
    whole = pipeline.detect_faces

    def fail(image, *arguments, **options):
        if len(image) == 255:
            raise RuntimeError("out of\nmemory")
        return whole(image, *arguments, **options)

    monkeypatch.setattr(pipeline, "detect_faces", fail)
    status, out, _ = run("-i", *(tmp_path / f"{name}.png" for name in "abc"), "--extractTex", 0)
    assert status == 1 and "b.png: out of memory" in out and "2 faces in 2" in out


def test_interruption_is_clean(run, tmp_path, monkeypatch):
    face_photo().save(tmp_path / "me.png")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "write_face", interrupt)
    status, out, err = run("-i", tmp_path / "me.png")
    assert status == 130 and "interrupted" in err and "0 photos" in out


def test_running_again_beside_the_photos_finds_no_results(run, tmp_path):
    photos = tmp_path / "in"
    photos.mkdir()
    face_photo().save(photos / "me.png")
    for _ in range(2):
        status, out, _ = run("-i", photos, "-s", photos, "--extractTex", 0)
        assert status == 0 and "1 photos: 1 faces" in out


def test_words_of_flags():
    assert all(parse_bool(word) for word in ("1", "true", "TRUE", "Yes"))
    assert not any(parse_bool(word) for word in ("0", "false", "False", "no"))
    for word in ("", "2", "on", "y", "wahr"):
        with pytest.raises(ArgumentTypeError, match="is not one of"):
            parse_bool(word)


def test_names_never_clash():
    paths = ["x/a.jpg", "y/a.jpg", "x/a.png", "A.png", "b.jpg", "x/x_a_jpg.jpg", "y/x/a.jpg"]
    names = output_names([Path(path) for path in paths])
    assert len({name.lower() for name in names}) == len(paths)
    assert names[4] == "b"


def test_both_spellings_of_flags():
    config = parse_arguments(["--ldm106-2d", "0", "--max_faces", "3", "--face-model", "bfm"])
    assert (config.ldm106_2d, config.max_faces, config.face_model) == (False, 3, "bfm")
    assert config.seg_visible and config.texture_size == 1024


def test_flags_may_be_shortened():
    config = parse_arguments(["--input", "a.jpg", "--save", "out", "--dev=cpu", "--ldm106", "0"])
    assert list(config.inputpath) == [Path("a.jpg")] and config.savepath == Path("out")
    assert config.device == "cpu" and not config.ldm106 and config.ldm106_2d
    for unclear in (["--ldm", "0"], ["--s", "x"], ["--nothing"]):
        with pytest.raises(SystemExit):
            parse_arguments(unclear)


def test_a_second_run_replaces_the_results_of_a_photo(run, tmp_path):
    canvas = np.full((300, 620, 3), 90, np.uint8)
    canvas[:256, :256] = face_photo()
    canvas[20:212, 400:592] = cv2.resize(np.asarray(face_photo()), (192, 192))
    Image.fromarray(canvas).save(tmp_path / "two.png")
    assert run("-i", tmp_path / "two.png", "--useTex", 0)[0] == 0
    (tmp_path / "out" / "two" / "notes.txt").write_text("mine")
    assert any("face2" in name for name in files_below(tmp_path / "out"))
    assert run("-i", tmp_path / "two.png", "--useTex", 0, "--extractTex", 0, "--max-f", 1)[0] == 0
    ends = (".npy", ".npz", ".json", ".png")
    expected = {f"two/two{end}" for end in ends} | {"two/notes.txt"}
    assert files_below(tmp_path / "out") == expected
    assert run("-i", tmp_path / "two.png", "--min-quality", 1)[0] == 0
    assert files_below(tmp_path / "out") == {"two/notes.txt"}


def test_results_name_files_of_theirs_only(run, tmp_path):
    """A made-up JSON file cannot have other files removed."""
    face_photo().save(tmp_path / "me.png")
    folder = tmp_path / "out" / "me"
    folder.mkdir(parents=True)
    (folder / "keep.txt").write_text("x")
    (tmp_path / "keep.txt").write_text("x")
    listed = ["keep.txt", "../../keep.txt", "../me/keep.txt", str(tmp_path / "keep.txt"), "..", 3]
    (folder / "me.json").write_text(json.dumps({"v3recon": "1", "files": listed}))
    assert run("-i", tmp_path / "me.png", "--extractTex", 0, "--useTex", 0)[0] == 0
    assert (folder / "keep.txt").exists() and (tmp_path / "keep.txt").exists()


NAMES = [" a", "a  b", "-x", "--help", "a\\b", "x" * 230, "中文 照片", "nul", "a\nb", b"\xff\xfe"]


def test_names_of_all_kinds_on_a_console_of_few_letters(tmp_path):
    """Photos whose names are bytes, option-like, long or Chinese; the output is ASCII."""
    photos = tmp_path / "in"
    photos.mkdir()
    plain = tmp_path / "plain.png"
    face_photo().resize((128, 128)).save(plain)
    for name in NAMES:
        stem = os.fsencode(name) if isinstance(name, str) else name
        with open(os.path.join(os.fsencode(photos), stem + b".png"), "wb") as file:
            file.write(plain.read_bytes())
    hidden = photos / "...jpg"  # is read where it is named
    hidden.write_bytes(plain.read_bytes())
    command = [sys.executable, str(ROOT / "demo.py"), "-i", str(photos), str(hidden)]
    command += ["-s", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--texture-size", "64", "--useTex", "0"], env=environment, capture_output=True
    )
    assert b"Traceback" not in done.stderr and done.returncode == 0, done.stderr[-2000:]
    folders = [path for path in (tmp_path / "out").iterdir()]
    assert len(folders) == len(NAMES) + 1 and len(list(tmp_path.iterdir())) == 3
    for folder in folders:
        (values,) = folder.glob("*.json")
        content = json.loads(values.read_text(encoding="utf-8"))
        assert set(content["files"]) == {path.name for path in folder.iterdir()}
        assert Path(content["photo"]).exists()


def test_ten_lines_of_a_users_script(run, tmp_path):
    """What scripts written for 3DDFA_V3 do with its files."""
    face_photo().save(tmp_path / "me.png")
    assert run("-i", tmp_path / "me.png")[0] == 0
    folder = tmp_path / "out" / "me"
    result = np.load(folder / "me.npy", allow_pickle=True).item()
    shapes = {key: value.shape for key, value in result.items()}
    assert shapes["ldm68"] == (68, 2) and shapes["seg"][2] == 8
    for x, y in result["ldm106_2d"].astype(int):
        assert 0 <= x < 256 and 0 <= y < 256
    nose = result["seg"][:, :, 4] > 127
    cv2.imwrite(str(tmp_path / "nose.png"), result["seg"][:, :, 4])
    assert nose[tuple(result["ldm68"][30].astype(int)[::-1])]
    rows = np.loadtxt(folder / "me_pcaTex.obj", dtype=str, skiprows=1, usecols=(0, 1, 2, 3))
    vertices = rows[rows[:, 0] == "v"][:, 1:].astype(float)
    assert vertices.shape[1] == 3 and len(vertices) > 1000


def test_demo_file_and_help():
    command = [sys.executable, str(ROOT / "demo.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for flag in ("-i ", "--inputpath", "-s ", "--ldm106_2d", "--seg_visible", "--face-model"):
        assert flag in done.stdout, flag


def test_real_photos(run, shared_dir, tmp_path):
    """Photos with hand-made landmarks: each face is found and cropped around its landmarks."""
    photos = sorted((shared_dir / "photos" / "afw").glob("*.jpg"))[:6]
    status, out, _ = run("-i", *photos, "--extractTex", 0, "--useTex", 0)
    assert status == 0 and "failed:" not in out
    inside = 0
    for photo in photos:
        lines = photo.with_suffix(".pts").read_text().split("{")[1].split("}")[0]
        points = np.array([line.split() for line in lines.strip().splitlines()], float) - 1
        path = tmp_path / "out" / photo.stem / f"{photo.stem}.npz"
        if path.is_file():
            matrix = np.load(path)["crop_matrix"]
            crop = points @ matrix[:, :2].T + matrix[:, 2]
            inside += int(((crop > -20) & (crop < 244)).all())
    assert inside >= 5
