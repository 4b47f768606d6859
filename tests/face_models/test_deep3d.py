"""Deep3D's own files: its face model and its checkpoint, in the layout of its releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from skimage.data import astronaut
from synthetic_assets import official_arrays

from v3recon.decode import decode, lit_colors
from v3recon.face_models.bfm import bfm_from_arrays
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.face_models.load import load_face_model
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.networks.regressor import Regressor
from v3recon.reconstruct.assets import find_assets
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.types import FaceCoeffs

ARRAYS = official_arrays()


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    """The made-up face as `transferBFM09` stores one: ids from 1, its middle off the origin."""
    return {
        "meanshape": (ARRAYS["u"].reshape(-1, 3) + np.array([0.1, -0.2, 0.3])).reshape(1, -1),
        "meantex": ARRAYS["u_alb"].reshape(1, -1),
        "idBase": ARRAYS["id"].astype(np.float32),
        "exBase": ARRAYS["exp"].astype(np.float64),
        "texBase": ARRAYS["alb"].astype(np.float32),
        "tri": (ARRAYS["tri"] + 1).astype(np.int32),
        "point_buf": (ARRAYS["point_buf"] + 1).astype(np.float64),
        "tri_mask2": (ARRAYS["tri"][:50] + 1).astype(np.int32),
        "keypoints": (np.array(ARRAYS["ldm68"])[None] + 1).astype(np.uint16),
        "frontmask2_idx": np.arange(1, 60, dtype=np.int32)[:, None],
        "skinmask": np.ones((1, 10)),
    }


@pytest.fixture(scope="module")
def release(stored, tmp_path_factory) -> Path:
    """A folder as Deep3D's PyTorch release has it after its README was followed."""
    folder = tmp_path_factory.mktemp("deep3d")
    (folder / "BFM").mkdir()
    (folder / "checkpoints" / "pretrained").mkdir(parents=True)
    scipy.io.savemat(folder / "BFM" / "BFM_model_front.mat", stored)
    landmarks = ARRAYS["u"].reshape(-1, 3)[ARRAYS["ldm68"]].astype(np.float64)
    scipy.io.savemat(folder / "BFM" / "similarity_Lm3D_all.mat", {"lm": landmarks})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Regressor("resnet50")
    optimizer = torch.optim.Adam(network.final_layers.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.2)
    network.final_layers[0](torch.ones(1, 2048, 1, 1)).sum().backward()
    optimizer.step()
    content = {
        "net_recon": network.state_dict(),
        "opt_00": optimizer.state_dict(),
        "sched_00": schedule.state_dict(),
    }
    torch.save(content, folder / "checkpoints" / "pretrained" / "epoch_20.pth")
    return folder


@pytest.fixture(scope="module")
def model(release):
    return load_face_model(release / "BFM" / "BFM_model_front.mat")


