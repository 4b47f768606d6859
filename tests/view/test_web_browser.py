"""The page in a browser without a window: what a person sees and what scripts get."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from glb_reader import read_glb, values_of

from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.face_models.load import load_face_model
from v3recon.io.glb import write_glb
from v3recon.io.images import read_image, write_png
from v3recon.light.files import DECODER, DETECTOR, MODEL, NETWORK
from v3recon.light.reconstructor import OnnxReconstructor
from v3recon.reconstruct.glb import face_mesh
from v3recon.types import FaceCoeffs
from v3recon.view.server import address_of, make_site_server

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "examples" / "astronaut.jpg"
SHARED = ROOT.parent / "shared" / "photos"
MODULES = Path(os.environ.get("NODE_MODULES", ROOT / "node_modules"))
"""Where npm put puppeteer-core, gltf-validator, esbuild and what the page is built of."""


def found_browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def missing() -> str:
    lacks = [] if shutil.which("node") else ["node"]
    lacks += [] if found_browser() else ["chromium"]
    packages = ("puppeteer-core", "gltf-validator")
    lacks += [f"npm's {name} in {MODULES}" for name in packages if not (MODULES / name).is_dir()]
    return ", ".join(lacks)


def views() -> dict[str, np.ndarray]:
    """Photos of several kinds made of the example: two faces, a large one, a small one, none."""
    photo = read_image(PHOTO)
    pair = np.zeros((512, 768, 3), np.uint8)
    pair[:, :512], pair[:256, 512:] = photo, cv2.resize(photo, (256, 256), None, 0, 0, 3)
    large = cv2.resize(photo, (1700, 1700), interpolation=cv2.INTER_CUBIC)
    close = cv2.resize(photo[30:190, 130:310], (720, 640), interpolation=cv2.INTER_CUBIC)
    return {
        "pair": pair,
        "large": large,
        "close": close,
        "none": np.full((64, 80, 3), 99, np.uint8),
    }


@pytest.fixture(scope="module")
def used(site, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """What browser.mjs reports, and its folder."""
    if missing():
        pytest.skip(f"needs {missing()}; see docs/web.md")
    folder = tmp_path_factory.mktemp("browser")
    os.symlink(MODULES.resolve(), folder / "node_modules")
    shutil.copy(ROOT / "tests" / "view" / "browser.mjs", folder)
    for name, view in views().items():
        write_png(folder / f"{name}.png", view)
    photos = [str(PHOTO), *(str(folder / f"{name}.png") for name in views())]
    photos += [str(path) for path in shared_photos()]
    server = make_site_server([path for path in site.iterdir()])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = ["node", "browser.mjs", address_of(server), str(found_browser())]
    command += [str(PHOTO), json.dumps(photos), str(folder)]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=1500
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text()), folder


def shared_photos() -> list[Path]:
    found = [sorted((SHARED / name).glob("*.jpg"))[:1] for name in ("lfw", "aflw", "helen")]
    return [path for paths in found for path in paths]


@pytest.fixture(scope="module")
def light(site, tmp_path_factory) -> OnnxReconstructor:
    """The site's networks in Python."""
    folder = tmp_path_factory.mktemp("light")
    for name in (NETWORK, DECODER, *DETECTOR):
        (folder / name).write_bytes(gzip.decompress((site / f"{name}.gz").read_bytes()))
    np.savez(folder / MODEL, triangles=load_face_model("photohead").faces.numpy())
    about = json.loads((site / "about.json").read_text()) | {"format": "v3recon-onnx"}
    (folder / "about.json").write_text(json.dumps(about))
    return OnnxReconstructor.from_folder(folder, threads=1)


@pytest.mark.slow
def test_nothing_fails_and_nothing_is_asked_for_elsewhere(used):
    result, _ = used
    assert result["errors"] == [] and result["elsewhere"] == []
    assert result["ready"] == "Ready. Photos stay in this browser."


@pytest.mark.slow
def test_what_a_person_sees(used):
    result, _ = used
    assert result["shown"] == "1 face in one.jpg" and result["shot"] == "1 face in camera.jpg"
    assert 0.0005 < result["points"] < 0.02  # of the photo's pixels
    assert 0.002 < result["parts"] < 0.1
    assert result["closer"] > 0.5
    assert result["slider"] == 1 and result["moved"]
    assert result["phone"] == 360  # nothing wider than the window


@pytest.mark.slow
def test_everything_has_a_name_for_screen_readers(used):
    names = used[0]["names"]
    assert all(name for _, name in names), names
    assert [name for role, name in names if role == "slider"] == list(ARKIT_NAMES)
    buttons = {name for role, name in names if role == "button"}
    assert {"Camera", "Download GLB", "Download numbers", "Neutral", "Face 1"} <= buttons
    assert "The photo one.jpg: 1 face" in {name for role, name in names if role == "image"}


