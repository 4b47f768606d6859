"""Photos sampled at the vertices of their fitted meshes, the raw material of albedo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import sparse

from v3recon.face_models.parts import EYE_LABELS, LIP_LABELS
from v3recon.photohead.registration import vertex_normals

MIN_NORMAL_Z = 0.35
"""Surface seen at a flatter angle than this is not sampled (cosine to the camera's axis)."""
_NORMAL_ROUNDS = 12
_MAP_WIDTH = 1024


@dataclass(frozen=True)
class AlbedoMesh:
    """The mesh on which albedo is learned: one subdivision coarser than the dense one.

    Attributes:
        operator: [Va, Vc] from control vertices.
        faces: [F, 3].
        mirror: [Va] mirror images.
        labels: [Va] part labels 1…8.
    """

    operator: sparse.csr_matrix
    faces: np.ndarray
    mirror: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class FacePhoto:
    """One photo with its fitted mesh.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        control: [Vc, 3] fitted control vertices: pixels, x right, y up (minus the row), z nearer.
        mask_labels: [H, W] hand-made part labels, 0 = not face; None if there are none.
        eyes_open: whether sclera and iris are to be learned from this photo.
        lips_closed: whether lips are to be learned from it (teeth shine between open ones).
    """

    image: np.ndarray
    control: np.ndarray
    mask_labels: np.ndarray | None
    eyes_open: bool
    lips_closed: bool


@dataclass(frozen=True)
class Unwrapped:
    """Photos sampled at the vertices.

    Attributes:
        colors: [N, Va, 3] float32 RGB, 0…1.
        weights: [N, Va] float32, 0 = hidden, grazing or known not to be face.
        normals: [N, Va, 3] float32 unit normals without small relief, camera's frame (z toward it).
    """

    colors: np.ndarray
    weights: np.ndarray
    normals: np.ndarray


def unwrap_photos(photos: Iterable[FacePhoto], mesh: AlbedoMesh) -> Unwrapped:
    """Sample every photo at the vertices of its mesh.

    Args:
        photos: nearly frontal photos with their fits.
        mesh: the albedo mesh.
    """
    colors, weights, normals = [], [], []
    smoother = neighbor_average(mesh.faces)
    for photo in photos:
        vertices = mesh.operator @ photo.control.astype(np.float64)
        normal = vertex_normals(vertices, mesh.faces)
        soft = _soft_normals(normal, smoother)
        color = _sample(photo.image, vertices, mesh.faces)
        height, width = photo.image.shape[:2]
        column, row = vertices[:, 0], -vertices[:, 1]
        inside = (column > 0) & (column < width - 1) & (row > 0) & (row < height - 1)
        weight = np.clip((normal[:, 2] - MIN_NORMAL_Z) / 0.3, 0, 1) * inside
        if photo.mask_labels is not None:
            at = np.rint(np.stack([row, column])).astype(np.int64)
            under = photo.mask_labels[at[0].clip(0, height - 1), at[1].clip(0, width - 1)]
            weight = weight * (under > 0)
        if not photo.eyes_open:
            weight = weight * ~np.isin(mesh.labels, EYE_LABELS)
        if not photo.lips_closed:
            weight = weight * ~np.isin(mesh.labels, LIP_LABELS)
        colors.append(color.astype(np.float32))
        weights.append(weight.astype(np.float32))
        normals.append(soft.astype(np.float32))
    return Unwrapped(np.stack(colors), np.stack(weights), np.stack(normals))


def neighbor_average(faces: np.ndarray) -> sparse.csr_matrix:
    """Average of each vertex and its neighbours."""
    half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.concatenate([half, half[:, ::-1]])
    count = int(faces.max()) + 1
    graph = sparse.csr_matrix((np.ones(len(both)), both.T), shape=(count, count))
    graph.data[:] = 1
    graph = graph + sparse.identity(count)
    degree = np.asarray(graph.sum(1)).ravel()
    return sparse.csr_matrix(sparse.diags(1 / degree) @ graph)


def _soft_normals(normals: np.ndarray, smoother: sparse.csr_matrix) -> np.ndarray:
    """Normals without small relief: creases whose place in the photo is not exact would ring."""
    for _ in range(_NORMAL_ROUNDS):
        normals = smoother @ normals
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)


def _sample(image: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Bilinear colours [Va, 3] in 0…1, smoothed to the vertices' spacing first."""
    edge = vertices[faces[:, 0], :2] - vertices[faces[:, 1], :2]
    sigma = 0.4 * float(np.median(np.linalg.norm(edge, axis=1)))
    smooth = image.astype(np.float32) / 255
    if sigma > 0.4:
        smooth = cv2.GaussianBlur(smooth, (0, 0), sigma)
    count = len(vertices)
    height = -(-count // _MAP_WIDTH)  # OpenCV's maps end at 32,767 rows: a rectangle, not a column
    maps = np.zeros((2, height * _MAP_WIDTH), np.float32)
    maps[0, :count], maps[1, :count] = vertices[:, 0], -vertices[:, 1]
    column, row = maps.reshape(2, height, _MAP_WIDTH)
    sampled = cv2.remap(smooth, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.reshape(-1, 3)[:count]
