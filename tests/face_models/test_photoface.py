from __future__ import annotations

import numpy as np
import pytest
import torch

from v3recon.face_models.photoface import load_photoface, read_photoface
from v3recon.geometry.mesh import edges_of, face_normals
from v3recon.photohead import detector_points as named

LID_PAIRS = tuple(
    pair
    for upper, lower in (
        (named.RIGHT_EYE_UPPER, named.RIGHT_EYE_LOWER),
        (named.LEFT_EYE_UPPER, named.LEFT_EYE_LOWER),
    )
    for pair in zip(upper[1:-1], lower[1:-1], strict=True)
)
LIP_PAIRS = tuple(zip(named.INNER_LIP_UPPER[1:-1], named.INNER_LIP_LOWER[1:-1], strict=True))


@pytest.fixture(scope="module")
def model():
    return load_photoface()


def shape_of(model, name: str) -> torch.Tensor:
    """Dense vertices [V, 3] of a named expression of the mean face."""
    zero = torch.zeros(1, model.sizes[0])
    return model.vertices(zero, model.named_expressions[name][None])[0]


def gaps(vertices: torch.Tensor, pairs) -> torch.Tensor:
    upper, lower = zip(*pairs, strict=True)
    return (vertices[list(upper)] - vertices[list(lower)]).norm(dim=1)


def test_layout_of_the_official_model(model):
    assert model.sizes == (80, 64, 80)
    assert model.name == "photoface"
    assert 27_000 < model.vertex_count < 30_000


def test_units_and_frame(model):
    neutral = shape_of(model, "neutral")
    assert torch.linalg.norm(neutral[33] - neutral[263]) == pytest.approx(0.90, abs=0.03)
    assert neutral[33, 0] < 0 < neutral[263, 0]  # the person's right eye is on the viewer's left
    assert neutral[10, 1] > neutral[152, 1]  # forehead above chin
    assert neutral[1, 2] > neutral[234, 2]  # nose nearer than ear
    assert neutral.mean(0).abs().max() < 0.15


def test_mirror_is_exact(model):
    mirror = model.mirror
    assert torch.equal(mirror[mirror], torch.arange(model.vertex_count))
    image = shape_of(model, "neutral")[mirror] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(image, shape_of(model, "neutral"), atol=1e-5, rtol=0)
    flipped = {tuple(sorted(face)) for face in mirror[model.faces].tolist()}
    assert flipped == {tuple(sorted(face)) for face in model.faces.tolist()}


def test_mesh_is_a_disc_with_the_mouth_open(model):
    edges = edges_of(model.faces)
    euler = model.vertex_count - len(edges) + len(model.faces)
    assert euler == 0  # a disc with one hole
    both = torch.cat([model.faces[:, [0, 1]], model.faces[:, [1, 2]], model.faces[:, [2, 0]]])
    assert len(torch.unique(both, dim=0)) == len(both)  # no edge twice in the same direction


def test_triangles_face_outward(model):
    normals = face_normals(shape_of(model, "neutral")[None], model.faces)[0]
    assert (normals[:, 2] > 0).float().mean() > 0.85


def test_closed_lids_meet_for_every_identity(model):
    open_gap = gaps(shape_of(model, "neutral"), LID_PAIRS).mean()
    assert open_gap > 0.03
    generator = torch.Generator().manual_seed(1)
    id_coeffs = torch.randn(20, 80, generator=generator)
    closed = model.named_expressions["eyes_closed"].expand(20, -1)
    for vertices in model.vertices(id_coeffs, closed):
        assert gaps(vertices, LID_PAIRS).mean() < 0.05 * open_gap


def test_one_eye_closes_alone(model):
    half = len(LID_PAIRS) // 2
    vertices = shape_of(model, "right_eye_closed")
    assert gaps(vertices, LID_PAIRS[:half]).mean() < 0.003
    torch.testing.assert_close(
        gaps(vertices, LID_PAIRS[half:]),
        gaps(shape_of(model, "neutral"), LID_PAIRS[half:]),
        atol=2e-3,
        rtol=0,
    )


def test_mouth_is_closed_at_rest_and_opens_wide(model):
    assert gaps(shape_of(model, "neutral"), LIP_PAIRS).max() < 1e-3
    assert gaps(shape_of(model, "mouth_open"), [(13, 14)]).item() > 0.25


def test_expressions_do_what_they_say(model):
    neutral = shape_of(model, "neutral")
    smile, frown = shape_of(model, "smile"), shape_of(model, "frown")
    assert (smile[61] - smile[291]).norm() > (neutral[61] - neutral[291]).norm() + 0.05
    assert smile[61, 1] - smile[0, 1] > neutral[61, 1] - neutral[0, 1]
    assert frown[[105, 334], 1].mean() < neutral[[105, 334], 1].mean() - 0.01
    assert (frown[107] - frown[336]).norm() < (neutral[107] - neutral[336]).norm() - 0.005
    raised = shape_of(model, "brows_raised")
    assert raised[[105, 334], 1].mean() > neutral[[105, 334], 1].mean() + 0.02
    pucker = shape_of(model, "pucker")
    assert (pucker[61] - pucker[291]).norm() < (neutral[61] - neutral[291]).norm() - 0.05
    assert (
        shape_of(model, "jaw_left")[152, 0] > 0.005 > -0.005 > shape_of(model, "jaw_right")[152, 0]
    )


def test_random_identities_have_no_folds(model):
    generator = torch.Generator().manual_seed(0)
    id_coeffs = torch.randn(100, 80, generator=generator)
    neutral = face_normals(shape_of(model, "neutral")[None], model.faces)[0]
    for part in id_coeffs.split(20):
        vertices = model.vertices(part, torch.zeros(len(part), 64))
        turned = (face_normals(vertices, model.faces) * neutral).sum(2)
        assert (turned < 0).float().mean() < 1e-4
        assert torch.stack([gaps(shape, LIP_PAIRS).max() for shape in vertices]).max() < 2e-3


def test_file_without_arrays_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, format_version=1, mean_shape=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="lacks id_basis"):
        read_photoface(path)


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read the face model"):
        load_photoface(path)


def test_absent_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot read the face model"):
        load_photoface(tmp_path / "none.npz")
