import numpy as np
import pytest
import torch

from v3recon.data.augment import AugmentSettings
from v3recon.data.fit_coefficients import fit_shard, target_coeffs
from v3recon.data.samples import FaceRecord, TrainingDataset, collate
from v3recon.data.shards import PreparedFace, PreparedSet, open_shard, write_shard
from v3recon.face_models.detector_mesh import estimate_pose, load_face_mesh
from v3recon.geometry.camera import Camera, project, solve_translation
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.geometry.similarity import solve_similarity

MESH = load_face_mesh()
SIZES = (1, 1, 2)
MEAN = torch.from_numpy(MESH.mean).float()
CODES = ((0.8, 0.5), (-0.5, -0.4))
ANGLES = ((5.0, 10.0, -12.0), (0.0, -20.0, 6.0))


def modes() -> torch.Tensor:
    """[468, 3, 2]: a wider face (symmetric) and a bent face (its mirror image is -1 times it)."""
    x, y, _ = MEAN.unbind(1)
    zero = torch.zeros_like(x)
    wide, bent = (0.1 * x, zero, zero), (0.1 * y * y, zero, zero)
    return torch.stack([torch.stack(wide, 1), torch.stack(bent, 1)], 2)


def fit_exactly(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarity and the two modes by alternation; stands for `fit_landmarks`."""
    world = (points * torch.tensor([1.0, -1.0, 1.0])).double()
    basis, mean = modes().flatten(0, 1).double(), MEAN.double()
    code = torch.zeros(len(points), 2, dtype=torch.float64)
    for _ in range(80):
        shape = mean + (code @ basis.T).unflatten(1, (-1, 3))
        scale, rotation, shift = solve_similarity(shape, world)
        unposed = ((world - shift[:, None]) / scale[:, None, None]) @ rotation.transpose(1, 2)
        code = torch.linalg.lstsq(basis, (unposed - mean).flatten(1).T).solution.T
    return code.float(), rotation.float()


@pytest.fixture
def folder(tmp_path):
    """One shard: two faces with known codes and poses, one without a mesh."""
    records = []
    for number in range(3):
        points, pose = np.full((468, 3), np.nan), np.zeros(3)
        if number < 2:
            rotation = euler_to_matrix(torch.tensor(ANGLES[number]).deg2rad())
            shape = MEAN + modes() @ torch.tensor(CODES[number])
            points = (shape @ rotation).numpy() * [60, -60, 60] + [128, 120, 0]
            pose = estimate_pose(points)
        landmarks = np.full((68, 3), 128.0) + np.arange(68)[:, None]
        image = np.zeros((256, 256, 3), np.uint8)
        record = FaceRecord(image, points, landmarks, None, 0, pose, 0, f"{number}.jpg")
        records.append(PreparedFace(record, np.eye(2, 3)))
    write_shard(tmp_path / "train/00000", records, ["drawn"], [])
    return tmp_path


def test_solve_translation_inverts_projection(generator):
    rotated = 0.5 * torch.randn(4, 30, 3, generator=generator)
    translation = torch.tensor([[0.1, -0.2, 0.5], [0, 0, 0], [-0.5, 0.4, -1], [0.3, 0, 2.0]])
    pixels = project(rotated + translation[:, None], Camera())
    found = solve_translation(rotated, pixels, Camera())
    torch.testing.assert_close(found, translation, atol=1e-4, rtol=0)


def test_codes_and_rotation_are_those_of_the_photo_and_its_mirror_image(folder):
    assert fit_shard(folder / "train/00000", fit_exactly, 2, "abc") == 2
    fit = open_shard(folder / "train/00000").fit
    assert fit is not None and fit.model_hash == "abc"
    np.testing.assert_allclose(fit.codes[:2, 0], CODES, atol=2e-3)
    np.testing.assert_allclose(fit.codes[:2, 1], np.array(CODES) * [1, -1], atol=2e-3)
    expected = euler_to_matrix(torch.tensor(ANGLES).deg2rad())
    np.testing.assert_allclose(fit.rotation[:2], expected, atol=1e-3)
    assert np.isnan(fit.codes[2]).all()
    # A second time there is nothing to do, with another model everything.
    assert fit_shard(folder / "train/00000", fit_exactly, 2, "abc") == 0
    assert fit_shard(folder / "train/00000", fit_exactly, 2, "other") == 2


def test_targets_project_onto_the_points_of_every_sample(folder):
    fit_shard(folder / "train/00000", fit_exactly, 2, "abc")
    records = PreparedSet(folder)
    assert records.fit_model_hash == "abc"
    data = TrainingDataset(records, AugmentSettings(size=32), seed=1)
    indices = [3 * epoch + record for epoch in range(12) for record in (0, 1)]
    batch = collate([data[i] for i in indices])
    assert batch.profiled.any() and not batch.profiled.all() and batch.shape_weight.all()
    coeffs, rotation = target_coeffs(batch, MEAN, modes(), SIZES, Camera())
    code = torch.cat([coeffs.id, coeffs.exp], 1)
    shape = MEAN + (code @ modes().flatten(0, 1).T).unflatten(1, (-1, 3))
    pixels = project(shape @ rotation + coeffs.trans[:, None], Camera())
    # What is left is perspective: the points are scaled orthographic.
    error = (pixels - batch.points[..., :2]).norm(dim=-1).mean(1)
    assert error.max() < 4, error
    torch.testing.assert_close(euler_to_matrix(coeffs.angle), rotation, atol=1e-4, rtol=0)


def test_faces_without_mesh_have_no_weight(folder):
    fit_shard(folder / "train/00000", fit_exactly, 2, "abc")
    batch = collate([TrainingDataset(PreparedSet(folder), AugmentSettings(size=32))[2]])
    assert batch.shape_weight.tolist() == [0.0] and not batch.shape_code.any()
    assert batch.shape_code.shape == (1, 2) and batch.shape_weight.dtype == torch.float32


def test_set_without_coefficients_says_so(folder):
    records = PreparedSet(folder)
    assert records.fit_model_hash is None
    batch = collate([TrainingDataset(records, AugmentSettings(size=32))[0]])
    assert batch.shape_code.shape == (1, 0) and batch.shape_weight.tolist() == [0.0]
    with pytest.raises(ValueError, match=r"0 shape coefficients.*prepare again"):
        target_coeffs(batch, MEAN, modes(), SIZES, Camera())


def test_broken_fit_is_reported(folder):
    (folder / "train/00000/fit.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"fit\.npz is broken"):
        PreparedSet(folder)
