"""The recipe, the objective and a whole small run: resumed exactly, refused when changed."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from synthetic_assets import synthetic_face_model, write_official_assets

from v3recon.cli.train import main
from v3recon.data.draw_heads import draw_heads
from v3recon.data.face_samples import NOT_LABELED, FaceBatch
from v3recon.decode import decode
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.landmarks import march_contour_2d
from v3recon.face_models.load import load_face_model
from v3recon.fitting.part_targets import part_aims
from v3recon.geometry.camera import Camera, project, to_clip
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.networks.face_regressor import Estimate, load_face_regressor
from v3recon.networks.refiner import looking_points
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.render.rasterize import rasterize
from v3recon.training.face_objective import (
    FacePoints,
    FaceWeights,
    contrast_loss,
    curve_loss,
    estimate_shares,
    estimate_terms,
    jaw_difference,
    part_loss,
    seen_loss,
)
from v3recon.training.recipe import Recipe, differences, held, joined, read_recipe
from v3recon.training.run_state import read_run
from v3recon.training.train_faces import STATE_FILE, WEIGHTS_FILE, TrainOptions, train
from v3recon.types import FaceCoeffs

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SMALL = """
face_model = "photohead"
imagenet = false
batch_size = 4
steps = {steps}
minutes = 10
drawn_heads = 4
precision = "float32"
pixels = [[0.0, 64]]
[shares]
a = 1.0
[network]
pyramid_width = 8
map_width = 8
cells = 4
hidden = 16
points = 80
refiner_hidden = 16
refinements = 1
"""


@pytest.fixture(scope="module")
def model():
    return load_face_model("photohead")


@pytest.fixture(scope="module")
def points(model):
    return FacePoints(model, looking_points(model, 80))


def truth_batch(points, count=3):
    """Estimates, and a batch that says the same of drawn heads."""
    torch.manual_seed(0)
    coeffs = FaceCoeffs.zeros(count)
    coeffs = replace(
        coeffs, id=torch.randn(count, 80), exp=0.3 * torch.randn(count, 64),
        trans=torch.tensor([[0.1, -0.1, 0.5]]).repeat(count, 1),
    )  # fmt: skip
    angle = torch.tensor([[0.1, 0.5, -0.2]]).repeat(count, 1)
    estimate = Estimate(coeffs, euler_to_matrix(angle))
    pixels = points.pixels(estimate, points.shape(estimate))
    batch = FaceBatch(
        image=torch.zeros(count, 3, 8, 8), detected=pixels[:, :-68],
        detected_weight=torch.ones(count, pixels.shape[1] - 68), marked=pixels[:, -68:],
        marked_weight=torch.ones(count, 68), loose=torch.zeros(count),
        curve=torch.zeros(count, 9, 2), curve_weight=torch.zeros(count),
        curve_left=torch.zeros(count, dtype=torch.bool),
        seen=torch.full((count, 4, 4), NOT_LABELED, dtype=torch.uint8),
        part_statistics=torch.zeros(count, 8, 3, 196), part_present=torch.zeros(count, 8),
        subject=torch.full((count,), -1),
        truth=torch.cat([coeffs.id, coeffs.exp, coeffs.alb, coeffs.sh], 1),
        rotation=estimate.rotation, trans=coeffs.trans, truth_weight=torch.ones(count),
    )  # fmt: skip
    return estimate, batch


def test_the_truth_has_no_loss_and_anything_else_has(points):
    estimate, batch = truth_batch(points)
    terms = estimate_terms(estimate, batch, points)
    priors = {"identity_prior", "expression_prior", "bounds"}
    assert all(abs(float(terms[name])) < 1.5e-2 for name in terms.keys() - priors)
    wrong = replace(estimate, coeffs=replace(estimate.coeffs, id=estimate.coeffs.id + 3))
    terms = estimate_terms(wrong, batch, points)
    assert all(float(terms[name]) > 5e-2 for name in ("detected", "marked", "truth_shape"))


def test_points_are_aimed_at_the_truth_of_drawn_heads_and_at_marks_of_photos(points):
    estimate, batch = truth_batch(points)
    posed = points.aimed_mean + torch.einsum(
        "pck,bk->bpc", points.aimed_basis, batch.truth[:, : points.aimed_basis.shape[-1]]
    )
    aims = project(posed @ batch.rotation + batch.trans[:, None], Camera())
    torch.testing.assert_close(aims[:, :68], batch.marked, atol=1e-3, rtol=0)
    right = replace(estimate, aims=aims)
    assert abs(float(estimate_terms(right, batch, points)["aims"])) < 1e-4
    beside = aims.clone()
    beside[:, 70:] += 8  # points without a landmark
    of_drawn = estimate_terms(replace(estimate, aims=beside), batch, points)["aims"]
    real = replace(batch, truth_weight=torch.zeros(3))
    of_photos = estimate_terms(replace(estimate, aims=beside), real, points)["aims"]
    assert float(of_drawn) > 0.05 and abs(float(of_photos)) < 1e-4
    beside = aims.clone()
    beside[:, 17:68] += 8
    assert float(estimate_terms(replace(estimate, aims=beside), real, points)["aims"]) > 0.3
    assert float(estimate_terms(estimate, real, points)["aims"]) == 0


def test_a_loose_source_may_be_shifted_and_others_may_not(points):
    estimate, batch = truth_batch(points)
    real = replace(batch, truth_weight=torch.zeros(3), marked=batch.marked + 4)
    fixed = float(estimate_terms(estimate, real, points)["marked"])
    loose = float(estimate_terms(estimate, replace(real, loose=torch.ones(3)), points)["marked"])
    assert loose < 0.1 * fixed


def test_weights_name_every_term(points):
    estimate, batch = truth_batch(points)
    known = {f.name for f in fields(FaceWeights)}
    assert estimate_terms(estimate, batch, points).keys() <= known


def test_marked_jaw_points_may_be_the_jaw_or_the_outline(points, model):
    estimate, batch = truth_batch(points)
    decoded = decode(estimate.coeffs, model, rotation=estimate.rotation)
    roll = torch.full((3,), -0.2)
    chin = int(model.landmarks_106[16])
    index = march_contour_2d(decoded.points_2d, model.contour_lines, roll, chin)[:, ::2]
    outline = batch.marked.clone()
    outline[:, :17] = decoded.points_2d.gather(1, index[..., None].expand(-1, -1, 2))
    assert (outline - batch.marked).norm(dim=-1).max() > 3
    for target in (batch.marked, outline):
        jaw = jaw_difference(estimate, batch.marked, target, points)
        assert jaw.norm(dim=-1).max() < 0.05
    assert jaw_difference(estimate, batch.marked, batch.marked + 8, points).norm(dim=-1).min() > 1


def test_points_on_the_jaw_line_have_no_loss_wherever_they_are_on_it(points):
    _estimate, batch = truth_batch(points)
    line = batch.marked[:, :9]
    between = torch.cat([line[:, :1], (line[:, 1:] + line[:, :-1]) / 2], 1)
    batch = replace(batch, curve=between, curve_weight=torch.ones(3))
    assert float(curve_loss(batch.marked, batch)) < 1e-4
    off = replace(batch, curve=between + 10)
    assert float(curve_loss(batch.marked, off)) > 0.1
    mirrored = replace(batch, curve_left=torch.ones(3, dtype=torch.bool))
    assert float(curve_loss(batch.marked, mirrored)) > 0.1


def test_the_part_loss_is_least_where_the_masks_are(points, model):
    """A face's own drawn parts as its masks: shifting it away raises the loss every way."""
    estimate, batch = truth_batch(points, 1)
    decoded = decode(estimate.coeffs, model, rotation=estimate.rotation)
    from_crop = torch.tensor([[[0.5, 0, -0.25], [0, 0.5, -0.25]]])
    clip = to_clip(decoded.vertices, Camera(), (112, 112), from_crop)
    owner = rasterize(clip, model.faces, (112, 112)).face_id[0]
    seen = torch.where(owner >= 0, model.part_labels[model.faces[owner.clamp(min=0), 0]], 0)
    statistics, present = part_aims(seen.numpy().astype(np.uint8), 224)
    assert present.sum() >= 6
    batch = replace(
        batch, part_statistics=torch.from_numpy(statistics)[None],
        part_present=torch.from_numpy(present)[None],
    )  # fmt: skip
    here = float(part_loss(estimate, batch, points))
    for shift in ([0.06, 0, 0], [-0.06, 0, 0], [0, 0.06, 0], [0, -0.06, 0]):
        coeffs = replace(estimate.coeffs, trans=estimate.coeffs.trans + torch.tensor([shift]))
        assert float(part_loss(replace(estimate, coeffs=coeffs), batch, points)) > 1.5 * here
    none = replace(batch, part_present=torch.zeros(1, 8))
    assert float(part_loss(estimate, none, points)) == 0


