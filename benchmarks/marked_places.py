"""Where on the head people mark the inner 51 of the 68 points: `photohead/data/marked_68.csv`.

    python benchmarks/marked_places.py --photos PHOTOS --detections FILE.npz --out marked_68.csv

The network reconstructs the photos of Helen and AFW of the split `train`; each point takes the
vertex near its present one whose projections lie nearest to the hand-made points on average, left
and right together. Prints the mean distance on the split `val` before and after, shares of the box.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v3recon.data.augment import AugmentSettings, Placement
from v3recon.data.face_samples import FaceSamples, collate
from v3recon.data.face_table import load_detections, make_table
from v3recon.decode import decode, seen_from_front
from v3recon.face_models.detector_mesh import MIRROR_68
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.networks.face_regressor import FaceRegressor, load_face_regressor
from v3recon.reconstruct.assets import package_weights
from v3recon.types import SH_SIZE

SOURCES = ("helen", "afw")
REACH = 0.12
"""Distance from the present vertex, decimeters, within which another may be chosen."""
MIDDLE = 0.02
"""Vertices nearer to the plane of symmetry, decimeters, may be points of the middle."""


def main() -> None:
    """Choose the places, print the distances, write the file."""
    args = _parse()
    model = load_face_model("photohead")
    weights = args.weights or package_weights("photohead")
    network, _ = load_face_regressor(weights)
    detections = load_detections(args.detections)
    seen = {}
    for split in ("train", "val"):
        table = make_table(args.photos, split, detections)
        rows = np.flatnonzero(np.isin(table.source, SOURCES) & (table.marked_weight.sum(1) >= 60))
        samples = FaceSamples(
            args.photos, table, AugmentSettings(), None, sum(model.sizes) + SH_SIZE
        )
        seen[split] = _seen(network, model, samples, rows[:: args.every if split == "train" else 1])
    chosen = _choose(model, *seen["train"])
    for name, index in (("before", model.landmarks_68), ("after", chosen)):
        distance = _distances(*seen["val"], index)[:, 17:].mean()
        print(f"{name}: {100 * float(distance):.2f} % of the box, {len(seen['val'][0])} photos")
    places = 100 * model.mean_vertices()[chosen[17:]]
    lines = [f"{k + 17},{x:.2f},{y:.2f},{z:.2f}" for k, (x, y, z) in enumerate(places.tolist())]
    args.out.write_text("\n".join(["point,x,y,z", *lines, ""]), encoding="utf-8")


def _seen(
    network: FaceRegressor, model: LinearFaceModel, samples: FaceSamples, rows: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Projected vertices [N, V, 2] and hand-made points [N, 68, 2], crop pixels."""
    points, marked = [], []
    for start in range(0, len(rows), 16):
        batch = collate(
            [
                samples.place(int(row), Placement(), network.input_size)
                for row in rows[start : start + 16]
            ]
        )
        with torch.inference_mode():
            estimate = network.estimates(batch.image.float() / 255)[0][-1]
            decoded = decode(estimate.coeffs, model, Camera(), rotation=estimate.rotation)
        points.append(decoded.points_2d)
        marked.append(batch.marked)
    return torch.cat(points), torch.cat(marked)


def _distances(points: Tensor, marked: Tensor, index: Tensor) -> Tensor:
    """Distances [N, 68] of vertices from hand-made points, shares of each face's box."""
    return (points[:, index] - marked).norm(dim=-1) / _box(marked)


def _box(marked: Tensor) -> Tensor:
    """Size [N, 1] of each face's box."""
    return (marked.amax(1) - marked.amin(1)).prod(-1).sqrt()[:, None]


def _choose(model: LinearFaceModel, points: Tensor, marked: Tensor) -> Tensor:
    """The 68 vertices; the jaw stays."""
    mean, chosen = model.mean_vertices(), model.landmarks_68.clone()
    front = seen_from_front(model)
    if model.group_labels is not None:
        front &= model.group_labels == 0
    box = _box(marked)
    for point in range(17, 68):
        other = int(MIRROR_68[point])
        if other < point:
            continue
        near = front & ((mean - mean[chosen[point]]).norm(dim=-1) < REACH)
        if other == point:
            near &= mean[:, 0].abs() < MIDDLE
        near[chosen[point]] = True
        ids = near.nonzero()[:, 0]
        mirrored = torch.cdist(mean[ids] * mean.new_tensor([-1, 1, 1]), mean).argmin(1)
        cost = sum(
            ((points[:, index] - marked[:, k, None]).norm(dim=-1) / box).mean(0)
            for k, index in ((point, ids), (other, mirrored))
        )
        best = int(torch.as_tensor(cost).argmin())
        chosen[point], chosen[other] = ids[best], mirrored[best]
    return chosen


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--detections", type=Path, required=True, help=".npz of detected points")
    parser.add_argument("--weights", type=Path, help="default: PhotoHead's in the package")
    parser.add_argument("--every", type=int, default=4, help="one photo of so many (default: 4)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
