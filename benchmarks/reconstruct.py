"""Time of each step of a reconstruction: `python benchmarks/reconstruct.py [--assets DIR]`.

Medians in milliseconds of wall and processor time for one 224 x 224 face on the CPU, with the wall
time that the reference program took for the same step on two cores beside. Without --assets a
made-up face model of the official size and random networks are used: the times do not depend on
the values.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import astronaut

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from synthetic_assets import OFFICIAL_SIZE, write_official_assets

from v3recon.io.images import read_image, write_png
from v3recon.io.memory import keep_freed_memory
from v3recon.outputs import (
    OutputChoice,
    draw_sheet,
    face_arrays,
    face_values,
    write_face,
)
from v3recon.pipeline import FaceReconstructor
from v3recon.products import extract_texture, make_appearance, segment, write_obj

FACE = slice(0, 224), slice(112, 336)  # of the astronaut's picture: the face and a margin


def measure(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Medians of wall and processor milliseconds, after one call that is not counted."""
    function()
    wall, busy = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        function()
        wall.append(1e3 * (time.perf_counter() - started))
        busy.append(1e3 * (time.process_time() - used))
    return statistics.median(wall), statistics.median(busy)


def peak_memory() -> float:
    """Largest resident memory of this process so far, megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, help="folder of official assets")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    keep_freed_memory(one_pool=True)  # as the program does
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        assets = options.assets or write_official_assets(folder / "assets", **OFFICIAL_SIZE)
        run(assets, folder, options.repeats)


def run(assets: Path, folder: Path, repeats: int) -> None:
    base = peak_memory()
    photo = np.ascontiguousarray(astronaut()[FACE])
    choice = OutputChoice()
    print(f"{'step':44s}{'reference':>10s}{'ours':>10s}{'processor':>11s}   ms")

    def line(name: str, reference: str, function: Callable[[], object]) -> None:
        wall, busy = measure(function, repeats)
        print(f"{name:44s}{reference:>10s}{wall:10.1f}{busy:11.1f}", flush=True)

    networks = {}
    for backbone, reference in (("resnet50", "56"), ("mbnetv3", "13")):
        made = FaceReconstructor.from_assets(assets, backbone=backbone, device="cpu", detector=None)
        networks[backbone] = made
        line(f"photo to coefficients and mesh, {backbone}", reference, lambda m=made: m(photo))
    network = networks["mbnetv3"].regressor
    for count, reference in ((1, "13"), (16, "135")):
        batch = torch.rand(count, 3, 224, 224)
        with torch.inference_mode():
            line(f"network mbnetv3, batch {count}", reference, partial(network, batch))
    reconstructor = networks["resnet50"]
    face = reconstructor(photo)[0]
    appearance = make_appearance(face)
    colors = appearance.colors[0]
    texture = extract_texture(face, photo, choice.texture_size)
    segmentation = segment(face)
    line("seg + seg_visible", "45", lambda: segment(face))
    line("normals, visibility, model colours", "", lambda: make_appearance(face))
    line("texture extraction at 1024", "538", lambda: extract_texture(face, photo))
    line("OBJ with vertex colours", "247", lambda: write_obj(folder / "a.obj", face, colors=colors))
    line(
        "OBJ with uv, material and texture",
        "",
        lambda: write_obj(folder / "b.obj", face, texture=texture.texture[0]),
    )
    sheet = draw_sheet(face, photo, choice, segmentation, appearance)
    line(
        "contact sheet drawn", "", lambda: draw_sheet(face, photo, choice, segmentation, appearance)
    )
    line("contact sheet written", "", lambda: write_png(folder / "c.png", sheet))
    line(
        "values and arrays",
        "",
        lambda: (face_values(face, choice), face_arrays(face, choice, segmentation, appearance)),
    )

    photos_done = itertools.count()

    def everything() -> None:  # into a new folder: replacing files makes ext4 wait for the disk
        out = folder / f"out{next(photos_done)}"
        write_face(out, "face", reconstructor(photo)[0], photo, choice)

    line("all outputs, resnet50", "1187", everything)
    large = cv2.resize(astronaut(), (4000, 3000), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "large.jpg"), large[:, :, ::-1])
    del large
    detecting = FaceReconstructor.from_assets(assets, device="cpu")

    def twelve_megapixels() -> None:
        image = read_image(folder / "large.jpg")
        for index, one in enumerate(detecting(image)):
            write_face(folder / "large", f"face{index}", one, image, choice)

    line("12-megapixel photo, detection, all outputs", "14000", twelve_megapixels)
    print(f"peak memory {peak_memory():.0f} MB, {peak_memory() - base:.0f} MB above import")


if __name__ == "__main__":
    main()
