"""Fitting a face to a part mask alone, from a wrong start, with every part loss.

After figures 8 and 9 of Wang et al., 3DDFA_V3 (CVPR 2024), with numbers: identity, expression and
pose of the face model are moved by Adam, from the mean face in a perturbed pose, to agree with one
hand-made CelebAMask-HQ mask; nothing else is known. Every loss gets the same steps, the same
points, the same start, and the learning rate (and softness) that served it best on other faces.

python benchmarks/part_losses.py --photos ../shared/photos --json result.json
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from scipy.spatial import Delaunay, cKDTree
from torch import Tensor

from v3recon.decode import decode
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.fitting.part_targets import (
    cut_forehead,
    part_masks,
    part_target_statistics,
)
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.point_sets import anchor_grid, farthest_point_sampling
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.io.celebamask import OCCLUDER_CLASSES, labels_from_celebamask, repair_sides
from v3recon.losses.chamfer import chamfer_loss, density_aware_chamfer_loss, icp_loss
from v3recon.losses.part_distribution import (
    above_brows,
    covered_by,
    part_distribution_loss,
    part_index_sets,
)
from v3recon.losses.silhouette import silhouette_iou_loss, soft_silhouette
from v3recon.reconstruct.segment import segment_visible
from v3recon.types import FaceCoeffs

CAMERA = Camera()
SIZE = CAMERA.image_size
PARTS = len(PART_NAMES)
SKIN = PART_NAMES.index("skin")
INNER = [p for p in range(PARTS) if p != SKIN]
LIMIT = 3.0  # standard deviations a coefficient can reach
# Pixels that one unit of each parameter moves the face by are made alike.
STEP_SIZES = {"id": 1.0, "exp": 1.0, "angle": 0.1, "shift": 0.1, "depth": 1.0}


@dataclass(frozen=True)
class Mesh:
    """What of the face model the losses look at; rows of a reduced basis."""

    model: LinearFaceModel
    mean: Tensor  # [N, 3]
    basis: Tensor  # [N, 3, K]
    normals: Tensor  # [N, 3] of the mean shape
    index: Tensor  # [P, M] rows of each part's points, -1 = none
    triangles: tuple[Tensor, ...]  # per part [F, 3] rows, for silhouettes


@dataclass(frozen=True)
class Targets:
    """Hand-made masks of a batch of faces, crop frame."""

    labels: Tensor  # [B, H, W] parts, whole skin, for scoring
    masks: Tensor  # [B, P, H, W] bool, forehead cut, for fitting
    occluders: Tensor  # [B, H, W] bool
    statistics: Tensor  # [B, P, 3, A]
    part_weights: Tensor  # [B, P], 0 where a part is absent
    pixels: Tensor  # [B, P, M, 2] pixels drawn from the masks
    anchors: Tensor  # [A, 2]

    def __getitem__(self, items: slice) -> Targets:
        return Targets(
            *(getattr(self, name)[items] for name in list(self.__dict__)[:-1]), self.anchors
        )

    def __len__(self) -> int:
        return len(self.labels)


def make_mesh(model: LinearFaceModel, points: int = 200) -> Mesh:
    sizes = model.sizes
    dense = model.vertices(torch.zeros(1, sizes[0]), torch.zeros(1, sizes[1]))
    normals, dense = model.normals(dense)[0], dense[0]
    keep = ~above_brows(model.part_labels, dense)
    index = part_index_sets(model.part_labels, dense, points, keep)
    coarse = [_coarse_triangles(dense, model.part_labels, keep, part) for part in range(PARTS)]
    wanted = torch.cat([index[index >= 0], *(t.flatten() for t in coarse)]).unique()
    row = torch.full((model.vertex_count,), -1)
    row[wanted] = torch.arange(len(wanted))
    mean, basis = model.shape_basis_at(wanted)
    rows = torch.where(index >= 0, row[index.clamp_min(0)], -1)
    return Mesh(model, mean, basis, normals[wanted], rows, tuple(row[t] for t in coarse))


def _coarse_triangles(dense: Tensor, labels: Tensor, keep: Tensor, part: int) -> Tensor:
    """A coarse triangulation of a part: dense triangles would make silhouettes too slow."""
    inside = ((labels == part + 1) & keep).nonzero()[:, 0]
    count = 70 if part == SKIN else 24
    chosen = inside[farthest_point_sampling(dense[inside], count)]
    front = dense[:, :2].numpy()
    triangles = chosen.numpy()[Delaunay(front[chosen]).simplices]
    owner = cKDTree(front).query(front[triangles].mean(1))[1]
    mine = (labels[owner] == part + 1) & keep[owner]
    return torch.from_numpy(triangles)[mine].long()


def load_targets(photos: Path, names: list[str], mesh: Mesh, grid: int = 28) -> Targets:
    """Masks warped so that their inner parts' box lies where the mean face has it."""
    zero = FaceCoeffs.zeros(1, mesh.model.sizes)
    points = decode(zero, mesh.model, CAMERA).points_2d[0]
    inner = (mesh.model.part_labels > 0) & (mesh.model.part_labels <= SKIN)
    low, high = points[inner].amin(0).numpy(), points[inner].amax(0).numpy()
    anchors = anchor_grid((SIZE, SIZE), (grid, grid))
    generator = np.random.default_rng(0)
    columns: list[list] = [[] for _ in range(6)]
    for name in names:
        classes = np.asarray(Image.open(photos / name))
        rows, cols = np.nonzero(np.isin(classes, (2, 4, 5, 6, 7, 11, 12)))
        box_low = np.array([cols.min(), rows.min()], float)
        box_high = np.array([cols.max(), rows.max()], float)
        scale = math.sqrt(np.prod(high - low) / np.prod(box_high - box_low))
        matrix = np.eye(2, 3) * scale
        matrix[:, 2] = (low + high) / 2 - scale * (box_low + box_high) / 2
        warped = cv2.warpAffine(
            classes, matrix, (SIZE, SIZE), flags=cv2.INTER_NEAREST, borderValue=0
        )
        labels = repair_sides(labels_from_celebamask(warped))
        masks = part_masks(cut_forehead(labels))
        targets = part_target_statistics(masks, anchors.numpy())
        columns[0].append(labels)
        columns[1].append(masks)
        columns[2].append(np.isin(warped, OCCLUDER_CLASSES))
        columns[3].append(targets.statistics)
        columns[4].append(targets.present.astype(np.float32))
        columns[5].append(np.stack([_drawn(mask, generator) for mask in masks]))
    return Targets(*(torch.from_numpy(np.stack(c)) for c in columns), anchors)


