"""What the photos say about the fitted mesh: parts, landmarks, texture coordinates, albedo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from tqdm import tqdm

from v3recon.face_models.parts import EYE_LABELS
from v3recon.fitting.photoface import albedo, albedo_samples, landmark_sets, part_votes, topology
from v3recon.fitting.photoface.uv import unwrap
from v3recon.geometry.mesh import vertex_faces_of
from v3recon.io.celebamask import labels_from_celebamask
from v3recon.io.images import read_image
from v3recon.io.label_pictures import read_label_picture

ALBEDO_PHOTOS = 1500
SHARP_SHARE = 0.65
"""Share of the albedo photos from the sources with more pixels; the rest brings more people."""
SHARP_YAW, SHARP_PITCH, SOFT_YAW, SOFT_PITCH = 18.0, 16.0, 10.0, 12.0
"""Limits in degrees for photos that albedo is learned from."""
SHARP_PIXELS = 85.0
"""Distance of the outer eye corners from which a photo counts as sharp, pixels."""
_MIN_OPENING, _MAX_GAZE, _MAX_LIP_GAP = 0.22, 0.1, 0.06
_IRISES = (468, 473)
_CHILDREN = 4


@dataclass(frozen=True)
class TrainingFace:
    """One photo of the training split with the detector's points.

    Attributes:
        photo: file of the photo.
        subject: who is shown.
        points: [478, 3] detected points, pixels, x right, y down, z nearer.
        control: [Vc, 3] control vertices through them, pixels, x right, y up, z nearer.
        yaw: degrees.
        pitch: degrees.
        landmarks: file of hand-made points, or None.
        mask: file of the hand-made mask, or None.
    """

    photo: Path
    subject: str
    points: np.ndarray
    control: np.ndarray
    yaw: float
    pitch: float
    landmarks: Path | None
    mask: Path | None


@dataclass(frozen=True)
class DenseMesh:
    """The dense mesh that labels are made for.

    Attributes:
        vertices: [V, 3] neutral mean face, decimetres.
        faces: [F, 3]; four successive ones share a coarse triangle, see `subdivision.subdivide`.
        operator: [V, Vc] from control vertices.
        mirror: [V] mirror images.
    """

    vertices: np.ndarray
    faces: np.ndarray
    operator: sparse.csr_matrix
    mirror: np.ndarray


def learn_appearance(training: Sequence[TrainingFace], mesh: DenseMesh) -> dict[str, np.ndarray]:
    """All arrays of a PhotoFace file that do not describe its shape.

    Args:
        training: photos of the training split, in a fixed order.
        mesh: the dense mesh.

    Returns:
        part_labels, landmarks_68, landmarks_106, landmarks_134, contour_lines, uv_coords,
        mean_albedo, alb_basis and the albedo_subdivision operator's three arrays.

    Raises:
        ValueError: if there are too few photos with masks, points or usable colours.
    """
    labels = learn_parts(training, mesh)
    sets = learn_landmarks(training, mesh, labels)
    model, operator = learn_albedo(training, mesh, labels)
    width = max(len(line) for line in sets.contour_lines)
    lines = np.full((len(sets.contour_lines), width), -1, np.int32)
    for row, line in zip(lines, sets.contour_lines, strict=True):
        row[: len(line)] = line
    return {
        "part_labels": labels,
        "landmarks_68": sets.landmarks_68.astype(np.int32),
        "landmarks_106": sets.landmarks_106.astype(np.int32),
        "landmarks_134": sets.landmarks_134.astype(np.int32),
        "contour_lines": lines,
        "uv_coords": unwrap(mesh.vertices, mesh.faces, mesh.mirror).astype(np.float32),
        "mean_albedo": model.mean.astype(np.float32),
        "alb_basis": model.basis.astype(np.float16),
        "albedo_subdivision_data": operator.data.astype(np.float32),
        "albedo_subdivision_indices": operator.indices.astype(np.uint16),
        "albedo_subdivision_indptr": operator.indptr.astype(np.int32),
    }


def learn_parts(training: Sequence[TrainingFace], mesh: DenseMesh) -> np.ndarray:
    """Part labels [V] by vote of the photos with masks; unreadable masks are left out."""
    faces = torch.from_numpy(mesh.faces.astype(np.int64))
    vertex_faces = vertex_faces_of(faces, len(mesh.vertices))
    votes = np.zeros((len(mesh.vertices), part_votes.LABEL_COUNT))
    for face in tqdm([face for face in training if face.mask], desc="parts", unit="photo"):
        labels = _read_labels(face)
        if labels is None:
            continue
        size = (labels.shape[0], labels.shape[1])
        seen = part_votes.see_mesh(mesh.operator @ face.control, faces, vertex_faces, size)
        vertex, label = part_votes.votes_of_photo(seen.points_2d, seen.visible, labels)
        votes[vertex, label] += 1
    return part_votes.labels_from_votes(votes, mesh.vertices, mesh.faces, mesh.mirror)


def learn_landmarks(
    training: Sequence[TrainingFace], mesh: DenseMesh, labels: np.ndarray
) -> landmark_sets.LandmarkSets:
    """Landmark sets and contour lines from the photos with hand-made points."""
    marked = [face for face in training if face.landmarks]
    if not marked:
        raise ValueError("no photo has hand-made points; the index names them as `landmarks`")
    normals = albedo_samples.vertex_normals(mesh.vertices, mesh.faces)
    index_68 = landmark_sets.choose_68(
        np.stack([face.control[:, :2] * [1.0, -1.0] for face in marked]),
        np.array([face.yaw for face in marked]),
        np.stack([landmark_sets.read_points(face.landmarks) for face in marked if face.landmarks]),
        mesh.operator,
        mesh.mirror,
        normals[:, 2] > 0,
    )
    frontal = [face for face in training if abs(face.yaw) < landmark_sets.FRONTAL_YAW][::4]
    pupils = landmark_sets.choose_pupils(
        np.stack([face.control[:, :2] * [1.0, -1.0] for face in frontal]),
        np.stack([face.points[list(_IRISES), :2] for face in frontal]).astype(np.float64),
        mesh.operator,
        mesh.mirror,
        np.isin(labels, EYE_LABELS),
    )
    brows = np.flatnonzero(labels == 3), np.flatnonzero(labels == 4)
    return landmark_sets.make_landmark_sets(
        index_68, mesh.vertices, mesh.mirror, mesh.operator, brows, pupils
    )


def learn_albedo(
    training: Sequence[TrainingFace], mesh: DenseMesh, labels: np.ndarray, modes: int = 80
) -> tuple[albedo.AlbedoModel, sparse.csr_matrix]:
    """Albedo statistics one subdivision coarser than the dense mesh, and the operator to it."""
    faces, parents = coarsen(mesh.faces)
    count = int(faces.max()) + 1
    coarse = albedo_samples.AlbedoMesh(
        mesh.operator[:count], faces, mesh.mirror[:count], labels[:count]
    )
    chosen = choose_albedo_photos(training)
    unwrapped = albedo_samples.unwrap_photos(_photos(chosen), coarse)
    model = albedo.learn_albedo(unwrapped, coarse, modes)
    return model, albedo.interpolation_operator(parents, count)


def coarsen(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undo one round of subdivision.

    Args:
        faces: [F, 3] as `subdivision.subdivide` orders them: the children at the three corners,
            each with its old vertex in the parent's place of it, then the middle one.

    Returns:
        coarse triangles [F / 4, 3], and for each fine vertex [V, 2] the two coarse vertices whose
        edge it halves (itself twice if it is a coarse one).
    """
    children = faces.astype(np.int64).reshape(-1, _CHILDREN, 3)
    coarse = np.stack([children[:, corner, corner] for corner in range(3)], 1)
    parents = np.repeat(np.arange(int(faces.max()) + 1)[:, None], 2, 1)
    for corner in range(3):
        following = (corner + 1) % 3
        half = children[:, corner, following]  # a corner's child ends half-way to the next corner
        parents[half] = coarse[:, [corner, following]]
    return coarse, parents