@pytest.mark.slow
def test_one_sentence_for_what_cannot_be(used):
    result, _ = used
    assert result["unreadable"] == "words.txt is not a picture that this browser can read."
    assert result["faceless"] == "No face was found in grey.png." and result["cleared"]
    assert result["camera"]["NotFoundError"] == "No camera was found."
    assert result["camera"]["NotAllowedError"].startswith("The camera may not be used; allow it")
    assert result["plain"].startswith("This browser has no WebGL, which heads are drawn with")
    assert result["plainShown"] == result["plain"] and result["plainGlb"]


@pytest.mark.slow
def test_numbers_are_those_of_python(used, light):
    result, folder = used
    counts = {}
    for file, faces in result["numbers"].items():
        expected = light(file)
        assert len(faces) == len(expected), file
        counts[Path(file).stem] = len(faces)
        for face, other in zip(faces, expected, strict=True):
            np.testing.assert_allclose(face["box"], other.box, atol=0.1)
            assert abs(face["score"] - other.score) < 1e-3
            np.testing.assert_allclose(face["crop_matrix"], other.crop_matrix, atol=0.1)
            size = np.ptp(other.landmarks_68[:, 0])
            for name in ("landmarks_68", "landmarks_106", "landmarks_134"):
                apart = np.linalg.norm(np.array(face[name]) - getattr(other, name), axis=1)
                assert apart.max() < 0.1 * max(size / 100, 1), (file, name)  # pixels
            pose = [face["pose"][name] for name in ("pitch", "yaw", "roll")]
            np.testing.assert_allclose(pose, other.angle_degrees, atol=0.1)
            for name, values in other.coeffs.items():
                np.testing.assert_allclose(face["coefficients"][name], values, atol=0.03)
    assert counts | {"pair": 2, "large": 1, "close": 1, "none": 0} == counts
    written = json.loads((folder / "one.json").read_text())
    assert written["photo"] == "one.jpg"
    assert written["faces"] == result["numbers"][str(PHOTO)]


@pytest.mark.slow
def test_downloaded_head_is_that_of_python(used, tmp_path):
    result, folder = used
    assert result["validator"] == {"errors": 0, "warnings": 0}
    document, data = read_glb(folder / "one.glb")
    (numbers,) = result["numbers"][str(PHOTO)]
    coeffs = FaceCoeffs(
        **{name: torch.tensor([values]) for name, values in numbers["coefficients"].items()}
    )
    model = load_face_model("photohead")
    write_glb(
        tmp_path / "py.glb", face_mesh(coeffs, model, np.zeros((4, 4, 3), np.uint8), name="one")
    )
    expected, expected_data = read_glb(tmp_path / "py.glb")
    mesh, other = document["meshes"][0], expected["meshes"][0]
    assert mesh["extras"]["targetNames"] == list(ARKIT_NAMES)
    jaw = ARKIT_NAMES.index("jawOpen")
    wanted = np.array(other["weights"])
    assert wanted[jaw] < 0.9 and mesh["weights"][jaw] == 1
    wanted[jaw] = 1
    np.testing.assert_allclose(mesh["weights"], wanted, atol=1e-6)
    for one, twin in zip(mesh["primitives"], other["primitives"], strict=True):
        rows = [
            (one["attributes"], twin["attributes"]),
            *zip(one["targets"], twin["targets"], strict=True),
        ]
        for ours, theirs in rows:
            assert ours.keys() == theirs.keys()
            for key, number in ours.items():
                found = values_of(document, data, number)
                apart = found - values_of(expected, expected_data, theirs[key])
                limit = {"POSITION": 3e-5, "TEXCOORD_0": 1e-6, "NORMAL": 0.06}[key]
                assert np.abs(apart).max() < limit, key
        np.testing.assert_array_equal(
            values_of(document, data, one["indices"]),
            values_of(expected, expected_data, twin["indices"]),
        )


def test_the_program_is_built_of_its_sources(tmp_path):
    needed = ("esbuild", "three", "onnxruntime-web")
    if not shutil.which("node") or not all((MODULES / name).is_dir() for name in needed):
        pytest.skip(f"needs node and npm's {', '.join(needed)} in {MODULES}; see docs/web.md")
    view = ROOT / "v3recon" / "view"
    for name in ("app", "viewer"):
        command = [str(MODULES / ".bin" / "esbuild"), f"{name}.js", "--bundle", "--minify"]
        command += ["--format=esm", "--target=es2022", "--legal-comments=eof"]
        command += [f"--outfile={tmp_path / name}.min.js"]
        environment = os.environ | {"NODE_PATH": str(MODULES)}
        subprocess.run(command, cwd=view, env=environment, check=True, capture_output=True)
        built = (tmp_path / f"{name}.min.js").read_bytes()
        assert built == (view / "data" / f"{name}.min.js").read_bytes(), name
    packed = gzip.decompress((view / "data" / "ort-wasm-simd-threaded.wasm.gz").read_bytes())
    wasm = MODULES / "onnxruntime-web" / "dist" / "ort-wasm-simd-threaded.wasm"
    assert packed == wasm.read_bytes()
