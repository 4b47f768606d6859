"""What other programs train on: landmarks, part masks, parameters and position maps of faces."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.io.celebamask import CLASS_NAMES, classes_of_labels
from v3recon.io.label_pictures import write_label_picture
from v3recon.networks.encoder import SEEN_NAMES
from v3recon.reconstruct.alignment import dense_pose
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.position_map import landmark_texels, map_weights, position_map
from v3recon.reconstruct.values import to_numpy

COLUMNS = (
    *("photo", "face", "landmarks", "masks", "params", "positions"),
    *("left", "top", "right", "bottom", "quality", "pitch", "yaw", "roll", "problem"),
)
"""Of the list of faces; `LABEL_KINDS` name files relative to the list's folder."""
_INNER_LIPS = slice(60, 68)
_COVERS = {"hair": "hair", "glasses": "glasses", "occluder": "background"}
"""What lies before a face to its class of a mask, which knows no hands."""


def part_mask(face: Face) -> np.ndarray:
    """A face's parts in its photo as CelebAMask-HQ names them.

    Parts are those of the mesh that the camera sees; the inner mouth is what shows between the
    lips. Where the network has a part head, hair and glasses are what it tells, and what else lies
    before the face is background; it looks at the crop, and the mesh goes on beyond it with what
    the crop's border shows.

    Args:
        face: the face.

    Returns:
        [H, W] uint8, numbers of `io.celebamask.CLASS_NAMES`.
    """
    labels = face.parts().labels
    classes = classes_of_labels(labels)
    lips = np.round(to_numpy(face.landmarks_68[_INNER_LIPS]) * 16).astype(np.int32)
    between = np.zeros(labels.shape, np.uint8)
    cv2.fillPoly(between, [lips], 1, lineType=cv2.LINE_8, shift=4)
    classes[(between > 0) & (labels == 0)] = CLASS_NAMES.index("inner_mouth")
    if face.seen is not None:
        seen = _seen_with_mesh(face, labels > 0)
        for cover, name in _COVERS.items():
            classes[seen == SEEN_NAMES.index(cover)] = CLASS_NAMES.index(name)
    return classes


def _seen_with_mesh(face: Face, mesh: np.ndarray) -> np.ndarray:
    """`Face.seg_seen`, beyond the crop that of its border where the mesh [H, W] bool is."""
    assert face.seen is not None
    seen, map_ = face.seg_seen(), face.seen.argmax(0).cpu()
    rows, columns = np.nonzero(mesh)
    size = face.camera.image_size
    points = face.crop.to_crop(torch.from_numpy(np.stack([columns, rows], 1)).double())
    outside = ((points < -0.5) | (points > size - 0.5)).any(1)
    cells = ((points[outside] + 0.5) * map_.shape[-1] / size).long().clamp(0, map_.shape[-1] - 1)
    beyond = outside.numpy()
    seen[rows[beyond], columns[beyond]] = map_[cells[:, 1], cells[:, 0]].numpy()
    return seen


def face_parameters(face: Face) -> dict[str, np.ndarray]:
    """Coefficients of a face and where it stands in the photo.

    Returns:
        `coeffs` [K] packed (`FaceCoeffs.to_tensor`), `id exp alb angle sh trans` the same by name;
        `rotation` [3, 3], `translation` [3] and `scale`, the similarity (row vectors)
        (x, -y, z) = scale * shape @ rotation + translation from the unposed head in decimeters to
        photo pixels, y up; `crop_matrix` [2, 3] photo pixels to the crop's, `image_size` [2]
        height and width, `face_model` and `face_model_hash`.
    """
    coeffs, pose = face.coeffs, dense_pose(face.batch, face.decoded.model_vertices)
    named = {key: getattr(coeffs, key) for key in ("id", "exp", "alb", "angle", "sh", "trans")}
    tensors = {"coeffs": coeffs.to_tensor(), **named, "rotation": pose.rotation}
    tensors |= {"translation": pose.translation, "scale": pose.scale}
    return {key: to_numpy(value[0]) for key, value in tensors.items()} | {
        "crop_matrix": face.crop.matrix.numpy(),
        "image_size": np.array(face.image_size),
        "face_model": np.array(face.model.name),
        "face_model_hash": np.array(face.model.content_hash),
    }


def _write_landmarks(path: Path, face: Face) -> None:
    points = to_numpy(face.landmarks_68_2d)
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points)
    write_text_atomic(path, lines)
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points + 1)  # iBUG's first pixel is 1
    write_text_atomic(path.with_suffix(".pts"), f"version: 1\nn_points: 68\n{{\n{lines}}}\n")


def _write_mask(path: Path, face: Face) -> None:
    write_label_picture(path, part_mask(face))


def _write_parameters(path: Path, face: Face) -> None:
    arrays: dict[str, Any] = dict(face_parameters(face))
    with replace_on_success(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _write_positions(path: Path, face: Face) -> None:
    with replace_on_success(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, position_map(face))


LABEL_KINDS: dict[str, tuple[str, Callable[[Path, Face], None]]] = {
    "landmarks": (".txt", _write_landmarks),
    "masks": (".png", _write_mask),
    "params": (".npz", _write_parameters),
    "positions": (".npy", _write_positions),
}
"""Name of a kind and of its folder -> ending of its files, and what writes one."""


def chosen_kinds(text: str) -> tuple[str, ...]:
    """Kinds of a list with commas, in the order of `LABEL_KINDS`.

    Raises:
        ValueError: for a kind that is not known.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in LABEL_KINDS:
            raise ValueError(f"only: {name!r} is not known; known: {', '.join(LABEL_KINDS)}")
    return tuple(name for name in LABEL_KINDS if name in names)


def write_labels(
    folder: Path, name: str, face: Face, kinds: Collection[str], photo: str, number: int
) -> dict[str, str]:
    """Write a face's files, each whole or not at all.

    Args:
        folder: of all labels; each kind has a folder in it.
        name: of the files.
        face: the face.
        kinds: names of `LABEL_KINDS`.
        photo: what the list says the photo is.
        number: of the face in it, from 1.

    Returns:
        Its line of the list, by `COLUMNS`.
    """
    points, angles = to_numpy(face.landmarks_68_2d), to_numpy(face.angle_degrees)
    names = ("left", "top", "right", "bottom", "pitch", "yaw", "roll")
    numbers = dict(zip(names, [*points.min(0), *points.max(0), *angles], strict=True))
    row = {"photo": photo, "face": str(number), "quality": f"{face.quality:.3f}"}
    row |= {key: f"{value:.2f}" for key, value in numbers.items()}
    for kind in kinds:
        ending, write = LABEL_KINDS[kind]
        path = folder / kind / f"{name}{ending}"
        path.parent.mkdir(exist_ok=True)
        write(path, face)
        row[kind] = f"{kind}/{name}{ending}"
    return row


def write_map_files(folder: Path, face: Face) -> None:
    """Write what a loss on the face model's position maps needs, the same for all faces.

    `uv_weights.npy` is [256, 256] float32 (`position_map.map_weights`), `uv_kpt_ind.txt` two lines
    of 68 whole numbers, columns and rows (`landmark_texels`).
    """
    path = folder / "uv_weights.npy"
    with replace_on_success(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, map_weights(face.model))
    lines = [" ".join(map(str, line)) for line in landmark_texels(face.model).tolist()]
    write_text_atomic(folder / "uv_kpt_ind.txt", "\n".join(lines) + "\n")
