"""The files of one reconstructed face: values, meshes and a contact sheet."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from v3recon._fast.threads import belong_to_limit, threads_limited
from v3recon.io import obj
from v3recon.io.images import write_png
from v3recon.io.names import file_name_of
from v3recon.io.reference_npy import write_reference_npy
from v3recon.reconstruct.faces import Face, Faces
from v3recon.reconstruct.file_kinds import FaceInPhoto, write_kinds
from v3recon.reconstruct.glb import photo_texture, write_face_glb
from v3recon.reconstruct.segment import segment
from v3recon.reconstruct.sheet import draw_sheet
from v3recon.reconstruct.texture import extract_texture, make_appearance
from v3recon.reconstruct.usd import write_face_usd
from v3recon.reconstruct.values import (
    OutputChoice,
    face_arrays,
    face_origin,
    face_values,
    reference_values,
    write_arrays,
    write_json,
)
from v3recon.uv.bake import sample_uv, uv_layout

_WRITERS = 2  # threads; the work is done outside of the interpreter's lock


def output_names(photos: Sequence[Path]) -> list[str]:
    """A folder name for each photo: its stem, made longer where two would be the same.

    First the suffix is added (`a_jpg`, `a_png`), then the parent folder's name, then a number.
    Case does not tell names apart, as it does not on some file systems. What no file's name should
    have is replaced (`io.names.file_name_of`).
    """
    names = [file_name_of(photo.stem) for photo in photos]
    for longer in (
        lambda photo: f"{photo.stem}_{photo.suffix.lstrip('.')}",
        lambda photo: f"{photo.resolve().parent.name}_{photo.stem}_{photo.suffix.lstrip('.')}",
    ):
        counts: dict[str, int] = {}
        for name in names:
            counts[name.lower()] = counts.get(name.lower(), 0) + 1
        names = [
            file_name_of(longer(photo)) if counts[name.lower()] > 1 else name
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
    faces: Faces | Sequence[Face],
    folder: str | Path,
    name: str | None = None,
    *,
    choice: OutputChoice | None = None,
    image: np.ndarray | None = None,
    photo: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the files of a photo's faces into a folder in place of those of an earlier run.

    The files of the first face are `<name>.npy`, `<name>.npz`, `<name>.json`, `<name>.png`, …;
    those of the others begin with `<name>_face2`, `<name>_face3`, …. Each appears whole or not at
    all, a face's JSON file last; files that an earlier run wrote under these names and this one
    does not are removed.

    Args:
        faces: the faces of a photo.
        folder: made if absent.
        name: start of the files' names; default the photo's.
        choice: which outputs; default all.
        image: [H, W, 3] uint8 RGB, the photo, where the faces do not hold it.
        photo: what the files say the photo is; default its name.
        settings: what the files say of the program's settings, JSON values.

    Returns:
        The files, in the order of their names.

    Raises:
        ValueError: if there is no photo, or `name` is not the name of a file.
    """
    folder = Path(folder)
    known = faces.name if isinstance(faces, Faces) else faces[0].batch.name if faces else "photo"
    if name is None:
        name = file_name_of(known)
    if name != Path(name).name or name in ("", ".", ".."):
        raise ValueError(f"name: {name!r} is not a name of files")
    earlier = _files_of(folder, name)
    written: list[Path] = []
    for number, face in enumerate(faces, 1):
        about = (str(photo or known), number, len(faces), settings or {})
        written += write_face(folder, face_name(name, number), face, choice, image, about)
    for path in earlier - set(written):
        path.unlink(missing_ok=True)
    return sorted(written)


def face_name(name: str, number: int) -> str:
    """Start of the names of the files of a photo's face, counted from 1."""
    return name if number == 1 else f"{name}_face{number}"


def _files_of(folder: Path, name: str) -> set[Path]:
    """Files that an earlier run says it wrote for a photo of this name; none from elsewhere."""
    files: set[Path] = set()
    starts = name, re.sub(r"[^A-Za-z0-9._-]", "_", name)  # the latter of materials
    for path in map(lambda number: folder / f"{face_name(name, number)}.json", itertools.count(1)):
        if not path.is_file():
            break
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            listed = map(str, content["files"] if "v3recon" in content else [])
            plain = [one for one in listed if one == Path(one).name and one.startswith(starts)]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # not ours
        files |= {folder / one for one in plain if (folder / one).is_file()}
    return files


