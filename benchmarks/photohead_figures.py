"""Figures of docs/photohead.md: what the head model reaches on photos and heads it was not made of.

python benchmarks/photohead_figures.py --photos PHOTOS --head HEAD [--face-model FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from v3recon.decode import decode
from v3recon.face_models.landmarks import march_contour, marched_landmarks_68
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.io.celebamask import read_celebamask
from v3recon.io.photo_index import VISIBLE, read_photo_index, read_points
from v3recon.photohead import part_votes
from v3recon.photohead.detections import detect_photos
from v3recon.photohead.photo_fits import fit_photos
from v3recon.photohead.registration import Surface, closest_points
from v3recon.photohead.scan_model import read_scan_model
from v3recon.photohead.shape import field_frame

_SAMPLES, _FIT_ROUNDS = 1500, 25
_FAR = 0.5  # millimeters
NOISES = (0.01, 0.02, 0.03)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--face-model", default="photohead")
    parser.add_argument("--detections", type=Path, required=True)
    args = parser.parse_args()
    model = load_face_model(args.face_model)
    print(f"| {args.face_model}, {model.content_hash} | |\n|---|---|")
    unseen_heads(model, args.head)
    entries = [e for e in read_photo_index(args.photos) if e.split == "val"]
    found = detect_photos(args.photos, [e.file for e in entries], args.detections, 1)
    detected = dict(zip(found.names, found.points[:, :468], strict=True))
    entries = [e for e in entries if e.file in detected]
    points = np.stack([detected[e.file] for e in entries])
    detector_error(model, points)
    hand_marked(model, args.photos, entries, points)
    part_overlap(model, args.photos, entries, points)


def unseen_heads(model, head, count=12):
    """Random heads of all 100 modes of the scans, each fitted by closest points."""
    scans = read_scan_model(head)
    rotation, shift = field_frame(scans, head / "bfm_68_points_mm.csv")
    generator = np.random.default_rng(11)
    faces = scans.face_ids
    zero = torch.zeros(1, model.sizes[1])
    mean_error, fit_error = [], []
    normal = model.faces.numpy()
    skin = (model.group_labels[model.faces] < 3).all(1).numpy()
    control = len(model.mean_shape)
    dense_mean = model.subdivision @ model.mean_shape
    dense_basis = (model.subdivision @ model.id_basis.reshape(control, -1)).unflatten(1, (3, 80))
    for _ in range(count):
        coeffs = generator.standard_normal(len(scans.modes))
        target = (scans.mean + np.tensordot(coeffs, scans.modes, 1)) @ rotation + shift
        target = target[faces] / 10
        near = np.linalg.norm(target - target[target[:, 2].argmax()], axis=1) < 0.75
        target = generator.permutation(target[near])[:_SAMPLES]
        identity = torch.zeros(1, 80)
        for step in range(_FIT_ROUNDS):
            vertices = model.vertices(identity, zero)[0].double().numpy()
            surface = Surface.of(vertices, normal[skin])
            closest = closest_points(surface, target)
            distance = np.linalg.norm(closest.points - target, axis=1) * 100
            if step == 0:
                mean_error.append(np.median(distance))
            corners = normal[skin][closest.triangle]
            weights = torch.from_numpy(closest.bary).float()
            mean = (dense_mean[corners] * weights[..., None]).sum(1)
            basis = (dense_basis[corners] * weights[..., None, None]).sum(1)
            toward = torch.from_numpy(closest.normals).float()
            rows = torch.einsum("nx,nxk->nk", toward, basis)
            right = (toward * (torch.from_numpy(target).float() - mean)).sum(1)
            rows = torch.cat([rows, 0.3 * basis.reshape(-1, 80)])
            slide = 0.3 * (torch.from_numpy(target).float() - mean).reshape(-1)
            right = torch.cat([right, slide])
            # Nostrils and lids of the two meshes end at different depths: far points count less.
            trust = torch.from_numpy(1 / (1 + (distance / _FAR) ** 2)).float()
            trust = torch.cat([trust, trust.repeat_interleave(3)])
            rows, right = rows * trust[:, None], right * trust
            gram = rows.T @ rows + 1e-4 * torch.eye(80)
            identity = torch.linalg.solve(gram, rows.T @ right)[None]
        fit_error.append(np.median(distance))
    print(
        f"| unseen heads of the scans' statistics, median of {count}: mean face | "
        f"{np.median(mean_error):.2f} mm |"
    )
    print(f"| the same, best fit | {np.median(fit_error):.2f} mm |")


def detector_error(model, points):
    size = np.sqrt(np.prod(np.ptp(points[..., :2], axis=1), axis=1))
    for noise in NOISES:
        fits = fit_photos(points, model, noise=noise)
        residual = projected_residual(fits, model, points)
        share = np.linalg.norm(residual, axis=2).mean(1) / size
        print(
            f"| detector's points of {len(points)} held-out photos, noise {noise:g} dm: mean "
            f"distance | {100 * np.median(share):.2f} % |"
        )


def projected_residual(fits, model, points):
    """Detected minus projected points [N, 468, 2], the photos' pixels."""
    camera = Camera()
    with torch.no_grad():
        decoded = decode(fits.coeffs, model, camera, rotation=fits.rotation)
        from v3recon.geometry.camera import project

        places = project(model.detector_points.of(decoded.vertices), camera)
        scale = fits.to_crop[:, 0, 0][:, None, None]
        flat = (places - fits.to_crop[:, None, :, 2]) / scale
    return points[..., :2] - flat.numpy()


