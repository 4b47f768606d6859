from __future__ import annotations

import numpy as np
import pytest

from v3recon.io.images import read_image
from v3recon.io.obj import read_obj, write_obj


@pytest.fixture
def mesh() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    vertices = np.concatenate([rng.normal(size=(50, 3)), [[0, -0.0, 1e-9], [-123.4567891, 1e8, 1]]])
    return {
        "vertices": vertices,
        "faces": rng.integers(0, len(vertices), (80, 3)),
        "colors": rng.random((len(vertices), 3)),
        "uv": rng.random((len(vertices), 2)),
    }


def test_exact_text(tmp_path):
    path = tmp_path / "a.obj"
    vertices = np.array([[0, 1, -2.5], [0.1234564, -0.0000004, 99.9999999], [10, 20, 30]])
    colors = np.array([[0, 0.5, 1], [1.25, -0.25, 0], [1, 1, 1]])
    write_obj(path, vertices, np.array([[0, 1, 2]]), colors=colors)
    assert path.read_text().splitlines() == [
        "# v3recon: 3 vertices, 1 triangles",
        "v 0.000000 1.000000 -2.500000 0.000000 0.500000 1.000000",
        "v 0.123456 0.000000 100.000000 1.000000 0.000000 0.000000",
        "v 10.000000 20.000000 30.000000 1.000000 1.000000 1.000000",
        "f 1 2 3",
    ]


def test_round_trip_with_colors(tmp_path, mesh):
    path = tmp_path / "a.obj"
    write_obj(path, mesh["vertices"], mesh["faces"], colors=mesh["colors"])
    found = read_obj(path)
    np.testing.assert_allclose(found.vertices, mesh["vertices"], atol=6e-7)
    np.testing.assert_array_equal(found.faces, mesh["faces"])
    np.testing.assert_allclose(found.colors, mesh["colors"], atol=6e-7)
    assert found.uv_coords is None and found.material_library is None


def test_round_trip_with_texture(tmp_path, mesh):
    path = tmp_path / "face.obj"
    texture = np.random.default_rng(1).integers(0, 255, (16, 16, 3), np.uint8)
    write_obj(path, mesh["vertices"], mesh["faces"], uv_coords=mesh["uv"], texture=texture)
    found = read_obj(path)
    np.testing.assert_allclose(found.uv_coords, mesh["uv"], atol=6e-7)
    np.testing.assert_array_equal(found.faces, mesh["faces"])
    np.testing.assert_array_equal(found.faces_uv, mesh["faces"])
    assert found.colors is None and found.material_library == "face.mtl"
    assert "map_Kd face.png" in (tmp_path / "face.mtl").read_text()
    np.testing.assert_array_equal(read_image(tmp_path / "face.png"), texture)


def test_plain_mesh_and_no_faces(tmp_path, mesh):
    write_obj(tmp_path / "a.obj", mesh["vertices"].astype(np.float32), np.zeros((0, 3), int))
    found = read_obj(tmp_path / "a.obj")
    np.testing.assert_allclose(found.vertices, mesh["vertices"].astype(np.float32), atol=6e-7)
    assert found.faces.shape == (0, 3)


def test_inputs_stay_as_they_are(tmp_path, mesh):
    before = {key: value.copy() for key, value in mesh.items()}
    write_obj(tmp_path / "a.obj", mesh["vertices"], mesh["faces"], colors=mesh["colors"])
    for key, value in before.items():
        np.testing.assert_array_equal(mesh[key], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": np.full((52, 3), np.nan)}, "finite"),
        ({"vertices": np.zeros((52, 2))}, r"\[V, 3\]"),
        ({"faces": np.array([[0, 1, 52]])}, "0…52 of 52"),
        ({"faces": np.array([[0, -1, 2]])}, "-1"),
        ({"colors": np.zeros((51, 3))}, "colors"),
    ],
)
def test_malformed_meshes_are_refused_and_leave_no_file(tmp_path, mesh, change, message):
    values = {**mesh, **change}
    with pytest.raises(ValueError, match=message):
        write_obj(tmp_path / "a.obj", values["vertices"], values["faces"], colors=values["colors"])
    assert not list(tmp_path.iterdir())


def test_reading_what_is_no_triangle_mesh(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nf 1 2 x\n")
    with pytest.raises(ValueError, match="not a triangle mesh"):
        read_obj(tmp_path / "a.obj")


def test_no_mesh_without_its_texture(tmp_path, mesh):
    """The picture is written beside the text at the same time; where it fails, so does the mesh."""
    (tmp_path / "face.png").mkdir()
    texture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(OSError):
        write_obj(
            tmp_path / "face.obj",
            mesh["vertices"],
            mesh["faces"],
            uv_coords=mesh["uv"],
            texture=texture,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["face.png"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no vertices"),
        ("# nothing\n", "no vertices"),
        ("v 1 2\n", "three finite"),
        ("v 1 2 nan\n", "three finite"),
        ("v 0 0 0\nv 1 2\n", "Wavefront"),
        ("v 0 0 0 1 1 inf\n", "color"),
        ("v 0 0 0\nf 1 1 1 1\n", "three corners"),
        ("v 0 0 0\nf 1 1 2\n", "of 1"),
        ("v 0 0 0\nf 0 1 1\n", "of 1"),
        ("v 0 0 0\nvt 1\nf 1 1 1\n", "texture coordinate"),
        ("v 0 0 0\nf 1 1 99999999999999999999\n", "Wavefront"),
    ],
)
def test_damaged_meshes(tmp_path, text, reason):
    (tmp_path / "bad.obj").write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.obj: .*{reason}"):
        read_obj(tmp_path / "bad.obj")


def test_ids_counted_from_the_end(tmp_path):
    (tmp_path / "a.obj").write_bytes(b"\xffo name\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\n")
    np.testing.assert_array_equal(read_obj(tmp_path / "a.obj").faces, [[0, 1, 2]])


@pytest.mark.parametrize("stem", ["me", " a  b", "Grüße 中文", "-x", "a#b", "x" * 230])
def test_names_inside_are_plain(tmp_path, mesh, stem):
    path = tmp_path / f"{stem}.obj"
    texture = np.zeros((4, 4, 3), np.uint8)
    write_obj(path, mesh["vertices"], mesh["faces"], uv_coords=mesh["uv"], texture=texture)
    library = read_obj(path).material_library
    assert library is not None and library.isascii() and " " not in library
    (picture,) = (
        line.split(maxsplit=1)[1]
        for line in (tmp_path / library).read_text().splitlines()
        if line.startswith("map_Kd")
    )
    assert (tmp_path / picture).is_file() and " " not in picture
    assert len(list(tmp_path.iterdir())) == 3
    if stem == "me":
        assert library == "me.mtl"