def write_face(
    folder: Path,
    name: str,
    face: Face,
    choice: OutputChoice | None = None,
    image: np.ndarray | None = None,
    about: tuple[str, int, int, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Write all chosen files of one face; see `save_faces`.

    Args:
        folder: made if absent.
        name: start of the files' names.
        face: the face.
        choice: which outputs; default all.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it.
        about: the photo's name, the face's number and how many there are, settings.
    """
    choice, image = choice or OutputChoice(), face.batch.photo(image)
    origin = face_origin(face, choice, *(about or (face.batch.name, 1, 1, {})))
    folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    limit = max(1, threads // _WRITERS)
    written: list[Path] = []
    device = face.batch.device.type
    with (
        torch.autocast(device, enabled=False),
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
            picture = texture.texture[0]
            start("_extractTex.obj", write_obj, face, colors=colors, front=choice.front)
            painted = photo_texture(face, picture) if heads else picture
            for ending, write_head in heads.items():
                start(ending, write_head, face, texture=painted, name=name)
            seen = texture.seen[0] & layout.inside if choice.mask else np.ones((), bool)
            write_obj(path, face, texture=picture * seen[..., None], front=choice.front)
            written.extend(obj.material_files(path))

        def write_picture_and_values(path: Path) -> None:
            parts = segmented.result()
            write_reference_npy(path.with_suffix(".npy"), reference_values(face, choice, parts))
            arrays = face_arrays(face, choice, parts, appearance)
            write_arrays(path.with_suffix(".npz"), arrays, origin)
            write_png(path, draw_sheet(face, image, choice, parts, appearance))
            written.extend([path.with_suffix(".npy"), path.with_suffix(".npz")])

        writers = {".glb": (choice.glb, write_face_glb), ".usdz": (choice.usd, write_face_usd)}
        heads = {ending: writer for ending, (chosen, writer) in writers.items() if chosen}
        wanted = choice.seg or choice.seg_visible
        segmented = pool.submit(lambda: segment(face) if wanted else None)
        appearance = make_appearance(face.batch)
        if choice.extracted_texture:
            start("_uv.obj", write_photo_meshes)  # the longest one first
        start(".png", write_picture_and_values)
        if not choice.extracted_texture:
            known: dict[str, Any] = {"image": image, "appearance": appearance, "name": name}
            for ending, write_head in heads.items():
                start(ending, write_head, face, texture_size=choice.texture_size, **known)
        if choice.model_texture:
            start("_pcaTex.obj", write_obj, face, colors=appearance.colors[0], front=choice.front)
        shown = FaceInPhoto(face, image, appearance, choice.front)
        others = pool.submit(write_kinds, folder, name, shown, choice.also)
        for job in jobs:  # grows while jobs start others, which they do before they end
            job.result()
        written += others.result()
    written.append(folder / f"{name}.json")  # last: it says that the others are there
    listed = {"files": sorted(path.name for path in written)}
    write_json(written[-1], {**origin, **face_values(face, choice), **listed})
    return written


def write_neutral_obj(path: str | Path, face: Face) -> None:
    """Write the unposed head of a face without its expression, in its model's albedo."""
    model, coeffs = face.model, face.coeffs
    vertices = model.vertices(coeffs.id, coeffs.exp * 0)[0]
    albedo = model.albedo(coeffs.alb)[0]
    triangles = model.faces.cpu().numpy()
    obj.write_obj(path, vertices.cpu().numpy(), triangles, colors=albedo.cpu().numpy())


def write_obj(
    path: str | Path,
    face: Face,
    *,
    colors: Tensor | np.ndarray | None = None,
    texture: np.ndarray | None = None,
    front: bool = False,
) -> None:
    """Write a face's posed mesh, in the world frame (decimetres, y up, z toward the camera).

    Args:
        path: the .obj file.
        face: the face.
        colors: [V, 3] RGB 0…1, for a mesh with vertex colours.
        texture: [S, S, 3] uint8 RGB, for a mesh with texture coordinates.
        front: write the unposed head, in the model frame.
    """
    vertices = face.decoded.model_vertices[0] if front else face.vertices
    obj.write_obj(
        path,
        vertices.cpu().numpy(),
        face.model.faces.cpu().numpy(),
        colors=None if colors is None else np.asarray(torch.as_tensor(colors).cpu()),
        uv_coords=None if texture is None else face.model.uv_coords.cpu().numpy(),
        texture=texture,
    )