def hand_marked(model, photos, entries, points):
    """The 68 points of fits to the detector against hand-made visible ones, by source and yaw."""
    fits = fit_photos(points, model, noise=0.02)
    camera = Camera()
    with torch.no_grad():
        decoded = decode(fits.coeffs, model, camera, rotation=fits.rotation)
        contour = march_contour(
            decoded.model_vertices, fits.rotation, fits.coeffs.trans, model, camera
        )
        marched = marched_landmarks_68(contour, model)
        flat = decoded.points_2d.gather(1, marched[..., None].expand(-1, -1, 2))
        flat = (flat - fits.to_crop[:, None, :, 2]) / fits.to_crop[:, 0, 0][:, None, None]
    yaw = np.abs(fits.angles[:, 1])
    for name, sources, low, high in (
        ("Helen + AFW", ("helen", "afw"), 0, 90),
        ("AFLW, yaw to 30", ("aflw",), 0, 30),
        ("AFLW, 30-60", ("aflw",), 30, 60),
        ("AFLW, above 60", ("aflw",), 60, 91),
    ):
        inner, jaw = [], []
        for number, entry in enumerate(entries):
            if entry.source not in sources or not low <= yaw[number] < high:
                continue
            hand = read_points(photos, entry)
            if hand is None:
                continue
            seen = np.isfinite(hand.points_68).all(1) & (hand.visibility >= VISIBLE)
            if seen[17:].sum() < 10:
                continue
            size = np.sqrt(np.prod(np.ptp(hand.points_68[seen], axis=0)))
            off = hand.points_68 - flat[number].numpy()
            off = off - np.median(off[17:][seen[17:]], axis=0)
            distance = np.linalg.norm(off, axis=1) / size
            inner.append(distance[17:][seen[17:]].mean())
            if seen[:17].any():
                jaw.append(distance[:17][seen[:17]].mean())
        if inner:
            print(
                f"| fits to the detector against hand-made visible points, {name} "
                f"({len(inner)} photos): inner, jaw | {100 * np.mean(inner):.2f}, "
                f"{100 * np.mean(jaw):.2f} % |"
            )


def part_overlap(model, photos, entries, points):
    """IoU of the eight parts of fits with the hand-made validation masks."""
    rows = [k for k, e in enumerate(entries) if e.mask]
    fits = fit_photos(points[rows], model, noise=0.02)
    overlaps = []
    for place, row in enumerate(rows):
        mask = read_celebamask(photos / entries[row].mask)
        shape = (mask.labels.shape[0], mask.labels.shape[1])
        back = torch.linalg.inv(torch.cat([fits.to_crop[place], torch.tensor([[0.0, 0.0, 1.0]])]))[
            None, :2
        ]
        face = part_votes.see_face(fits.coeffs[place : place + 1], model, Camera(), back, shape)
        drawn = part_votes.draw_labels(face, model.part_labels.numpy(), model.faces)
        overlaps.append(part_votes.part_overlap(drawn, mask.labels))
    mean = np.nanmean(overlaps, 0)
    eyes, brows = mean[:2].mean(), mean[2:4].mean()
    print(
        f"| part IoU of fits, {len(rows)} masks: eyes, brows, upper, lower lip, nose, skin | "
        f"{eyes:.3f} {brows:.3f} {mean[5]:.3f} {mean[6]:.3f} {mean[4]:.3f} {mean[7]:.3f} |"
    )


if __name__ == "__main__":
    main()