def _drawn(mask: np.ndarray, generator: np.random.Generator, count: int = 300) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.zeros((count, 2), np.float32)
    pick = generator.choice(len(rows), count, replace=len(rows) < count)
    return np.stack([columns[pick], rows[pick]], 1).astype(np.float32)


def wrong_starts(count: int, seed: int) -> dict[str, Tensor]:
    """Pose of the mean face, far from the truth; parameters before `STEP_SIZES`."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(size: int, *reach: float) -> Tensor:
        return (torch.rand(count, size, generator=generator) * 2 - 1) * torch.tensor(reach)

    degrees = uniform(3, 12.0, 25.0, 15.0)  # pitch, yaw, roll
    return {
        "angle": torch.deg2rad(degrees) / STEP_SIZES["angle"],
        "shift": uniform(2, 0.12, 0.12) / STEP_SIZES["shift"],  # 12 pixels
        "depth": uniform(1, 1.0) / STEP_SIZES["depth"],  # 10 % in size
    }


def to_coeffs(parameters: dict[str, Tensor], sizes: tuple[int, int, int]) -> FaceCoeffs:
    batch = len(parameters["angle"])
    zero = FaceCoeffs.zeros(batch, sizes)
    bounded = {k: LIMIT * torch.tanh(parameters[k] / LIMIT) for k in ("id", "exp")}
    trans = torch.cat(
        [
            parameters["shift"] * STEP_SIZES["shift"],
            parameters["depth"] * STEP_SIZES["depth"],
        ],
        1,
    )
    angle = parameters["angle"] * STEP_SIZES["angle"]
    return FaceCoeffs(bounded["id"], bounded["exp"], zero.alb, angle, zero.sh, trans)


Loss = Callable[[Tensor, Tensor, Mesh, Targets], Tensor]
"""(points_2d [B, N, 2], visible [B, N], mesh, targets) -> scalar.

