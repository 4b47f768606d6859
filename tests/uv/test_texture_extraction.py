"""Texture extraction on photos that are drawn from known textures."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from synthetic_assets import synthetic_face_model

from v3recon.decode import decode, posed_normals
from v3recon.geometry.camera import Camera, to_clip
from v3recon.render.interpolate import interpolate
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import visible_vertices
from v3recon.types import FaceCoeffs
from v3recon.uv import texture_extraction
from v3recon.uv._texture_kernels import fill
from v3recon.uv.bake import bake, make_uv_layout, sample_map, sample_uv
from v3recon.uv.texture_extraction import _near, _sample_where, extract_texture

SIZE = 256
PHOTO_SIZE = 240


@pytest.fixture(scope="module")
def model():
    return synthetic_face_model(rows=80, columns=80)


@pytest.fixture(scope="module")
def layout(model):
    return make_uv_layout(model, SIZE)


@pytest.fixture(scope="module")
def truth(layout):
    """A smooth skin-coloured texture that is the same on both sides."""
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE
    side = np.abs(u - 0.5)
    bands = [
        150 + 50 * np.cos(20 * side) * np.cos(14 * v),
        120 + 40 * np.cos(25 * v),
        100 + 80 * side,
    ]
    return np.stack(bands, -1).round().astype(np.uint8)


def photograph(model, layout, textures, yaws):
    """Draw textured faces; photo [B], and what extract_texture takes."""
    camera, batch = Camera(), len(yaws)
    coeffs = FaceCoeffs.zeros(batch, model.sizes)
    coeffs.angle[:, 1] = torch.tensor([math.radians(yaw) for yaw in yaws])
    decoded = decode(coeffs, model, camera)
    normals = posed_normals(decoded, model)
    scale = PHOTO_SIZE / 224
    shift = 0.5 * scale - 0.5
    matrix = torch.tensor([[[scale, 0, shift], [0, scale, shift]]]).expand(batch, 2, 3)
    size = (PHOTO_SIZE, PHOTO_SIZE)
    fragments = rasterize(to_clip(decoded.vertices, camera, size, matrix), model.faces, size)
    places = interpolate(torch.from_numpy(layout.uv_pixels)[None], fragments, model.faces).numpy()
    pairs = zip(textures, np.ascontiguousarray(places), strict=True)
    photos = np.stack([sample_map(texture, place) for texture, place in pairs])
    photos[fragments.face_id.numpy() < 0] = (0, 255, 0)
    points = decoded.points_2d * scale + shift
    given = {"visible": visible_vertices(fragments, model.faces, normals), "normals": normals}
    return photos, points, given


def model_colors(model, layout, texture, gain=1.0):
    return torch.from_numpy(sample_uv(texture[None], layout)) / 255 * gain


def error(found, truth, where):
    return np.abs(found.astype(float) - truth)[where].mean()


def test_seen_texels_are_the_photos(model, layout, truth):
    photos, points, given = photograph(model, layout, [truth], [0])
    colors = torch.full((1, model.vertex_count, 3), 0.5)
    result = extract_texture(photos[0], points, model_colors=colors, layout=layout, **given)
    seen = result.seen[0] & layout.inside
    assert seen.sum() > 0.3 * layout.inside.sum()
    inner = seen & (cv2.erode(layout.inside.astype(np.uint8), np.ones((13, 13))) > 0)
    difference = np.abs(result.texture[0].astype(int) - truth)[inner]
    assert np.percentile(difference, 99) <= 6 and difference.mean() < 1.5
    # exactly what the photo shows there, whatever the model's colours are
    places = bake(points.numpy(), layout)[0]
    sampled = sample_map(photos[0], places)[seen]
    np.testing.assert_allclose(result.texture[0][seen].astype(int), sampled, atol=1)


def test_fully_visible_equals_sampling(model, layout, truth):
    photos, points, given = photograph(model, layout, [truth], [0])
    normals = torch.zeros_like(given["normals"])
    normals[..., 2] = 1
    result = extract_texture(
        photos[0],
        points,
        visible=torch.ones_like(given["visible"]),
        normals=normals,
        model_colors=torch.zeros_like(normals),
        layout=layout,
    )
    assert result.seen.all() and not result.mirrored.any()
    places = bake(points.numpy(), layout)[0]
    sampled = sample_map(photos[0], places)
    np.testing.assert_allclose(result.texture[0].astype(int), sampled, atol=1)


@pytest.mark.parametrize("yaw", [-40, 40])
def test_hidden_side_is_the_mirrored_one(model, layout, truth, yaw):
    photos, points, given = photograph(model, layout, [truth], [yaw])
    grey = torch.full((1, model.vertex_count, 3), 0.5)  # the model knows nothing of the texture
    result = extract_texture(photos[0], points, model_colors=grey, layout=layout, **given)
    mirrored = result.mirrored[0] & layout.inside
    assert mirrored.sum() > 0.1 * layout.inside.sum()
    assert error(result.texture[0], truth, mirrored) < 6


def test_model_fills_the_rest_in_the_photos_tone(model, layout, truth):
    """What neither side shows comes from the model, a darker one here, at the photo's tone."""
    photos, points, given = photograph(model, layout, [truth], [0])
    dark = model_colors(model, layout, truth, gain=0.6)
    result = extract_texture(photos[0], points, model_colors=dark, layout=layout, **given)
    filled = layout.inside & ~result.seen[0] & ~result.mirrored[0]
    assert filled.sum() > 0.05 * layout.inside.sum()
    assert error(result.texture[0], truth, filled) < 10
    assert error(0.6 * truth, truth, filled) > 40  # what it would be without the tone


