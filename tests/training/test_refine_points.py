"""Refined points: they follow hand-made masks and points, and replace only what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from v3recon.data.augment import Placement
from v3recon.data.samples import LABELS_HAND, LABELS_PARSED, FaceRecord, collate, place_sample
from v3recon.data.shards import PreparedSet, open_shard, shard_folders
from v3recon.decode import decode
from v3recon.face_models.load import load_face_model
from v3recon.fitting.fit_landmarks import fit_landmarks
from v3recon.geometry.camera import Camera
from v3recon.reconstruct.segment import segment_visible
from v3recon.training import refine_points
from v3recon.types import FaceCoeffs

BROW_HEIGHT = (2, 3)
BROW, CHIN = [70, 63, 105, 66, 107], [152, 148, 377]
EYE, MOUTH = [33, 133, 159, 145], [61, 291, 13, 14]


class Started:
    """In place of a network: the fit to the detected points."""

    input_size = 64

    def __init__(self, fit):
        self.fit = fit

    def predict(self, image):
        return self.fit.coeffs, self.fit.rotation


@pytest.fixture(scope="module")
def model():
    return load_face_model("photoface")


def points_of(coeffs, model):
    camera = Camera()
    decoded = decode(coeffs, model, camera)
    depth = decoded.vertices[..., 2:] * camera.focal / camera.distance
    points = torch.cat([decoded.points_2d, depth], 2)[0, :468]
    return points.numpy(), decoded


@pytest.mark.parametrize("given", ["mask", "parsed", "points"])
def test_brows_move_to_where_people_see_them(given, model):
    camera = Camera()
    neutral = FaceCoeffs.zeros(1, model.sizes)
    raised = FaceCoeffs.zeros(1, model.sizes)
    raised.exp[:, list(BROW_HEIGHT)] = 2.5
    detected, _ = points_of(neutral, model)
    truth, decoded = points_of(raised, model)
    labels = segment_visible(decoded, model, camera, (224, 224))[0].numpy()
    hand = np.full((68, 3), np.nan, np.float32)
    if given == "points":
        hand[:, :2] = decoded.points_2d[0, model.landmarks_68].numpy()
        hand[:, 2] = 0
    record = FaceRecord(
        image=np.zeros((224, 224, 3), np.uint8),
        points=detected.astype(np.float32),
        landmarks_68=hand,
        labels=None if given == "points" else labels,
        labels_source={"mask": LABELS_HAND, "parsed": LABELS_PARSED, "points": 0}[given],
        pose=np.zeros(3, np.float32),
        source=0,
        name="drawn",
    )
    start = fit_landmarks(
        collate([place_sample(record, Placement(), None, 64)]).points, model, camera
    )
    face = refine_points.make_training_face(model)
    parsed = given == "parsed"
    config = refine_points.RefineConfig(
        Path("in"), Path("out"), steps=40, prior=1e-3, parsed=parsed
    )
    refined, good = refine_points.refine_records([record], Started(start), face, config)
    assert good.all() and refined.shape == (1, 468, 3)
    wanted = (truth - detected)[BROW, 1].mean()
    moved = (refined[0] - detected)[BROW, 1].mean()
    assert wanted < -2 and 0.5 * wanted > moved > 1.3 * wanted
    assert np.abs((refined[0] - detected)[CHIN, :2]).max() < 1.5
    if given == "parsed":  # the parser is believed about brows and nose only
        assert np.abs((refined[0] - detected)[[*EYE, *MOUTH, *CHIN], :2]).max() < 0.02


def test_only_marked_photos_change_and_the_original_does_not(prepared, tmp_path, monkeypatch):
    def shifted(records, regressor, face, config):
        points = np.stack([record.points for record in records]) + 1
        return points, np.arange(len(records)) != 1  # the second is not believed

    monkeypatch.setattr(refine_points, "refine_records", shifted)
    before = [PreparedSet(prepared).record(i).points.copy() for i in range(12)]
    config = refine_points.RefineConfig(prepared, tmp_path / "refined", batch_size=4)
    assert refine_points.refine_set(config) == (6, 4)  # batches of four and two
    old, new = PreparedSet(prepared), PreparedSet(tmp_path / "refined")
    moved = []
    for i, points in enumerate(before):
        assert (old.record(i).points == points).all()
        assert (new.record(i).image == old.record(i).image).all()
        difference = new.record(i).points - points
        assert np.allclose(difference, difference.flat[0], atol=1e-5)
        moved.append(round(float(difference.flat[0])))
    assert moved == [1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0]
    assert len(PreparedSet(tmp_path / "refined", "val")) == 4
    with pytest.raises(ValueError, match="exists already"):
        refine_points.refine_set(config)
    assert (
        refine_points.main(["--prepared", str(tmp_path / "no"), "--out", str(tmp_path / "x")]) == 2
    )


def test_photos_with_parsed_masks_change_when_that_is_wanted(prepared, tmp_path, monkeypatch):
    for folder in shard_folders(prepared, "train"):
        shard = open_shard(folder)
        source = np.asarray(shard.arrays["labels_source"])
        assert (source != LABELS_HAND).any() and (source != LABELS_PARSED).all()
        monkeypatch.setitem(
            shard.arrays, "labels_source", np.where(source == LABELS_HAND, source, LABELS_PARSED)
        )
        marked = refine_points._marked_rows(shard, False)
        everyone = np.flatnonzero(np.isfinite(shard.arrays["points"][:, 0, 0]))
        assert set(marked) < set(everyone)
        assert (refine_points._marked_rows(shard, True) == everyone).all()


def test_refined_points_keep_the_record_s_frame(model, prepared):
    """A refit of no steps that starts at the detected points gives them back."""
    record = PreparedSet(prepared).record(1)
    camera = Camera()
    sample = collate([place_sample(record, Placement(), None, 64)])
    start = fit_landmarks(sample.points, model, camera)
    face = refine_points.make_training_face(model)
    config = refine_points.RefineConfig(Path("in"), Path("out"), steps=0)
    refined, _ = refine_points.refine_records([record], Started(start), face, config)
    assert np.abs(refined[0, :, :2] - record.points[:, :2]).mean() < 0.2  # of 70 pixels
    assert np.abs(refined[0, :, 2] - record.points[:, 2]).mean() < 0.5  # of 38
