"""Time of each step of a reconstruction: `python benchmarks/reconstruct.py [--assets DIR]`.

Medians in milliseconds of wall and processor time for one 224 x 224 face on the CPU. Beside them
what was asked, the wall time that the reference program took for the same step on two cores, and
the wall time of a plain form of the same work in this run, with the ratio of plain to ours:
networks without folding or packing, normals by tensor operations, OBJ lines by f-strings, PNG by
OpenCV. Without --assets a made-up face model of the official size and random networks are used:
the times do not depend on the values. The last rows use the weights in the package.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from v3recon._fast.threads import HELPER_SPINS

os.environ.setdefault(*HELPER_SPINS)  # as the program does, before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import cv2
import numpy as np
import torch
from skimage.data import astronaut
from synthetic_assets import OFFICIAL_SIZE, write_official_assets

from v3recon._fast.memory import keep_freed_memory
from v3recon.decode import decode, posed_normals
from v3recon.io.images import read_image, write_png
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.reconstruct.assets import find_assets
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.reconstruct.save import OutputChoice, write_face, write_obj
from v3recon.reconstruct.segment import segment
from v3recon.reconstruct.sheet import draw_sheet
from v3recon.reconstruct.texture import extract_texture, make_appearance
from v3recon.reconstruct.values import face_arrays, face_values

TITLES = ("asked", "reference", "plain", "ours", "ratio", "processor")
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
    status = Path("/proc/self/status")
    if status.exists():  # getrusage tells a new process of its parent's memory too
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, help="folder of official assets")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--large-only", type=Path, help="measure time and memory of this one large photo"
    )
    options = parser.parse_args()
    keep_freed_memory(one_pool=True)  # as the program does
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.large_only:
            run_large(options.assets, options.large_only, folder)
            return
        assets = options.assets or write_official_assets(folder / "assets", **OFFICIAL_SIZE)
        run(assets, folder, options.repeats)
        large = cv2.resize(astronaut(), (4000, 3000), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "large.jpg"), large[:, :, ::-1])
        # A process of its own: what the steps above have needed is no part of its memory.
        command = [sys.executable, __file__, "--threads", str(options.threads)]
        command += ["--assets", str(assets), "--large-only", str(folder / "large.jpg")]
        subprocess.run(command, check=True)


class Table:
    """Rows of step, asked, reference program, plain form, ours, ratio, processor time."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        titles = "".join(f"{title:>11s}" for title in TITLES)
        print(f"{'step, milliseconds':44s}{titles}", flush=True)

    def row(
        self,
        name: str,
        function: Callable[[], object],
        *,
        asked: str = "",
        reference: str = "",
        plain: Callable[[], object] | None = None,
    ) -> None:
        """Measure and print one step."""
        slow = measure(plain, min(self.repeats, 5))[0] if plain else None
        wall, busy = measure(function, self.repeats)
        beside = [asked, reference, f"{slow:.1f}" if slow else "", f"{wall:.1f}"]
        beside += [f"{slow / wall:.1f} x" if slow else "", f"{busy:.1f}"]
        print(f"{name:44s}" + "".join(f"{value:>11s}" for value in beside), flush=True)


def run(assets: Path, folder: Path, repeats: int) -> None:
    """Everything but the large photo."""
    table = Table(repeats)
    photo = np.ascontiguousarray(astronaut()[FACE])
    made = {}
    for backbone in ("resnet50", "mbnetv3"):
        made[backbone] = FaceReconstructor.from_pretrained(
            assets, backbone=backbone, device="cpu", detector=None
        )
    network_rows(table, assets, made)
    reconstructor = made["resnet50"]
    table.row("photo to coefficients and mesh, resnet50", partial(reconstructor, photo))
    product_rows(table, reconstructor(photo)[0], photo, folder)
    photos_done = itertools.count()

    def everything() -> None:  # into a new folder: replacing files makes ext4 wait for the disk
        out = folder / f"out{next(photos_done)}"
        write_face(out, "face", reconstructor(photo)[0])

    table.row("all outputs, resnet50", everything, asked="150", reference="1187")
    own_weights_rows(table)