def test_contrast_wants_people_together_and_others_apart():
    subject = torch.tensor([0, 0, 1, -1])
    apart = torch.eye(4)
    together = apart.clone()
    together[1] = together[0]
    assert float(contrast_loss(together, subject)) < float(contrast_loss(apart, subject)) - 0.5
    assert float(contrast_loss(apart, torch.tensor([0, 1, 2, -1]))) == 0


def test_what_is_not_labeled_costs_nothing():
    logits = torch.randn(1, 12, 4, 4, requires_grad=True)
    target = torch.full((1, 4, 4), NOT_LABELED, dtype=torch.uint8)
    assert float(seen_loss(logits, target).detach()) == 0
    target[0, 0, 0] = 5
    seen_loss(logits, target).backward()
    assert logits.grad is not None
    assert logits.grad[0, :, 0, 0].abs().sum() > 0 and logits.grad[0, :, 1:].abs().sum() == 0


def test_shares_grow_and_schedules_interpolate():
    shares = estimate_shares(4)
    assert sum(shares) == pytest.approx(1) and shares == sorted(shares)
    schedule = ((0.0, 1.0), (0.5, 2.0), (1.0, 0.0))
    assert [joined(schedule, p) for p in (0, 0.25, 0.5, 0.75, 1)] == [1, 1.5, 2, 1, 0]
    assert [held(schedule, p) for p in (0, 0.49, 0.5, 1)] == [1, 1, 2, 0]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_the_repository_are_read(path):
    recipe = read_recipe(path)
    short = recipe.scaled(recipe.minutes / 10)
    assert short.steps == round(recipe.steps / 10) and len(short.sizes()) == short.steps
    assert sum(recipe.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "unknown settings colour"),
        ("[weights]\nnose = 1", r"\[weights\] has unknown settings nose"),
        ("pixels = [[0.1, 112]]", "growing from 0"),
        ("pixels = [[0.0, 100]]", "multiples of 16"),
        ("steps = ", "cannot read the recipe"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(path)


def test_differences_name_what_differs():
    ours, theirs = Recipe(seed=1).to_json(), Recipe(weights=FaceWeights(seen=2)).to_json()
    assert differences(ours, theirs) == [
        "seed is 1 here and 0 in the run",
        "weights.seen is 0.5 here and 2 in the run",
    ]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Photos with detections and marked points, and a recipe for them."""
    folder = tmp_path_factory.mktemp("run")
    photos = folder / "photos"
    (photos / "a").mkdir(parents=True)
    mesh = load_face_mesh()
    found = np.stack(
        [60 + 35 * mesh.mean[:, 0], 60 - 35 * mesh.mean[:, 1], 35 * mesh.mean[:, 2]], 1
    )
    lines, names = ["file,source,subject,split,landmarks"], []
    rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in found[mesh.landmarks_68, :2])
    for k in range(6):
        name = f"a/{k}.png"
        picture = np.random.default_rng(k).integers(0, 256, (120, 120, 3), np.uint8)
        cv2.imwrite(str(photos / name), picture)
        (photos / f"a/{k}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
        lines.append(f"{name},a,p{k // 2},{'val' if k > 3 else 'train'},a/{k}.pts")
        names.append(name)
    (photos / "index.csv").write_text("\n".join(lines) + "\n")
    np.savez(folder / "det.npz", names=names, pts=np.stack([found] * 6).astype(np.float32))
    for steps in (4, 5):
        (folder / f"{steps}.toml").write_text(SMALL.format(steps=steps))
    return TrainOptions(
        photos, folder / "run", detections=folder / "det.npz", cache=folder / "cache", workers=0
    )


def test_a_run_that_is_stopped_and_resumed_ends_as_an_unbroken_one(options, model, monkeypatch):
    recipe = read_recipe(options.photos.parent / "4.toml")
    unbroken = replace(options, out=options.photos.parent / "whole")
    figures = train(recipe, unbroken)
    assert 0 < figures["a_inner"] < 10
    broken = replace(options, out=options.photos.parent / "broken")
    train(recipe, replace(broken, stop_after=0.0))
    assert read_run(broken.out / STATE_FILE)[0]["step"] == 1
    train(recipe, broken)
    ours, theirs = (read_run(o.out / STATE_FILE)[0] for o in (unbroken, broken))
    assert ours["step"] == theirs["step"] == 4
    kept = [(run["weights"], run["average"], run["optimizer"]["state"]) for run in (ours, theirs)]
    torch.testing.assert_close(kept[1], kept[0], rtol=0, atol=0, equal_nan=True)
    ended = (unbroken.out / WEIGHTS_FILE).read_bytes()
    assert (broken.out / WEIGHTS_FILE).read_bytes() == ended
    train(recipe, unbroken)
    assert (unbroken.out / WEIGHTS_FILE).read_bytes() == ended, "a run that is done stays so"
    network, said = load_face_regressor(broken.out / WEIGHTS_FILE)
    assert said.training["recipe"] == recipe.to_json() and said.face_model == model.name
    assert network.input_size == 64


def test_a_run_refuses_another_recipe_and_says_what_differs(options, capsys):
    folder = options.photos.parent
    common = ["--photos", str(options.photos), "--out", str(folder / "refused"), "--workers", "0"]
    common += ["--detections", str(options.detections), "--cache", str(options.cache)]
    assert main([str(folder / "4.toml"), *common, "--stop-after", "0"]) == 0
    before = (folder / "refused" / STATE_FILE).read_bytes()
    assert main([str(folder / "5.toml"), *common]) == 1
    assert "steps is 5 here and 4 in the run" in capsys.readouterr().err
    assert (folder / "refused" / STATE_FILE).read_bytes() == before
    log = (folder / "refused" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 1


def test_missing_inputs_are_named(options, capsys):
    arguments = [
        "--photos",
        str(options.photos / "none"),
        "--out",
        str(options.out),
        "--workers",
        "0",
    ]
    arguments += ["--detections", str(options.detections)]
    assert main([str(options.photos.parent / "4.toml"), *arguments]) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert main([str(options.photos / "no.toml"), *arguments]) == 1
    assert "cannot read the recipe" in capsys.readouterr().err


def test_a_plain_folder_of_photos_is_enough(options, capsys, tmp_path):
    """No index, no hand-made points: one photo is held out, errors are of detected points."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((options.photos / "a").glob("*.png")):
        (photos / path.name).write_bytes(path.read_bytes())
    with np.load(options.detections) as arrays:
        names = [str(name).rpartition("/")[2] for name in arrays["names"]]
        np.savez(tmp_path / "det.npz", names=names, pts=arrays["pts"])
    arguments = [str(options.photos.parent / "4.toml"), "--photos", str(photos), "--workers", "0"]
    arguments += ["--out", str(tmp_path / "run"), "--detections", str(tmp_path / "det.npz")]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "5 photos to learn from" in said and "1 for `val`" in said
    assert "None is of a source of the recipe" in said and "of detected points" in said
    assert "_inner 0." in said or "_inner 1." in said
    assert (tmp_path / "run" / WEIGHTS_FILE).is_file()


def test_a_device_that_is_not_there_is_one_sentence(options, capsys):
    arguments = [str(options.photos.parent / "4.toml"), "--photos", str(options.photos)]
    assert main([*arguments, "--out", str(options.out), "--device", "cuda:7"]) == 1
    assert "device: there is no cuda:7 here" in capsys.readouterr().err


def test_a_run_starts_from_the_weights_of_another(options, model, capsys):
    folder = options.photos.parent
    recipe = replace(read_recipe(folder / "4.toml"), learning_rate=1e-9, average=0.0)
    first = replace(options, out=folder / "first")
    train(read_recipe(folder / "4.toml"), first)
    second = replace(options, out=folder / "second", init_from=first.out / WEIGHTS_FILE)
    train(recipe, second)
    one, two = (load_face_regressor(o.out / WEIGHTS_FILE)[0].state_dict() for o in (first, second))
    moved = {key for key in one if not torch.allclose(one[key], two[key], atol=2e-3)}
    assert all("running" in key for key in moved), moved
    common = ["--photos", str(options.photos), "--out", str(second.out), "--workers", "0"]
    common += ["--detections", str(options.detections), "--cache", str(options.cache)]
    assert main([str(folder / "4.toml"), *common]) == 1
    assert "input weights is None here" in capsys.readouterr().err


def official_run(options, folder, *changes):
    """A small run on the made-up official model with changes of the recipe's text."""
    assets = write_official_assets(folder / "assets", networks=())
    text = SMALL.format(steps=14)
    for old, new in (("photohead", "bfm"), *changes):
        assert old in text
        text = text.replace(old, new)
    (folder / "bfm.toml").write_text(text)
    file = assets / "face_model.npy"
    own = replace(options, out=folder / "run", cache=folder / "cache", face_model_file=file)
    train(read_recipe(folder / "bfm.toml"), own)
    return assets, own.out


def test_an_official_model_is_learned_too(options, tmp_path, monkeypatch):
    """Its 68 landmarks stand for the detector's points; the weights reconstruct with its assets."""
    monkeypatch.setattr("v3recon.training.train_faces._LOG_EVERY", 1)
    calm = "flip roll_sigma shift color grey noise blur low_resolution jpeg occlude".split()
    lines = "\n".join(f"{name} = 0.0" for name in calm)
    assets, out = official_run(
        options, tmp_path, ("drawn_heads = 4", "drawn_heads = 0\nlearning_rate = 1e-3"),
        ("steps = 14", "steps = 30"),
        ("[network]", f'[augment]\nscale = [1.0, 1.0]\n{lines}\n[network]\nbackbone = "mbnetv3"'),
    )  # fmt: skip
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    points = [line["detected"] + line["marked"] for line in log[:30]]
    assert points[-1] < 0.5 * points[0]
    _, said = load_face_regressor(out / WEIGHTS_FILE)
    assert said.config.backbone == "mbnetv3" and said.face_model == "bfm"
    model = FaceReconstructor.from_pretrained(
        assets, weights=out / WEIGHTS_FILE, detector=None, device="cpu"
    )
    photo = cv2.imread(str(options.photos / "a" / "0.png"), cv2.IMREAD_COLOR_RGB)
    (face,) = model(photo)
    assert face.vertices.shape == (model.model.vertex_count, 3) and face.vertices.isfinite().all()
    assert face.seg_seen().shape == photo.shape[:2]


@pytest.mark.slow
def test_the_large_network_learns_an_official_model_with_drawn_heads(options, tmp_path):
    _, out = official_run(
        options, tmp_path, ("steps = 14", "steps = 2\ndrawn = [[0.0, 0.9]]"),
        ("[network]", '[network]\nbackbone = "resnet50"'),
    )  # fmt: skip
    network, said = load_face_regressor(out / WEIGHTS_FILE)
    assert said.config.backbone == "resnet50" and network.sizes == (80, 64, 80)


def test_points_that_an_official_model_lacks_say_nothing(model):
    official = synthetic_face_model()
    points, whole = (FacePoints(one, looking_points(one, 80)) for one in (official, model))
    assert points.mean.shape == (136, 3) and whole.mean.shape == (536, 3)
    torch.testing.assert_close(points.mean[:68], points.mean[68:])
    estimate, batch = truth_batch(points)
    expected = load_face_mesh().landmarks_68
    detected = torch.full((3, 468, 2), 1e6)
    detected[:, expected] = batch.detected
    batch = replace(batch, detected=detected, detected_weight=torch.ones(3, 468))
    terms = estimate_terms(estimate, batch, points)
    assert abs(float(terms["detected"])) < 1e-3 and abs(float(terms["gaps"])) < 1e-3
    moved = replace(batch, detected=batch.detected + 5)
    assert float(estimate_terms(estimate, moved, points)["detected"]) > 0.2


def test_drawn_heads_of_an_official_model_have_its_landmarks(options):
    official = synthetic_face_model()
    files = sorted((options.photos / "a").glob("*.png"))
    heads = draw_heads(official, files, 2, 0)
    index = load_face_mesh().landmarks_68
    np.testing.assert_allclose(heads.detected[:, index], heads.marked, atol=1e-3)
    others = np.setdiff1d(np.arange(468), index)
    assert (heads.detected[:, others] == 0).all()
    low, high = heads.marked.min(1), heads.marked.max(1)
    assert (low > -40).all() and (high < 264).all() and ((high - low).max(1) > 100).all()


def test_batch_norms_keep_their_statistics_from_a_share_of_the_run_on(options):
    recipe = replace(read_recipe(options.photos.parent / "4.toml"), steady_norms=0.5)
    whole = replace(options, out=options.photos.parent / "steady")
    train(recipe, replace(whole, stop_after=0.0))
    seen = []
    for _ in range(3):
        weights = read_run(whole.out / STATE_FILE)[0]["weights"]
        seen.append([value for key, value in weights.items() if key.endswith("running_mean")])
        train(recipe, replace(whole, stop_after=0.0))
    moved = [
        any(not torch.equal(a, b) for a, b in zip(*pair, strict=True))
        for pair in itertools.pairwise(seen)
    ]
    assert moved == [True, False]
