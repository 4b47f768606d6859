"""The official `face_model.npy`: what is read, and what is refused."""

from __future__ import annotations

import copy
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from synthetic_assets import official_arrays, synthetic_face_model, write_official_assets

from v3recon.face_models.bfm import (
    bfm_from_arrays,
    five_points,
    load_bfm,
    load_similarity_landmarks,
)

ARRAYS = official_arrays(rows=30, columns=15, sizes=(10, 8, 6))


@pytest.fixture
def arrays() -> dict[str, Any]:
    return copy.deepcopy(ARRAYS)


def write(path: Path, value: Any) -> Path:
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    return path


def assert_equal_models(first, second) -> None:
    for (key, one), (other_key, two) in zip(
        first.named_buffers(), second.named_buffers(), strict=True
    ):
        assert key == other_key
        assert torch.equal(one, two), key


def test_file_gives_the_arrays(tmp_path, arrays):
    model = load_bfm(write(tmp_path / "face_model.npy", arrays))
    assert model.name == "bfm" and model.sizes == (10, 8, 6)
    assert_equal_models(model, bfm_from_arrays(arrays))
    np.testing.assert_array_equal(model.mean_shape.numpy().reshape(-1, 1), arrays["u"])
    np.testing.assert_array_equal(model.id_basis.numpy().reshape(-1, 10), arrays["id"])
    np.testing.assert_allclose(model.mean_albedo.numpy().reshape(-1, 1), arrays["u_alb"] / 255)
    np.testing.assert_array_equal(model.vertex_faces.numpy(), arrays["point_buf"])
    assert (model.part_labels[torch.tensor(arrays["annotation"][4])] == 5).all()
    np.testing.assert_array_equal(model.part_faces[6].numpy(), arrays["annotation_tri"][6])
    line = model.contour_lines[3]
    assert line[line >= 0].tolist() == arrays["parallel"][3]


def test_golden_coefficients_give_golden_shapes_and_colors(golden, arrays):
    """The golden mesh has no parts or uv, so those are made up; everything else is compared."""
    count = len(golden["u"]) // 3
    faces = golden["tri"].numpy()
    arrays |= {key: golden[key].numpy() for key in ("u", "id", "exp", "u_alb", "alb", "tri")}
    arrays |= {"point_buf": golden["point_buf"].numpy(), "uv_coords": np.zeros((count, 2))}
    arrays |= {"ldm68": np.arange(68), "ldm106": golden["ldm106"].numpy(), "ldm134": np.arange(134)}
    arrays |= {"annotation": [[p] for p in range(8)], "annotation_tri": [faces[:1]] * 8}
    arrays |= {"parallel": list(golden["parallel"].numpy())}
    model = bfm_from_arrays(arrays)
    id_coeffs, exp_coeffs, alb_coeffs = golden["coeffs"][:, :224].split([80, 64, 80], 1)
    shape = model.vertices(id_coeffs, exp_coeffs)
    torch.testing.assert_close(shape, golden["shape"], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.albedo(alb_coeffs), golden["albedo"], atol=1e-5, rtol=0)
    rotated = model.normals(shape) @ golden["rotation_row"]
    torch.testing.assert_close(rotated, golden["normals_rotated"], atol=1e-5, rtol=0)


def test_other_number_types_give_the_same_model(tmp_path, arrays):
    reference = bfm_from_arrays(arrays)
    for key in ("u", "id", "exp", "u_alb", "alb", "uv_coords"):
        arrays[key] = arrays[key].astype(np.float64)
    arrays["tri"] = arrays["tri"].astype(np.int32)
    arrays["point_buf"] = arrays["point_buf"].astype(np.uint16)
    arrays["ldm68"] = arrays["ldm68"].reshape(-1, 1).astype(np.float64)  # whole numbers in floats
    arrays["ldm106"] = arrays["ldm106"].tolist()
    arrays["ldm134"] = np.array(arrays["ldm134"].tolist(), dtype=object)
    arrays["annotation"] = np.array([np.array(p) for p in arrays["annotation"]], dtype=object)
    arrays["parallel"] = [np.array(line, dtype=object) for line in arrays["parallel"]]
    arrays["annotation_tri"] = [part.tolist() for part in arrays["annotation_tri"]]
    arrays["an extra key"] = "is ignored"
    assert_equal_models(load_bfm(write(tmp_path / "f.npy", arrays)), reference)