`visible` is 0 for hidden points, else the cosine of the surface's tilt: points spread evenly over
the surface then stand for equal areas of the picture, as the mask's pixels do.
"""


def prdl(statistic_weights: tuple[float, float, float]) -> Loss:
    def loss(points: Tensor, visible: Tensor, mesh: Mesh, targets: Targets) -> Tensor:
        return part_distribution_loss(
            points,
            mesh.index,
            targets.statistics,
            targets.anchors,
            part_weights=targets.part_weights,
            statistic_weights=statistic_weights,
            vertex_weights=visible,
        )

    return loss


def by_part(pair_loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Loss:
    """Sum over the parts of a loss of two point sets."""

    def loss(points: Tensor, visible: Tensor, mesh: Mesh, targets: Targets) -> Tensor:
        total = points.new_zeros(())
        for part in range(PARTS):
            rows = mesh.index[part]
            rows = rows[rows >= 0]
            value = pair_loss(points[:, rows], targets.pixels[:, part], visible[:, rows] > 0)
            total = total + (value * targets.part_weights[:, part]).mean()
        return total

    return loss


def silhouette(sigma: float) -> Loss:
    def loss(points: Tensor, visible: Tensor, mesh: Mesh, targets: Targets) -> Tensor:
        total = points.new_zeros(())
        free = ~targets.occluders
        for part in range(PARTS):
            faces = mesh.triangles[part]
            mask = targets.masks[:, part]
            pixels = _window(points.detach()[:, faces.flatten()], mask, 20 if part == SKIN else 14)
            coverage = soft_silhouette(points, faces, pixels, sigma)
            counted = covered_by(pixels, free).float()
            inside = covered_by(pixels, mask).float()
            value = silhouette_iou_loss(coverage * counted, inside * counted)
            total = total + (value * targets.part_weights[:, part]).mean()
        return total

    return loss


def _window(points: Tensor, mask: Tensor, side: int, margin: float = 8.0) -> Tensor:
    """[B, side^2, 2] sample positions over the box of a part and its mask."""
    far = 10.0 * SIZE
    steps = torch.linspace(0, 1, side)
    axes = []
    for axis, other in ((0, 1), (1, 2)):  # x: columns that hold mask pixels; y: rows
        used = mask.any(other)
        position = torch.arange(SIZE).float().expand_as(used)
        low = torch.where(used, position, far).amin(1).minimum(points[..., axis].amin(1))
        high = torch.where(used, position, -far).amax(1).maximum(points[..., axis].amax(1))
        low, high = low - margin, high + margin
        axes.append(low[:, None] + (high - low)[:, None] * steps)
    x = axes[0][:, None, :].expand(-1, side, -1)
    y = axes[1][:, :, None].expand(-1, -1, side)
    return torch.stack([x, y], -1).flatten(1, 2)


def chamfer(points: Tensor, pixels: Tensor, visible: Tensor) -> Tensor:
    return chamfer_loss(points, pixels, visible)


def density_aware(alpha: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda points, pixels, visible: density_aware_chamfer_loss(
        points, pixels, alpha, visible
    )


def icp(direction: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda points, pixels, visible: icp_loss(
        points,
        pixels,
        visible,
        direction=direction,  # type: ignore[arg-type]
    )


# name -> variants, of which tuning chooses one
LOSSES: dict[str, dict[str, Loss]] = {
    "PRDL": {"weights 1 1 1": prdl((1, 1, 1)), "weights 1 .3 .3": prdl((1, 0.3, 0.3))},
    "PRDL, min only": {"min": prdl((1, 0, 0))},
    "PRDL, mean only": {"mean": prdl((0, 0, 1))},
    "Chamfer": {"squared": by_part(chamfer)},
    "density-aware Chamfer": {
        "alpha 0.03": by_part(density_aware(0.03)),
        "alpha 0.2": by_part(density_aware(0.2)),
    },
    "ICP, face to mask": {"distance": by_part(icp("to_target"))},
    "ICP, mask to face": {"distance": by_part(icp("from_target"))},
    "ICP, both ways": {"distance": by_part(icp("both"))},
    "silhouette IoU": {"sigma 2": silhouette(2.0), "sigma 20": silhouette(20.0)},
}


def fit(
    loss: Loss,
    mesh: Mesh,
    targets: Targets,
    start: dict[str, Tensor],
    steps: int,
    rate: float,
    prior: float,
    watch: tuple[int, ...] = (),
) -> tuple[FaceCoeffs, dict[int, FaceCoeffs]]:
    """Adam with a cosine schedule; `prior` weighs the mean squared coefficient against a loss
    that starts at one."""
    sizes = mesh.model.sizes
    batch = len(targets)
    parameters = {
        "id": torch.zeros(batch, sizes[0]),
        "exp": torch.zeros(batch, sizes[1]),
        **{k: v.clone() for k, v in start.items()},
    }
    for value in parameters.values():
        value.requires_grad_()
    optimizer = torch.optim.Adam(parameters.values(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: 0.05 + 0.95 * (1 + math.cos(math.pi * s / steps)) / 2
    )
    unit, seen = None, {}
    count = len(mesh.mean)
    flat = mesh.basis.reshape(3 * count, -1)
    for step in range(steps):
        coeffs = to_coeffs(parameters, sizes)
        if step in watch:
            seen[step] = coeffs.detach()
        code = torch.cat([coeffs.id, coeffs.exp], 1)
        shape = torch.addmm(mesh.mean.reshape(1, -1), code, flat.T).reshape(batch, count, 3)
        rotation = euler_to_matrix(coeffs.angle)
        points = project(shape @ rotation + coeffs.trans[:, None], CAMERA)
        facing = (mesh.normals @ rotation.detach())[..., 2].clamp_min(0)
        visible = facing * ~covered_by(points, targets.occluders)
        value = loss(points, visible, mesh, targets)
        unit = value.detach() if unit is None else unit
        optimizer.zero_grad()
        (value / unit + prior * (code**2).mean()).backward()
        optimizer.step()
        schedule.step()
    return to_coeffs(parameters, sizes).detach(), seen


def part_iou(coeffs: FaceCoeffs, mesh: Mesh, targets: Targets) -> np.ndarray:
    """[B, 8] IoU of what is seen of each part with the mask, NaN where the mask has none.

    Pixels under hair, glasses or a hat are not counted.
    """
    scores = np.full((len(targets), PARTS), np.nan)
    for b in range(len(targets)):
        decoded = decode(coeffs[b : b + 1], mesh.model, CAMERA)
        seen = segment_visible(decoded, mesh.model, CAMERA, (SIZE, SIZE))[0]
        free = ~targets.occluders[b]
        for part in range(PARTS):
            ours = (seen == part + 1) & free
            truth = (targets.labels[b] == part + 1) & free
            if truth.any():
                scores[b, part] = float((ours & truth).sum()) / float((ours | truth).sum())
    return scores


def summary(scores: np.ndarray) -> dict[str, float]:
    each = np.nanmean(scores, 0)
    row = {name: float(each[p]) for p, name in enumerate(PART_NAMES)}
    row["mean_7"] = float(each[INNER].mean())
    row["mean_8"] = float(each.mean())
    return row


def choose_faces(photos: Path, tuning: int, testing: int) -> tuple[list[str], list[str]]:
    """Masks for tuning (train split) and testing (val split, filled up from train)."""
    rows = []
    with open(photos / "index.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["mask"]]
    val = [row["mask"] for row in rows if row["split"] == "val"]
    train = [row["mask"] for row in rows if row["split"] == "train"]
    complete = []
    for name in (*val, *train):
        classes = np.unique(np.asarray(Image.open(photos / name)))
        if set(range(1, 13)) - {3, 8, 9, 10} <= set(classes.tolist()):
            complete.append(name)
        if len(complete) >= tuning + testing and name in train:
            break
    return complete[testing : testing + tuning], complete[:testing]


def run(
    losses: dict[str, dict[str, Loss]],
    mesh: Mesh,
    tune: Targets,
    test: Targets,
    steps: int,
    watch: tuple[int, ...],
    only: list[str],
    rates: list[float],
    priors: list[float],
    record: Callable[[dict], object],
) -> dict[str, dict]:
    results: dict[str, dict] = {}
    tune_start, test_start = wrong_starts(len(tune), 1), wrong_starts(len(test), 2)
    start = {"id": torch.zeros(len(test), mesh.model.sizes[0])}
    start["exp"] = torch.zeros(len(test), mesh.model.sizes[1])
    before = part_iou(to_coeffs({**start, **test_start}, mesh.model.sizes), mesh, test)
    results["start"] = {"scores": before.tolist(), **summary(before)}
    print_row("start", results["start"], "")
    for name, variants in losses.items():
        if only and name not in only:
            continue
        begin = time.process_time()
        best = None
        trials = {}
        for variant, loss in variants.items():
            for prior in priors:
                for rate in rates:
                    coeffs, _ = fit(loss, mesh, tune, tune_start, steps, rate, prior)
                    score = summary(part_iou(coeffs, mesh, tune))["mean_8"]
                    trials[f"{variant}, rate {rate:g}, prior {prior:g}"] = score
                    if best is None or score > best[0]:
                        best = (score, variant, rate, prior)
        assert best is not None
        _, variant, rate, prior = best
        middle = time.process_time()
        pieces, seen = [], {step: [] for step in watch}
        for first in range(0, len(test), 60):
            items = slice(first, first + 60)
            begin_at = {k: v[items] for k, v in test_start.items()}
            coeffs, at = fit(
                variants[variant], mesh, test[items], begin_at, steps, rate, prior, watch
            )
            pieces.append(part_iou(coeffs, mesh, test[items]))
            for step, value in at.items():
                seen[step].append(part_iou(value, mesh, test[items]))
        scores = np.concatenate(pieces)
        results[name] = {
            "variant": variant,
            "rate": rate,
            "prior": prior,
            "trials": trials,
            "scores": scores.tolist(),
            "by_step": {s: summary(np.concatenate(v)) for s, v in seen.items()},
            "cpu_seconds_tuning": middle - begin,
            "cpu_seconds_testing": time.process_time() - middle,
            **summary(scores),
        }
        note = f"{variant}, rate {rate:g}, prior {prior:g}, {time.process_time() - begin:.0f} s"
        print_row(name, results[name], note)
        record(results)
    return results


def print_row(name: str, row: dict, note: str) -> None:
    values = " ".join(f"{100 * row[part]:5.1f}" for part in PART_NAMES)
    print(
        f"{name:22s} {values} | {100 * row['mean_7']:5.1f} {100 * row['mean_8']:5.1f}  {note}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--faces", type=int, default=54)
    parser.add_argument("--tuning-faces", type=int, default=6)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", nargs="*", default=[], help="names of losses")
    parser.add_argument("--watch", type=int, nargs="*", default=[])
    parser.add_argument("--face-model", default="photohead")
    parser.add_argument("--rates", type=float, nargs="*", default=[0.1, 0.3])
    parser.add_argument("--priors", type=float, nargs="*", default=[0.001, 0.01])
    parser.add_argument("--skin-weight", type=float, default=1.0, help="other parts weigh 1")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mesh = make_mesh(load_face_model(options.face_model))
    tune_names, test_names = choose_faces(options.photos, options.tuning_faces, options.faces)
    tune = load_targets(options.photos, tune_names, mesh)
    test = load_targets(options.photos, test_names, mesh)
    weights = torch.ones(PARTS)
    weights[SKIN] = options.skin_weight
    tune, test = (replace(t, part_weights=t.part_weights * weights) for t in (tune, test))
    print(f"{len(test)} faces ({len(tune)} others for tuning), {options.steps} steps, IoU in %")
    print(f"{'':22s} " + " ".join(f"{n[:5]:>5s}" for n in PART_NAMES) + " | mean7 mean8")

    def record(results: dict) -> None:
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))

    watch = tuple(options.watch)
    run(
        LOSSES,
        mesh,
        tune,
        test,
        options.steps,
        watch,
        options.only,
        options.rates,
        options.priors,
        record,
    )


if __name__ == "__main__":
    main()
