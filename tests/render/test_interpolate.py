"""Attributes and labels at pixels: fast forms against plain ones, gradients."""

from __future__ import annotations

import pytest
import torch

from v3recon.render.interpolate import coverage, interpolate, interpolate_labels
from v3recon.render.rasterize import rasterize
from v3recon.types import Fragments

SIZE = (9, 12)


@pytest.fixture
def mesh(generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip [2, 12, 4] and faces [14, 3]."""
    w = torch.rand(2, 12, 1, generator=generator) + 1
    xyz = torch.rand(2, 12, 3, generator=generator) * 2.4 - 1.2
    clip = torch.cat([xyz * w * torch.tensor([1, 1, 0.5]), w], -1)
    return clip, torch.randint(0, 12, (14, 3), generator=generator)


def naive(attributes: torch.Tensor, fragments: Fragments, faces: torch.Tensor) -> torch.Tensor:
    batch, height, width = fragments.face_id.shape
    out = torch.zeros(batch, height, width, attributes.shape[-1], dtype=attributes.dtype)
    for b in range(batch):
        for r in range(height):
            for c in range(width):
                face = fragments.face_id[b, r, c]
                if face >= 0:
                    corners = attributes[b % len(attributes), faces[face]]
                    out[b, r, c] = fragments.bary[b, r, c] @ corners
    return out


@pytest.mark.parametrize("shared", [True, False])
def test_equals_naive_with_and_without_gradient(mesh, shared, generator):
    clip, faces = mesh
    attributes = torch.rand(1 if shared else 2, 12, 5, generator=generator)
    fragments = rasterize(clip, faces, SIZE, "cpu")
    expected = naive(attributes, fragments, faces)
    assert coverage(fragments).any() and not coverage(fragments).all()
    torch.testing.assert_close(interpolate(attributes, fragments, faces), expected)
    with_gradient = interpolate(attributes.clone().requires_grad_(), fragments, faces)
    torch.testing.assert_close(with_gradient.detach(), expected)
    assert (expected[~coverage(fragments)] == 0).all()


def test_gradient_in_attributes_and_positions(mesh, generator):
    clip, faces = mesh
    clip = clip.double().requires_grad_()
    attributes = torch.rand(2, 12, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    # Random triangles are thin here and there: weigh each pixel, so that errors cannot cancel.
    weights = torch.rand(2, *SIZE, 2, generator=generator, dtype=torch.float64)

    def total(values: torch.Tensor, vertices: torch.Tensor) -> torch.Tensor:
        fragments = rasterize(vertices, faces, SIZE, "cpu")
        return (interpolate(values, fragments, faces) * weights).sum((1, 2))

    assert torch.autograd.gradcheck(total, (attributes, clip), eps=1e-7, atol=1e-4)


def test_wrong_batch_is_refused(mesh):
    clip, faces = mesh
    fragments = rasterize(clip, faces, SIZE, "cpu")
    with pytest.raises(ValueError, match=r"\[2 or 1, V, C\], got \(3, 12, 1\)"):
        interpolate(torch.zeros(3, 12, 1), fragments, faces)


def test_labels_equal_the_interpolated_indicator(mesh, generator):
    clip, faces = mesh
    labels = torch.randint(0, 4, (2, 12), generator=generator).to(torch.uint8)
    fragments = rasterize(clip, faces, SIZE, "cpu")
    indicator = torch.stack([labels == value for value in (1, 2, 3)], -1).float()
    share = interpolate(indicator, fragments, faces)
    assert ((share - 0.5).abs() > 1e-4).all()  # no case rests on rounding
    expected = ((share >= 0.5) * torch.tensor([1, 2, 3])).amax(-1)
    assert len(expected.unique()) == 4
    assert torch.equal(interpolate_labels(labels, fragments, faces).long(), expected)
    # float64 barycentrics take the plain tensor path
    double = Fragments(fragments.face_id, fragments.bary.double(), fragments.depth.double())
    assert torch.equal(interpolate_labels(labels, double, faces).long(), expected)


def test_the_later_label_wins_where_two_reach_one_half():
    fragments = Fragments(
        torch.zeros(1, 1, 1, dtype=torch.long),
        torch.tensor([[[[0.5, 0.25, 0.25]]]]),
        torch.ones(1, 1, 1),
    )
    faces = torch.tensor([[0, 1, 2]])
    labels = torch.tensor([[3, 7, 7]], dtype=torch.uint8)
    assert interpolate_labels(labels, fragments, faces).item() == 7
    double = Fragments(fragments.face_id, fragments.bary.double(), fragments.depth.double())
    assert interpolate_labels(labels, double, faces).item() == 7
