"""The three rasterisers against the slow definition, exact cases and invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from v3recon.geometry.camera import Camera, project, to_clip
from v3recon.render import _reference, _torch
from v3recon.render.rasterize import choose_rasterizer, cover, rasterize

NAMES = ("cpu", "torch")


def clip_of_pixels(
    points: torch.Tensor, image_size: tuple[int, int], w: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """Clip coordinates [B, V, 4] of pixels [B, V, 2] (column, row) at depth w; z in the middle."""
    height, width = image_size
    w = torch.as_tensor(w, dtype=points.dtype).expand(points.shape[:2])
    x = ((2 * points[..., 0] + 1) / width - 1) * w
    y = ((2 * points[..., 1] + 1) / height - 1) * w
    return torch.stack([x, y, torch.zeros_like(w), w], -1)


def random_mesh(kind: str, image_size: tuple[int, int], generator: torch.Generator):
    """Clip [2, 14, 4] and faces [18, 3] that reach beyond the image; some faces repeat a vertex."""
    width = image_size[1]
    w = torch.rand(2, 14, generator=generator) * 3 + 1
    xy = torch.rand(2, 14, 2, generator=generator) * 3 - 1.5
    z = torch.rand(2, 14, generator=generator) * 1.8 - 0.9
    if kind == "behind":  # about a third of the vertices behind the camera
        w = w - 2
    if kind == "near_far":
        z = z * 1.5
    if kind == "lattice":  # vertices on pixel centres: edges pass exactly through centres
        xy = (xy * width).round() / width + 1 / width
        w = torch.tensor([1.0, 2.0, 4.0])[torch.randint(0, 3, w.shape, generator=generator)]
    clip = torch.cat([xy * w[..., None], z[..., None] * w.abs()[..., None], w[..., None]], -1)
    if kind == "not_finite":
        clip[0, 0, 0], clip[1, 1, 3], clip[0, 2, 2] = torch.nan, torch.inf, -torch.inf
    return clip, torch.randint(0, 14, (18, 3), generator=generator)


@pytest.mark.parametrize("kind", ["plain", "behind", "near_far", "lattice", "not_finite"])
@pytest.mark.parametrize("image_size", [(9, 13), (16, 16), (12, 7)])
def test_rasterisers_equal_the_definition(kind, image_size, generator):
    clip, faces = random_mesh(kind, image_size, generator)
    face_id, bary, depth = _reference.find_faces(clip, faces, image_size)
    assert (face_id >= 0).sum() > 10  # the case is not empty
    for name in NAMES:
        fragments = rasterize(clip, faces, image_size, name)
        np.testing.assert_array_equal(fragments.face_id.numpy(), face_id, name)
        np.testing.assert_allclose(fragments.bary.numpy(), bary, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(fragments.depth.numpy(), depth, rtol=1e-5, err_msg=name)


def test_torch_rasteriser_in_small_chunks_is_the_same(monkeypatch, generator):
    clip, faces = random_mesh("plain", (16, 16), generator)
    whole = rasterize(clip, faces, (16, 16), "torch").face_id
    monkeypatch.setattr(_torch, "CHUNK", 37)
    assert torch.equal(rasterize(clip, faces, (16, 16), "torch").face_id, whole)


@pytest.mark.parametrize("kind", ["plain", "behind", "lattice"])
def test_cover_is_the_union_of_lonely_triangles(kind, generator):
    clip, faces = random_mesh(kind, (12, 16), generator)
    group = torch.randint(0, 8, (len(faces),), generator=generator).to(torch.uint8)
    expected = torch.zeros(2, 12, 16, dtype=torch.uint8)
    for face in range(len(faces)):
        owner = rasterize(clip, faces[face : face + 1], (12, 16), "cpu").face_id
        expected |= (owner >= 0).to(torch.uint8) << group[face]
    assert expected.max() > 0
    for name in NAMES:
        assert torch.equal(cover(clip, faces, group, (12, 16), name), expected)


@pytest.mark.parametrize("name", NAMES)
def test_one_triangle_known_pixels(name):
    # Corners (1, 1), (5, 1), (1, 5) on pixel centres: the left edge (column 1) and the top edge
    # (row 1) are owned, the slanted right edge (column + row = 6) is not.
    clip = clip_of_pixels(torch.tensor([[[1.0, 1.0], [5.0, 1.0], [1.0, 5.0]]]), (8, 8))
    expected = torch.full((1, 8, 8), -1)
    for row in range(1, 5):
        expected[0, row, 1 : 6 - row] = 0
    for faces in ([[0, 1, 2]], [[2, 1, 0]]):  # both windings are drawn
        fragments = rasterize(clip, torch.tensor(faces), (8, 8), name)
        assert torch.equal(fragments.face_id, expected)
    torch.testing.assert_close(
        rasterize(clip, torch.tensor([[0, 1, 2]]), (8, 8), name).bary[0, 2, 3],
        torch.tensor([0.25, 0.5, 0.25]),
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("on_centers", [False, True])
def test_shared_edges_have_neither_holes_nor_double_hits(name, on_centers, generator):
    """A fan of triangles covers each pixel of its outline once, and no other."""
    size = (16, 16)
    for _ in range(60):
        angle = torch.sort(torch.rand(6, generator=generator) * 2 * torch.pi).values
        radius = torch.rand(6, generator=generator) * 4 + 3
        rim = torch.stack([7.5 + radius * angle.cos(), 7.5 + radius * angle.sin()], -1)
        points = torch.cat([rim.mean(0, keepdim=True), rim])
        if on_centers:
            points = points.round()
        fan = torch.tensor([[0, i + 1, (i + 1) % 6 + 1] for i in range(6)])
        flip = torch.rand(6, generator=generator) < 0.5  # windings must not matter
        fan = torch.where(flip[:, None], fan.flip(1), fan)
        around = points[1:] - points[0]
        following = around.roll(-1, 0)
        turn = around[:, 0] * following[:, 1] - around[:, 1] * following[:, 0]
        if (turn <= 0).any():
            continue  # the hub is not inside: triangles may overlap
        clip = clip_of_pixels(points[None], size)
        hits = torch.stack(
            [rasterize(clip, fan[i : i + 1], size, name).face_id[0] >= 0 for i in range(6)]
        ).sum(0)
        assert hits.max() == 1
        assert torch.equal(hits.bool(), inside_star(points, size))


def inside_star(points: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pixels in a star polygon around points[0], moved by a hair right and down (top-left rule)."""
    from fractions import Fraction

    hair_x, hair_y = Fraction(1, 10**9), Fraction(1, 10**19)
    # What the rasteriser sees: the float32 clip coordinates, as exact fractions of pixels.
    clip = clip_of_pixels(points[None], size)[0].tolist()
    x = [((Fraction(p[0]) + 1) * size[1] - 1) / 2 for p in clip[1:]]
    y = [((Fraction(p[1]) + 1) * size[0] - 1) / 2 for p in clip[1:]]
    mask = torch.zeros(size, dtype=torch.bool)
    for row in range(size[0]):
        for column in range(size[1]):
            px, py = column + hair_x, row + hair_y
            crossings = 0
            for i in range(6):
                j = (i + 1) % 6
                if (y[i] > py) != (y[j] > py):
                    crossings += px < x[i] + (py - y[i]) * (x[j] - x[i]) / (y[j] - y[i])
            mask[row, column] = crossings % 2 == 1
    return mask


