"""Costs of 3DDFA wired into training: exact small cases, the recipe, a short run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_assets import tiny_face_model

from v3recon.data.draw_heads import draw_heads
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.networks.face_regressor import Estimate
from v3recon.training.face_objective import PIXELS, FacePoints
from v3recon.training.parameter_objective import (
    CostSettings,
    ParameterCost,
    truth_figures,
)
from v3recon.training.recipe import Recipe, read_recipe
from v3recon.types import SH_SIZE, FaceCoeffs

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


class Labels:
    """The part of a batch that the costs read."""

    def __init__(self, heads):
        self.truth, self.rotation, self.trans, self.marked = (
            torch.from_numpy(np.array(v))
            for v in (heads.truth, heads.rotation, heads.trans, heads.marked)
        )
        self.truth_weight = torch.ones(len(heads))


@pytest.fixture(scope="module")
def model():
    return tiny_face_model()


@pytest.fixture(scope="module")
def heads(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "none.png"
    return draw_heads(model, [path], 6, 0)


def exact(model, labels):
    id_size, exp_size, alb_size = model.sizes
    blocks = labels.truth.split([id_size, exp_size, alb_size, SH_SIZE], 1)
    angle = torch.zeros_like(labels.trans)
    return Estimate(FaceCoeffs(*blocks[:3], angle, blocks[3], labels.trans), labels.rotation)


def cost_of(model, heads, kind):
    return ParameterCost(model, heads, CostSettings(kind, vertices=20), seed=0)


@pytest.mark.parametrize("kind", ["pdc", "vdc", "wpdc"])
def test_the_truth_costs_nothing_and_anything_else_does(model, heads, kind):
    labels, cost = Labels(heads), cost_of(model, heads, kind)
    estimate = exact(model, labels)
    assert float(cost([estimate], labels, 0)) < 1e-8
    for change in (
        {"id": estimate.coeffs.id + 1}, {"exp": estimate.coeffs.exp + 1},
        {"trans": estimate.coeffs.trans + 0.3},
    ):  # fmt: skip
        wrong = replace(estimate, coeffs=replace(estimate.coeffs, **change))
        assert float(cost([wrong], labels, 0)) > 1e-3
    turned = estimate.rotation @ euler_to_matrix(torch.tensor([[0.0, 0.3, 0.0]]))
    assert float(cost([replace(estimate, rotation=turned)], labels, 0)) > 1e-3


def test_pdc_is_the_squared_change_in_deviations(model, heads):
    labels, cost = Labels(heads), cost_of(model, heads, "pdc")
    estimate = exact(model, labels)
    shifted = estimate.coeffs.trans + torch.tensor([0.0, 0.0, 0.5])
    wrong = replace(estimate, coeffs=replace(estimate.coeffs, trans=shifted))
    deviation = np.asarray(heads.trans)[:, 2].std()
    assert float(cost([wrong], labels, 0)) == pytest.approx((0.5 / deviation) ** 2, rel=1e-4)


def test_vertices_are_the_pixels_of_the_projected_mesh(model, heads):
    labels, cost = Labels(heads), cost_of(model, heads, "vdc")
    parameters = torch.cat(
        [labels.truth[:, :18], labels.rotation[:, :2].flatten(1), labels.trans], 1
    )
    found = cost.vertices(parameters / cost.deviation, torch.arange(68))
    torch.testing.assert_close(PIXELS * found[..., :2], labels.marked, rtol=0, atol=0.01)
    shape = model.vertices(*labels.truth[:, :18].split([10, 8], 1))[:, model.landmarks_68]
    posed = shape @ labels.rotation
    scale = 1015 / (10 - labels.trans[:, 2, None])
    torch.testing.assert_close(PIXELS * found[..., 2], scale * posed[..., 2], rtol=0, atol=0.01)
    pixels = project(posed + labels.trans[:, None], Camera())
    torch.testing.assert_close(pixels, labels.marked, rtol=0, atol=0.01)


def test_wpdc_weighs_a_lone_wrong_parameter_fully_and_photographs_count_nothing(model, heads):
    labels, cost = Labels(heads), cost_of(model, heads, "wpdc")
    estimate = exact(model, labels)
    change = torch.zeros_like(estimate.coeffs.id)
    change[:, 3] = 2.0
    wrong = replace(estimate, coeffs=replace(estimate.coeffs, id=estimate.coeffs.id + change))
    expected = float((2 / cost.deviation[3]) ** 2)
    assert float(cost([wrong], labels, 0)) == pytest.approx(expected, rel=1e-4)
    labels.truth_weight[:3] = 0
    assert float(cost([wrong], labels, 0)) == pytest.approx(expected / 2, rel=1e-4)
    labels.truth_weight[:] = 0
    assert float(cost([wrong], labels, 0)) == 0


def test_vertices_are_drawn_by_the_step_alone(model, heads):
    labels, cost = Labels(heads), cost_of(model, heads, "vdc")
    estimate = exact(model, labels)
    wrong = replace(estimate, coeffs=replace(estimate.coeffs, id=estimate.coeffs.id + 1))
    first = float(cost([wrong], labels, 5))
    assert first == float(cost_of(model, heads, "vdc")([wrong], labels, 5))
    assert first != float(cost([wrong], labels, 6))


def test_figures_are_nothing_at_the_truth(model, heads):
    labels = Labels(heads)
    estimate = exact(model, labels)
    figures = truth_figures(estimate, labels, FacePoints(model))
    assert figures["drawn_nme"] < 1e-4 and figures["drawn_shape_mm"] < 1e-4
    coeffs = replace(estimate.coeffs, trans=estimate.coeffs.trans + torch.tensor([0.1, 0, 0]))
    assert (
        truth_figures(replace(estimate, coeffs=coeffs), labels, FacePoints(model))["drawn_nme"]
        > 0.02
    )


def test_milestones_are_steps_of_the_rate():
    recipe = Recipe(
        steps=10, learning_rate=1.0, warmup=0.0, rate=((0.0, 1.0),), milestones=(0.5, 0.8)
    )
    rates = [recipe.rate_at(step) for step in range(10)]
    assert rates == pytest.approx([1] * 5 + [0.2] * 3 + [0.04] * 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[objective]\ncost = "mdc"', "cost must be one of pdc, vdc, wpdc"),
        ('drawn_heads = 0\n[objective]\ncost = "pdc"', "needs drawn_heads"),
        ("milestones = [1.5]", "milestones must be between 0 and 1"),
        ('[shape]\nrate = 0.1\n[objective]\ncost = "pdc"', "not by a cost"),
        ("[shape]\nwidth = 0.0", "width above 0"),
    ],
)
def test_bad_settings_are_named(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(path)


def test_the_recipes_are_those_of_3ddfa():
    costs = {path.stem: read_recipe(path) for path in RECIPES.glob("3ddfa_*.toml")}
    assert {recipe.objective.cost for recipe in costs.values()} == {"pdc", "vdc", "wpdc"}
    assert all(r.network.refinements == 0 and r.milestones for r in costs.values())
