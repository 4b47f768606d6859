"""What a batch of dense shapes, and a batch of landmark fits, costs on this machine.

    python benchmarks/face_model.py [--batch 64] [--threads 1]

PhotoHead (control mesh and sparse subdivision) is held against the dense product of the official
model, 107127 x 144 (35,709 vertices). Times are the shortest processor times of
several runs, which a busy machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from v3recon.face_models.load import load_face_model
from v3recon.fitting.fit_landmarks import fit_landmarks
from v3recon.geometry.camera import Camera, project

OFFICIAL_ROWS, OFFICIAL_COLUMNS = 107_127, 144


def best_of(run: Callable[[], object], repeats: int) -> float:
    """Shortest processor time of a call in milliseconds."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    model = load_face_model("photohead")
    generator = torch.Generator().manual_seed(0)
    id_coeffs = torch.randn(args.batch, 80, generator=generator)
    exp_coeffs = torch.randn(args.batch, 64, generator=generator)
    mean = torch.randn(1, OFFICIAL_ROWS, generator=generator)
    basis = torch.randn(OFFICIAL_ROWS, OFFICIAL_COLUMNS, generator=generator)
    both = torch.cat([id_coeffs, exp_coeffs], 1)
    dense = best_of(lambda: torch.addmm(mean, both, basis.T), args.repeats)
    ours = best_of(lambda: model.vertices(id_coeffs, exp_coeffs), args.repeats)
    print(f"{args.batch} shapes, {args.threads} thread(s)")
    print(f"  dense product of the official model  {dense:8.2f} ms")
    print(
        f"  PhotoHead, {model.vertex_count} vertices          {ours:8.2f} ms = {ours / dense:.2f}"
    )

    shape = model.at_detector(model.vertices(id_coeffs, 0.2 * exp_coeffs.abs()))
    points = torch.cat([project(shape, Camera()), 101.5 * shape[..., 2:]], 2)
    fit = best_of(lambda: fit_landmarks(points, model), max(3, args.repeats // 3))
    print(f"  fit_landmarks, 468 points in 3D      {fit / args.batch:8.2f} ms a face")


if __name__ == "__main__":
    main()
