import numpy as np
import pytest
import torch

from v3recon.face_models.load import load_face_model
from v3recon.io.scan import SEVEN_OF_68, UNITS, read_scan

trimesh = pytest.importorskip("trimesh")


@pytest.fixture(scope="module")
def head():
    """Vertices in millimeters, triangles and 68 points of the open face model's mean."""
    model = load_face_model("photohead")
    zeros = (torch.zeros(1, size) for size in model.sizes[:2])
    vertices = model.vertices(*zeros)[0].double().numpy() * 100
    return vertices, model.faces.numpy(), vertices[model.landmarks_68.numpy()]


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".stl", ".npz"])
@pytest.mark.parametrize("count", [7, 68])
def test_formats(tmp_path, head, suffix, count):
    vertices, faces, points = head
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, vertices=vertices, faces=faces)
    else:
        trimesh.Trimesh(vertices, faces, process=False).export(path)
    seven = points[list(SEVEN_OF_68)]
    np.savetxt(tmp_path / "a.txt", seven if count == 7 else points)
    scan = read_scan(path)
    assert scan.name == "a" and scan.unit == "mm" and len(scan.faces) == len(faces)
    corners = np.sort(scan.vertices[scan.faces].reshape(-1, 3), axis=0)
    np.testing.assert_allclose(corners, np.sort(vertices[faces].reshape(-1, 3), axis=0), atol=1e-2)
    np.testing.assert_allclose(scan.points_7, seven, atol=1e-9)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("with_points", [True, False])
def test_unit_is_told(tmp_path, head, unit, with_points):
    vertices, faces, points = head
    np.savez(tmp_path / "a.npz", vertices=vertices / UNITS[unit], faces=faces)
    if with_points:
        np.save(tmp_path / "a.npy", points / UNITS[unit])
    scan = read_scan(tmp_path / "a.npz")
    assert scan.unit == unit and ("eye corners" in scan.unit_reason) == with_points
    np.testing.assert_allclose(scan.vertices, vertices, atol=1e-9)
    said = read_scan(tmp_path / "a.npz", unit=unit)
    assert said.unit_reason == "as said"
    with pytest.raises(ValueError, match="unknown unit 'inch'"):
        read_scan(tmp_path / "a.npz", unit="inch")


def test_header_and_commas_in_point_files(tmp_path, head):
    vertices, faces, points = head
    np.savez(tmp_path / "a.npz", vertices=vertices, faces=faces)
    rows = [f"{i},{x},{y},{z}" for i, (x, y, z) in enumerate(points.tolist())]
    (tmp_path / "a.csv").write_text("\n".join(["# by hand", "id,x,y,z", *rows]))
    np.testing.assert_allclose(
        read_scan(tmp_path / "a.npz").points_7, points[list(SEVEN_OF_68)], atol=1e-9
    )


def test_unusable_scans_say_why(tmp_path, head):
    vertices, faces, points = head
    path = tmp_path / "a.npz"

    def refused(message, suffix=".npz", **changes):
        arrays = {"vertices": vertices, "faces": faces} | changes
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=message):
            read_scan(path.with_suffix(suffix))

    refused("no triangle", faces=np.zeros((0, 3), int))
    broken = vertices.copy()
    broken[7, 1] = np.nan
    refused("1 of .* not finite", vertices=broken)
    refused("triangles name vertices", vertices=vertices[:100])
    refused("face in none of mm, cm, dm, m; give the unit", vertices=vertices * 1e-6)
    refused("no such file", suffix=".obj")
    (tmp_path / "a.ply").write_bytes(b"junk")
    refused("cannot be read as a mesh", suffix=".ply")
    (tmp_path / "a.xyz").write_text("1 2 3")
    refused("scans are", suffix=".xyz")
    np.save(tmp_path / "a.npy", points + np.array([0, 200, 0]))
    refused("point 0 lies .* mm off the scan")
    np.save(tmp_path / "a.npy", points[:5])
    refused("not 7 or 68")
    np.save(tmp_path / "a.npy", points * np.nan)
    refused("not finite")


def test_points_alone_are_no_scan(tmp_path, head):
    trimesh.PointCloud(head[0]).export(tmp_path / "a.ply")
    with pytest.raises(ValueError, match="points and no triangle"):
        read_scan(tmp_path / "a.ply")


def test_outer_files_of_a_mesh_stay_closed(tmp_path, head):
    """A material library that does not exist, or lies elsewhere, does not matter."""
    vertices, faces, _ = head
    text = trimesh.Trimesh(vertices, faces, process=False).export(file_type="obj")
    (tmp_path / "a.obj").write_text("mtllib ../../secret.mtl\n" + text)
    assert len(read_scan(tmp_path / "a.obj").faces) == len(faces)