def network_rows(table: Table, assets: Path, made: dict[str, FaceReconstructor]) -> None:
    """Both networks, as the program runs them and as they are loaded."""
    files = find_assets(assets, backbone="mbnetv3"), find_assets(assets, backbone="resnet50")
    small, large = (load_checkpoint(one.weights).regressor for one in files)
    rows = (
        ("mbnetv3", small, 1, "13", "13"),
        ("mbnetv3", small, 16, "135", "135"),
        ("resnet50", large, 1, "", "56"),
    )
    with torch.inference_mode():
        for backbone, plain, count, asked, reference in rows:
            batch = torch.rand(count, 3, 224, 224)
            table.row(
                f"network {backbone}, batch {count}",
                partial(made[backbone].regressor, batch),
                asked=asked,
                reference=reference,
                plain=partial(plain, batch),
            )


def product_rows(table: Table, face: Face, photo: np.ndarray, folder: Path) -> None:
    """What is made of a reconstructed face."""
    choice = OutputChoice()
    appearance, parts = make_appearance(face.batch), segment(face)
    colors = appearance.colors[0]
    texture = extract_texture(face, photo, choice.texture_size)
    table.row("seg + seg_visible", lambda: segment(face), asked="6", reference="45")
    shape, model = face.decoded.model_vertices, face.model
    table.row(
        "vertex normals",
        lambda: posed_normals(face.decoded, model),
        plain=lambda: model.normals(shape) @ face.decoded.rotation,
    )
    table.row("normals, visibility, model colours", lambda: make_appearance(face.batch))
    table.row(
        "texture extraction at 1024",
        lambda: extract_texture(face, photo, choice.texture_size),
        asked="80",
        reference="538",
    )
    table.row(
        "OBJ with vertex colours",
        lambda: write_obj(folder / "a.obj", face, colors=colors),
        asked="30",
        reference="247",
        plain=lambda: write_plain_obj(folder / "plain.obj", face, colors),
    )
    table.row(
        "OBJ with uv, material and texture",
        lambda: write_obj(folder / "b.obj", face, texture=texture.texture),
    )
    sheet_arguments = (face, photo, choice, parts, appearance)
    sheet = draw_sheet(*sheet_arguments)
    table.row("contact sheet drawn", lambda: draw_sheet(*sheet_arguments))
    level = [cv2.IMWRITE_PNG_COMPRESSION, 1]  # zlib's fastest
    table.row(
        "contact sheet written",
        lambda: write_png(folder / "c.png", sheet),
        plain=lambda: cv2.imwrite(str(folder / "plain.png"), sheet[..., ::-1], level),
    )
    table.row(
        "values and arrays",
        lambda: (face_values(face, choice), face_arrays(face, choice, parts, appearance)),
    )


def write_plain_obj(path: Path, face: Face, colors: torch.Tensor) -> None:
    """The lines of `write_obj`, one f-string each."""
    vertices = torch.cat([face.decoded.vertices[0], colors], 1).tolist()
    with path.open("w") as file:
        file.writelines("v " + " ".join(f"{value:.6f}" for value in row) + "\n" for row in vertices)
        file.writelines(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in face.model.faces.tolist())


def own_weights_rows(table: Table) -> None:
    """PhotoHead and the weights in the package: network and decoding of one crop."""
    own = FaceReconstructor.from_pretrained(device="cpu", detector=None)
    loaded = load_checkpoint(find_assets().weights).regressor
    crop = torch.rand(1, 3, loaded.input_size, loaded.input_size)

    def mesh(network: torch.nn.Module) -> object:
        with torch.inference_mode():
            return decode(network(crop), own.model, own.camera)

    table.row(
        f"own weights, network + decode, {loaded.input_size} px",
        lambda: mesh(own.regressor),
        asked="20",
        plain=lambda: mesh(loaded),
    )


def run_large(assets: Path, photo: Path, folder: Path) -> None:
    """A large photo by the program's own steps: detection, all outputs; time and memory."""
    import timm  # noqa: F401  (what is imported is no memory of ours)

    base = peak_memory()
    detecting = FaceReconstructor.from_pretrained(assets, device="cpu")

    def process(name: str) -> None:
        image = read_image(photo)
        for index, one in enumerate(detecting(image)):
            write_face(folder / name, f"face{index}", one)

    process("first")  # with what is made once, as the layout of the texture
    peak = peak_memory() - base
    started = time.perf_counter()
    process("second")
    seconds = time.perf_counter() - started
    print(
        f"12-megapixel photo, detection, all outputs: {seconds:.2f} s (asked 2, reference 14 to "
        f"17); peak memory {peak / 1e3:.2f} GB above import (asked 0.6, "
        "reference 4.2)"
    )


if __name__ == "__main__":
    main()