def choose_albedo_photos(training: Sequence[TrainingFace]) -> list[TrainingFace]:
    """Nearly frontal photos: the sharp ones, and one of each person of the others."""
    sharp, soft, known = [], [], set()
    for face in training:
        corners = face.points[[33, 263], :2]
        if np.linalg.norm(corners[0] - corners[1]) > SHARP_PIXELS:
            if abs(face.yaw) < SHARP_YAW and abs(face.pitch) < SHARP_PITCH:
                sharp.append(face)
        elif abs(face.yaw) < SOFT_YAW and abs(face.pitch) < SOFT_PITCH:
            if face.subject not in known:
                soft.append(face)
            known.add(face.subject)
    sharp_count = int(ALBEDO_PHOTOS * SHARP_SHARE)
    sharp = _spread(sharp, sharp_count)
    return sharp + _spread(soft, ALBEDO_PHOTOS - len(sharp))


def _spread(faces: list[TrainingFace], count: int) -> list[TrainingFace]:
    """At most `count` of the faces, evenly over the list."""
    if len(faces) <= count:
        return faces
    return [faces[int(place)] for place in np.linspace(0, len(faces) - 1, count)]


def _photos(faces: Sequence[TrainingFace]) -> Iterator[albedo_samples.FacePhoto]:
    for face in tqdm(faces, desc="albedo", unit="photo"):
        try:
            image = read_image(face.photo)
        except ValueError:
            continue
        labels = _read_labels(face) if face.mask else None
        yield albedo_samples.FacePhoto(
            image, face.control, labels, _eyes_show(face.points), _lips_touch(face.points)
        )


def _read_labels(face: TrainingFace) -> np.ndarray | None:
    """Part labels of a face's mask with the sides put right; None if it cannot be used."""
    try:
        labels = labels_from_celebamask(read_label_picture(str(face.mask)))
    except ValueError:
        return None
    corners = face.points[:, :2]
    right, left = corners[[33, 133]].mean(0), corners[[263, 362]].mean(0)
    return part_votes.repair_sides_by_eyes(labels, right, left)[0]


def _eyes_show(points: np.ndarray) -> bool:
    """Whether both eyes are open and look ahead."""
    flat = points[:, :2]
    for upper, lower, outer, inner, iris in (
        (159, 145, topology.RIGHT_EYE_UPPER[0], topology.RIGHT_EYE_UPPER[-1], _IRISES[0]),
        (386, 374, topology.LEFT_EYE_UPPER[0], topology.LEFT_EYE_UPPER[-1], _IRISES[1]),
    ):
        axis = flat[inner] - flat[outer]
        length = float(axis @ axis)
        if np.linalg.norm(flat[upper] - flat[lower]) < _MIN_OPENING * length**0.5:
            return False
        if abs((flat[iris] - flat[outer]) @ axis / length - 0.5) > _MAX_GAZE:
            return False
    return True


def _lips_touch(points: np.ndarray) -> bool:
    """Whether the gap between the lips is small beside the mouth's width."""
    gap = np.linalg.norm(points[13, :2] - points[14, :2])
    return bool(gap < _MAX_LIP_GAP * np.linalg.norm(points[61, :2] - points[291, :2]))