def test_nothing_seen_gives_the_models_texture(model, layout, truth):
    photos, points, given = photograph(model, layout, [truth], [0])
    given["visible"] = torch.zeros_like(given["visible"])
    colors = model_colors(model, layout, truth)
    result = extract_texture(photos[0], points, model_colors=colors, layout=layout, **given)
    assert not result.seen.any() and not result.mirrored.any()
    assert error(result.texture[0], truth, layout.inside) < 2


def test_specks_are_not_trusted(model, layout, truth):
    photos, points, given = photograph(model, layout, [truth], [0])
    given["visible"] = torch.zeros_like(given["visible"])
    given["visible"][0, 3000:3006] = True
    colors = model_colors(model, layout, truth)
    result = extract_texture(photos[0], points, model_colors=colors, layout=layout, **given)
    assert not result.seen.any()


def test_face_that_leaves_the_photo(model, layout, truth):
    photos, points, given = photograph(model, layout, [truth], [0])
    half = photos[0][:, PHOTO_SIZE // 2 :]
    moved = points - torch.tensor([PHOTO_SIZE / 2, 0])
    grey = torch.full((1, model.vertex_count, 3), 0.5)
    result = extract_texture(half, moved, model_colors=grey, layout=layout, **given)
    outside = bake((moved[..., :1] < 0).float(), layout)[0, ..., 0] > 0.5
    assert not result.seen[0][outside].any()
    assert error(result.texture[0], truth, result.mirrored[0] & layout.inside) < 6


def test_batch_equals_single_calls_and_inputs_stay(model, layout, truth):
    photos, points, given = photograph(model, layout, [truth, truth], [30, -30])
    colors = model_colors(model, layout, truth).expand(2, -1, -1)
    image, kept = photos[0], photos[0].copy()
    together = extract_texture(image, points, model_colors=colors, layout=layout, **given)
    np.testing.assert_array_equal(image, kept)
    for index in range(2):
        one = slice(index, index + 1)
        single = extract_texture(
            image,
            points[one],
            model_colors=colors[one],
            layout=layout,
            **{key: value[one] for key, value in given.items()},
        )
        np.testing.assert_array_equal(together.texture[index], single.texture[0])
        np.testing.assert_array_equal(together.seen[index], single.seen[0])


def test_large_photo_is_averaged_not_aliased(model, layout):
    """A photo much finer than the texture: a checkerboard of single pixels becomes grey."""
    checks = (np.indices((2400, 2400)).sum(0) % 2 * 255).astype(np.uint8)
    photo = np.repeat(checks[..., None], 3, 2)
    _, points, given = photograph(model, layout, [np.zeros((SIZE, SIZE, 3), np.uint8)], [0])
    scaled = points * (2400 / PHOTO_SIZE)
    grey = torch.full((1, model.vertex_count, 3), 0.5)
    result = extract_texture(photo, scaled, model_colors=grey, layout=layout, **given)
    values = result.texture[0][result.seen[0]].astype(float)
    assert abs(values.mean() - 127.5) < 4 and values.std() < 40


def test_filling_twin_of_plain_arithmetic(layout, truth):
    """Only what is not seen is computed, and only there is the mirrored photo looked up."""
    rng = np.random.default_rng(1)
    coarse = SIZE // 4
    soft = cv2.GaussianBlur(rng.random((coarse, coarse, 2)), (0, 0), 6)
    weight, mirror_weight = (
        np.clip((soft - [0.48, 0.52]) * 40 + 0.5, 0, 1).astype(np.float32).transpose(2, 0, 1)
    )
    correction = rng.normal(0, 20, (coarse, coarse, 3)).astype(np.float32)
    relight = rng.uniform(0.5, 2, (coarse, coarse)).astype(np.float32)
    colors = rng.uniform(0, 255, (len(layout.uv_pixels), 3)).astype(np.float32)
    photo = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    smooth = np.dstack([weight, mirror_weight, correction, relight])

    places = np.clip((np.arange(SIZE) + 0.5) / 4 - 0.5, 0, coarse - 1)
    grid = np.stack(np.meshgrid(places, places), -1)
    first = np.minimum(grid.astype(int), coarse - 2)
    part = (grid - first)[..., None]
    corner = [smooth[first[..., 1] + dy, first[..., 0] + dx] for dy in (0, 1) for dx in (0, 1)]
    upper = corner[0] + part[:, :, 0] * (corner[1] - corner[0])
    lower = corner[2] + part[:, :, 0] * (corner[3] - corner[2])
    low = upper + part[:, :, 1] * (lower - upper)
    mirrored = sample_map(photo, layout.mirror)
    filling = low[..., 1:2] * low[..., 5:] * mirrored
    filling += (1 - low[..., 1:2]) * bake(colors[None], layout)[0] + low[..., 2:5]
    mixed = low[..., :1] * photo + (1 - low[..., :1]) * filling
    unseen = low[..., 0] < 0.9999
    expected = np.where(unseen[..., None], np.clip(mixed, 0, 255), photo)

    wanted = _near(weight < 1) & _near(mirror_weight > 0)
    assert 0.02 < wanted.mean() < 0.7 and 0.2 < unseen.mean() < 0.8
    looked_up = _sample_where(photo, layout.mirror, wanted, workers=3)
    texture = photo.copy()
    kept, from_mirror = np.zeros((2, SIZE, SIZE), bool)
    for rows in ((0, 5), (5, SIZE)):
        fill(*rows, texture, looked_up, colors, layout.faces, layout.triangle, layout.bary,
              smooth, kept, from_mirror)  # fmt: skip
    assert np.abs(texture - expected).max() < 0.51
    near_limit = np.abs(low[..., 0] - 0.9999) < 1e-5
    assert ((kept == ~unseen) | near_limit).all()
    assert (
        (from_mirror == (unseen & (low[..., 1] > 0.5))) | (np.abs(low[..., 1] - 0.5) < 1e-5)
    ).all()


@pytest.mark.parametrize("size", [48, 64, 50])
def test_sampling_blocks_twin_of_sampling_everything(size):
    rng = np.random.default_rng(size)
    picture = rng.integers(0, 256, (2 * size, 2 * size, 3)).astype(np.uint8)
    places = rng.uniform(-3, 2 * size + 3, (2 * size, 2 * size, 2)).astype(np.float32)
    wanted = cv2.GaussianBlur(rng.random((size, size)), (0, 0), 3) > 0.56
    wanted[-1, -1] = True
    found = _sample_where(picture, places, wanted, workers=1 + size % 3)
    where = np.kron(wanted, np.ones((2, 2))).astype(bool)
    np.testing.assert_array_equal(found[where], sample_map(picture, places)[where])
    assert (found == 0).all(-1).any() and 0 < wanted.mean() < 0.5


@pytest.mark.parametrize(("yaw", "workers"), [(0, 1), (35, 2), (-70, 3)])
def test_photo_where_needed_twin_of_photo_everywhere(
    model, layout, truth, monkeypatch, yaw, workers
):
    """Blocks of the photo that are left out, and threads, change no texel."""
    photos, points, given = photograph(model, layout, [truth], [yaw])
    given["model_colors"] = model_colors(model, layout, truth, gain=0.7)
    found = extract_texture(photos[0], points, layout=layout, workers=workers, **given)
    sample, share = texture_extraction._sample_photo, []

    def sample_everywhere(image, points, layout, wanted, workers):
        share.append(wanted.mean())
        return sample(image, points, layout, np.ones_like(wanted), 1)

    monkeypatch.setattr(texture_extraction, "_sample_photo", sample_everywhere)
    plain = extract_texture(photos[0], points, layout=layout, workers=1, **given)
    assert 0.1 < share[0] < 0.9
    for name in ("texture", "seen", "mirrored"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
