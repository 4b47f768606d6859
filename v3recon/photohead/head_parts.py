"""Which vertices are eyes, brows, nose, lips, skin, ears, neck, scalp: hand-made masks vote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from tqdm import tqdm

from v3recon.face_models.parts import EYE_LABELS, LIP_LABELS
from v3recon.face_models.surfaces import GROUP_NAMES
from v3recon.geometry.mesh import vertex_faces_of
from v3recon.io.celebamask import CELEBAMASK_TO_LABEL, CLASS_NAMES, read_celebamask
from v3recon.photohead import part_votes
from v3recon.photohead.part_refinement import (
    DrawnPixels,
    pixels_of_photo,
    refine_labels,
    stack_pixels,
)
from v3recon.photohead.registration import edges_of
from v3recon.photohead.shape import HeadShape

_FACE_CLASSES = (
    "skin nose left_eye right_eye left_eyebrow right_eyebrow up_lip down_lip inner_mouth glasses"
)
_MIN_VOTES = 20
_SMOOTHING = 6


@dataclass(frozen=True)
class MaskedFace:
    """One photo with a hand-made mask and its fitted mesh.

    Attributes:
        mask: file of the CelebAMask-HQ picture.
        control: [Vc, 3] control vertices: pixels, x right, y up (minus the row), z nearer.
    """

    mask: Path
    control: np.ndarray


@dataclass(frozen=True)
class HeadParts:
    """Labels of the dense vertices.

    Attributes:
        part_labels: [V] uint8, 0 none, 1…8 = PART_NAMES.
        group_labels: [V] uint8 index into GROUP_NAMES.
    """

    part_labels: np.ndarray
    group_labels: np.ndarray


def vote_parts(shape: HeadShape, faces: Iterable[MaskedFace]) -> HeadParts:
    """Labels by vote, borders of brows, nose and lips refined for overlap with the masks.

    Eyes are the eyeballs and what lids hide, their inner margins included, so that a closed eye
    shows none.

    Raises:
        ValueError: if no mask could be used.
    """
    votes, pixels = count_votes(shape, faces)
    if pixels is None or votes.sum() == 0:
        raise ValueError("no photo with a hand-made mask could be fitted: parts need some")
    groups = _groups(shape, votes)
    by_part = np.zeros((len(votes), part_votes.LABEL_COUNT))
    np.add.at(by_part.T, [CELEBAMASK_TO_LABEL.get(k, 0) for k in range(len(CLASS_NAMES))], votes.T)
    vertices = shape.dense.operator @ shape.mean
    labels = part_votes.labels_from_votes(by_part, vertices, shape.triangles, shape.mirror)
    face = groups == GROUP_NAMES.index("face")
    lids = face & np.isin(labels, EYE_LABELS)
    labels[lids] = part_votes.SKIN
    lips = np.isin(labels, LIP_LABELS) & (groups == GROUP_NAMES.index("mouth_cavity"))
    labels = _refined(pixels, labels.astype(np.uint8), shape)
    labels[~face & ~lips] = 0
    behind = groups == GROUP_NAMES.index("eye_sockets")
    for label, side in zip(EYE_LABELS, (-1, 1), strict=True):
        labels[behind & (vertices[:, 0] * side > 0)] = label
    balls = groups == GROUP_NAMES.index("eyeballs")
    for label, eye in zip(EYE_LABELS, (0, 1), strict=True):
        center = shape.eye_centers[eye]
        own = balls & (vertices[:, 0] * center[0] > 0) & (vertices[:, 2] > center[2])
        labels[own] = label
    return HeadParts(labels.astype(np.uint8), groups.astype(np.uint8))


def _refined(pixels: DrawnPixels, labels: np.ndarray, shape: HeadShape) -> np.ndarray:
    """Labels [V] with the borders of brows, nose and lips moved to where they overlap best."""
    refined = refine_labels(pixels, labels, shape.triangles, shape.mirror)
    mine, theirs = np.isin(labels, EYE_LABELS), np.isin(refined, EYE_LABELS)
    return np.where(mine | theirs, labels, refined)


def count_votes(
    shape: HeadShape, faces: Iterable[MaskedFace]
) -> tuple[np.ndarray, DrawnPixels | None]:
    """The class under each visible vertex, added up: [V, 19]; and the pixels that each draws."""
    triangles = torch.from_numpy(shape.triangles.astype(np.int64))
    vertex_faces = vertex_faces_of(triangles, shape.dense.vertex_count)
    votes = np.zeros((shape.dense.vertex_count, len(CLASS_NAMES)))
    rows: list[DrawnPixels] = []
    for face in tqdm(list(faces), desc="parts", unit="photo"):
        try:
            mask = read_celebamask(face.mask)
        except ValueError:
            continue
        size = (mask.classes.shape[0], mask.classes.shape[1])
        placed = shape.dense.operator @ face.control.astype(np.float64)
        seen = part_votes.see_mesh(placed, triangles, vertex_faces, size)
        vertex, found = part_votes.votes_of_photo(seen.points_2d, seen.visible, mask.classes)
        votes[vertex, found] += 1
        rows.append(pixels_of_photo(seen, mask.labels, triangles))
    return votes, stack_pixels(rows) if rows else None


def _groups(shape: HeadShape, votes: np.ndarray) -> np.ndarray:
    """Group [V] of each vertex: by surface and loops inside, by vote outside."""
    vertices = shape.dense.operator @ shape.mean
    votes = votes + votes[shape.mirror]
    total = np.maximum(votes.sum(1), 1)

    def share(names: str) -> np.ndarray:
        return votes[:, [CLASS_NAMES.index(name) for name in names.split()]].sum(1) / total

    smooth = _averager(shape)
    hair, neck = share("hair hat"), share("neck cloth necklace")
    ears = share("left_ear right_ear earring")
    face = share(_FACE_CLASSES)
    for _ in range(_SMOOTHING):
        hair, neck, ears, face = (smooth @ value for value in (hair, neck, ears, face))
    seen = smooth @ (votes.sum(1) >= _MIN_VOTES).astype(float) > 0.5
    low = vertices[:, 1] < -0.55
    groups = np.where(low, GROUP_NAMES.index("neck"), GROUP_NAMES.index("scalp"))
    is_face = seen & (face > np.where(low, neck, hair)) & (vertices[:, 2] > -0.2)
    groups[is_face] = GROUP_NAMES.index("face")
    groups[_ears(shape, vertices)] = GROUP_NAMES.index("ears")
    inside = np.zeros((2, len(shape.mean)))
    inside[0, shape.loops.cavity] = 1
    lids = shape.loops.behind_lids
    inside[1, np.concatenate([lids, shape.template.mirror[lids]])] = 1
    for row, name in zip(inside, ("mouth_cavity", "eye_sockets"), strict=True):
        groups[shape.dense.operator @ row > 0.6] = GROUP_NAMES.index(name)
    first = GROUP_NAMES.index("eyeballs")
    return np.where(shape.surface > 0, first + shape.surface - 1, groups)


def _ears(shape: HeadShape, vertices: np.ndarray) -> np.ndarray:
    """Vertices of the ears: the finely meshed skin on both sides of the head."""
    edges = edges_of(shape.dense.quads)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    count, total = np.zeros(len(vertices)), np.zeros(len(vertices))
    for end in (0, 1):
        np.add.at(total, edges[:, end], length)
        np.add.at(count, edges[:, end], 1)
    mean = total / np.maximum(count, 1)
    smooth = _averager(shape)
    for _ in range(4):
        mean = smooth @ mean
    x, y, z = np.abs(vertices[:, 0]), vertices[:, 1], vertices[:, 2]
    beside = (x > 0.64) & (y > -0.5) & (y < 0.5) & (z > -0.35) & (z < 0.45)
    return beside & (mean < 0.022) & (shape.surface == 0)


def _averager(shape: HeadShape) -> sparse.csr_matrix:
    """Mean of each dense vertex and its neighbors, a sparse matrix."""
    edges = edges_of(shape.dense.quads)
    both = np.concatenate([edges, edges[:, ::-1]])
    count = shape.dense.vertex_count
    graph = sparse.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    graph = graph + sparse.identity(count)
    return sparse.csr_matrix(sparse.diags(1 / np.asarray(graph.sum(1)).ravel()) @ graph)
