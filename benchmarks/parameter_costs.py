"""PDC, VDC and WPDC against each other: the same features, start, batches and steps.

The backbone stays as ImageNet left it and its features are computed once, so that this takes
minutes on one core: only the layers behind it learn. The heads are those of a training run
(`RUN/prepared/heads…`); the last ones are not learned from.

    python benchmarks/parameter_costs.py RUN/prepared/heads2_…
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from v3recon.data.augment import AugmentSettings
from v3recon.data.draw_heads import DrawnHeads, load_heads
from v3recon.data.face_samples import FaceBatch, collate, drawn_sample
from v3recon.face_models.load import load_face_model
from v3recon.networks.face_regressor import Estimate, FaceRegressor, FaceRegressorConfig
from v3recon.training.face_objective import FacePoints
from v3recon.training.parameter_objective import CostSettings, ParameterCost, truth_figures
from v3recon.training.train_faces import load_imagenet
from v3recon.types import SH_SIZE

BATCH = 32


def main() -> None:
    """Print one row a cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("heads", type=Path, help="folder of drawn heads of photohead")
    parser.add_argument("--count", type=int, default=1500, help="heads to learn from")
    parser.add_argument("--unseen", type=int, default=240)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = load_face_model("photohead")
    heads = load_heads(options.heads)
    network = FaceRegressor(FaceRegressorConfig(backbone="lite0", refinements=0))
    network.set_face_model(model)
    load_imagenet(network)
    network.eval()
    rows = np.r_[: options.count, len(heads) - options.unseen : len(heads)]
    features, labels = features_of(network, heads, rows, options.pixels)
    mean, deviation = features[: options.count].mean(0), features[: options.count].std(0)
    features = (features - mean) / deviation.clamp(min=1e-3)
    points = FacePoints(model)
    unseen = chosen_of(labels, torch.arange(options.count, len(rows)))
    runs: dict[str, nn.Module] = {}

    def train(name: str, kind: str, start: nn.Module, steps: int, rate: float) -> None:
        cost = ParameterCost(model, heads, CostSettings(kind), 0)
        runs[name] = layers = copy.deepcopy(start)
        optimizer = torch.optim.AdamW(layers.parameters(), rate)
        draw = torch.Generator().manual_seed(1)
        for step in range(steps):
            passed = (step >= 0.6 * steps) + (step >= 0.85 * steps)
            optimizer.param_groups[0]["lr"] = rate * 0.2**passed
            chosen = torch.randint(options.count, (BATCH,), generator=draw)
            estimate = estimate_of(network, layers(features[chosen]))
            optimizer.zero_grad()
            loss = cost([estimate], chosen_of(labels, chosen), step)
            loss.backward()
            nn.utils.clip_grad_norm_(layers.parameters(), 5.0)
            optimizer.step()
        with torch.no_grad():
            estimate = estimate_of(network, layers(features[options.count :]))
            figures = truth_figures(estimate, unseen, points)
        print(f"{name}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)

    for kind in ("pdc", "vdc", "wpdc"):
        train(kind, kind, network.first, options.steps, options.rate)
    half = options.steps // 2
    train("wpdc, then vdc", "vdc", runs["wpdc"], half, options.rate / 5)
    train("wpdc, then wpdc", "wpdc", runs["wpdc"], half, options.rate / 5)


@torch.no_grad()
def features_of(
    network: FaceRegressor, heads: DrawnHeads, rows: np.ndarray, size: int
) -> tuple[Tensor, FaceBatch]:
    """Pooled features [N, F] of chosen heads, colors changed as in training, and their labels."""
    features, batches = [], []
    settings = replace(AugmentSettings(), size=size)
    for start in range(0, len(rows), BATCH):
        chosen = rows[start : start + BATCH]
        samples = [
            drawn_sample(heads, int(row), np.random.default_rng(int(row)), settings)
            for row in chosen
        ]
        batch = collate(samples)
        features.append(network.encoder(batch.image.float() / 255)[0])
        batches.append(replace(batch, image=batch.image[:, :, :1, :1]))
    return torch.cat(features), FaceBatch(
        *(torch.cat([getattr(batch, f.name) for batch in batches]) for f in fields(FaceBatch))
    )


def chosen_of(batch: FaceBatch, rows: Tensor) -> FaceBatch:
    """Some rows of a batch."""
    return FaceBatch(*(getattr(batch, f.name)[rows] for f in fields(FaceBatch)))


def estimate_of(network: FaceRegressor, first: Tensor) -> Estimate:
    """What the network makes of its first layers' output."""
    alb_size = network.sizes[2]
    state, alb, sh = first.split([first.shape[1] - alb_size - SH_SIZE, alb_size, SH_SIZE], 1)
    return network._estimate(state, alb, sh)


if __name__ == "__main__":
    main()
