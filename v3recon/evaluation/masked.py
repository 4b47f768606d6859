"""Hand-made part masks: where their face is, and the reconstruction's parts drawn like them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from v3recon.evaluation.predict import FacePlace
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.fitting.part_targets import cut_forehead
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.segment import segment_visible

SKIN = PART_NAMES.index("skin")
PART_GROUPS = {
    "eyes": ("right_eye", "left_eye"),
    "brows": ("right_eyebrow", "left_eyebrow"),
    "upper lip": ("up_lip",),
    "lower lip": ("down_lip",),
    "nose": ("nose",),
}
"""Parts that are reported together, the mean of theirs."""

INNER_SHIFT = (0.006, 0.141)
INNER_SCALE = 1.248
"""From the box of eyes, brows, nose and lips to that of the 68 points, in longer sides of the
former: medians over 790 training photos with hand-made masks. Used where a mask has no skin."""


def labels_of_face(face: Face, size: tuple[int, int]) -> Tensor:
    """Visible parts [H, W] of a face on a map of another size that shows the whole photo.

    Args:
        face: the reconstruction.
        size: (H, W) of the map.
    """
    ratio = torch.tensor(
        [size[1] / face.image_size[1], size[0] / face.image_size[0]], dtype=torch.float64
    )
    to_map = face.crop.inverse_matrix * ratio[:, None]
    # Pixel centres: (x + 0.5) ratio - 0.5.
    to_map = torch.cat([to_map[:, :2], to_map[:, 2:] + ((ratio - 1) / 2)[:, None]], 1)
    matrix = to_map[None].to(face.decoded.vertices)
    return segment_visible(face.decoded, face.model, face.camera, size, matrix)[0]


def place_of_mask(labels: np.ndarray) -> FacePlace:
    """Where the face of a mask lies, as the box of 68 points and five points.

    The box is that of all parts without the skin above the brows: on 790 training photos its
    middle is within 2 % (standard deviation) of that of the detected points' box, its longer
    side within 4 %. Two looks (`--passes 2`) take out what is left.

    Args:
        labels: [H, W] 0…8, at least one part.
    """
    face = cut_forehead(labels)
    inner = (labels > 0) & (labels != SKIN + 1)
    if (labels == SKIN + 1).any():
        low, high = _box(face > 0)
    else:
        low, high = _box(inner)
        longer = (high - low).max()
        middle = (low + high) / 2 + longer * np.array(INNER_SHIFT)
        low, high = middle - longer * INNER_SCALE / 2, middle + longer * INNER_SCALE / 2
    return FacePlace(torch.from_numpy(np.concatenate([low, high])), _five_points(labels))


def _box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the pixel centres where a mask is set."""
    rows, columns = np.nonzero(mask)
    low = np.array([columns.min(), rows.min()], np.float64)
    return low, np.array([columns.max(), rows.max()], np.float64)


def _five_points(labels: np.ndarray) -> Tensor | None:
    """Eye centres, nose tip and mouth corners, roughly, from a mask; None if a part is absent."""
    parts = [np.argwhere(labels == label)[:, ::-1] for label in (1, 2, 5)]
    lips = np.argwhere((labels == 6) | (labels == 7))[:, ::-1]
    if not all(map(len, parts)) or not len(lips):
        return None
    eyes = [part.mean(0) for part in parts[:2]]
    nose = parts[2]
    # The tip lies a little above the lower end of the nose's mask.
    tip = np.array([nose[:, 0].mean(), np.quantile(nose[:, 1], 0.8)])
    corners = [lips[lips[:, 0].argmin()], lips[lips[:, 0].argmax()]]
    return torch.from_numpy(np.stack([*eyes, tip, *corners]).astype(np.float64))
