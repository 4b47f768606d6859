"""The eight parts of a face model: which vertices and triangles, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel

PART_COLORS = (
    (230, 60, 60),
    (60, 110, 230),
    (245, 150, 40),
    (60, 190, 220),
    (90, 190, 80),
    (215, 70, 170),
    (140, 80, 200),
    (235, 205, 165),
)
"""RGB 0…255 of each part; the person's right side is warm, the left one cool."""

LABEL_COLORS = ((0, 0, 0), *PART_COLORS)
"""RGB 0…255 of labels 0…8."""

COVER_COLORS = ((120, 80, 40), (20, 20, 20), (250, 250, 60))
"""RGB 0…255 of what hides a face: hair, glasses, other things."""

EYE_LABELS = (PART_NAMES.index("right_eye") + 1, PART_NAMES.index("left_eye") + 1)
BROW_LABELS = (PART_NAMES.index("right_eyebrow") + 1, PART_NAMES.index("left_eyebrow") + 1)
NOSE_LABEL = PART_NAMES.index("nose") + 1
LIP_LABELS = (PART_NAMES.index("up_lip") + 1, PART_NAMES.index("down_lip") + 1)
SKIN_LABEL = PART_NAMES.index("skin") + 1

MIRROR_LABELS = (0, 2, 1, 4, 3, 5, 6, 7, 8)
"""Label that each label becomes in the mirror image (0 none, 1…8 = PART_NAMES)."""


@dataclass(frozen=True)
class PartMasks:
    """Part annotation of a face model (3DDFA_V3's `annotation` and `annotation_tri`).

    Attributes:
        names: eight part names; sides are the person's own.
        colors: RGB 0…255 of each part.
        labels: [V] uint8, 0 none, p + 1 for part p.
        vertices: vertex ids of each part, increasing.
        faces: [Fp, 3] triangles of each part; triangles across a border belong to none.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    labels: Tensor
    vertices: tuple[Tensor, ...]
    faces: tuple[Tensor, ...]


def part_masks(model: LinearFaceModel) -> PartMasks:
    """The parts of a face model."""
    labels = model.part_labels.to(torch.uint8)
    vertices = tuple((labels == part + 1).nonzero()[:, 0] for part in range(len(PART_NAMES)))
    return PartMasks(PART_NAMES, PART_COLORS, labels, vertices, model.part_faces)


def faces_of_labels(labels: Tensor, faces: Tensor) -> tuple[Tensor, ...]:
    """Triangles of each part: those whose three vertices carry its label.

    Args:
        labels: [V] 0 none, p + 1 for part p.
        faces: [F, 3].

    Returns:
        Eight [Fp, 3] triangle sets.
    """
    corner = labels[faces]  # [F, 3]
    return tuple(faces[(corner == part + 1).all(1)] for part in range(len(PART_NAMES)))


def color_table(device: torch.device | str = "cpu") -> Tensor:
    """Colours of the labels 0…8, [9, 3] uint8; label 0 is black."""
    return torch.tensor(LABEL_COLORS, dtype=torch.uint8, device=device)
