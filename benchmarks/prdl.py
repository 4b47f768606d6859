"""Part distribution loss against naive distance matrices: time, memory, agreement.

python benchmarks/prdl.py [--threads 1] [--faces 16] [--anchors 56]

Part sizes are those of the official face model with skin reduced to 3000 points. The naive side
stores all distances, as torch.cdist or as the norm of differences, and lets autograd differentiate.
Each side runs in its own process, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time

import numpy as np

PART_SIZES = (440, 440, 380, 380, 1282, 598, 370, 3000)
CENTERS = ((85, 95), (140, 95), (80, 80), (145, 80), (112, 125), (112, 150), (112, 160), (112, 115))
SPREADS = ((14, 5), (14, 5), (17, 4), (17, 4), (20, 24), (24, 7), (24, 7), (70, 80))


def scene(faces: int, anchors: int):
    import torch

    from v3recon.geometry.point_sets import anchor_grid, distance_statistics

    generator = torch.Generator().manual_seed(0)
    sets, index, start = [], [], 0
    for size, center, spread in zip(PART_SIZES, CENTERS, SPREADS, strict=True):
        unit = torch.rand(faces, size, 2, generator=generator) * 2 - 1
        sets.append(unit * torch.tensor(spread) + torch.tensor(center))
        index.append(torch.arange(start, start + size))
        start += size
    points = torch.cat(sets, 1)
    grid = anchor_grid((224, 224), (anchors, anchors))
    with torch.no_grad():
        target = torch.stack(
            [distance_statistics(points[:1, ids] + 5, grid, chunk=1 << 20) for ids in index], 1
        )
    return points.requires_grad_(), index, grid, target.expand(faces, -1, -1, -1).contiguous()


def naive_loss(points, index, grid, target, mode):
    import torch

    total = 0
    for part, ids in enumerate(index):
        if mode == "cdist":
            batch = grid[None].expand(len(points), -1, -1)
            distance = torch.cdist(
                batch, points[:, ids], compute_mode="donot_use_mm_for_euclid_dist"
            )
        else:
            distance = (grid[None, :, None] - points[:, None, ids]).norm(dim=-1)
        table = torch.stack([distance.amin(-1), distance.amax(-1), distance.mean(-1)], 1)
        total = total + ((table - target[:, part]) ** 2).sum() / len(grid) / len(points)
    return total


def exact(faces: int, anchors: int) -> tuple[float, np.ndarray]:
    """Loss and gradient in float64, one face at a time."""
    points, index, grid, target = scene(faces, anchors)
    total, slopes = 0.0, []
    for face in range(faces):
        one = points[face : face + 1].detach().double().requires_grad_()
        goal = target[face : face + 1].double()
        loss = naive_loss(one, index, grid.double(), goal, "cdist") / faces
        loss.backward()
        total += loss.item()
        slopes.append(one.grad[0].numpy())
    return total, np.stack(slopes)


def measure(mode: str, threads: int, faces: int, anchors: int, repeats: int, queue) -> None:
    import torch

    from v3recon.losses.part_distribution import part_distribution_loss

    torch.set_num_threads(threads)
    points, index, grid, target = scene(faces, anchors)

    def step():
        points.grad = None
        if mode == "fused":
            loss = part_distribution_loss(points, index, target, grid)
        else:
            loss = naive_loss(points, index, grid, target, mode)
        loss.backward()
        return loss.item()

    if mode == "fused":
        step()  # compile
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if mode == "fused" and peak == 0:  # its memory hides below what compiling took
        peak = points.numel() * 4 * 4 // 1024
    queue.put((loss, min(times), peak / 1024, points.grad.numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--faces", type=int, default=16)
    parser.add_argument("--anchors", type=int, default=56)
    parser.add_argument("--json", help="write the numbers to this file")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = {}
    for mode, repeats in (("fused", 5), ("cdist", 1), ("norm", 1)):
        queue = context.Queue()
        process = context.Process(
            target=measure,
            args=(mode, options.threads, options.faces, options.anchors, repeats, queue),
        )
        process.start()
        while True:
            try:
                results[mode] = queue.get(timeout=2)
                break
            except Exception:
                if not process.is_alive():
                    print(f"{mode}: the process died (out of memory?)")
                    break
        process.join()
    if "fused" not in results:
        return
    loss, gradient = exact(options.faces, options.anchors)
    _, seconds, memory, _ = results["fused"]
    print(
        f"{options.faces} faces, 8 parts, {options.anchors} x {options.anchors} anchors, "
        f"{options.threads} thread(s); errors against float64, relative"
    )
    print(
        f"{'':8s}{'seconds':>9s}{'MB':>9s}{'speed-up':>10s}{'memory':>9s}{'loss':>10s}"
        f"{'gradient':>10s}{'largest':>10s}"
    )
    table = {}
    for mode, (value, time_, peak, slope) in results.items():
        row = {
            "seconds": time_,
            "megabytes": peak,
            "speed_up": time_ / seconds,
            "memory_ratio": memory / peak,
            "loss_error": abs(value - loss) / loss,
            "gradient_error": float(np.linalg.norm(slope - gradient) / np.linalg.norm(gradient)),
            # One near tie that rounds the other way moves an anchor's pull to a neighbour.
            "largest_gradient_error": float(abs(slope - gradient).max() / abs(gradient).max()),
        }
        table[mode] = row
        print(
            f"{mode:8s}{time_:9.3f}{peak:9.1f}{time_ / seconds:10.1f}{memory / peak:9.4f}"
            f"{row['loss_error']:10.1e}{row['gradient_error']:10.1e}"
            f"{row['largest_gradient_error']:10.1e}"
        )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(table, file, indent=1)


if __name__ == "__main__":
    main()
