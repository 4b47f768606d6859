"""Part labels by vote: hand-made masks label the vertices that fall on them.

Masks are CelebAMask-HQ's (Lee et al., CVPR 2020): 19 classes whose names "left" and "right" are the
person's own. A few of its photos are mirrored while their masks keep the names, so sides are
checked against the fitted face and exchanged where they contradict it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from v3recon.decode import decode
from v3recon.face_models import parts
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.geometry.affine2d import apply_affine_2d
from v3recon.geometry.camera import Camera, to_clip
from v3recon.reconstruct.segment import visible_labels
from v3recon.render.rasterize import rasterize
from v3recon.render.visibility import facing_camera, touched_vertices
from v3recon.types import FaceCoeffs, Fragments

LABEL_COUNT = len(PART_NAMES) + 1
SKIN = parts.SKIN_LABEL
MIRROR_LABELS = np.array(parts.MIRROR_LABELS)
_SIDED = ((1, -1), (2, 1), (3, -1), (4, 1))  # label, its side along right eye -> left eye
_MIN_VOTES = 5
_FAR = 10.0  # times the depth of the face


def repair_sides_by_eyes(
    labels: np.ndarray, right_eye: np.ndarray, left_eye: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Exchange the sides of a label map whose eyes and brows contradict the fitted face.

    Args:
        labels: [H, W] uint8.
        right_eye: [2] middle of the person's right eye, pixels.
        left_eye: [2] middle of the person's left eye, pixels.

    Returns:
        The label map, with sides exchanged if need be, and whether they were.
    """
    axis, middle = left_eye - right_eye, (left_eye + right_eye) / 2
    agreement = 0.0
    for label, side in _SIDED:
        rows, columns = np.nonzero(labels == label)
        if len(rows):
            offset = np.array([columns.mean(), rows.mean()]) - middle
            agreement += np.sign(side * (offset @ axis))
    if agreement >= 0:
        return labels, False
    return MIRROR_LABELS.astype(np.uint8)[labels], True


