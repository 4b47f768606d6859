"""Learn the Gaussian mixtures of `losses.photometric.skin_attention` from hand-made masks.

python benchmarks/skin_color.py --photos ../shared/photos     (prints the constants and the scores)
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from v3recon.losses.photometric import rgb_to_ycbcr, skin_attention

SKIN_CLASSES = (1, 2)  # CelebAMask-HQ: skin, nose
LEFT_OUT = (8, 9, 17)  # ears and neck: skin as well, but not the face


def load(photos: Path, split: str, limit: int, generator: np.random.Generator):
    """Pixels [N, 3] RGB 0…1 of skin and of everything else, 300 of each a photo."""
    with open(photos / "index.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["mask"] and row["split"] == split]
    skin, other = [], []
    for row in rows[:limit]:
        image = np.asarray(Image.open(photos / row["file"]).convert("RGB")) / 255
        classes = np.asarray(Image.open(photos / row["mask"]))
        mask = np.isin(classes, SKIN_CLASSES)
        rest = ~mask & ~np.isin(classes, LEFT_OUT)
        for pixels, kept in ((image[mask], skin), (image[rest], other)):
            kept.append(pixels[generator.choice(len(pixels), min(300, len(pixels)), False)])
    return np.concatenate(skin), np.concatenate(other)


def fit_mixture(samples: np.ndarray, components: int, generator: np.random.Generator):
    """Expectation maximisation; weights [K], means [K, 3], covariances [K, 3, 3]."""
    means = samples[generator.choice(len(samples), components, False)]
    covariances = np.stack([np.cov(samples.T)] * components)
    weights = np.full(components, 1 / components)
    for _ in range(60):
        logs = []
        for k in range(components):
            offset = samples - means[k]
            mahalanobis = (offset @ np.linalg.inv(covariances[k]) * offset).sum(1)
            logs.append(
                np.log(weights[k]) - 0.5 * (mahalanobis + np.linalg.slogdet(covariances[k])[1])
            )
        share = np.exp(np.array(logs) - np.max(logs, 0))
        share /= share.sum(0)
        weights = share.mean(1)
        means = share @ samples / share.sum(1, keepdims=True)
        for k in range(components):
            offset = samples - means[k]
            covariances[k] = (share[k][:, None] * offset).T @ offset / share[k].sum()
            covariances[k] += 1e-6 * np.eye(3)
    return weights, means, covariances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    pixels = load(options.photos, "train", 200, generator)
    for name, rgb in zip(("_SKIN", "_OTHER"), pixels, strict=True):
        image = torch.from_numpy(rgb.T[None, :, :, None])
        samples = rgb_to_ycbcr(image)[0, :, :, 0].T.numpy()
        weights, means, covariances = fit_mixture(samples, 3, generator)
        if name == "_SKIN":  # a rare, wide component (colored light, make-up) would claim grass
            kept = weights > 0.1
            weights, means, covariances = weights[kept], means[kept], covariances[kept]
        else:  # colors seen too rarely in portraits
            weights = np.append(weights, 0.2)
            means = np.append(means, [[0.5, 0.0, 0.0]], 0)
            covariances = np.append(covariances, [np.diag([0.16, 0.04, 0.04])], 0)
        weights = weights / weights.sum()
        print(f"{name} = (")
        for k in range(len(weights)):
            mean = tuple(float(v) for v in means[k].round(4))
            upper = tuple(float(v) for v in covariances[k][np.triu_indices(3)].round(6))
            print(f"    ({weights[k]:.4f}, {mean}, {upper}),")
        print(")")
    skin, other = load(options.photos, "val", 54, generator)
    for name, rgb in (("skin", skin), ("other", other)):
        value = skin_attention(torch.from_numpy(rgb.T[None, :, :, None]).float()).numpy()
        print(
            f"held-out {name}: mean {value.mean():.3f}, above one half {(value > 0.5).mean():.3f}"
        )


if __name__ == "__main__":
    main()
