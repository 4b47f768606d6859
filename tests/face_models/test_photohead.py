"""The embedded head model: geometry that must hold for every head and expression."""

import numpy as np
import pytest
import torch

from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.face_models.landmarks import MIRROR_68, march_contour
from v3recon.face_models.load import load_face_model
from v3recon.face_models.photohead import load_photohead, read_photohead
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.render.rasterize import rasterize

CONTENT_HASH = "9f8de322052247ba"
EYEBALLS, UPPER_TEETH, LOWER_TEETH, TONGUE = 6, 7, 8, 9


@pytest.fixture(scope="module")
def model():
    return load_photohead()


@pytest.fixture(scope="module")
def mean(model):
    return model.vertices(torch.zeros(1, 80), torch.zeros(1, 64))[0]


def expression(model, **weights):
    exp = torch.zeros(1, 64)
    for name, weight in weights.items():
        exp[0, model.exp_names.index(name)] = weight
    return model.vertices(torch.zeros(1, 80), exp)[0]


def triangle_normals(vertices, faces):
    a, b, c = (vertices[..., faces[:, corner], :] for corner in range(3))
    return torch.linalg.cross(b - a, c - a)


def front_view(vertices, faces, size=400):
    """Which triangle owns each pixel seen from the front, orthographic."""
    clip = torch.stack(
        [
            vertices[:, 0] / 1.5,
            vertices[:, 1] / 1.5,
            -0.1 * vertices[:, 2],
            torch.ones_like(vertices[:, 0]),
        ],
        1,
    )
    depth = 3.0 - vertices[:, 2:] * 0.1
    clip = torch.cat([clip[:, :2] * depth, depth * 0.5, depth], 1)
    return rasterize(clip[None], faces, (size, size)).face_id[0]


def test_layout_is_the_official_one(model):
    assert model.sizes == (80, 64, 80)
    assert model.exp_names[:52] == ARKIT_NAMES
    assert len(set(model.exp_names)) == 64
    assert load_face_model("photohead").content_hash == model.content_hash == CONTENT_HASH


def test_size_of_a_head_in_decimeters(model, mean):
    ids = model.landmarks_68
    height, width = np.ptp(mean[:, 1].numpy()), np.ptp(mean[:, 0].numpy())
    assert 2.8 < height < 3.3 and 1.6 < width < 2.0
    assert 0.85 < float((mean[ids[36]] - mean[ids[45]]).norm()) < 0.98


def test_mean_is_its_own_mirror_image(model, mean):
    flipped = mean[model.mirror] * torch.tensor([-1.0, 1.0, 1.0])
    assert float((flipped - mean).abs().max()) < 1e-5
    assert (model.mirror[model.mirror] == torch.arange(len(mean))).all()


def test_hardly_a_triangle_turns_over_in_random_heads(model, mean):
    normals = triangle_normals(mean, model.faces)
    coeffs = torch.randn(1000, 80, generator=torch.Generator().manual_seed(5)).clamp(-3, 3)
    folded = 0
    for part in coeffs.split(50):
        shapes = model.vertices(part, torch.zeros(len(part), 64))
        turned = (triangle_normals(shapes, model.faces) * normals).sum(2) < 0
        folded += int(turned.any(1).sum())
    assert folded == 0


def eyeball(model, mean, left):
    ids = (model.group_labels == EYEBALLS).nonzero()[:, 0]
    ids = ids[(mean[ids, 0] > 0) == left]
    center = (mean[ids].amax(0) + mean[ids].amin(0)) / 2
    return ids, center, float((mean[ids] - center).norm(dim=1).mean())


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_lids_meet_and_stay_outside_the_eyeball(model, mean, side):
    corner, upper, lower = (42, (43, 44), (47, 46)) if side == "Left" else (36, (37, 38), (41, 40))
    width = mean[model.landmarks_68[corner]] - mean[model.landmarks_68[corner + 3]]
    closed = expression(model, **{f"eyeBlink{side}": 1.0})
    for above, below in zip(upper, lower, strict=True):
        ids = model.landmarks_68[[above, below]]
        gap_open = float((mean[ids[0]] - mean[ids[1]]).norm())
        gap = float((closed[ids[0]] - closed[ids[1]])[1].abs())
        assert gap < 0.03 * float(width.norm()) < 0.2 * gap_open
    _, center, radius = eyeball(model, mean, side == "Left")
    moved = (closed - mean).norm(dim=1) > 0.03
    outside = moved & (model.group_labels == 0)
    assert int(outside.sum()) > 50
    for weight in (0.25, 0.5, 0.75, 1.0):
        lids = expression(model, **{f"eyeBlink{side}": weight})[outside]
        assert float((lids - center).norm(dim=1).min()) > radius - 0.005