def eye_middles(points_2d: np.ndarray, landmarks_68: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middles [2] of the person's right and left eye among projected vertices [V, 2]."""
    return points_2d[landmarks_68[36:42]].mean(0), points_2d[landmarks_68[42:48]].mean(0)


@dataclass(frozen=True)
class SeenFace:
    """A fitted face as a photo sees it.

    Attributes:
        points_2d: [V, 2] projected vertices, the photo's pixels.
        visible: [V] bool.
        fragments: which triangle owns each of the photo's pixels.
    """

    points_2d: np.ndarray
    visible: np.ndarray
    fragments: Fragments


def see_face(
    coeffs: FaceCoeffs,
    model: LinearFaceModel,
    camera: Camera,
    from_crop: Tensor,
    image_size: tuple[int, int],
) -> SeenFace:
    """Project one fitted face into a photo.

    Args:
        coeffs: one face.
        model: its face model.
        camera: camera of the crop.
        from_crop: [1, 2, 3] crop pixels to the photo's pixels.
        image_size: (H, W) of the photo.
    """
    with torch.no_grad():
        decoded = decode(coeffs, model, camera)
        clip = to_clip(decoded.vertices, camera, image_size, from_crop)
        fragments = rasterize(clip, model.faces, image_size)
        seen = touched_vertices(fragments, model.faces, model.vertex_count)
        seen &= facing_camera(decoded.vertices, model.faces, model.vertex_faces)
        points = apply_affine_2d(decoded.points_2d, from_crop)
    return SeenFace(points[0].numpy(), seen[0].numpy(), fragments)


def see_mesh(
    vertices: np.ndarray, faces: Tensor, vertex_faces: Tensor, image_size: tuple[int, int]
) -> SeenFace:
    """A mesh that lies in a photo's pixels already, seen from far away.

    Args:
        vertices: [V, 3] pixels: x right, y up (minus the row), z nearer.
        faces: [F, 3].
        vertex_faces: [V, N], see `geometry.mesh.vertex_faces_of`.
        image_size: (H, W) of the photo.
    """
    height, width = image_size
    posed = torch.from_numpy(vertices).float()[None]
    # Distance only orders the surface: it scales x and y as well, so the projection stays.
    distance = _FAR * np.ptp(vertices[:, 2]) - (posed[..., 2] - float(vertices[:, 2].mean()))
    x = (2 * posed[..., 0] + 1) / width - 1
    y = (1 - 2 * posed[..., 1]) / height - 1
    clip = torch.stack([x * distance, y * distance, torch.zeros_like(x), distance], -1)
    fragments = rasterize(clip, faces, image_size)
    seen = touched_vertices(fragments, faces, len(vertices))
    seen &= facing_camera(posed, faces, vertex_faces)
    return SeenFace(vertices[:, :2] * [1.0, -1.0], seen[0].numpy(), fragments)


def draw_labels(face: SeenFace, labels: np.ndarray, faces: Tensor) -> np.ndarray:
    """Label map [H, W] of vertex labels [V] as `segment_visible` draws it."""
    visible = torch.from_numpy(face.visible)[None]
    return visible_labels(face.fragments, faces, torch.from_numpy(labels), visible)[0].numpy()


def votes_of_photo(
    points_2d: np.ndarray, visible: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The label under each visible vertex of one photo.

    Args:
        points_2d: [V, 2] projected vertices in the mask's pixels.
        visible: [V] bool.
        labels: [H, W] uint8.

    Returns:
        vertex ids [N] that are visible and inside the mask, and their labels [N].
    """
    height, width = labels.shape
    column, row = np.rint(points_2d).astype(np.int64).T
    inside = visible & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    vertex = np.flatnonzero(inside)
    return vertex, labels[row[vertex], column[vertex]]


def labels_from_votes(
    votes: np.ndarray, vertices: np.ndarray, faces: np.ndarray, mirror: np.ndarray | None
) -> np.ndarray:
    """One part per vertex: symmetric, connected, without holes, best expected overlap.

    A part takes the vertices whose share of votes exceeds a threshold. The threshold is the one
    with the greatest expected intersection over union of the part when it is drawn back on the
    voting photos; for a part that overlaps by J that is about J / (1 + J), below one half.

    Args:
        votes: [V, 9] counts.
        vertices: [V, 3] mean face.
        faces: [F, 3].
        mirror: [V] mirror images; None leaves the sides as they are.

    Returns:
        [V] uint8, 1…8 (skin where no other part is).

    Raises:
        ValueError: if nobody voted.
    """
    if votes.sum() == 0:
        raise ValueError("no vertex received a vote: no photo has a fit and a mask of its size")
    votes = votes.astype(float)
    if mirror is not None:
        votes = votes + votes[mirror][:, MIRROR_LABELS]
    total = votes.sum(1)
    share = votes / np.maximum(total, 1)[:, None]
    weight = vertex_areas(vertices, faces) * total
    score = np.zeros((len(votes), LABEL_COUNT))
    for label in range(1, SKIN):
        threshold, _ = best_threshold(share[:, label], weight)
        score[:, label] = share[:, label] / threshold
    best = score.argmax(1)
    labels = np.where((score.max(1) >= 1) & (total >= _MIN_VOTES), best, SKIN)
    return clean_labels(labels.astype(np.uint8), faces)


def best_threshold(share: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Share of votes from which a vertex belongs to a part, and the overlap to expect.

    Args:
        share: [V] share of votes for the part.
        weight: [V] area times number of votes.

    Returns:
        threshold in (0, 1] and expected intersection over union.
    """
    order = np.argsort(-share, kind="stable")
    hit = np.cumsum((weight * share)[order])
    taken = np.cumsum(weight[order])
    overlap = hit / np.maximum(taken + hit[-1] - hit, 1e-12)
    best = int(overlap.argmax())
    return max(float(share[order[best]]), 1e-6), float(overlap[best])


def clean_labels(labels: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Keep the largest piece of each part, and give it the skin that it encloses.

    Args:
        labels: [V] uint8, 1…8.
        faces: [F, 3].

    Returns:
        [V] uint8.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    result = labels.copy()
    for label in range(1, SKIN):
        piece, size = _pieces(result == label, edges)
        if len(size):
            result[(result == label) & (piece != size.argmax())] = SKIN
    piece, size = _pieces(result == SKIN, edges)
    for index in np.flatnonzero(size < size.max(initial=0)):
        inside = piece == index
        border = np.concatenate([edges[inside[edges[:, 0]], 1], edges[inside[edges[:, 1]], 0]])
        around = np.unique(result[border[~inside[border]]])
        if len(around) == 1:
            result[inside] = around[0]
    return result


def _pieces(chosen: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected piece of each chosen vertex ([V], -1 elsewhere) and the pieces' sizes."""
    ids = np.flatnonzero(chosen)
    if not len(ids):
        return np.full(len(chosen), -1), np.zeros(0, np.int64)
    position = np.full(len(chosen), -1)
    position[ids] = np.arange(len(ids))
    inner = edges[chosen[edges].all(1)]
    graph = sparse.coo_matrix(
        (np.ones(len(inner)), (position[inner[:, 0]], position[inner[:, 1]])),
        shape=(len(ids), len(ids)),
    )
    count, piece_of = connected_components(graph, directed=False)
    piece = np.full(len(chosen), -1)
    piece[ids] = piece_of
    return piece, np.bincount(piece_of, minlength=count)


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """A third of the area of the triangles around each vertex, [V]."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(faces.ravel(), np.repeat(area, 3), minlength=len(vertices))


def part_overlap(drawn: np.ndarray, truth: np.ndarray, min_pixels: int = 20) -> np.ndarray:
    """Intersection over union of each part in one photo.

    Args:
        drawn: [H, W] labels of the model.
        truth: [H, W] hand-made labels.
        min_pixels: parts with fewer hand-made pixels are not judged.

    Returns:
        [8] in 0…1, NaN where the part is not judged.
    """
    result = np.full(len(PART_NAMES), np.nan)
    for label in range(1, LABEL_COUNT):
        ours, theirs = drawn == label, truth == label
        if theirs.sum() >= min_pixels:
            result[label - 1] = (ours & theirs).sum() / (ours | theirs).sum()
    return result
