"""Time of rasterising and segmenting a face of the official size: `python benchmarks/rasterize.py`.

Medians in milliseconds of wall and of processor time on one core (they differ on a busy machine),
frontal face, no gradient unless said; beside them the processor time of a plain form of the same
work in the same run: for rasterising one pass of numpy over each triangle's bounding box, for
segmentation 3DDFA_V3's sixteen renders (each part alone, then each part's visible indicator) with
our own rasteriser.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from synthetic_assets import OFFICIAL_SIZE, synthetic_face_model

from v3recon._fast.memory import keep_freed_memory
from v3recon.decode import decode
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera, to_clip
from v3recon.reconstruct.segment import segment_both
from v3recon.render.interpolate import interpolate
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import visible_vertices
from v3recon.types import Decoded, FaceCoeffs

CAMERA = Camera()
TARGETS = {224: 1.5, 1024: 8.0}
"""Milliseconds that a face may take at each size on one core."""
SEGMENTATION_TARGET = 6.0


def measure(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall and processor milliseconds, after one uncounted call where there are several."""
    if repeats > 1:
        call()
    wall, busy = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        call()
        wall.append(1e3 * (time.perf_counter() - started))
        busy.append(1e3 * (time.process_time() - used))
    return statistics.median(wall), statistics.median(busy)


def plain_rasterize(clip: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
    """Owner of each pixel, one triangle after the other over its bounding box."""
    depth = np.full((size, size), np.inf)
    owner = np.full((size, size), -1)
    place = 0.5 * ((clip[:, :2] / clip[:, 3:] + 1) * size - 1)
    first = np.clip(np.ceil(place[faces].min(1)), 0, size).astype(int)
    last = np.clip(np.floor(place[faces].max(1)), -1, size - 1).astype(int)
    for face in np.flatnonzero((first <= last).all(1)):
        (x0, y0), (x1, y1), (x2, y2) = place[faces[face]]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        box = tuple(
            slice(a, b + 1) for a, b in zip(first[face, ::-1], last[face, ::-1], strict=True)
        )
        row, column = np.ogrid[box]
        u = ((x1 - column) * (y2 - row) - (x2 - column) * (y1 - row)) / area
        v = ((x2 - column) * (y0 - row) - (x0 - column) * (y2 - row)) / area
        near = 1 / (np.stack([u, v, 1 - u - v], -1) @ (1 / clip[faces[face], 3]))
        won = (u >= 0) & (v >= 0) & (u + v <= 1) & (near < depth[box])
        depth[box] = np.where(won, near, depth[box])
        owner[box] = np.where(won, face, owner[box])
    return owner


def plain_segmentation(decoded: Decoded, model: LinearFaceModel, size: int) -> tuple:
    """Eight lonely renders, and eight renders of a visible indicator, [B, 8, H, W] and labels."""
    clip = to_clip(decoded.vertices, CAMERA)
    alone = [rasterize(clip, part, (size, size)).face_id >= 0 for part in model.part_faces]
    labels = torch.zeros(len(clip), size, size, dtype=torch.uint8)
    normals = model.normals(decoded.model_vertices) @ decoded.rotation
    for label in range(1, 9):
        fragments = rasterize(clip, model.faces, (size, size))
        visible = visible_vertices(fragments, model.faces, normals)
        indicator = ((model.part_labels == label) & visible).float()[..., None]
        labels[interpolate(indicator, fragments, model.faces)[..., 0] >= 0.5] = label
    return torch.stack(alone, 1), labels


def report(name: str, times: tuple[float, float], plain: tuple[float, float], limit: str) -> None:
    print(
        f"{name:42s}{times[0]:8.2f}{times[1]:8.2f}   plain {plain[1]:8.1f}"
        f"   {plain[1] / times[1]:6.1f} x   {limit}"
    )


def clip_at(vertices: Tensor, size: int) -> Tensor:
    """The crop enlarged to another size."""
    scale = size / CAMERA.image_size
    shift = (scale - 1) / 2
    from_crop = torch.tensor([[[scale, 0, shift], [0, scale, shift]]])
    return to_clip(vertices, CAMERA, (size, size), from_crop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the program does
    torch.set_num_threads(arguments.threads)
    repeats = arguments.repeats
    model = synthetic_face_model(**OFFICIAL_SIZE)
    decoded = decode(FaceCoeffs.zeros(1, model.sizes), model, CAMERA)
    faces = model.faces
    print(f"{model.vertex_count} vertices, {len(faces)} triangles, {arguments.threads} thread(s)")
    print(f"{'':42s}{'wall':>8s}{'busy':>8s}   (milliseconds)")
    for size, target in TARGETS.items():
        clip, image_size = clip_at(decoded.vertices, size), (size, size)
        plain = measure(lambda c=clip, s=size: plain_rasterize(c[0].numpy(), faces.numpy(), s), 1)
        for name in ("cpu", "torch"):
            times = measure(
                lambda c=clip, s=image_size, n=name: rasterize(c, faces, s, n),
                repeats if name == "cpu" else 2,
            )
            limit = f"at most {target}" if name == "cpu" else ""
            report(f"rasterize, {name}, {size} x {size}", times, plain, limit)
    batch = clip_at(decoded.vertices, 224).expand(16, -1, -1).contiguous()
    times = measure(lambda: rasterize(batch, faces, (224, 224), "cpu"), 5)
    print(f"{'rasterize, cpu, 16 faces at 224':42s}{times[0]:8.2f}{times[1]:8.2f}")
    leaf = clip_at(decoded.vertices, 224).requires_grad_()
    colors = torch.rand(1, model.vertex_count, 3)

    def with_gradient() -> None:
        image = interpolate(colors, rasterize(leaf, faces, (224, 224), "cpu"), faces)
        torch.autograd.grad(image.sum(), leaf)

    times = measure(with_gradient, 5)
    print(f"{'rasterize, interpolate, gradient at 224':42s}{times[0]:8.2f}{times[1]:8.2f}")

    def segment() -> None:
        labels, bits = segment_both(decoded, model, CAMERA, (224, 224))
        assert labels.any() and bits.any()

    plain = measure(lambda: plain_segmentation(decoded, model, 224), 3)
    times = measure(segment, repeats)
    report("seg and seg_visible at 224", times, plain, f"at most {SEGMENTATION_TARGET}")


if __name__ == "__main__":
    main()
