"""Time of writing a face of the official size as OBJ: `python benchmarks/obj.py`.

Medians of processor milliseconds; the plain form writes a line with an f-string for each vertex and
triangle. The first mesh of a face model also pays for its triangles' lines, which are then kept.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from v3recon.io.obj import write_obj

VERTICES, TRIANGLES = 35_709, 70_789


def measure(call: Callable[[], object], repeats: int) -> float:
    """Median processor milliseconds, after one call that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - begin))
    return statistics.median(times)


def plain_obj(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> None:
    """One formatted line after the other."""
    with path.open("w") as file:
        for (x, y, z), (r, g, b) in zip(vertices, colors, strict=True):
            file.write(f"v {x:.6f} {y:.6f} {z:.6f} {r:.6f} {g:.6f} {b:.6f}\n")
        for a, b, c in faces + 1:
            file.write(f"f {a} {b} {c}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    generator = np.random.default_rng(0)
    vertices = generator.normal(size=(VERTICES, 3))
    colors = generator.random((VERTICES, 3))
    faces = generator.integers(0, VERTICES, (TRIANGLES, 3))
    other = np.roll(faces, 1, axis=0)
    with tempfile.TemporaryDirectory() as folder:
        ours, naive = Path(folder, "ours.obj"), Path(folder, "plain.obj")
        plain = measure(lambda: plain_obj(naive, vertices, faces, colors), 3)

        def alternate() -> None:
            write_obj(ours, vertices, other, colors=colors)
            write_obj(ours, vertices, faces, colors=colors)

        first = measure(alternate, repeats) / 2
        again = measure(lambda: write_obj(ours, vertices, faces, colors=colors), repeats)
        assert ours.read_bytes() == naive.read_bytes()
    print(f"plain                             {plain:8.1f} ms")
    print(f"write_obj, other triangles        {first:8.1f} ms   {plain / first:5.1f} x")
    print(f"write_obj, same triangles again   {again:8.1f} ms   {plain / again:5.1f} x")


if __name__ == "__main__":
    main()
