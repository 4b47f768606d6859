"""A face model that learns: its points, its file, runs that are stopped."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import pytest
import torch
from synthetic_assets import synthetic_face_model, write_official_assets
from test_train_faces import SMALL, options  # noqa: F401  (a fixture)

from v3recon.face_models.load import load_face_model
from v3recon.face_models.save import save_changed_face_model
from v3recon.networks.face_regressor import FaceRegressor, FaceRegressorConfig, load_face_regressor
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.training.face_objective import FacePoints
from v3recon.training.recipe import read_recipe
from v3recon.training.run_state import read_run
from v3recon.training.shape_learning import LearnedShape, ShapeSettings, smooth_field
from v3recon.training.train_faces import STATE_FILE, WEIGHTS_FILE, train

LEARNS = SMALL + "\n[shape]\nrate = 0.5\ncenters = 30\n"


@pytest.fixture(scope="module")
def official():
    return synthetic_face_model()


def learned(model, centers=30):
    network = FaceRegressor(FaceRegressorConfig(points=80, refinements=1))
    network.set_face_model(model)
    return LearnedShape(model, network, ShapeSettings(0.1, centers)), network


def test_equal_offsets_move_everything_alike_and_none_nothing(official):
    shape, _ = learned(official)
    for before, after in zip(
        (official.mean_shape, official.id_basis, official.exp_basis), shape.arrays(official),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    with torch.no_grad():
        shape.offsets[:, 1, 0] = 2.0
    mean, id_basis, _ = shape.arrays(official)
    expected = official.mean_shape + torch.tensor([0.0, 0.02, 0.0])
    torch.testing.assert_close(mean, expected)
    assert torch.equal(id_basis, official.id_basis)
    assert float(shape.penalty().detach()) == pytest.approx(4.0, rel=1e-4)


def test_the_field_is_smooth_and_sums_to_one():
    points = torch.rand(100, 3)
    field = smooth_field(points, 20, 0.3)
    torch.testing.assert_close(field.sum(1), torch.ones(100))
    with pytest.raises(ValueError, match="fewer than 200 centers"):
        smooth_field(points, 200, 0.3)


@pytest.mark.parametrize("name", ["photohead", "bfm"])
def test_a_changed_model_is_saved_and_its_points_are_those_of_the_loss(name, official, tmp_path):
    model = official if name == "bfm" else load_face_model(name)
    shape, network = learned(model)
    torch.manual_seed(0)
    with torch.no_grad():
        shape.offsets.normal_()
    expected = shape.arrays(model)
    saved = save_changed_face_model(tmp_path / "face_model.npz", model, *expected)
    path = tmp_path / ("face_model.npy" if name == "bfm" else "face_model.npz")
    opened = load_face_model(name, path)
    assert opened.content_hash == saved.content_hash != model.content_hash
    for found, value in zip(
        (opened.mean_shape, opened.id_basis, opened.exp_basis), expected, strict=True
    ):
        torch.testing.assert_close(found, value, rtol=1e-3, atol=2e-4)
    for key in (
        "faces",
        "landmarks_134",
        "contour_lines",
        "part_labels",
        "mean_albedo",
        "uv_coords",
    ):
        torch.testing.assert_close(getattr(opened, key), getattr(model, key))
    index = network.refiner.index
    there, here = FacePoints(opened, index), shape.moved(FacePoints(model, index))
    prefixes = ("", "contour_", "aimed_")  # points of parts are chosen by the mean face
    for key in (f"{prefix}{name}" for prefix in prefixes for name in ("mean", "basis")):
        torch.testing.assert_close(getattr(here, key), getattr(there, key), rtol=1e-3, atol=5e-4)
    shape.place_looking_points(network, FacePoints(model, index))
    mean, basis = opened.shape_basis_at(network.refiner.index)
    torch.testing.assert_close(network.refiner.mean, mean, rtol=0, atol=5e-4)
    torch.testing.assert_close(network.refiner.basis, basis * network.unit, rtol=0, atol=5e-4)


def test_a_model_of_another_shape_is_not_saved(official, tmp_path):
    mean, id_basis, exp_basis = official.mean_shape, official.id_basis, official.exp_basis
    with pytest.raises(ValueError, match="mean_shape must be finite"):
        save_changed_face_model(tmp_path / "m.npy", official, mean / 0, id_basis, exp_basis)
    with pytest.raises(ValueError, match="id_basis must be"):
        save_changed_face_model(tmp_path / "m.npy", official, mean, id_basis[:-1], exp_basis)
    assert not list(tmp_path.iterdir())


def test_a_run_whose_model_learns_is_resumed_exactly_and_reconstructs(options, tmp_path):  # noqa: F811
    """On the made-up official model: weights and model of the run are used together."""
    assets = write_official_assets(tmp_path / "assets", networks=())
    text = LEARNS.format(steps=4).replace("photohead", "bfm")
    (tmp_path / "learns.toml").write_text(text)
    recipe = read_recipe(tmp_path / "learns.toml")
    own = replace(options, cache=tmp_path / "cache", face_model_file=assets / "face_model.npy")
    whole, broken = (replace(own, out=tmp_path / name) for name in ("whole", "broken"))
    train(recipe, whole)
    train(recipe, replace(broken, stop_after=0.0))
    assert read_run(broken.out / STATE_FILE)[0]["step"] == 1
    train(recipe, broken)
    for name in (WEIGHTS_FILE, "face_model.npy"):
        assert (broken.out / name).read_bytes() == (whole.out / name).read_bytes(), name
    start = load_face_model("bfm", assets / "face_model.npy")
    model = load_face_model("bfm", whole.out / "face_model.npy")
    moved = (model.mean_shape - start.mean_shape).norm(dim=-1)
    assert 1e-4 < float(moved.max()) < 0.05
    network, said = load_face_regressor(whole.out / WEIGHTS_FILE)
    assert said.face_model_hash == model.content_hash
    with pytest.raises(ValueError, match="face model"):
        FaceReconstructor.from_pretrained(
            assets, weights=whole.out / WEIGHTS_FILE, detector=None, device="cpu"
        )
    reconstruct = FaceReconstructor.from_pretrained(
        face_model=whole.out / "face_model.npy", weights=whole.out / WEIGHTS_FILE, detector=None,
        device="cpu",
    )  # fmt: skip
    photo = cv2.imread(str(options.photos / "a" / "0.png"), cv2.IMREAD_COLOR_RGB)
    assert reconstruct.model.content_hash == model.content_hash
    (face,) = reconstruct(photo)
    assert face.vertices.shape == (model.vertex_count, 3) and face.vertices.isfinite().all()
    again = replace(own, out=tmp_path / "again", init_from=whole.out / WEIGHTS_FILE)
    again = replace(again, face_model_file=whole.out / "face_model.npy", stop_after=0.0)
    train(recipe, again)
    other, _ = load_face_regressor(again.out / WEIGHTS_FILE)
    assert torch.equal(other.refiner.index, network.refiner.index)


def test_a_short_run_by_a_cost(options, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("v3recon.training.train_faces._UNSEEN_HEADS", 4)
    text = SMALL.format(steps=2).replace("refinements = 1", "refinements = 0")
    (tmp_path / "r.toml").write_text(
        "drawn = [[0.0, 1.0]]\n" + text + '[objective]\ncost = "wpdc"\n'
    )
    figures = train(read_recipe(tmp_path / "r.toml"), replace(options, out=tmp_path / "run"))
    assert 0 < figures["drawn_nme"] < 5 and figures["drawn_shape_mm"] > 0
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["val"]["drawn_nme"] == pytest.approx(figures["drawn_nme"], abs=1e-4)
