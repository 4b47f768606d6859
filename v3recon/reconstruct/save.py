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
from v3recon.reconstruct.faces import Face, Faces
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


def save_faces(
    faces: Faces,
    folder: str | Path,
    name: str | None = None,
    *,
    choice: OutputChoice | None = None,
    image: np.ndarray | None = None,
) -> list[Path]:
    """Write the files of every face into a folder; each appears whole or not at all.

    The files of the first face are `<name>.npy`, `<name>.json`, `<name>.png`, …; those of the
    others begin with `<name>_face2`, `<name>_face3`, ….

    Args:
        faces: the faces of a photo.
        folder: made if absent.
        name: start of the files' names; default the photo's.
        choice: which outputs; default all.
        image: [H, W, 3] uint8 RGB, the photo, where the faces do not hold it.

    Returns:
        The files, in the order of their names.

    Raises:
        ValueError: if there is no photo, or `name` is not the name of a file.
    """
    folder, name = Path(folder), faces.name if name is None else name
    if name != Path(name).name or name in ("", ".", ".."):
        raise ValueError(f"name: {name!r} is not a name of files")
    written = []
    for number, face in enumerate(faces, 1):
        start = name if number == 1 else f"{name}_face{number}"
        written += write_face(folder, start, face, choice, image)
    return sorted(written)


def write_face(
    folder: Path,
    name: str,
    face: Face,
    choice: OutputChoice | None = None,
    image: np.ndarray | None = None,
) -> list[Path]:
    """Write all chosen files of one face; see `save_faces`."""
    choice, image = choice or OutputChoice(), face.batch.photo(image)
    folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    limit = max(1, threads // _WRITERS)
    written: list[Path] = []
    with (
        threads_limited(limit),
        ThreadPoolExecutor(_WRITERS, initializer=belong_to_limit) as pool,
    ):
        jobs: list[Future[None]] = []

        def start(ending: str, job: Callable[..., None], *arguments: Any, **options: Any) -> None:
            path = folder / f"{name}{ending}"
            jobs.append(pool.submit(job, path, *arguments, **options))
            written.append(path)

        def write_photo_meshes(path: Path) -> None:
            texture = extract_texture(
                face.batch, image, choice.texture_size, appearance=appearance, workers=threads
            )
            layout = uv_layout(face.model, choice.texture_size)
            colors = sample_uv(texture.texture, layout)[0] / 255
            start("_extractTex.obj", write_obj, face, colors=colors)
            write_obj(path, face, texture=texture.texture[0])
            written.extend([path.with_suffix(".mtl"), path.with_suffix(".png")])

        def write_picture_and_values(path: Path) -> None:
            parts = segmented.result()
            values = face_values(face, choice)
            write_json(folder / f"{name}.json", values)
            arrays = face_arrays(face, choice, parts, appearance)
            write_results(folder / f"{name}.npy", {**values, **arrays})
            write_png(path, draw_sheet(face, image, choice, parts, appearance))
            written.extend([path.with_suffix(".json"), path.with_suffix(".npy")])

        wanted = choice.seg or choice.seg_visible
        segmented = pool.submit(lambda: segment(face) if wanted else None)
        appearance = make_appearance(face.batch)
        if choice.extracted_texture:
            start("_uv.obj", write_photo_meshes)  # the longest one first
        start(".png", write_picture_and_values)
        if choice.model_texture:
            start("_pcaTex.obj", write_obj, face, colors=appearance.colors[0])
        for job in jobs:  # grows while jobs start others, which they do before they end
            job.result()
    return written


def write_obj(
    path: str | Path,
    face: Face,
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
        face.vertices.cpu().numpy(),
        face.model.faces.cpu().numpy(),
        colors=None if colors is None else np.asarray(torch.as_tensor(colors).cpu()),
        uv_coords=None if texture is None else face.model.uv_coords.cpu().numpy(),
        texture=texture,
    )