@pytest.mark.parametrize("name", NAMES)
def test_nearer_wins_and_lower_face_id_where_equal(name):
    points = torch.tensor([[[0.0, 0.0], [7.0, 0.0], [0.0, 7.0]]]).repeat(1, 3, 1)
    depth = torch.tensor([[3.0, 3, 3, 2, 2, 2, 2, 2, 2]])
    clip = clip_of_pixels(points, (8, 8), depth)
    fragments = rasterize(clip, torch.arange(9).reshape(3, 3), (8, 8), name)
    assert fragments.face_id.unique().tolist() == [-1, 1]
    assert fragments.depth.unique().tolist() == [0.0, 2.0]


@pytest.mark.parametrize("name", NAMES)
def test_degenerate_and_invisible_triangles_are_ignored(name):
    points = torch.tensor([[[0.0, 0], [4, 4], [7, 7], [-9, -9], [-5, -9], [-9, -5]]])
    clip = clip_of_pixels(points, (8, 8))
    behind = clip.clone()
    behind[..., 3] = -1
    faces = torch.tensor([[0, 1, 2], [0, 0, 2], [1, 1, 1], [3, 4, 5]])
    for vertices in (clip, behind):
        fragments = rasterize(vertices, faces, (8, 8), name)
        assert (fragments.face_id == -1).all()
        assert (fragments.bary == 0).all() and (fragments.depth == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_triangle_through_the_camera_plane_is_cut_at_the_near_plane(name):
    # A floor 1 below the camera, from 4 in front of it to 4 behind; near plane at 1, far at 20.
    camera = Camera(focal=10.0, center=8.0, distance=0.0, image_size=17, near=1.0, far=20.0)
    floor = torch.tensor([[[-9.0, -1, -4], [9, -1, -4], [0, -1, 4]]])
    fragments = rasterize(to_clip(floor, camera), torch.tensor([[0, 1, 2]]), (17, 17), name)
    column = fragments.depth[0, :, 8]
    # Row r sees the floor at depth 10 / (r - 8): nothing beyond 4, nothing nearer than 1.
    rows = torch.arange(11, 17)
    assert (column[:10] == 0).all()
    torch.testing.assert_close(column[11:17], 10.0 / (rows - 8), atol=1e-4, rtol=1e-4)
    tall = rasterize(to_clip(floor, camera, (40, 17)), torch.tensor([[0, 1, 2]]), (40, 17), name)
    seen = tall.depth[tall.face_id >= 0]
    assert seen.min() >= 1 - 1e-5 and seen.max() <= 4 + 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_barycentrics_are_perspective_correct(name):
    camera = Camera()
    triangle = torch.tensor([[[-0.6, -0.5, 1.5], [0.7, -0.4, -1.0], [0.1, 0.8, 0.3]]])
    fragments = rasterize(to_clip(triangle, camera), torch.tensor([[0, 1, 2]]), (224, 224), name)
    row, column = torch.nonzero(fragments.face_id[0] >= 0, as_tuple=True)
    assert len(row) > 1000
    surface = fragments.bary[0, row, column] @ triangle[0]
    expected = torch.stack([column, row], -1).float()
    torch.testing.assert_close(project(surface, camera), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        camera.distance - surface[:, 2], fragments.depth[0, row, column], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_triangle_around_a_projected_point_owns_its_pixel(name, generator):
    """Every rasteriser agrees with the landmarks, in the crop and in a photo."""
    camera = Camera()
    centers = torch.rand(40, 3, generator=generator) * 1.4 - 0.7
    # Its inner circle has a radius of about 0.8 pixels, so a raster shifted by half a pixel fails.
    offsets = 0.017 * torch.tensor([[0.0, 1, 0], [-0.866, -0.5, 0], [0.866, -0.5, 0]])
    faces = torch.arange(120).reshape(40, 3)
    from_crop = torch.tensor([[[2.0, 0.3, -40], [-0.3, 2.0, 60]]])
    for affine, size, scale in ((None, (224, 224), 1), (from_crop, (500, 430), 2)):
        vertices = (centers[:, None] + offsets / scale).reshape(1, -1, 3)
        points = project(centers, camera)
        if affine is not None:
            points = points @ affine[0, :, :2].T + affine[0, :, 2]
        fragments = rasterize(to_clip(vertices, camera, size, affine), faces, size, name)
        checked = 0
        for index, (column, row) in enumerate(points.round().long().tolist()):
            owner = fragments.face_id[0, row, column]
            others = (points - points[index]).abs().amax(1) < 8
            if others.sum() == 1:  # no other triangle near
                assert owner == index
                checked += 1
        assert checked > 10


@pytest.mark.parametrize("name", NAMES)
def test_batch_equals_items_drawn_alone(name, generator):
    clip, faces = random_mesh("plain", (10, 14), generator)
    together = rasterize(clip, faces, (10, 14), name)
    for item in range(len(clip)):
        alone = rasterize(clip[item : item + 1], faces, (10, 14), name)
        for key in ("face_id", "bary", "depth"):
            assert torch.equal(getattr(together, key)[item], getattr(alone, key)[0])


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_barycentrics_and_depth(name, generator):
    clip = torch.tensor(
        [[[-0.8, -0.7, 0.1, 1], [1.4, -1.3, 0.2, 2], [-0.3, 1, 0, 1.5], [1.2, 1, 0, 1.3]]],
        dtype=torch.float64,
        requires_grad=True,
    )
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    weights = torch.rand(1, 5, 6, 4, generator=generator, dtype=torch.float64)

    def total(vertices: torch.Tensor) -> torch.Tensor:
        fragments = rasterize(vertices, faces, (5, 6), name)
        both = torch.cat([fragments.bary, fragments.depth[..., None]], -1)
        return (both * weights).sum((0, 1, 2))

    assert torch.autograd.gradcheck(total, (clip,))
    total(clip).sum().backward()
    assert (clip.grad[..., [0, 1, 3]].abs() > 0).all()  # every vertex is reached


@pytest.mark.parametrize("name", NAMES)
def test_input_is_not_written_and_float64_is_kept(name, generator):
    clip, faces = random_mesh("plain", (8, 8), generator)
    before = clip.clone()
    rasterize(clip, faces, (8, 8), name)
    assert torch.equal(clip, before)
    assert rasterize(clip.double(), faces, (8, 8), name).bary.dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_no_faces_and_no_items(name):
    clip = torch.rand(1, 3, 4)
    assert (rasterize(clip, torch.zeros(0, 3, dtype=torch.long), (4, 5), name).face_id == -1).all()
    empty = rasterize(clip[:0], torch.tensor([[0, 1, 2]]), (4, 5), name)
    assert empty.bary.shape == (0, 4, 5, 3)


def test_choice_by_name():
    assert choose_rasterizer("cpu") == "cpu"
    assert choose_rasterizer("mps") == "torch"
    clip, faces = torch.rand(1, 3, 4), torch.tensor([[0, 1, 2]])
    with pytest.raises(ValueError, match="unknown rasterizer 'gl'"):
        rasterize(clip, faces, (4, 4), "gl")
    with pytest.raises(ValueError, match=r"\[B, V, 4\]"):
        rasterize(clip[..., :3], faces, (4, 4))
    with pytest.raises(ValueError, match="image_size"):
        rasterize(clip, faces, (0, 4))