@pytest.mark.parametrize("protocol", range(6))
def test_all_pickle_protocols(tmp_path, arrays, protocol):
    content = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(content, header)
    pickle.dump(np.array(arrays, dtype=object), content, protocol=protocol)
    path = tmp_path / "face_model.npy"
    path.write_bytes(content.getvalue())
    assert_equal_models(load_bfm(path), bfm_from_arrays(arrays))


def test_written_by_the_other_numpy(tmp_path, arrays):
    """numpy 1 and 2 name the module of array reconstruction differently."""
    content = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(content, header)
    body = pickle.dumps(np.array(arrays, dtype=object), protocol=2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    body = body.replace(new, old) if new in body else body.replace(old, new)
    path = tmp_path / "face_model.npy"
    path.write_bytes(content.getvalue() + body)
    assert_equal_models(load_bfm(path), bfm_from_arrays(arrays))


class Payload:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["key", "list", "instead"])
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, arrays, place):
    proof = tmp_path / "proof"
    if place == "instead":
        arrays = Payload(proof)
    elif place == "key":
        arrays["u"] = Payload(proof)
    else:
        arrays["annotation"][2] = [Payload(proof)]
    path = tmp_path / "face_model.npy"
    with path.open("wb") as file:
        np.save(file, np.array(arrays, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"refused.*system") as error:
        load_bfm(path)
    assert "\n" not in str(error.value)
    assert not proof.exists()
    np.load(path, allow_pickle=True)  # the payload does work where nobody is careful
    assert proof.exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.fromfile, pickle.loads])
def test_no_function_comes_out_of_a_pickle(tmp_path, arrays, function):
    arrays["u"] = function
    with pytest.raises(ValueError, match="refused"):
        load_bfm(write(tmp_path / "face_model.npy", arrays))


def test_a_lying_array_is_refused_before_numpy_sees_it(tmp_path, arrays):
    """numpy's own reconstruction crashes the interpreter on some damaged states."""
    body = pickle.dumps(np.array({"u": np.zeros((2, 3), np.float32)}, dtype=object), protocol=2)
    shape = b"K\x02K\x03\x86"
    assert body.count(shape) == 1
    content = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(content, header)
    path = tmp_path / "face_model.npy"
    path.write_bytes(content.getvalue() + body.replace(shape, b"K\xffK\xff\x86"))
    with pytest.raises(ValueError, match="6 values for an array of shape"):
        load_bfm(path)
    arrays["u"] = np.zeros(3, dtype=[("x", "f4"), ("y", "f4")])
    with pytest.raises(ValueError, match="refused"):
        load_bfm(write(path, arrays))


@pytest.mark.parametrize("key", sorted(ARRAYS))
def test_missing_key_is_named(arrays, key):
    del arrays[key]
    with pytest.raises(ValueError, match=f"{key}.* is missing"):
        bfm_from_arrays(arrays)


