"""The files of one reconstructed face: values, meshes and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from v3recon.geometry.camera import to_clip
from v3recon.io.images import write_png
from v3recon.io.results import PackedMasks, write_json, write_results
from v3recon.pipeline import Reconstruction
from v3recon.products import (
    Appearance,
    Segmentation,
    extract_texture,
    make_appearance,
    segment,
    write_obj,
)
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_image, render_shape
from v3recon.segmentation import segment_both
from v3recon.threads import threads_limited
from v3recon.uv.bake import sample_uv, uv_layout
from v3recon.visualize import (
    PANEL_SIZE,
    contact_sheet,
    overlay,
    panel_image,
    panel_labels,
    panel_matrix,
    reconstruction_panels,
    to_panel,
)

LANDMARK_SETS = {
    "ldm68": "landmarks_68",
    "ldm106": "landmarks_106",
    "ldm106_2d": "landmarks_106_2d",
    "ldm134": "landmarks_134",
}
"""Names in the files and attributes of `Reconstruction`."""

_WRITERS = 2  # threads; the work is done outside of the interpreter's lock


@dataclass(frozen=True)
class OutputChoice:
    """Which outputs are written.

    Attributes:
        landmarks: names of LANDMARK_SETS.
        seg: eight part masks.
        seg_visible: label map of the visible parts.
        model_texture: OBJ with the model's own colours.
        extracted_texture: OBJs with the photo's colours.
        texture_size: side of the texture picture, texels.
    """

    landmarks: tuple[str, ...] = tuple(LANDMARK_SETS)
    seg: bool = True
    seg_visible: bool = True
    model_texture: bool = True
    extracted_texture: bool = True
    texture_size: int = 1024


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
    threads = torch.get_num_threads(), cv2.getNumThreads()
    shared = (max(1, count // _WRITERS) for count in threads)
    with threads_limited(*shared), ThreadPoolExecutor(_WRITERS) as pool:
        jobs: list[Future[None]] = []

        def start(job: Callable[..., None], *arguments: Any, **options: Any) -> None:
            jobs.append(pool.submit(job, *arguments, **options))

        def write_photo_meshes() -> None:
            texture = extract_texture(
                face, image_np, choice.texture_size, appearance=appearance, workers=threads[0]
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


def face_values(face: Reconstruction, choice: OutputChoice) -> dict[str, Any]:
    """The small results: landmarks, coefficients, pose, camera, crop, detection.

    Keys `ldm68 ldm106 ldm106_2d ldm134` are as in 3DDFA_V3's file.
    """
    values: dict[str, Any] = {
        key: _array(getattr(face, LANDMARK_SETS[key])) for key in choice.landmarks
    }
    values |= {
        "face_model": face.model.name,
        "coeffs": {
            key: _array(getattr(face.coeffs, key)[0])
            for key in ("id", "exp", "alb", "angle", "sh", "trans")
        },
        "angle_degrees": _array(face.angle_degrees),
        "camera": asdict(face.camera),
        "crop_matrix": face.crop.matrix.numpy(),
        "image_size": list(face.image_size),
    }
    if face.detection is not None:
        points = face.detection.points
        values["detection"] = {
            "box": face.detection.box.numpy(),
            "score": face.detection.score,
            "points": None if points is None else points.numpy(),
        }
    return values


def face_arrays(
    face: Reconstruction,
    choice: OutputChoice,
    segmentation: Segmentation | None,
    appearance: Appearance,
) -> dict[str, Any]:
    """The large results: vertices, visibility, and 3DDFA_V3's `seg_visible` and `seg`."""
    arrays: dict[str, Any] = {
        "vertices": _array(face.decoded.vertices[0]),
        "points_2d": _array(face.points_2d),
        "visible": appearance.visible[0].cpu().numpy(),
    }
    if segmentation is not None and choice.seg_visible:
        arrays["seg_visible"] = segmentation.labels[..., None]
    if segmentation is not None and choice.seg:
        arrays["seg"] = PackedMasks(segmentation.part_bits)
    return arrays


def draw_sheet(
    face: Reconstruction,
    image_np: np.ndarray,
    choice: OutputChoice,
    segmentation: Segmentation | None,
    appearance: Appearance,
    rasterizer: str = "auto",
) -> np.ndarray:
    """Contact sheet [H, W, 3] uint8 of a face: see `visualize.reconstruction_panels`."""
    matrix = panel_matrix(_array(face.points_2d), face.image_size)
    size = (PANEL_SIZE, PANEL_SIZE)
    panel = panel_image(image_np, matrix)
    from_crop = torch.from_numpy(_compose(matrix, face.crop.inverse_matrix.numpy()))
    faces = face.model.faces
    with torch.no_grad(), threads_limited(1):  # small steps, as in `segmentation.segment_both`
        from_crop = from_crop.to(face.points_2d)[None]
        clip = to_clip(face.decoded.vertices, face.camera, size, from_crop)
        fragments = rasterize(clip, faces, size, rasterizer)
        shape, mask = render_shape(appearance.normals, fragments, faces)
        textured, _ = render_image(appearance.colors, fragments, faces)
    drawn = mask[0, 0].cpu().numpy() > 0
    labels, bits = None, None
    if segmentation is not None and matrix[0, 0] > 1:  # enlarged: drawn again, to be sharp
        arguments = (face.decoded, face.model, face.camera, size, from_crop, rasterizer)
        labels, bits = (drawn[0].cpu().numpy() for drawn in segment_both(*arguments))
    elif segmentation is not None:
        labels = panel_labels(segmentation.labels, matrix)
        bits = panel_labels(segmentation.part_bits, matrix)
    panels = reconstruction_panels(
        panel,
        shape=overlay(panel, _picture(shape), drawn),
        textured=overlay(panel, _picture(textured), drawn),
        landmarks={
            key: to_panel(_array(getattr(face, LANDMARK_SETS[key])), matrix)
            for key in choice.landmarks
        },
        labels=labels if choice.seg_visible else None,
        part_bits=bits if choice.seg else None,
    )
    return contact_sheet(panels)


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _picture(image: torch.Tensor) -> np.ndarray:
    """[1, 3, H, W] 0…1 as [H, W, 3] uint8."""
    return (image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Affine maps [2, 3]: first `inner`, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])
