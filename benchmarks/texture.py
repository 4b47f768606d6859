"""Time of texture extraction on a model of the official size, and the steps it is made of.

    python benchmarks/texture.py [--size 1024] [--repeats 15]

Prints medians of wall and processor time for one face of a 224 x 224 photo at three yaws. The
reference program's texture block takes 538 ms at 1024 on two cores (docs/conventions.md).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.synthetic_assets import OFFICIAL_SIZE, synthetic_face_model
from v3recon.decode import decode, posed_normals
from v3recon.geometry.camera import Camera, to_clip
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import visible_vertices
from v3recon.types import FaceCoeffs
from v3recon.uv.bake import make_uv_layout, sample_uv
from v3recon.uv.texture_extraction import extract_texture


def measure(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall and processor milliseconds after one warm-up call."""
    call()
    wall, busy = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        call()
        wall.append(1e3 * (time.perf_counter() - started))
        busy.append(1e3 * (time.process_time() - used))
    return statistics.median(wall), statistics.median(busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    model, camera = synthetic_face_model(**OFFICIAL_SIZE), Camera()
    rng = np.random.default_rng(0)
    photo = rng.integers(60, 200, (224, 224, 3)).astype(np.uint8)
    make_uv_layout(model, 64)  # compiles
    started = time.perf_counter()
    layout = make_uv_layout(model, arguments.size)
    print(f"layout, once per model and size: {1e3 * (time.perf_counter() - started):.0f} ms wall")
    for yaw in (0, 25, 50):
        coeffs = FaceCoeffs.zeros(1, model.sizes)
        coeffs.angle[0, 1] = math.radians(yaw)
        decoded = decode(coeffs, model, camera)
        normals = posed_normals(decoded, model)
        size = (224, 224)
        fragments = rasterize(to_clip(decoded.vertices, camera), model.faces, size)
        given = dict(
            visible=visible_vertices(fragments, model.faces, normals),
            normals=normals,
            model_colors=model.mean_albedo[None],
            layout=layout,
        )
        wall, busy = measure(
            lambda given=given, points=decoded.points_2d: extract_texture(photo, points, **given),
            arguments.repeats,
        )
        print(f"extract_texture, yaw {yaw:2d}: {wall:6.1f} ms wall, {busy:6.1f} ms processor")
    texture = extract_texture(photo, decoded.points_2d, **given).texture
    wall, busy = measure(lambda: sample_uv(texture, layout), arguments.repeats)
    print(f"vertex colours of it:     {wall:6.1f} ms wall, {busy:6.1f} ms processor")


if __name__ == "__main__":
    main()