COUNT = 450
BROKEN = {
    "u odd": ("u", np.zeros((3 * COUNT + 1, 1)), r"'u' is \(1351, 1\), expected \(3V, 1\)"),
    "u nan": ("u", np.full((3 * COUNT, 1), np.nan), "'u' has values that are not finite"),
    "u text": ("u", np.array(["a"] * 3 * COUNT), "'u' is not an array of numbers"),
    "u ragged": ("u", [[1, 2], [3]], "'u' is not an array of numbers"),
    "id rows": ("id", np.zeros((3 * COUNT - 3, 10)), r"'id' is .*expected \(1350, K\)"),
    "id empty": ("id", np.zeros((3 * COUNT, 0)), "'id' is"),
    "exp flat": ("exp", np.zeros(3 * COUNT), "'exp' is"),
    "u_alb": ("u_alb", np.zeros((3, 1)), r"'u_alb' is \(3, 1\), expected \(1350, 1\)"),
    "alb": ("alb", np.zeros((2, 2)), "'alb' is"),
    "tri columns": ("tri", np.zeros((5, 4), int), r"'tri' is \(5, 4\), expected \(F, 3\)"),
    "tri high": ("tri", np.full((5, 3), COUNT), r"'tri' has ids 450…450, expected 0…449"),
    "tri low": ("tri", np.full((5, 3), -1), "'tri' has ids -1"),
    "tri half": ("tri", np.full((5, 3), 0.5), "'tri' holds float64, expected whole numbers"),
    "point_buf high": ("point_buf", np.full((COUNT, 8), 10**6), "'point_buf' has ids"),
    "point_buf rows": ("point_buf", np.zeros((3, 8), int), r"expected \(450, N\)"),
    "uv": ("uv_coords", np.zeros((COUNT, 4)), r"'uv_coords' is \(450, 4\)"),
    "ldm68": ("ldm68", np.zeros(67, int), r"'ldm68' is \(67,\), expected \(68,\)"),
    "ldm106": ("ldm106", np.full(106, COUNT), "'ldm106' has ids"),
    "parts": ("annotation", [[0]] * 7, "'annotation' has 7 entries, expected 8"),
    "part ids": ("annotation", [[0]] * 7 + [[COUNT]], r"'annotation\[7\]' has ids"),
    "part none": ("annotation", None, "'annotation' has NoneType entries"),
    "part tri": ("annotation_tri", [np.zeros((1, 2), int)] * 8, r"'annotation_tri\[0\]' is"),
    "lines": ("parallel", [[0]] * 32, "'parallel' has 32 entries, expected 33"),
    "line ids": ("parallel", [[-5]] * 33, r"'parallel\[0\]' has ids"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_malformed_key_is_named_with_what_was_expected(tmp_path, arrays, case):
    key, value, message = BROKEN[case]
    arrays[key] = value
    path = write(tmp_path / "face_model.npy", arrays)
    with pytest.raises(ValueError, match=message) as error:
        load_bfm(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def damaged_files(folder: Path) -> dict[str, Path]:
    whole = write(folder / "whole.npy", ARRAYS).read_bytes()
    contents = {
        "empty": b"",
        "text": b"version https://git-lfs.github.com/spec/v1\n",
        "header only": whole[:20],
        "truncated": whole[: len(whole) // 2],
        "pickle": pickle.dumps([1, 2]),
    }
    for name, content in contents.items():
        (folder / f"{name}.npy").write_bytes(content)
    np.save(folder / "numbers.npy", np.zeros(5))
    write(folder / "not a dict.npy", 7)
    names = [*contents, "numbers", "not a dict"]
    return {name: folder / f"{name}.npy" for name in names}


def test_damaged_files_give_one_line(tmp_path):
    for name, path in damaged_files(tmp_path).items():
        with pytest.raises(ValueError) as error:
            load_bfm(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value), name
    with pytest.raises(ValueError, match="no such file"):
        load_bfm(tmp_path / "absent.npy")


def test_similarity_landmarks(tmp_path):
    folder = write_official_assets(tmp_path, networks=())
    points = load_similarity_landmarks(folder / "similarity_Lm3D_all.mat")
    model = synthetic_face_model()
    landmarks = model.mean_shape[model.landmarks_68]
    torch.testing.assert_close(points, five_points(landmarks))
    torch.testing.assert_close(points[0], (landmarks[36] + landmarks[39]) / 2)
    assert points[0, 0] < 0 < points[1, 0], "viewer's left first"
    assert points[2, 2] == points[:, 2].max(), "the nose is nearest"


def test_malformed_similarity_landmarks(tmp_path):
    path = tmp_path / "lm.mat"
    with pytest.raises(ValueError, match="no such file"):
        load_similarity_landmarks(path)
    path.write_bytes(b"no matlab file at all" * 20)
    with pytest.raises(ValueError, match="not a MATLAB"):
        load_similarity_landmarks(path)
    scipy.io.savemat(path, {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="lacks variable 'lm'"):
        load_similarity_landmarks(path)
    scipy.io.savemat(path, {"lm": np.zeros((5, 3))})
    with pytest.raises(ValueError, match=r"expected \(68, 3\)"):
        load_similarity_landmarks(path)


def test_a_pickle_cannot_size_tables_by_its_numbers(tmp_path):
    """`LONG_BINPUT` names the four thousand millionth place of the memo: 64 GB in C's unpickler."""
    import tracemalloc

    header = tmp_path / "model.npy"
    with header.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        file.write(b"\x80\x04}r\xff\xff\xff\xff.")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"model\.npy"):
        load_bfm(header)
    header.write_bytes(header.read_bytes()[:-8] + b"B\xff\xff\xff\x7fx.")  # 2 GB promised
    with pytest.raises(ValueError, match=r"model\.npy"):
        load_bfm(header)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
