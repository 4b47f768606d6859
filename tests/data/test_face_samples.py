"""The table of faces, the plan of batches, samples of photos and drawn heads."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch

from v3recon.data.augment import AugmentSettings, Placement, occlude
from v3recon.data.draw_heads import DrawnHeads, draw_heads, load_heads, save_heads
from v3recon.data.face_samples import DRAWN, BatchPlan, FaceSamples, collate
from v3recon.data.face_table import (
    load_table,
    make_table,
    rare_faces,
    rows_by_source,
    save_table,
    table_key,
)
from v3recon.decode import decode
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.load import load_face_model
from v3recon.types import FaceCoeffs

SIZES = (80, 64, 80)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four grey photos of two people with detections, two of them with marked points."""
    folder = tmp_path_factory.mktemp("photos")
    mesh = load_face_mesh().mean
    points = np.stack([100 + 60 * mesh[:, 0], 100 - 60 * mesh[:, 1], 60 * mesh[:, 2]], 1)
    lines = ["file,source,subject,split,landmarks"]
    detections = {}
    for k in range(4):
        name = f"a/{k}.png"
        (folder / "a").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((200, 200, 3), 40 * k + 20, np.uint8))
        detections[name] = (points + k).astype(np.float32)
        marks = ""
        if k < 2:
            marks = f"a/{k}.pts"
            rows = "\n".join(
                f"{x + 1:.3f} {y + 1:.3f}"
                for x, y in (points + k)[load_face_mesh().landmarks_68, :2]
            )
            (folder / marks).write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
        lines.append(f"{name},a,person{k // 2},train,{marks}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder, detections


@pytest.fixture(scope="module")
def heads(photos):
    folder, _ = photos
    return draw_heads(load_face_model("photohead"), [folder / "a/0.png"], 3, seed=4)


def test_a_table_comes_back_and_its_key_follows_its_inputs(photos, tmp_path):
    folder, detections = photos
    table = make_table(folder, "train", detections)
    assert len(table) == 4 and table.marked_weight.sum(1).tolist() == [68, 68, 0, 0]
    save_table(tmp_path / "t.npz", table)
    again = load_table(tmp_path / "t.npz")
    for f in fields(table):
        np.testing.assert_array_equal(getattr(again, f.name), getattr(table, f.name))
    before = table_key(folder, "train", None)
    assert before != table_key(folder, "val", None)
    assert before != table_key(folder, "train", tmp_path / "t.npz")


def test_masks_that_nobody_drew_are_not_learned_from(photos, tmp_path):
    folder, detections = photos
    (tmp_path / "a").symlink_to(folder / "a")
    rows = [f"a/{k}.png,train,a/{k}_mask.png,{origin}" for k, origin in enumerate(("", "polygons"))]
    (tmp_path / "index.csv").write_text("\n".join(["file,split,mask,mask_from", *rows]) + "\n")
    table = make_table(tmp_path, "train", detections)
    assert table.mask.tolist() == ["a/0_mask.png", ""]


def test_detections_far_from_marked_points_are_left_out(photos):
    folder, detections = photos
    wrong = dict(detections)
    wrong["a/0.png"] = wrong["a/0.png"] + 30
    table = make_table(folder, "train", wrong)
    assert table.detected_weight.sum(1).astype(bool).tolist() == [False, True, True, True]
    with pytest.raises(ValueError, match="for the split 'val' has a face"):
        make_table(folder, "val", detections)


def test_a_mirrored_sample_is_the_mirror_image(photos):
    folder, detections = photos
    samples = FaceSamples(
        folder, make_table(folder, "train", detections), AugmentSettings(), None, 251
    )
    plain, mirrored = (samples.place(0, Placement(flip=flip), 64) for flip in (False, True))
    index = load_face_mesh().mirror
    expected = plain["detected"][index] * [-1, 1] + [223, 0]
    np.testing.assert_allclose(mirrored["detected"], expected, atol=1e-3)
    # The mean face is symmetric: the mirror image has its points where they were.
    np.testing.assert_allclose(mirrored["marked"], plain["marked"], atol=2.5)


def test_marked_points_fill_the_crop_by_the_crop_rule(photos):
    folder, detections = photos
    samples = FaceSamples(
        folder, make_table(folder, "train", detections), AugmentSettings(), None, 251
    )
    marked = samples.place(0, Placement(), 64)["marked"]
    low, high = marked.min(0), marked.max(0)
    assert max(high - low) == pytest.approx(224 / 1.414, abs=0.01)
    np.testing.assert_allclose((low + high) / 2, 111.5, atol=0.01)


def plan_of(photos, start_step=0, pair_share=0.5):
    folder, detections = photos
    table = make_table(folder, "train", detections)
    return BatchPlan(
        {"a": np.arange(4), DRAWN: np.arange(3)}, table.subject, {"a": 1.0}, batch_size=8, seed=3,
        sizes=[64] * 5 + [80] * 5, drawn_shares=[0.5] * 10, start_step=start_step,
        pair_share=pair_share,
    )  # fmt: skip


def test_closed_eyes_and_open_mouths_come_more_often(photos):
    table = make_table(photos[0], "train", photos[1])
    marked = np.repeat(load_face_mesh().mean[None, load_face_mesh().landmarks_68, :2], 4, 0)
    marked[..., 1] *= -1  # y down
    marked[1, [37, 38]] = marked[1, [41, 40]]  # right lids meet
    marked[2, [65, 66, 67]] += [0, np.ptp(marked[2, :, 1])]
    detected = np.full((4, len(table.detected[0]), 2), np.nan)
    detected[3, load_face_mesh().landmarks_68] = marked[1]
    marked[3] = np.nan
    names = np.array(["a", "a", "b", "b"])
    table = replace(table, source=names, marked=marked, detected=detected)
    assert rare_faces(table).tolist() == [False, True, True, True]
    found = rows_by_source(table, ["a", "b", "c"], 3)
    assert found.keys() == {"a", "b"}
    assert found["a"].tolist() == [0, 1, 1, 1] and found["b"].tolist() == [2] * 3 + [3] * 3


def test_a_plan_is_the_same_wherever_it_starts(photos):
    whole, resumed = list(plan_of(photos)), list(plan_of(photos, start_step=4))
    assert whole[4:] == resumed and len(whole) == 10
    assert {slot.size for slot in whole[0]} == {64} and {slot.size for slot in whole[9]} == {80}
    assert {slot.source for batch in whole for slot in batch} == {"a", DRAWN}


def test_pairs_are_of_one_person(photos):
    batch = plan_of(photos, pair_share=1.0).batch(0)
    rows = [slot.row for slot in batch if slot.source == "a"]
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if a // 2 == b // 2 and a != b]
    assert pairs


def test_samples_depend_on_their_slot_alone_and_make_batches(photos, heads):
    folder, detections = photos
    table = make_table(folder, "train", detections)
    samples = FaceSamples(folder, table, AugmentSettings(), heads, sum(SIZES) + 27)
    batch = plan_of(photos).batch(1)
    first, second = (collate([samples[slot] for slot in batch]) for _ in range(2))
    for f in fields(first):
        assert torch.equal(getattr(first, f.name), getattr(second, f.name)), f.name
    assert first.image.shape == (8, 3, 64, 64) and first.seen.shape == (8, 32, 32)
    drawn = first.truth_weight > 0
    assert drawn.any() and (first.subject[drawn] == -1).all()


def test_labels_of_drawn_heads_are_their_projections(heads):
    model = load_face_model("photohead")
    truth = torch.from_numpy(heads.truth)
    zero = torch.zeros(len(heads), 3)
    coeffs = FaceCoeffs.from_tensor(
        torch.cat([truth[:, :224], zero, truth[:, 224:], torch.from_numpy(heads.trans)], 1), SIZES
    )
    points = decode(coeffs, model, rotation=torch.from_numpy(heads.rotation)).points_2d
    np.testing.assert_allclose(heads.marked, points[:, model.landmarks_68], atol=1e-2)
    np.testing.assert_allclose(heads.detected, model.at_detector(points), atol=1e-2)
    longer = np.ptp(heads.marked, axis=1).max(1) / (224 / 1.414)
    assert (longer > 0.8).all() and (longer < 1.2).all()


def test_heads_come_back_and_are_the_same_for_one_seed(photos, heads, tmp_path):
    save_heads(tmp_path / "heads", heads)
    again = load_heads(tmp_path / "heads")
    for f in fields(DrawnHeads):
        np.testing.assert_array_equal(getattr(again, f.name), getattr(heads, f.name))
    repeated = draw_heads(load_face_model("photohead"), [photos[0] / "a/0.png"], 3, seed=4)
    np.testing.assert_array_equal(repeated.image, heads.image)
    with pytest.raises(ValueError, match="no drawn heads"):
        load_heads(tmp_path / "nothing")


def test_occluders_say_where_they_are():
    image = np.full((64, 64, 3), 7, np.uint8)
    for seed in range(5):
        result, hidden = occlude(image, np.random.default_rng(seed))
        changed = (result != image).any(2)
        assert hidden.any() and not (changed & ~hidden).any()
