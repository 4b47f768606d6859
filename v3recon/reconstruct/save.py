"""The files of one reconstructed face: values, meshes and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v3recon._fast.threads import belong_to_limit, threads_limited
from v3recon.io import obj
from v3recon.io.images import write_png
from v3recon.reconstruct.faces import Reconstruction
from v3recon.reconstruct.segment import segment
from v3recon.reconstruct.sheet import draw_sheet
from v3recon.reconstruct.texture import extract_texture, make_appearance
from v3recon.reconstruct.values import (
    OutputChoice,
    face_arrays,
    face_values,
    write_json,
    write_results,
)
from v3recon.uv.bake import sample_uv, uv_layout

_WRITERS = 2  # threads; the work is done outside of the interpreter's lock


def output_names(photos: Sequence[Path]) -> list[str]:
    """A folder name for each photo: its stem, made longer where two would be the same.

    First the suffix is added (`a_jpg`, `a_png`), then the parent folder's name, then a number.
    Case does not tell names apart, as it does not on some file systems.
    """
    names = [photo.stem for photo in photos]
    for longer in (
        lambda photo: f"{photo.stem}_{photo.suffix.lstrip('.')}",
        lambda photo: f"{photo.resolve().parent.name}_{photo.stem}_{photo.suffix.lstrip('.')}",
    ):
        counts: dict[str, int] = {}
        for name in names:
            counts[name.lower()] = counts.get(name.lower(), 0) + 1
        names = [
            longer(photo) if counts[name.lower()] > 1 else name
            for name, photo in zip(names, photos, strict=True)
        ]
    taken: set[str] = set()
    for index, name in enumerate(names):
        number, unique = 2, name
        while unique.lower() in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique.lower())
        names[index] = unique
    return names


def write_face(
    folder: Path,
    name: str,
    face: Reconstruction,
    image_np: np.ndarray,
    choice: OutputChoice,
    rasterizer: str = "auto",
) -> None:
    """Write all chosen files of a face; each appears whole or not at all.

    Args:
        folder: where the files go; made if absent.
        name: start of their names.
        face: the face.
        image_np: [H, W, 3] uint8 RGB, its photo.
        choice: which outputs.
        rasterizer: see `render.rasterize.rasterize`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    limit = max(1, threads // _WRITERS)
    with (
        threads_limited(limit),
        ThreadPoolExecutor(_WRITERS, initializer=belong_to_limit) as pool,
    ):
        jobs: list[Future[None]] = []

        def start(job: Callable[..., None], *arguments: Any, **options: Any) -> None:
            jobs.append(pool.submit(job, *arguments, **options))

        def write_photo_meshes() -> None:
            texture = extract_texture(
                face, image_np, choice.texture_size, appearance=appearance, workers=threads
            )
            start(write_obj, folder / f"{name}_uv.obj", face, texture=texture.texture[0])
            layout = uv_layout(face.model, choice.texture_size)
            colors = sample_uv(texture.texture, layout)[0] / 255
            start(write_obj, folder / f"{name}_extractTex.obj", face, colors=colors)

        def write_picture_and_values() -> None:
            segmentation = segmented.result()
            values = face_values(face, choice)
            write_json(folder / f"{name}.json", values)
            arrays = face_arrays(face, choice, segmentation, appearance)
            write_results(folder / f"{name}.npy", {**values, **arrays})
            sheet = draw_sheet(face, image_np, choice, segmentation, appearance, rasterizer)
            write_png(folder / f"{name}.png", sheet)

        wanted = choice.seg or choice.seg_visible
        segmented = pool.submit(lambda: segment(face, rasterizer) if wanted else None)
        appearance = make_appearance(face, rasterizer)
        if choice.extracted_texture:
            start(write_photo_meshes)  # the longest one first
        start(write_picture_and_values)
        if choice.model_texture:
            start(write_obj, folder / f"{name}_pcaTex.obj", face, colors=appearance.colors[0])
        for job in jobs:  # grows while jobs start others, which they do before they end
            job.result()


def write_obj(
    path: str | Path,
    face: Reconstruction,
    *,
    colors: Tensor | np.ndarray | None = None,
    texture: np.ndarray | None = None,
) -> None:
    """Write a face's posed mesh, in the world frame (decimetres, y up, z toward the camera).

    Args:
        path: the .obj file.
        face: the face.
        colors: [V, 3] RGB 0…1, for a mesh with vertex colours.
        texture: [S, S, 3] uint8 RGB, for a mesh with texture coordinates.
    """
    obj.write_obj(
        path,
        face.decoded.vertices[0].cpu().numpy(),
        face.model.faces.cpu().numpy(),
        colors=None if colors is None else np.asarray(torch.as_tensor(colors).cpu()),
        uv_coords=None if texture is None else face.model.uv_coords.cpu().numpy(),
        texture=texture,
    )
