"""Segmentation: one rasterisation against 3DDFA_V3's eight renders, windows against the whole."""

from __future__ import annotations

import pytest
import torch
from synthetic_assets import tiny_face_model

from v3recon.decode import decode, posed_normals
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.face_models.parts import color_table
from v3recon.geometry.camera import Camera, to_clip
from v3recon.reconstruct.segment import (
    colorize_labels,
    segment_both,
    segment_part_bits,
    segment_parts,
    segment_visible,
    unpack_part_bits,
)
from v3recon.render.interpolate import interpolate
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import visible_vertices
from v3recon.types import FaceCoeffs

SIZE = (224, 224)
CAMERA = Camera()


@pytest.fixture(scope="module")
def model():
    return tiny_face_model()


@pytest.fixture(scope="module")
def decoded(model):
    coeffs = FaceCoeffs.zeros(3, model.sizes)
    coeffs.angle[1] = torch.tensor([0.1, 0.8, 0.1])
    coeffs.angle[2] = torch.tensor([-0.2, -1.3, -0.2])
    coeffs.trans[2] = torch.tensor([0.1, -0.1, 0.2])
    return decode(coeffs, model, CAMERA)


@pytest.mark.parametrize("rasterizer", ["cpu", "torch"])
def test_visible_equals_eight_renders(model, decoded, rasterizer):
    fragments = rasterize(to_clip(decoded.vertices, CAMERA), model.faces, SIZE, "cpu")
    normals = posed_normals(decoded, model)
    visible = visible_vertices(fragments, model.faces, normals)
    expected = torch.zeros(3, *SIZE, dtype=torch.uint8)
    unclear = torch.zeros(3, *SIZE, dtype=torch.bool)
    for label in range(1, 9):
        indicator = ((model.part_labels == label) & visible).float()[..., None]
        share = interpolate(indicator, fragments, model.faces)[..., 0]
        expected[share >= 0.5] = label
        unclear |= (share - 0.5).abs() < 1e-5
    labels = segment_visible(decoded, model, CAMERA, SIZE, rasterizer=rasterizer)
    assert labels.dtype == torch.uint8 and labels.shape == (3, *SIZE)
    assert unclear.float().mean() < 1e-3
    assert torch.equal(labels[~unclear], expected[~unclear])
    known = segment_visible(decoded, model, CAMERA, SIZE, rasterizer=rasterizer, normals=normals)
    assert torch.equal(known, labels)
    assert set(labels[0].unique().tolist()) == set(range(9))
    # Turned away, one eye is hidden behind the nose or the silhouette.
    assert (labels[2] == 1).sum() * (labels[2] == 2).sum() == 0


@pytest.mark.parametrize("rasterizer", ["cpu", "torch"])
def test_parts_equal_each_drawn_alone(model, decoded, rasterizer):
    masks = segment_parts(decoded, model, CAMERA, SIZE, rasterizer=rasterizer)
    assert masks.dtype == torch.bool and masks.shape == (3, len(PART_NAMES), *SIZE)
    clip = to_clip(decoded.vertices, CAMERA)
    for part, faces in enumerate(model.part_faces):
        alone = rasterize(clip, faces, SIZE, "cpu").face_id >= 0
        assert alone[0].any()
        assert torch.equal(masks[:, part], alone)
    # Without visibility both eyes are drawn even where one is hidden.
    assert masks[2, 0].any() and masks[2, 1].any()
    bits = segment_part_bits(decoded, model, CAMERA, SIZE, rasterizer=rasterizer)
    assert bits.dtype == torch.uint8
    assert torch.equal(unpack_part_bits(bits), masks)


def test_left_and_right_are_the_persons_own(model, decoded):
    labels = segment_visible(decoded, model, CAMERA, SIZE)[0]

    def center(name: str) -> torch.Tensor:
        return torch.nonzero(labels == PART_NAMES.index(name) + 1).float().mean(0)

    assert center("right_eye")[1] < center("nose")[1] < center("left_eye")[1]
    assert center("right_eyebrow")[1] < center("left_eyebrow")[1]
    assert center("left_eyebrow")[0] < center("left_eye")[0] < center("up_lip")[0]
    assert center("up_lip")[0] < center("down_lip")[0]


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_a_window_of_a_photo_equals_the_whole(model, decoded, angle):
    """With from_crop only the face's window is drawn; the answer is that of the whole photo."""
    size = (330, 410)
    cos, sin = 1.3 * torch.tensor(angle).cos(), 1.3 * torch.tensor(angle).sin()
    affine = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
    shifts = torch.tensor([[60.0, 40.0], [-90.0, 30.0], [180.0, 120.0]])  # two partly outside
    from_crop = torch.cat([affine.expand(3, 2, 2), shifts[..., None]], -1)
    labels = segment_visible(decoded, model, CAMERA, size, from_crop)
    bits = segment_part_bits(decoded, model, CAMERA, size, from_crop)
    clip = to_clip(decoded.vertices, CAMERA, size, from_crop)
    owner = rasterize(clip, model.faces, size).face_id >= 0
    assert (labels > 0).flatten(1).any(1).all()
    # Rounding differs in a window: a few pixels on edges may change sides.
    assert ((labels > 0) & ~owner).sum() <= 3
    for part, faces in enumerate(model.part_faces):
        alone = rasterize(clip, faces, size).face_id >= 0
        assert (((bits >> part) & 1).bool() != alone).sum() <= 3
    one_by_one = [
        segment_visible(decode_item(decoded, i), model, CAMERA, size, from_crop[i : i + 1])
        for i in range(3)
    ]
    assert torch.equal(torch.cat(one_by_one), labels)


def test_crop_sized_window_equals_no_window(model, decoded):
    identity = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    plain = segment_visible(decoded, model, CAMERA, SIZE)
    windowed = segment_visible(decoded, model, CAMERA, SIZE, identity)
    assert (plain != windowed).sum() <= 5


@pytest.mark.parametrize("rasterizer", ["cpu", "torch"])
@pytest.mark.parametrize("cut_out", [False, True])
def test_both_twin_of_each_alone(model, decoded, rasterizer, cut_out):
    """The rest of a photo holds nothing, whether it is left out or drawn."""
    scale = torch.tensor([[[0.4, 0.05, 31.0], [-0.05, 0.4, 20.0]]]).expand(3, 2, 3)
    arguments = (decoded, model, CAMERA, (130, 150), scale, rasterizer)
    labels, bits = segment_both(*arguments, cut_out=cut_out)
    assert labels.any() and bits.any()
    # Rounding differs in a window: a few pixels on edges may change sides.
    limit = 5 if cut_out else 0
    assert (labels != segment_visible(*arguments)).sum() <= limit
    assert (bits != segment_part_bits(*arguments)).sum() <= limit


def test_a_face_outside_the_photo_is_empty(model, decoded):
    from_crop = torch.tensor([[[1.0, 0, 5000], [0, 1, 0]]])
    assert not segment_visible(decoded, model, CAMERA, (50, 60), from_crop).any()
    assert not segment_parts(decoded, model, CAMERA, (50, 60), from_crop).any()


def test_colors():
    colors = color_table()
    assert colors.shape == (9, 3) and len(colors.unique(dim=0)) == 9
    picture = colorize_labels(torch.arange(9).reshape(1, 3, 3))
    torch.testing.assert_close(picture[0, :, 1, 1], colors[4].float() / 255)


def decode_item(decoded, item: int):
    return type(decoded)(*(getattr(decoded, k)[item : item + 1] for k in decoded.__annotations__))
