"""Exported networks against those in torch, and the path that needs no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from v3recon.cli.export import main
from v3recon.decode import decode
from v3recon.detection.detect import detect_faces
from v3recon.export.int8_network import quantize_exported
from v3recon.export.onnx_files import export_onnx, padded_rows
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.io.images import write_png
from v3recon.light.files import ABOUT, COEFFICIENTS, NETWORK, Network, files_of
from v3recon.light.reconstructor import OnnxReconstructor
from v3recon.networks.face_regressor import FaceRegressor, FaceRegressorConfig
from v3recon.reconstruct.reconstructor import FaceReconstructor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The package's own network and model, exported by the program."""
    path = tmp_path_factory.mktemp("exported")
    assert main(["onnx", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def light(folder) -> OnnxReconstructor:
    return OnnxReconstructor.from_folder(folder, threads=1)


def test_faces_are_those_of_torch(light):
    photo = astronaut()
    by_torch = FaceReconstructor.from_pretrained(device="cpu")(photo)
    faces = light(photo)
    assert len(faces) == len(by_torch) == 1
    (detection,) = detect_faces(photo, thorough=False)
    np.testing.assert_allclose(faces[0].box, detection.box.numpy(), atol=0.01)
    assert abs(faces[0].score - detection.score) < 1e-4
    for name in ("landmarks_68", "landmarks_106", "landmarks_134"):
        apart = getattr(faces[0], name) - getattr(by_torch, name)[0].numpy()
        assert np.linalg.norm(apart, axis=1).max() < 0.1, name  # pixels
    mesh = light.mesh(faces[0])
    np.testing.assert_allclose(mesh.vertices, by_torch.vertices[0].numpy(), atol=2e-3)
    np.testing.assert_allclose(mesh.points, by_torch.points_photo[0].numpy(), atol=0.1)
    np.testing.assert_array_equal(mesh.triangles, by_torch.triangles.numpy())
    np.testing.assert_allclose(faces[0].angle_degrees, by_torch.angle_degrees[0].numpy(), atol=0.05)


def test_several_faces_and_none(light):
    small = np.ascontiguousarray(astronaut()[::2, ::2])
    wide = np.concatenate([astronaut()[:256], np.zeros((256, 256, 3), np.uint8)], 1)
    wide[:, 512:] = small
    faces = light(wide)
    assert len(faces) == 2
    widths = [np.ptp(face.landmarks_68[:, 0]) for face in faces]
    assert widths[0] > 1.5 * widths[1]
    assert [len(OnnxReconstructor(light.model, 1)(wide))] == [1]
    assert light(np.full((90, 120, 3), 127, np.uint8)) == []
    assert light(np.zeros((1, 1, 3), np.uint8)) == []
    with pytest.raises(ValueError, match="uint8"):
        light(np.zeros((10, 10), np.uint8))


def test_nothing_of_torch_is_loaded(folder, tmp_path):
    code = (
        "import sys; from v3recon.light.reconstructor import OnnxReconstructor; import numpy as np;"
        f"found = OnnxReconstructor.from_folder({str(folder)!r});"
        "found(np.zeros((64, 64, 3), np.uint8));"
        "print([name for name in ('torch', 'scipy', 'numba', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_from_pretrained_with_and_without_torch(folder, light):
    found = FaceReconstructor.from_pretrained(folder, backend="onnx", max_faces=1)
    assert isinstance(found, OnnxReconstructor) and found.max_faces == 1
    np.testing.assert_array_equal(
        found(astronaut())[0].landmarks_68, light(astronaut())[0].landmarks_68
    )
    with pytest.raises(ValueError, match="backend: 'torch' or 'onnx', not 'tpu'"):
        FaceReconstructor.from_pretrained(backend="tpu")  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="source: the folder"):
        FaceReconstructor.from_pretrained(backend="onnx")
    code = (
        "import sys, importlib.util as u; sys.modules['torch'] = None; find = u.find_spec;"
        "u.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more);"
        "import v3recon, numpy as np;"
        f"model = v3recon.FaceReconstructor.from_pretrained({str(folder)!r}, backend='onnx');"
        "print(type(model).__name__, len(model(np.zeros((64, 64, 3), np.uint8))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "OnnxReconstructor 0", done.stderr


def test_eight_bits_are_close_and_small(folder, light, tmp_path):
    photo = astronaut()
    views = [photo, photo[:, ::-1], photo[20:, 30:], (photo * 0.7).astype(np.uint8)]
    files = [tmp_path / f"{number}.png" for number in range(len(views))]
    for file, view in zip(files, views, strict=True):
        write_png(file, np.ascontiguousarray(view))
    eight = tmp_path / "eight"
    shutil.copytree(folder, eight)
    quantize_exported(eight, files)
    assert json.loads((eight / ABOUT).read_text())["precision"] == "int8"
    assert (eight / NETWORK).stat().st_size < 0.85 * (folder / NETWORK).stat().st_size
    (exact,), (close,) = light(photo), OnnxReconstructor.from_folder(eight, threads=1)(photo)
    apart = np.linalg.norm(exact.landmarks_68 - close.landmarks_68, axis=1)
    assert 0 < apart.mean() < 0.5  # pixels of a face of 130
    faceless = tmp_path / "none.png"
    write_png(faceless, np.zeros((40, 40, 3), np.uint8))
    before = (eight / NETWORK).read_bytes()
    with pytest.raises(ValueError, match="no face in the 1 photos"):
        quantize_exported(eight, [faceless])
    assert (eight / NETWORK).read_bytes() == before


def test_the_new_network_is_exported_exactly(tmp_path):
    torch.manual_seed(0)
    model = load_face_model("photohead")
    network = FaceRegressor(FaceRegressorConfig(backbone="mbnetv3", refinements=2)).eval()
    network.set_face_model(model)
    torch.nn.init.normal_(network.refiner.change[-1].weight, 0, 1e-3)
    torch.nn.init.normal_(network.first[-1].weight, 0, 3e-3)
    rule = {"name": "box", "scale": 1.4, "passes": 2}
    files = export_onnx(tmp_path / "a", network, model, rule, input_size=160)
    assert sorted(files) == sorted(files_of(tmp_path / "a"))
    exported = Network(tmp_path / "a" / NETWORK, 1)
    for batch in (1, 3):
        image = torch.rand(batch, 3, 160, 160, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            coeffs = network(image)
            points = decode(coeffs, model, Camera()).points_2d
        found = exported(image=image.numpy())
        for name in COEFFICIENTS:
            np.testing.assert_allclose(found[name], getattr(coeffs, name).numpy(), atol=2e-5)
        np.testing.assert_allclose(
            found["landmarks_68"], points[:, model.landmarks_68].numpy(), atol=0.01
        )
        decoder = Network(tmp_path / "a" / "decode.onnx", 1)
        inputs = {name: found[name] for name in ("id", "exp", "angle", "trans")}
        np.testing.assert_allclose(decoder(**inputs)["points"], points.numpy(), atol=0.01)
    export_onnx(tmp_path / "b", network, model, rule, input_size=160, batch=1)
    with pytest.raises(Exception, match="image"):
        Network(tmp_path / "b" / NETWORK, 1)(image=image.numpy())


def test_rows_of_a_sparse_matrix_are_padded():
    dense = torch.tensor([[0, 2.0, 0], [1, 0, 3], [0, 0, 0]])
    columns, values = padded_rows(dense.to_sparse_csr())
    again = torch.zeros(3, 3)
    again.scatter_add_(1, columns, values)
    assert torch.equal(again, dense)


def test_wrong_rules_and_damaged_folders(folder, tmp_path, capsys):
    model = load_face_model("photohead")
    with pytest.raises(ValueError, match="cannot be exported"):
        export_onnx(tmp_path, torch.nn.Identity(), model, {"name": "five_points"}, input_size=224)
    with pytest.raises(ValueError, match="about"):
        OnnxReconstructor.from_folder(tmp_path)
    (tmp_path / ABOUT).write_text("{}")
    with pytest.raises(ValueError, match="export onnx"):
        OnnxReconstructor.from_folder(tmp_path)
    about = json.loads((folder / ABOUT).read_text())
    (tmp_path / ABOUT).write_text(json.dumps(about))
    (tmp_path / NETWORK).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is no network"):
        OnnxReconstructor.from_folder(tmp_path)
    (tmp_path / ABOUT).write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(ValueError, match="another version"):
        OnnxReconstructor.from_folder(tmp_path)
    assert main(["onnx", str(tmp_path), "--batch", "0"]) == 2
    assert "--batch" in capsys.readouterr().err
