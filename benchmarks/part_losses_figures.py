"""Pictures of docs/part_losses.md, from the numbers of part_losses.py and from drawn faces.

python benchmarks/part_losses_figures.py --json result.json --out docs/pictures

No photograph is shown: the fitted mask is rendered from the face model itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
import torch
from part_losses import (
    CAMERA,
    LOSSES,
    PARTS,
    SIZE,
    Mesh,
    Targets,
    _drawn,
    fit,
    make_mesh,
    part_iou,
    summary,
    to_coeffs,
    wrong_starts,
)
from torch import Tensor

from v3recon.decode import decode
from v3recon.face_models.load import load_face_model
from v3recon.face_models.parts import LABEL_COLORS
from v3recon.fitting.part_targets import cut_forehead, part_masks, part_target_statistics
from v3recon.geometry.camera import project
from v3recon.geometry.point_sets import anchor_grid
from v3recon.reconstruct.segment import segment_visible
from v3recon.types import FaceCoeffs

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = np.array(LABEL_COLORS, np.uint8)


def drawn_face(mesh: Mesh, seed: int) -> FaceCoeffs:
    """A random face with an expression and a pose."""
    generator = torch.Generator().manual_seed(seed)
    sizes = mesh.model.sizes
    zero = FaceCoeffs.zeros(1, sizes)
    smile = mesh.model.named_expressions.get("smile", torch.zeros(sizes[1]))
    return FaceCoeffs(
        torch.randn(1, sizes[0], generator=generator) * 0.8,
        smile[None],
        zero.alb,
        torch.deg2rad(torch.tensor([[4.0, -18.0, 6.0]])),
        zero.sh,
        zero.trans,
    )


def labels_of(coeffs: FaceCoeffs, mesh: Mesh) -> np.ndarray:
    decoded = decode(coeffs, mesh.model, CAMERA)
    return segment_visible(decoded, mesh.model, CAMERA, (SIZE, SIZE))[0].numpy()


def targets_of(labels: np.ndarray, grid: int = 28) -> Targets:
    anchors = anchor_grid((SIZE, SIZE), (grid, grid))
    masks = part_masks(cut_forehead(labels))
    found = part_target_statistics(masks, anchors.numpy())
    generator = np.random.default_rng(0)
    arrays = (
        labels,
        masks,
        np.zeros_like(labels, bool),
        found.statistics,
        found.present.astype(np.float32),
        np.stack([_drawn(mask, generator) for mask in masks]),
    )
    return Targets(*(torch.from_numpy(np.asarray(a)[None]) for a in arrays), anchors)


def picture_fits(mesh: Mesh, settings: dict, out: Path) -> None:
    """One drawn mask, the start, and where each loss ends."""
    target = labels_of(drawn_face(mesh, 3), mesh)
    targets = targets_of(target)
    start = {k: v[:1] for k, v in wrong_starts(4, 5).items()}
    begin = {"id": torch.zeros(1, mesh.model.sizes[0]), "exp": torch.zeros(1, mesh.model.sizes[1])}
    panels = [("mask to fit", target)]
    coeffs = to_coeffs({**begin, **start}, mesh.model.sizes)
    panels.append(_panel("start", coeffs, mesh, targets))
    for name, variants in LOSSES.items():
        if name not in settings:
            continue
        row = settings[name]
        loss = variants[row["variant"]]
        coeffs, _ = fit(loss, mesh, targets, start, 100, row["rate"], row["prior"])
        panels.append(_panel(name, coeffs, mesh, targets))
    columns = (len(panels) + 1) // 2
    figure, axes = plt.subplots(2, columns, figsize=(2.1 * columns, 5.4), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, labels) in zip(axes.flat, panels, strict=False):
        axis.imshow(COLORS[labels][20:210, 25:200])
        axis.contour(
            np.stack([target == p + 1 for p in range(PARTS)]).any(0)[20:210, 25:200],
            [0.5],
            colors="white",
            linewidths=0.8,
        )
        axis.set_title(title, fontsize=8)
    figure.savefig(out / "part_losses_fits.png", dpi=110)


def _panel(name: str, coeffs: FaceCoeffs, mesh: Mesh, targets: Targets) -> tuple[str, np.ndarray]:
    score = summary(part_iou(coeffs, mesh, targets))["mean_8"]
    return f"{name}\nIoU {100 * score:.0f} %", labels_of(coeffs, mesh)


def picture_landscape(mesh: Mesh, settings: dict, out: Path) -> None:
    """Each loss while the true face slides sideways over its own mask."""
    face = drawn_face(mesh, 3)
    targets = targets_of(labels_of(face, mesh))
    code = torch.cat([face.id, face.exp], 1)[0]
    decoded = decode(face, mesh.model, CAMERA)
    shape = (mesh.mean + mesh.basis @ code) @ decoded.rotation[0] + face.trans
    points = project(shape, CAMERA)[None]
    visible = (mesh.normals @ decoded.rotation[0])[None, :, 2].clamp_min(0)
    shifts = np.arange(-80, 81, 4)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    for name in ("PRDL", "Chamfer", "density-aware Chamfer", "ICP, both ways", "silhouette IoU"):
        if name not in settings:
            continue
        loss = LOSSES[name][settings[name]["variant"]]
        values = [_at(loss, points, visible, mesh, targets, float(s)) for s in shifts]
        axes[0].plot(shifts, np.array(values) / max(values), label=name)
        slope = np.abs(np.gradient(np.array(values) / max(values), shifts))
        axes[1].plot(shifts, slope, label=name)
    axes[0].set(xlabel="shift (pixels)", ylabel="loss / largest", title="value")
    axes[1].set(xlabel="shift (pixels)", ylabel="per pixel", title="slope", ylim=(0, 0.05))
    axes[1].legend(fontsize=6, loc="upper center")
    figure.tight_layout()
    figure.savefig(out / "part_losses_landscape.png", dpi=110)


@torch.no_grad()
def _at(loss, points: Tensor, visible: Tensor, mesh: Mesh, targets: Targets, shift: float) -> float:
    return float(loss(points + torch.tensor([shift, 0.0]), visible, mesh, targets))


def picture_bars(results: dict, out: Path) -> None:
    """Mean IoU of every loss, inner parts and skin, with the spread over faces."""
    names = [name for name in results if name != "start"]
    figure, axis = plt.subplots(figsize=(8, 3.4))
    place = np.arange(len(names))
    inner = [100 * results[name]["mean_7"] for name in names]
    skin = [100 * results[name]["skin"] for name in names]
    axis.bar(place - 0.2, inner, 0.4, label="mean of seven inner parts", color="#6a8fd0")
    axis.bar(place + 0.2, skin, 0.4, label="skin", color="#8cc49a")
    for x, value in zip(place, inner, strict=True):
        axis.text(x - 0.2, value + 0.8, f"{value:.1f}", ha="center", fontsize=7)
    for x, value in zip(place, skin, strict=True):
        axis.text(x + 0.2, value + 0.8, f"{value:.1f}", ha="center", fontsize=7)
    axis.set_xticks(
        place, [n.replace(", ", ",\n").replace("aware ", "aware\n") for n in names], fontsize=7
    )
    axis.set(ylabel="IoU (%)", ylim=(0, 105))
    axis.axhline(100 * results["start"]["mean_7"], color="gray", linewidth=0.8, linestyle="--")
    axis.legend(fontsize=7, loc="upper right", ncols=2)
    figure.tight_layout()
    figure.savefig(out / "part_losses_iou.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="written by part_losses.py")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(options.json.read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    picture_bars(results, options.out)
    mesh = make_mesh(load_face_model())
    picture_landscape(mesh, results, options.out)
    picture_fits(mesh, results, options.out)


if __name__ == "__main__":
    main()