def test_a_closed_eye_shows_no_eye_and_an_open_one_does(model, mean):
    def seen(vertices):
        faces = model.faces[front_view(vertices, model.faces).clamp(min=0)]
        return int((model.part_labels[faces] <= 2).logical_and(model.part_labels[faces] > 0).sum())

    closed = expression(model, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    assert seen(mean) > 300
    assert seen(closed) < 0.08 * seen(mean)


def test_teeth_are_hidden_behind_closed_lips_and_follow_the_jaw(model, mean):
    face = front_view(mean, model.faces, 500)
    owner = model.group_labels[model.faces[face[face >= 0]]]
    assert int((owner >= UPPER_TEETH).all(1).sum()) <= 10  # of 90,000 pixels
    opened = expression(model, jawOpen=1.0)
    lower, upper = model.group_labels == LOWER_TEETH, model.group_labels == UPPER_TEETH
    assert float((opened - mean)[lower, 1].mean()) < -0.1
    assert float((opened - mean)[upper].abs().max()) < 1e-3
    face = front_view(opened, model.faces, 500)
    owner = model.group_labels[model.faces[face[face >= 0]]]
    assert int((owner >= UPPER_TEETH).all(1).sum()) > 50


def test_landmark_sets_are_symmetric_and_on_the_face(model):
    ids = model.landmarks_68
    assert torch.equal(model.mirror[ids], ids[list(MIRROR_68)])
    assert len(set(ids.tolist())) == 68
    assert len(set(model.landmarks_106.tolist())) >= 100
    assert len(set(model.landmarks_134.tolist())) >= 125


def test_contour_lines_run_from_the_outline_toward_the_midline(model, mean):
    lines = model.contour_lines
    starts = lines[:, 0]
    assert torch.equal(starts, model.landmarks_106[:33])
    assert torch.equal(model.mirror[starts], starts.flip(0))
    assert float((mean[starts[::2]] - mean[model.landmarks_68[:17]]).norm(dim=1).max()) < 0.1
    used = lines[lines >= 0]
    assert len(used) == len(used.unique())
    for line in lines:
        aside = mean[line[line >= 0], 0].abs()
        assert bool((aside.diff() < 0).all())


def test_the_outline_moves_to_the_cheek_on_the_averted_side(model, mean):
    angle = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.8, 0.0]])
    rotation = euler_to_matrix(angle)
    index = march_contour(mean.expand(2, -1, -1), rotation, torch.zeros(2, 3), model)
    moved = (index[1] != index[0]).float()
    assert int((index[0] == model.contour_lines[:, 0]).sum()) >= 27  # perspective moves some
    sides = moved[:16].mean(), moved[17:].mean()
    assert max(sides) == 1 and min(sides) < 0.5


def test_detector_points_lie_on_the_skin(model, mean):
    points = model.detector_points
    assert torch.allclose(points.weights.sum(1), torch.ones(468), atol=1e-5)
    assert float(points.weights.min()) >= -1e-6
    places = points.of(mean[None])[0]
    assert float((places[4] - mean[model.landmarks_68[30]]).norm()) < 0.12


def test_vertex_albedo_is_the_texture_at_the_vertex(model):
    coeffs = torch.randn(2, 80, generator=torch.Generator().manual_seed(0))
    coeffs[:, :60] *= 0.3
    texture = model.albedo_texture.texture(coeffs)
    assert texture.shape[:2] == (2, 3) and min(texture.shape[2:]) >= 256
    grid = torch.stack([2 * model.uv_coords[:, 0] - 1, 1 - 2 * model.uv_coords[:, 1]], 1)
    sampled = torch.nn.functional.grid_sample(
        texture, grid[None, None].expand(2, -1, -1, -1), align_corners=False
    )[:, :, 0].transpose(1, 2)
    difference = (sampled - model.albedo(coeffs).clamp(0, 1)).abs()
    assert float(difference.mean()) < 0.01


def test_texture_coordinates_have_no_fold(model):
    corners = model.uv_coords[model.faces]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    skin = (model.group_labels[model.faces] < EYEBALLS).all(1)
    assert float(area[skin].min()) > 0
    assert float(model.uv_coords.min()) >= 0 and float(model.uv_coords.max()) <= 1


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "head.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"head\.npz"):
        read_photohead(path)
    np.savez(path, mean_shape=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="not a PhotoHead model: it lacks format_version"):
        read_photohead(path)
