"""UV maps: exact on one triangle, round trips, the mirror, the cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_assets import synthetic_face_model

from v3recon.uv.bake import bake, make_uv_layout, sample_map, sample_uv, uv_layout


@pytest.fixture(scope="module")
def model():
    return synthetic_face_model()


@pytest.fixture(scope="module")
def layout(model):
    return make_uv_layout(model, 256)


def test_texel_centres_follow_the_obj_convention(layout):
    """Baking the uv coordinates themselves gives every texel its own u and v."""
    uv = (layout.uv_pixels + 0.5) / layout.size
    baked = bake(uv[None], layout)[0]
    columns = (np.arange(256) + 0.5) / 256
    inside = layout.inside
    np.testing.assert_allclose(baked[..., 0][inside], np.tile(columns, (256, 1))[inside], atol=1e-5)
    np.testing.assert_allclose(
        baked[..., 1][inside], np.tile(columns[:, None], (1, 256))[inside], atol=1e-5
    )


def test_v_points_up(model, layout):
    height = bake(model.mean_shape[None, :, 1:2], layout)[0, ..., 0]
    rows = np.where(layout.inside, height, np.nan)
    assert np.nanmean(rows[60]) > np.nanmean(rows[190])


def test_round_trip_of_a_linear_function(layout):
    """Linear in uv: interpolation is exact but for OpenCV's 1/32 of a texel."""
    values = (layout.uv_pixels @ np.array([[0.3, -1], [0.7, 2]], np.float32))[None]
    back = sample_uv(bake(values, layout), layout)
    inner = ((layout.uv_pixels > 8) & (layout.uv_pixels < 247)).all(1)
    np.testing.assert_allclose(back[0, inner], values[0, inner], atol=0.1)


def test_batch_equals_single_calls(model, layout):
    values = torch.rand(3, model.vertex_count, 2, generator=torch.Generator().manual_seed(0))
    together = bake(values, layout)
    for index in range(3):
        np.testing.assert_array_equal(together[index], bake(values[index : index + 1], layout)[0])


def test_mirror_comes_from_the_shape_when_the_model_has_no_table(model, layout):
    assert len(model.mirror) == 0
    x = bake(model.mean_shape[None, :, :1], layout)[0]
    mirrored = sample_map(x, layout.mirror)
    inner = layout.inside.copy()
    inner[:6] = inner[-6:] = inner[:, :6] = inner[:, -6:] = False
    assert np.abs(mirrored + x[..., 0])[inner].max() < 0.02


def test_outside_runs_on(layout):
    values = np.ones((1, len(layout.uv_pixels), 1), np.float32)
    np.testing.assert_allclose(bake(values, layout), 1, atol=1e-5)
    assert not layout.inside.all()


def test_thinned_layout_shows_the_same(layout):
    coarse = layout.at_size(64)
    assert layout.at_size(64) is coarse  # kept
    values = layout.uv_pixels[None]
    np.testing.assert_array_equal(bake(values, coarse)[0], bake(values, layout)[0][1::4, 1::4])
    with pytest.raises(ValueError, match="thinned"):
        layout.at_size(100)


def test_layout_is_made_once(model):
    assert uv_layout(model, 32) is uv_layout(model, 32)


def test_uv_without_area_is_refused(model):
    flat = synthetic_face_model(rows=19, columns=9)
    flat.uv_coords.zero_()
    with pytest.raises(ValueError, match="cover no texel"):
        make_uv_layout(flat, 32)