def test_shape_color_and_light_are_deep3ds(model, stored):
    """Its formulas, written down again: shape, recentering, pose, light, projection."""
    random = np.random.default_rng(0)
    coeff = 0.3 * random.normal(size=257)
    ids, exps, texs = coeff[:80], coeff[80:144], coeff[144:224]
    mean = stored["meanshape"].reshape(-1, 3)
    shape = (stored["idBase"] @ ids + stored["exBase"] @ exps).reshape(-1, 3)
    shape = shape + mean - mean.mean(0)
    x, y, z = coeff[224:227]
    turn_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    turn_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    turn_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    rotation = (np.array(turn_z) @ turn_y @ turn_x).T
    posed = shape @ rotation + coeff[254:]
    up = 1015 * posed[:, :2] / (10 - posed[:, 2:]) + 112
    texture = (stored["texBase"] @ texs).reshape(-1, 3) + stored["meantex"].reshape(-1, 3)
    corners = shape[stored["tri"] - 1]
    flat = np.cross(corners[:, 0] - corners[:, 1], corners[:, 1] - corners[:, 2])
    flat = np.vstack([flat / np.linalg.norm(flat, axis=1, keepdims=True), [[0, 0, 0]]])
    normals = flat[stored["point_buf"].astype(int) - 1].sum(1)
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True) @ rotation
    nx, ny, nz = normals.T
    a0, a1, a2 = np.pi, 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8)
    c0, c1 = 1 / np.sqrt(4 * np.pi), np.sqrt(3) / np.sqrt(4 * np.pi)
    c2 = 3 * np.sqrt(5) / np.sqrt(12 * np.pi)
    basis = np.stack([
        np.full_like(nx, a0 * c0), -a1 * c1 * ny, a1 * c1 * nz, -a1 * c1 * nx,
        a2 * c2 * nx * ny, -a2 * c2 * ny * nz, 0.5 * a2 * c2 / np.sqrt(3) * (3 * nz**2 - 1),
        -a2 * c2 * nx * nz, 0.5 * a2 * c2 * (nx**2 - ny**2),
    ])  # fmt: skip
    gamma = coeff[227:254].reshape(3, 9) + 0.8 * np.eye(9)[0]
    color = (gamma @ basis).T * texture
    coeffs = FaceCoeffs.from_tensor(torch.from_numpy(coeff[None]).float(), model.sizes)
    decoded = decode(coeffs, model)
    np.testing.assert_allclose(decoded.vertices[0], posed, atol=1e-5)
    np.testing.assert_allclose(decoded.points_2d[0, :, 0], up[:, 0], atol=1e-3)
    np.testing.assert_allclose(decoded.points_2d[0, :, 1], 223 - up[:, 1], atol=1e-3)
    np.testing.assert_allclose(255 * model.albedo(coeffs.alb)[0], texture, atol=1e-2)
    np.testing.assert_allclose(255 * lit_colors(coeffs, decoded, model)[0], color, atol=0.1)
    assert model.landmarks_68.tolist() == list(ARRAYS["ldm68"])
    assert model.name == "bfm" and model.sizes == (80, 64, 80)


def test_parts_and_landmarks_are_carried_over(model):
    """The made-up face has parts of its own, which the file does not hold."""
    true = bfm_from_arrays(ARRAYS)
    found, expected = model.part_labels, true.part_labels
    assert len(found) == len(expected) and int(found.min()) >= 1
    for part in (4, 7):  # nose, skin: the small ones have few vertices in this coarse mesh
        both = ((found == part + 1) & (expected == part + 1)).sum()
        either = ((found == part + 1) | (expected == part + 1)).sum()
        assert both / either > 0.5, PART_NAMES[part]
    assert all((found == part + 1).any() for part in range(8))
    mean = model.mean_vertices()
    chin = mean[model.landmarks_106[16]]
    assert float((chin - mean[model.landmarks_68[8]]).norm()) < 0.25
    left = mean[model.landmarks_106[:16], 0]
    assert (left[:12] < 0).all() and (mean[model.landmarks_106[21:33], 0] > 0).all()
    uv = model.uv_coords
    assert 0 < float(uv.min()) < float(uv.max()) < 1
    flat = uv[model.faces].double()
    one, two = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    assert max((area > 0).double().mean(), (area < 0).double().mean()) > 0.97, "unfolded"


def test_release_folder_reconstructs(release, tmp_path):
    assets = find_assets(release)
    assert assets.weights.name == "epoch_20.pth" and assets.points_3d is not None
    network = load_checkpoint(assets.weights, load_face_model(assets.face_model)).regressor
    whole = FaceReconstructor.from_pretrained(release, detector=None, device="cpu")
    crop = np.ascontiguousarray(astronaut()[:224, 112:336])
    (face,) = whole(crop)
    with torch.no_grad():
        batch = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
        coeffs = network(batch)
    torch.testing.assert_close(face.coeffs.to_tensor(), coeffs.to_tensor(), atol=1e-3, rtol=1e-3)
    assert face.parts().labels.shape == (224, 224) and face.texture(64).texture.shape[0] == 64


def test_files_of_other_programs_are_refused(stored, tmp_path):
    other = tmp_path / "other.mat"
    scipy.io.savemat(other, {"coeff": np.ones((1, 257))})
    with pytest.raises(ValueError, match=r"other\.mat: lacks variable 'meanshape'"):
        load_face_model(other)
    for key, value in (
        ("tri", stored["tri"] + 5000),
        ("keypoints", stored["keypoints"][:, :40]),
        ("idBase", stored["idBase"][:100]),
        ("meantex", stored["meantex"][:, :9]),
    ):
        scipy.io.savemat(other, stored | {key: value})
        with pytest.raises(ValueError, match=r"other\.mat: not a face model of Deep3D") as caught:
            load_face_model(other)
        assert "\n" not in str(caught.value)
