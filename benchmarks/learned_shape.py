"""A face model that learns against one that does not: the same network, photos and steps.

The weights of the package stay as they are but for one correction of their estimates (the bias of
the last layer), which learns in both runs, so that estimates are computed once. Errors are of
hand-made points of the split `val`.

    python benchmarks/learned_shape.py PHOTOS CACHE      # CACHE: `--cache` of a training run
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v3recon.data.augment import AugmentSettings, Placement
from v3recon.data.face_samples import FaceBatch, FaceSamples, collate
from v3recon.data.face_table import load_table
from v3recon.face_models.load import load_face_model
from v3recon.geometry.rotation import matrix_to_rotation_6d, rotation_6d_to_matrix
from v3recon.networks.face_regressor import Estimate, FaceRegressor, load_face_regressor
from v3recon.training.face_objective import (
    FacePoints,
    FaceWeights,
    estimate_terms,
    validation_figures,
)
from v3recon.training.shape_learning import LearnedShape, ShapeSettings
from v3recon.types import SH_SIZE, FaceCoeffs

BATCH = 16
TERMS = ("detected", "marked", "gaps", "identity_prior", "expression_prior", "bounds")


def main() -> None:
    """Print the error before, with the model fixed, and with the model learning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--weights", type=Path, help="default: the package's")
    parser.add_argument("--count", type=int, default=320, help="photos to learn from")
    parser.add_argument("--val", type=int, default=192, help="photos of `val`")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pixels", type=int, default=112)
    options = parser.parse_args()
    model = load_face_model("photohead")
    package = Path(__file__).parents[1] / "v3recon/networks/data/photohead_lite0.pth"
    network, _ = load_face_regressor(options.weights or package)
    points = FacePoints(model)
    found = {
        split: estimates_of(network, options, split, count)
        for split, count in (("train", options.count), ("val", options.val))
    }
    print("start: " + scores(*found["val"], points), flush=True)
    for settings in (None, ShapeSettings(rate=0.02), ShapeSettings(rate=0.02, weight=0.2)):
        learn(found, model, network, points, settings, options.steps)


def learn(found, model, network, points, settings, steps) -> None:
    """One run."""
    estimate, batch = found["train"]
    bias = torch.zeros(sum(model.sizes[:2]) + 9, requires_grad=True)
    groups = [{"params": [bias], "lr": 1e-3}]
    shape = None if settings is None else LearnedShape(model, network, settings)
    if shape is not None:
        groups.append({"params": [shape.offsets], "lr": settings.rate})
    optimizer = torch.optim.Adam(groups)
    draw = torch.Generator().manual_seed(0)
    rates = [group["lr"] for group in groups]
    weights = FaceWeights()
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / steps)
        rows = torch.randint(len(batch), (BATCH,), generator=draw)
        now = points if shape is None else shape.moved(points)
        part = FaceBatch(*(getattr(batch, f.name)[rows] for f in fields(FaceBatch)))
        terms = estimate_terms(corrected(estimate, bias, network, rows), part, now)
        loss = torch.stack([terms[name] * getattr(weights, name) for name in TERMS]).sum()
        if shape is not None:
            loss = loss + settings.weight * shape.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        now = points if shape is None else shape.moved(points)
        estimate, batch = found["val"]
        name = "model fixed" if shape is None else f"model learns, weight {settings.weight}"
        if shape is not None:
            change = (shape.arrays(model)[0] - model.mean_shape).norm(dim=-1) * 100
            name += f" (mean moved by {change.mean():.2f} mm, most {change.max():.2f})"
        every = torch.arange(len(batch))
        print(
            f"{name}: {scores(corrected(estimate, bias, network, every), batch, now)}", flush=True
        )


def corrected(estimate: Estimate, bias: Tensor, network: FaceRegressor, rows: Tensor) -> Estimate:
    """Chosen estimates plus a change of the network's last bias."""
    id_size, exp_size, _ = network.sizes
    code, six, trans = bias.split([id_size + exp_size, 6, 3])
    code = code * network.unit
    coeffs = estimate.coeffs[rows]
    coeffs = replace(
        coeffs, id=coeffs.id + code[:id_size], exp=coeffs.exp + code[id_size:],
        trans=coeffs.trans + trans,
    )  # fmt: skip
    rotation = rotation_6d_to_matrix(matrix_to_rotation_6d(estimate.rotation[rows]) + six)
    return Estimate(coeffs, rotation)


def scores(estimate: Estimate, batch: FaceBatch, points: FacePoints) -> str:
    """Mean error of the inner points, share of the box."""
    inner = validation_figures([estimate], batch, points)["inner"].nanmean()
    return f"inner {float(inner):.5f}"


@torch.no_grad()
def estimates_of(network, options, split: str, count: int) -> tuple[Estimate, FaceBatch]:
    """The network's estimates of some photos of Helen, AFW and AFLW, and their samples."""
    table = load_table(next(options.cache.glob(f"{split}_*.npz")))
    marked = np.flatnonzero(table.marked_weight.sum(1) >= 10)
    rows = np.sort(np.random.default_rng(0).permutation(marked)[:count])
    sizes = sum(network.sizes) + SH_SIZE
    samples = FaceSamples(options.photos, table, AugmentSettings(), None, sizes)
    network.input_size = options.pixels
    coeffs, rotations, batches = [], [], []
    for start in range(0, len(rows), BATCH):
        chosen = rows[start : start + BATCH]
        batch = collate([samples.place(int(row), Placement(), options.pixels) for row in chosen])
        estimate = network.estimates(batch.image.float() / 255)[0][-1]
        coeffs.append(estimate.coeffs)
        rotations.append(estimate.rotation)
        batches.append(replace(batch, image=batch.image[:, :, :1, :1]))
    batch = FaceBatch(
        *(torch.cat([getattr(b, f.name) for b in batches]) for f in fields(FaceBatch))
    )
    whole = FaceCoeffs(
        *(torch.cat([getattr(c, f.name) for c in coeffs]) for f in fields(FaceCoeffs))
    )
    return Estimate(whole, torch.cat(rotations)), batch


if __name__ == "__main__":
    main()
