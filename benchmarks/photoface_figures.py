"""How well PhotoFace fits photos it was not built from.

    python benchmarks/photoface_figures.py --photos DIR --detections FILE.npz

Photos of the split `val` of DIR/index.csv; their detections are made if the file lacks them (which
needs `make build-env`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v3recon.cli.build_face_model import PhotoEntry, read_index
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.fitting.fit_landmarks import LandmarkFit, fit_landmarks
from v3recon.fitting.photoface.detections import detect_photos
from v3recon.fitting.photoface.expressions import LID_PAIRS, LIP_PAIRS
from v3recon.fitting.photoface.landmark_sets import read_points
from v3recon.geometry.affine2d import apply_affine_2d
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.mesh import face_normals

POINTS = 468
FACE_PIXELS = 150.0  # size of the face in the crop, about that of ordinary crops
CAMERA = Camera()


def box_size(points: Tensor) -> Tensor:
    """Square root of width times height of point sets [B, N, 2 or 3]."""
    extent = points[..., :2].amax(1) - points[..., :2].amin(1)
    return extent.prod(1).sqrt()


def crop_around(points: Tensor) -> Tensor:
    """Similarity [B, 2, 3] that centres the points in the crop."""
    factor = FACE_PIXELS / box_size(points)
    middle = (points[..., :2].amax(1) + points[..., :2].amin(1)) / 2
    matrix = torch.zeros(len(points), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = factor
    matrix[:, :, 2] = CAMERA.center - factor[:, None] * middle
    return matrix


def posed(fit: LandmarkFit, model: LinearFaceModel, count: int | None = None) -> Tensor:
    """World vertices of fitted faces."""
    shape = model.vertices(fit.coeffs.id, fit.coeffs.exp)[:, :count]
    return shape @ fit.rotation + fit.coeffs.trans[:, None]


def print_fit(points: Tensor, model: LinearFaceModel) -> None:
    """Distance to detections against the number of identity modes."""
    crop = crop_around(points)
    yaw = fit_landmarks(points, model, to_crop=crop).coeffs.angle[:, 1].abs().rad2deg()
    size = FACE_PIXELS
    for noise in (0.05, 0.03, 0.02, 0.01):
        fit = fit_landmarks(points, model, to_crop=crop, noise=noise)
        world = posed(fit, model, POINTS)
        pixel = CAMERA.focal / (CAMERA.distance - fit.coeffs.trans[:, 2])  # a decimetre, pixels
        scale = crop[:, 0, 0]
        depth = world[..., 2] * pixel[:, None] - points[..., 2] * scale[:, None]
        depth = depth - depth.mean(1, keepdim=True)
        flat = project(world, CAMERA) - apply_affine_2d(points[..., :2], crop)
        total = (flat**2).sum(2) + depth**2
        for name, chosen in (("|yaw| < 30", yaw < 30), ("beyond", yaw >= 30)):
            image = (flat[chosen] ** 2).sum(2).mean().sqrt()
            space = total[chosen].mean().sqrt()
            print(
                f"  noise {noise:.2f}  {name:11s} {int(chosen.sum()):4d} photos:"
                f" {100 * image / size:.2f} % of the face in the image,"
                f" {100 * space / size:.2f} % in 3D ="
                f" {100 * (total[chosen].mean(1).sqrt() / pixel[chosen]).mean():.2f} mm"
            )


def print_landmarks(
    photos: Path, entries: list[PhotoEntry], points: Tensor, model: LinearFaceModel
) -> None:
    """Error of the model's 68 landmarks after a fit to detections."""
    marked = [row for row, entry in enumerate(entries) if entry.landmarks]
    truth = np.stack([read_points(photos / entries[row].landmarks) for row in marked])
    crop = crop_around(points[marked])
    fit = fit_landmarks(points[marked], model, to_crop=crop)
    found = project(posed(fit, model)[:, model.landmarks_68], CAMERA)
    wanted = apply_affine_2d(torch.from_numpy(truth).float(), crop)
    error = (found - wanted).norm(dim=2) / box_size(wanted)[:, None]
    frontal = fit.coeffs.angle[:, 1].abs().rad2deg() < 30
    print(
        f"  {int(frontal.sum())} photos with hand-made points, |yaw| < 30:"
        f" inner 51 {100 * error[frontal, 17:].mean():.2f} %,"
        f" all 68 {100 * error[frontal].mean():.2f} %"
    )


def print_specificity(model: LinearFaceModel, count: int = 100) -> None:
    """Folds and crossings of random identities, and what the named expressions do."""
    generator = torch.Generator().manual_seed(0)
    zero = torch.zeros(1, model.sizes[1])
    neutral = model.vertices(torch.zeros(1, model.sizes[0]), zero)
    reference = face_normals(neutral, model.faces)[0]
    folded, lip_gap = 0, 0.0
    upper, lower = (list(side) for side in zip(*LIP_PAIRS, strict=True))
    for coeffs in torch.randn(count, model.sizes[0], generator=generator).split(20):
        vertices = model.vertices(coeffs, zero.expand(len(coeffs), -1))
        turned = (face_normals(vertices, model.faces) * reference).sum(2) < 0
        folded += int(turned.any(1).sum())
        lip_gap = max(lip_gap, float((vertices[:, upper] - vertices[:, lower]).norm(dim=2).max()))
    print(f"  {count} random identities: {folded} with an inverted triangle,", end="")
    print(f" lips at most {100 * lip_gap:.2f} mm apart")
    upper, lower = (list(side) for side in zip(*LID_PAIRS, strict=True))
    for name in ("neutral", "eyes_closed", "mouth_open"):
        coeffs = model.named_expressions[name][None]
        vertices = model.vertices(torch.zeros(1, model.sizes[0]), coeffs)[0]
        lids = float((vertices[upper] - vertices[lower]).norm(dim=1).mean())
        mouth = float((vertices[13] - vertices[14]).norm())
        print(f"  {name}: lids {100 * lids:.2f} mm apart, lips {100 * mouth:.1f} mm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--detections", type=Path, required=True)
    parser.add_argument("--face-model", default="photoface")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    model = load_face_model(args.face_model)
    held_out = {e.name: e for e in read_index(args.photos, None) if e.split == "val"}
    found = detect_photos(args.photos, sorted(held_out), args.detections)
    points = torch.from_numpy(found.points[:, :POINTS])
    entries = [held_out[name] for name in found.names]
    print(f"{len(entries)} held-out photos with a detected face of {len(held_out)}")
    print_fit(points, model)
    print_landmarks(args.photos, entries, points, model)
    print_specificity(model)


if __name__ == "__main__":
    main()
