"""The files of the page that reconstructs in the browser, and their server."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from synthetic_assets import synthetic_face_model

from v3recon.cli.export import main
from v3recon.cli.view import server_of
from v3recon.export.half_weights import store_in_half
from v3recon.export.onnx_files import export_onnx
from v3recon.export.web_site import SITE_FILES, export_web
from v3recon.face_models.load import load_face_model
from v3recon.face_models.surfaces import surface_faces
from v3recon.light.files import DECODER, DETECTOR, MODEL, NETWORK, Network
from v3recon.light.reconstructor import OnnxReconstructor
from v3recon.view.server import make_site_server

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "examples" / "astronaut.jpg"


def unpacked(site: Path, folder: Path) -> Path:
    """The site's networks as a folder that `OnnxReconstructor` reads."""
    for name in (NETWORK, DECODER, *DETECTOR):
        (folder / name).write_bytes(gzip.decompress((site / f"{name}.gz").read_bytes()))
    np.savez(folder / MODEL, triangles=load_face_model("photohead").faces.numpy())
    about = json.loads((site / "about.json").read_text()) | {"format": "v3recon-onnx"}
    (folder / "about.json").write_text(json.dumps(about))
    return folder


def test_networks_in_half_give_the_same_points(site, tmp_path):
    assert sorted(path.name for path in site.iterdir()) == sorted(SITE_FILES)
    assert sum(path.stat().st_size for path in site.iterdir()) < 25e6
    (tmp_path / "half").mkdir()
    assert main(["onnx", str(tmp_path / "whole"), "--face-model", "photohead"]) == 0
    (exact,) = OnnxReconstructor.from_folder(tmp_path / "whole", threads=1)(PHOTO)
    (half,) = OnnxReconstructor.from_folder(unpacked(site, tmp_path / "half"), threads=1)(PHOTO)
    apart = np.linalg.norm(exact.landmarks_68 - half.landmarks_68, axis=1)
    assert 0 < apart.max() < 0.05  # pixels
    sizes = [(tmp_path / name / NETWORK).stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]


def test_only_large_weights_are_stored_in_half(tmp_path):
    values = {"large": np.full((2, 3), 0.1, np.float32), "small": np.full((2, 2), 0.1, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "small"], ["y"]),
            helper.make_node("MatMul", ["y", "large"], ["z"]),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    path = tmp_path / "two.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, str(path))
    store_in_half(path, large=6)
    found = Network(path, 1)(x=np.array([[1, 2]], np.float32))["z"]
    half = np.float32(np.float16(0.1))
    np.testing.assert_allclose(found, np.full((1, 3), 2 * np.float32(0.3) * half), rtol=1e-6)
    assert half != np.float32(0.1)
    graph.initializer[0].CopyFrom(numpy_helper.from_array(values["large"] * 1e6, "large"))
    onnx.save(made := helper.make_model(graph), str(path))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"large .* beyond the range of 16 bits"):
        store_in_half(path, large=6)
    assert path.read_bytes() == before


def test_head_arrays_are_the_models(site):
    model = load_face_model("photohead")
    about = json.loads((site / "about.json").read_text())
    data = gzip.decompress((site / "head.bin.gz").read_bytes())
    arrays = {
        name: np.frombuffer(data, one["type"], int(np.prod(one["shape"])), one["offset"]).reshape(
            one["shape"]
        )
        for name, one in about["head"]["arrays"].items()
    }
    np.testing.assert_array_equal(arrays["triangles"], model.faces)
    np.testing.assert_array_equal(arrays["uv_coords"], model.uv_coords)
    np.testing.assert_array_equal(arrays["part_labels"], model.part_labels)
    assert model.albedo_texture is not None
    for name in ("mean", "fine", "coarse", "fine_unit", "coarse_unit"):
        expected = getattr(model.albedo_texture, name)
        np.testing.assert_array_equal(arrays[f"albedo_{name}"], expected)
    surfaces = surface_faces(model)
    assert [one["name"] for one in about["head"]["surfaces"]] == list(surfaces)
    for place, rows in enumerate(surfaces.values()):
        np.testing.assert_array_equal(np.flatnonzero(arrays["triangle_surfaces"] == place), rows)
    assert about["head"]["shapes"][24] == "jawOpen" and len(about["head"]["shapes"]) == 52
    assert about["files"] == {
        name: (site / name).stat().st_size for name in SITE_FILES if name != "about.json"
    }


def test_other_models_and_flags_are_refused(tmp_path, capsys):
    model = synthetic_face_model()
    with pytest.raises(ValueError, match="bfm is not; use the face model photohead"):
        export_web(tmp_path, torch.nn.Identity(), model, {"name": "box"}, input_size=128)
    assert main(["web", str(tmp_path), "--batch", "1"]) == 2
    assert main(["web", str(tmp_path), "--int8", str(PHOTO)]) == 2
    assert capsys.readouterr().err.count("of `export onnx`") == 2
    assert not list(tmp_path.iterdir())
    head = load_face_model("photohead")
    with pytest.raises(ValueError, match="cannot be exported"):
        export_onnx(tmp_path, torch.nn.Identity(), head, {"name": "five_points"}, input_size=224)


def ask(port: int, path: str, host: str = "localhost:1") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    return connection.getresponse()


def test_the_site_and_nothing_else_is_served(site, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    (folder / "secret.txt").write_text("secret")
    server = server_of(folder, 0, tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    try:
        page = ask(port, "/")
        assert page.status == 200 and b"app.min.js" in page.read()
        policy = page.getheader("Content-Security-Policy") or ""
        assert "default-src 'self'" in policy and "'wasm-unsafe-eval'" in policy
        for name in SITE_FILES:
            answer = ask(port, f"/{name}")
            assert answer.status == 200 and answer.read() == (folder / name).read_bytes()
            assert answer.getheader("Content-Encoding") is None, name
        assert (
            ask(port, "/app.min.js").getheader("Content-Type") == "text/javascript; charset=utf-8"
        )
        for path in ("/secret.txt", "/../secret.txt", "//secret.txt", "/head/0.glb"):
            assert ask(port, path).status == 404, path
        assert ask(port, "/", "example.org").status == 403
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_path_the_page_is_made(site, tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(
        "v3recon.cli.export.write_site",
        lambda folder: made.append(folder) or [site / name for name in SITE_FILES],
    )
    with server_of(None, 0, tmp_path) as server:
        assert server.server_address[1] > 0
    assert made == [tmp_path] and "Making the page" in capsys.readouterr().out


def test_sites_that_are_not_whole(site, tmp_path):
    (tmp_path / "about.json").write_text((site / "about.json").read_text())
    with pytest.raises(ValueError, match=r"lacks index\.html, app\.min\.js.*export it again"):
        server_of(tmp_path, 0, tmp_path)
    (tmp_path / "about.json").write_text("[]")
    with pytest.raises(ValueError, match=r"holds no \.glb file"):
        server_of(tmp_path, 0, tmp_path)
    with pytest.raises(ValueError, match="port"):
        taken = make_site_server([site / name for name in SITE_FILES])
        with taken:
            make_site_server([site / name for name in SITE_FILES], taken.server_address[1])


def test_the_page_asks_for_nothing_elsewhere():
    data = ROOT / "v3recon" / "view" / "data"
    page = (data / "app.html").read_text()
    assert "http:" not in page and "https:" not in page
    assert "default-src 'self'" in page
    assert "cdn." not in (data / "app.min.js").read_text()
