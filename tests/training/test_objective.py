from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from v3recon.data.augment import AugmentSettings
from v3recon.data.samples import LABELS_HAND, LABELS_PARSED, TrainingBatch, TrainingDataset, collate
from v3recon.data.shards import PreparedSet
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.networks.fine_map import CLASS_WEIGHTS
from v3recon.training.config import TermWeights
from v3recon.training.objective import (
    GAP_PAIRS,
    make_training_face,
    pose_rows,
    training_loss,
)
from v3recon.types import FaceCoeffs

CAMERA = Camera()
NOTHING = TermWeights(**{**dict.fromkeys(vars(TermWeights()), 0.0), "marked": 0.3})


@pytest.fixture(scope="module")
def face():
    return make_training_face(load_face_model("photoface"))


@pytest.fixture(scope="module")
def batch(prepared) -> TrainingBatch:
    dataset = TrainingDataset(PreparedSet(prepared, "train"), AugmentSettings(size=56, profile=0))
    return collate([dataset[i] for i in range(4)])


def random_coeffs(batch: int = 4) -> tuple[FaceCoeffs, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    packed = 0.3 * torch.randn(batch, 257, generator=generator)
    coeffs = FaceCoeffs.from_tensor(packed)
    coeffs = replace(coeffs, angle=0.3 * coeffs.angle, trans=0.1 * coeffs.trans)
    return coeffs, euler_to_matrix(coeffs.angle)


def fitted(batch: TrainingBatch, coeffs: FaceCoeffs, rotation, face) -> TrainingBatch:
    """The batch whose targets are exactly what these coefficients give."""
    posed = pose_rows(coeffs, rotation, face, CAMERA)
    z = posed.vertices[:, face.detector, 2]
    scale = CAMERA.focal / (CAMERA.distance - z.mean(1, keepdim=True))
    depth = (z - z.mean(1, keepdim=True)) * scale
    return replace(
        batch,
        points=torch.cat([posed.points_2d[:, face.detector], depth[..., None]], -1),
        shape_code=torch.cat([coeffs.id, coeffs.exp], 1),
        shape_weight=torch.ones(len(batch)),
        landmarks_weight=torch.zeros(len(batch), 68),
        rotation=rotation,
    )


def value(name: str, coeffs, rotation, batch, face, **others: float) -> torch.Tensor:
    weights = replace(NOTHING, **{name: 1.0}, **others)
    return training_loss(coeffs, rotation, batch, face, weights, CAMERA, logits_of(batch))[0]


def logits_of(batch: TrainingBatch) -> torch.Tensor:
    """Logits of named parts that depend on the picture alone."""
    grey = batch.image.float().mean(1, keepdim=True)[..., ::2, ::2] / 255
    return grey * torch.arange(9.0)[:, None, None]


@pytest.mark.parametrize("name", ["points", "depth", "gaps", "vdc", "wpdc"])
def test_targets_that_are_met_cost_nothing_and_others_do(name, batch, face):
    coeffs, rotation = random_coeffs()
    exact = fitted(batch, coeffs, rotation, face)
    met = value(name, coeffs, rotation, exact, face)
    other = replace(coeffs, id=coeffs.id + 0.5)
    assert met < 1e-2
    assert value(name, other, rotation, exact, face) > 10 * met + 1e-2


@pytest.mark.parametrize("name", [n for n in vars(TermWeights()) if n not in ("wpdc", "vdc")])
def test_a_batch_costs_the_mean_of_its_parts(name, batch, face):
    coeffs, rotation = random_coeffs()
    others = {"points": 1.0} if name in ("parsed", "marked") else {}  # they weigh other terms
    whole = value(name, coeffs, rotation, batch, face, **others)
    halves = [
        value(
            name,
            coeffs[part],
            rotation[part],
            TrainingBatch(**{key: x[part] for key, x in vars(batch).items()}),
            face,
            **others,
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    assert whole > 0, "else nothing is compared"
    assert whole == pytest.approx(float(halves[0] / 4 + 3 * halves[1] / 4), rel=1e-4, abs=1e-7)


def test_named_parts_are_compared_with_the_share_of_each_class(batch, face):
    """Masks whose every square is half nose and half nothing; entropy and Dice in closed form."""
    coeffs, rotation = random_coeffs()
    labels = torch.zeros_like(batch.labels)
    labels[..., ::2] = 5
    source = torch.tensor([LABELS_HAND, LABELS_PARSED, 2, 0])
    angle = torch.zeros_like(batch.angle)
    drawn = replace(batch, labels=labels, labels_source=source, angle=angle)
    logits = torch.zeros(4, 9, 28, 28)
    logits[:, 5] = 1.0
    chance = logits[0, :, 0, 0].softmax(0)
    entropy = -0.5 * (CLASS_WEIGHTS[0] * chance[0].log() + CLASS_WEIGHTS[5] * chance[5].log())
    cells = 28 * 28
    nose = 1 - (2 * 0.5 * chance[5] * cells + 1) / ((chance[5] + 0.5) * cells + 1)
    others = 1 - 1 / (chance[1] * cells + 1)
    one = float(entropy + (nose + 7 * others) / 8)

    def term(marked: TrainingBatch, parsed: float) -> float:
        weights = replace(NOTHING, named=1.0, parsed=parsed)
        loss = training_loss(coeffs, rotation, marked, face, weights, CAMERA, logits)[0]
        return float(loss)

    assert term(drawn, 0.0) == pytest.approx(one / 4, rel=1e-5)
    assert term(drawn, 0.5) == pytest.approx(1.5 * one / 4, rel=1e-5)
    turned = replace(drawn, angle=angle + torch.tensor([0.0, 1.2, 0.0]))
    assert term(turned, 0.5) == 0


def test_sets_without_fits_are_refused_by_parameter_terms(batch, face):
    coeffs, rotation = random_coeffs()
    with pytest.raises(ValueError, match="run v3recon prepare again"):
        value("wpdc", coeffs, rotation, batch, face)


def test_parts_only_look_at_hand_made_masks(batch, face):
    coeffs, rotation = random_coeffs()
    assert value("parts", coeffs, rotation, batch, face) > 0
    other = replace(batch, labels_source=torch.where(batch.labels_source == LABELS_HAND, 2, 0))
    assert value("parts", coeffs, rotation, other, face) == 0


def test_one_wrong_mask_does_not_outweigh_the_batch(batch, face):
    coeffs, rotation = random_coeffs()
    costs = []
    for shift in (0.0, 0.5, 1.0):  # decimetres: tens of pixels past the mask
        moved = replace(coeffs, trans=coeffs.trans + torch.tensor([shift, 0.0, 0.0]))
        costs.append(float(value("parts", moved, rotation, batch, face)))
    assert 0 < costs[0] < costs[1] < costs[2] < 2.5 * costs[1]  # squares would grow fourfold


def test_every_term_has_finite_gradients(batch, face):
    coeffs, _ = random_coeffs()
    packed = coeffs.to_tensor().requires_grad_()
    coeffs = FaceCoeffs.from_tensor(packed)
    weights = TermWeights(gaps=1.0, parts=0.01, named=1.0, photometric=1.0, light=1.0)
    logits = logits_of(batch).requires_grad_()
    rotation = euler_to_matrix(coeffs.angle)
    loss, terms = training_loss(coeffs, rotation, batch, face, weights, CAMERA, logits)
    assert set(terms) == set(vars(weights)) - {"wpdc", "vdc", "parsed", "marked"}
    (gradient,) = torch.autograd.grad(loss, packed)
    assert gradient.isfinite().all()
    for block in vars(FaceCoeffs.from_tensor(gradient)).values():
        assert block.abs().sum() > 0


def test_detected_points_of_marked_photos_count_as_they_are_told(batch, face):
    coeffs, rotation = random_coeffs()
    marked = replace(batch, labels_source=torch.full_like(batch.labels_source, LABELS_HAND))

    def points(of, trust):
        weights = replace(NOTHING, points=1.0, marked=trust)
        return float(training_loss(coeffs, rotation, of, face, weights, CAMERA)[0])

    assert points(marked, 0.25) == pytest.approx(0.25 * points(marked, 1.0), rel=1e-5)
    unmarked = replace(
        marked,
        labels_source=torch.zeros_like(batch.labels_source),
        landmarks_weight=torch.zeros_like(batch.landmarks_weight),
    )
    assert points(unmarked, 0.25) == points(unmarked, 1.0) == pytest.approx(points(marked, 1.0))


def test_gaps_see_an_opening_and_not_a_shift(batch, face):
    coeffs, rotation = random_coeffs()
    exact = fitted(batch, coeffs, rotation, face)
    exact = replace(exact, labels_source=torch.zeros(len(batch), dtype=torch.long))
    moved = replace(exact, points=exact.points + torch.tensor([7.0, -3.0, 0.0]))
    assert value("gaps", coeffs, rotation, moved, face) < 1e-3
    opened = exact.points.clone()
    opened[:, 13, 1] -= 4.0  # one of the pairs, in one of its two coordinates
    opened = replace(exact, points=opened)
    expected = 4.0 / len(GAP_PAIRS)
    assert float(value("gaps", coeffs, rotation, opened, face)) == pytest.approx(expected, rel=1e-3)


def test_masks_of_the_parser_count_by_their_weight_without_skin_and_eyes(batch, face):
    coeffs, rotation = random_coeffs()
    labels = torch.zeros_like(batch.labels)
    labels[:, 20:24, 10:20] = 3
    parsed = replace(
        batch,
        labels=labels,
        labels_source=torch.full_like(batch.labels_source, LABELS_PARSED),
        index=torch.zeros_like(batch.index),
        angle=torch.zeros_like(batch.angle),
    )
    by_hand = replace(parsed, labels_source=torch.full_like(batch.labels_source, LABELS_HAND))

    def parts(of: TrainingBatch, trust: float) -> float:
        weights = replace(NOTHING, parts=1.0, parsed=trust)
        return float(training_loss(coeffs, rotation, of, face, weights, CAMERA)[0])

    assert parts(parsed, 0.0) == 0
    assert parts(parsed, 0.5) == pytest.approx(0.5 * parts(by_hand, 0.5), rel=1e-5)
    for distrusted in (1, 2, 8):
        more = labels.clone()
        more[:, 30:50] = distrusted
        assert parts(replace(parsed, labels=more), 0.5) == pytest.approx(
            parts(parsed, 0.5), rel=1e-6
        )
        assert parts(replace(by_hand, labels=more), 0.5) > 1.01 * parts(by_hand, 0.5)
