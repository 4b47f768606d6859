"""Albedo of the head at texture resolution: skin learned from photographs, the rest painted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from v3recon.face_models.surfaces import GROUP_NAMES
from v3recon.io.celebamask import CLASS_NAMES, read_celebamask
from v3recon.io.images import read_image
from v3recon.photohead import albedo, albedo_samples
from v3recon.photohead.paint import IRIS_AXES, paint_parts
from v3recon.photohead.shape import HeadShape
from v3recon.photohead.texels import TexelMesh, make_texels

ALBEDO_MODES = 80
MEAN_SIZE = 512
"""Rows and columns of the stored mean; modes have `texels.TEXTURE_SIZE`."""
FINE_MODES = 40
"""Modes stored at full size; later ones, which say little that is sharp, at half of it."""
_LEARNED = ALBEDO_MODES - len(IRIS_AXES)
_SKIN_CLASSES = [
    CLASS_NAMES.index(name)
    for name in (
        "skin nose left_eye right_eye left_eyebrow right_eyebrow left_ear right_ear up_lip "
        "down_lip neck"
    ).split()
]
_MIN_OPENING, _MAX_LIP_GAP = 0.22, 0.06


@dataclass(frozen=True)
class AlbedoPhoto:
    """One nearly frontal photo with its fitted mesh.

    Attributes:
        photo: the file.
        mask: file of its CelebAMask-HQ picture, or None.
        points: [468, 2] detected points, pixels.
        control: [Vc, 3] control vertices: pixels, x right, y up (minus the row), z nearer.
    """

    photo: Path
    mask: Path | None
    points: np.ndarray
    control: np.ndarray


def learn_head_albedo(
    shape: HeadShape,
    uv: np.ndarray,
    part_labels: np.ndarray,
    group_labels: np.ndarray,
    photos: Sequence[AlbedoPhoto],
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The arrays `albedo_*` of a PhotoHead file, and figures about them.

    Raises:
        ValueError: if there are too few usable photos.
    """
    texels = make_texels(shape, uv, part_labels, group_labels)
    unwrapped = albedo_samples.unwrap_photos(_photos(photos, texels), texels.mesh)
    model = albedo.learn_albedo(_only_seen(unwrapped, texels, photos), texels.mesh, _LEARNED)
    colors, painted, iris = paint_parts(shape, uv, group_labels, MEAN_SIZE)
    mean = _spread(texels, model.mean)
    mean = cv2.resize(mean, (MEAN_SIZE, MEAN_SIZE), interpolation=cv2.INTER_CUBIC)
    mean = np.where(painted[..., None], colors, mean)
    size = len(texels.number)
    small = cv2.resize(painted.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    basis = np.zeros((size, size, 3, ALBEDO_MODES), np.float32)
    for number in range(_LEARNED):
        mode = _spread(texels, np.ascontiguousarray(model.basis[..., number]))
        basis[..., number] = mode * (1 - small[..., None])
    small_iris = cv2.resize(iris.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    for number, axis in enumerate(IRIS_AXES, _LEARNED):
        basis[..., number] = small_iris[..., None] * np.array(axis, np.float32)
    figures = {"photos": float(model.used), "explained": model.explained}
    return {"albedo_mean": _to_bytes(mean), **_quantized(basis)}, figures


def _quantized(basis: np.ndarray) -> dict[str, np.ndarray]:
    """Modes [T, T, 3, K] in 8 bits, later ones at half size, with the unit of each."""
    half = basis.shape[0] // 2
    coarse = np.stack(
        [
            cv2.resize(
                np.ascontiguousarray(basis[..., k]), (half, half), interpolation=cv2.INTER_AREA
            )
            for k in range(FINE_MODES, ALBEDO_MODES - len(IRIS_AXES))
        ],
        3,
    )
    last = basis[..., ALBEDO_MODES - len(IRIS_AXES) :]
    fine = np.concatenate([basis[..., :FINE_MODES], last], 3)
    arrays = {}
    for name, values in (("fine", fine), ("coarse", coarse)):
        unit = np.maximum(np.abs(values).max((0, 1, 2)) / 127, 1e-9)
        bits = np.rint(values / unit).astype(np.int8)
        arrays[f"albedo_{name}"] = np.ascontiguousarray(bits.transpose(3, 2, 0, 1))
        arrays[f"albedo_{name}_unit"] = unit.astype(np.float32)
    return arrays


def _spread(texels: TexelMesh, values: np.ndarray) -> np.ndarray:
    """Values on the grid [T, T, C], carried a few texels beyond the skin's border."""
    grid = texels.picture(values.astype(np.float32))
    known = (texels.number >= 0).astype(np.float32)
    for _ in range(6):
        total = cv2.blur(known, (3, 3))
        mean = cv2.blur(grid * known[..., None], (3, 3)) / np.maximum(total, 1e-6)[..., None]
        grid = np.where(known[..., None] > 0, grid, np.where(total[..., None] > 0, mean, grid))
        known = (total > 0).astype(np.float32)
    return grid


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _only_seen(
    unwrapped: albedo_samples.Unwrapped, texels: TexelMesh, photos: Sequence[AlbedoPhoto]
) -> albedo_samples.Unwrapped:
    """Weights of the face only; ears and neck where a mask says so; nothing of scalp and inside."""
    names = np.array(GROUP_NAMES)[texels.groups]
    face, beside = names == "face", np.isin(names, ["ears", "neck"])
    masked = np.array([photo.mask is not None for photo in photos])
    allowed = face[None] | (beside[None] & masked[:, None])
    return albedo_samples.Unwrapped(
        unwrapped.colors, unwrapped.weights * allowed, unwrapped.normals
    )


def _photos(photos: Sequence[AlbedoPhoto], texels: TexelMesh) -> Iterator[albedo_samples.FacePhoto]:
    for photo in tqdm(photos, desc="albedo", unit="photo"):
        image = read_image(photo.photo)
        labels = None
        if photo.mask is not None:
            classes = read_celebamask(photo.mask).classes
            labels = np.isin(classes, _SKIN_CLASSES).astype(np.uint8)
            if labels.shape != image.shape[:2]:
                labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        yield albedo_samples.FacePhoto(
            image, photo.control, labels, _eyes_open(photo.points), _lips_touch(photo.points)
        )


def _eyes_open(points: np.ndarray) -> bool:
    """Whether both eyes are open enough to show the lids at rest."""
    gaps = [
        np.linalg.norm(points[a] - points[b]) / np.linalg.norm(points[c] - points[d])
        for a, b, c, d in ((159, 145, 33, 133), (386, 374, 263, 362))
    ]
    return bool(min(gaps) > _MIN_OPENING)


def _lips_touch(points: np.ndarray) -> bool:
    """Whether the gap between the lips is small beside the mouth's width."""
    gap = np.linalg.norm(points[13] - points[14])
    return bool(gap < _MAX_LIP_GAP * np.linalg.norm(points[61] - points[291]))
