"""One photo to one prepared face: choose the mesh, cut the region, draw or warp the part labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from v3recon.data.mesh_detection import MeshDetector
from v3recon.data.samples import (
    LABELS_HAND,
    LABELS_NONE,
    LABELS_PARSED,
    LABELS_PSEUDO,
    FaceRecord,
)
from v3recon.data.shards import PreparedFace
from v3recon.face_models.detector_mesh import (
    MIRROR_LABELS,
    POINT_COUNT,
    estimate_pose,
    load_face_mesh,
)
from v3recon.io.celebamask import read_celebamask
from v3recon.io.images import read_image
from v3recon.io.photo_index import MASK_ORIGINS, PhotoEntry, read_points

REGION_FACTOR = 2.4
"""Side of the stored region over the longer side of the 68 points' box."""
MAX_DISAGREEMENT = 0.12
"""Mean distance of detected from hand-made points, over the box size, of another face."""
MIN_FACE = 24
"""Smallest longer side of the 68 points' box that is kept, pixels."""
LABELS_FROM = dict(zip(MASK_ORIGINS, (LABELS_HAND, LABELS_PSEUDO, LABELS_PARSED), strict=True))

# Polygons of the detected contours, in the order of PART_NAMES; the face comes first as skin.
_BROW = [70, 63, 105, 66, 107, 55, 65, 52, 53, 46]
_NOSE = [
    168,
    122,
    196,
    198,
    209,
    49,
    48,
    64,
    98,
    97,
    2,
    326,
    327,
    294,
    278,
    279,
    429,
    420,
    419,
    351,
]
_UP_LIP = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 308, 415, 310, 311, 312, 13, 82, 81, 80]
_DOWN_LIP = [
    61,
    146,
    91,
    181,
    84,
    17,
    314,
    405,
    321,
    375,
    291,
    308,
    324,
    318,
    402,
    317,
    14,
    87,
    178,
]
_UP_LIP_END, _DOWN_LIP_END = [191, 78], [88, 95, 78]


class NoFaceError(ValueError):
    """The photo gives no face."""


def prepare_face(
    folder: Path,
    entry: PhotoEntry,
    detector: MeshDetector,
    *,
    region_size: int,
    source: int,
    pseudo_labels: bool = True,
) -> PreparedFace:
    """Cut one photo's face out, with everything that is known about it.

    Args:
        folder: the photos.
        entry: the photo.
        detector: gives the meshes of all faces; the one that agrees with the hand-made points or
            mask is taken, else the largest near the middle.
        region_size: side of the stored region, pixels.
        source: number of the photo's source.
        pseudo_labels: draw polygons where there is no hand-made mask.

    Raises:
        ValueError: if the photo, its points or its mask cannot be used; says why.
    """
    image = read_image(folder / entry.file)
    marked = read_points(folder, entry)
    hand = marked.points_68 if marked is not None and marked.complete else None
    mask = read_celebamask(folder / entry.mask).labels if entry.mask else None
    if mask is not None and mask.shape != image.shape[:2]:
        height, width = image.shape[:2]
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    meshes = detector(folder / entry.file, entry.file, image)
    mesh = choose_mesh(meshes, hand, mask, image.shape)
    if mesh is None and hand is None:
        raise NoFaceError("no face found" if not meshes else "no detected face fits the mask")
    box = hand if hand is not None else mesh[load_face_mesh().landmarks_68]  # type: ignore[index]
    if max(np.ptp(box[:, :2], axis=0)) < MIN_FACE:
        raise NoFaceError(f"the face is smaller than {MIN_FACE} pixels")
    matrix = region_matrix(box[:, :2], region_size)
    scale = matrix[0, 0]
    points = np.full((POINT_COUNT, 3), np.nan)
    if mesh is not None:
        points[:, :2] = mesh[:, :2] * scale + matrix[:, 2]
        points[:, 2] = mesh[:, 2] * scale
    landmarks = np.full((68, 3), np.nan)
    if hand is not None:
        landmarks[:, :2] = hand * scale + matrix[:, 2]
        landmarks[:, 2] = 0.0 if mesh is None else depth_at(points, landmarks[:, :2])
    labels, labels_source = None, LABELS_NONE
    if mask is not None:
        labels, labels_source = (
            _cut(mask, matrix, region_size, True),
            LABELS_FROM[entry.mask_from],
        )
        labels = labels if mesh is None else repair_sides_by_mesh(labels, points)
    elif mesh is not None and pseudo_labels:
        labels, labels_source = polygon_labels(points, region_size), LABELS_PSEUDO
    record = FaceRecord(
        image=_cut(image, matrix, region_size, False),
        points=points,
        landmarks_68=landmarks,
        labels=labels,
        labels_source=labels_source,
        pose=np.zeros(3) if mesh is None else estimate_pose(points),
        source=source,
        name=entry.file,
    )
    return PreparedFace(record, matrix)


def region_matrix(points_68: np.ndarray, size: int) -> np.ndarray:
    """[2, 3] map from photo pixels to the stored region around a box of points [N, 2]."""
    low, high = points_68.min(0), points_68.max(0)
    factor = size / (REGION_FACTOR * max(high - low))
    offset = (size - 1) / 2 - factor * (low + high) / 2
    return np.concatenate([factor * np.eye(2), offset[:, None]], 1)


def depth_at(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Depth [N] of a mesh [468, 3] at places [N, 2]: inverse-distance mean of three points."""
    distance = np.linalg.norm(places[:, None] - points[None, :, :2], axis=2)
    nearest = np.argsort(distance, axis=1)[:, :3]
    weight = 1 / (np.take_along_axis(distance, nearest, 1) + 1e-3)
    return (weight * points[nearest, 2]).sum(1) / weight.sum(1)


def polygon_labels(points: np.ndarray, size: int) -> np.ndarray:
    """Part labels [size, size] drawn as polygons through the contours of a mesh [468, 3]."""
    mesh = load_face_mesh()
    mirrored = mesh.mirror[_BROW]
    polygons = (
        (8, mesh.outline),
        (1, mesh.right_eye),
        (2, mesh.left_eye),
        (3, np.array(_BROW)),
        (4, mirrored),
        (5, np.array(_NOSE)),
        (0, mesh.mouth),
        (6, np.array(_UP_LIP + _UP_LIP_END)),
        (7, np.array(_DOWN_LIP + _DOWN_LIP_END)),
    )
    labels = np.zeros((size, size), np.uint8)
    for label, index in polygons:
        corners = np.round(points[index, :2] * 16).astype(np.int32)  # 4 binary places
        cv2.fillPoly(labels, [corners], label, lineType=cv2.LINE_8, shift=4)
    return labels


def repair_sides_by_mesh(labels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Swap left and right where a mask has them exchanged (7 % of CelebAMask-HQ do).

    Eyes and brows vote: the sides are exchanged if the parts lie nearer to the mesh's parts of
    the other side, summed over the parts that the mask has.

    Args:
        labels: [H, W] uint8 part labels.
        points: [468, 3] mesh in the same pixels.
    """
    mesh = load_face_mesh()
    brow = np.array(_BROW)
    loops = {1: mesh.right_eye, 2: mesh.left_eye, 3: brow, 4: mesh.mirror[brow]}
    own = other = 0.0
    for label, loop in loops.items():
        rows, columns = np.nonzero(labels == label)
        if len(rows):
            center = np.array([columns.mean(), rows.mean()])
            swapped = loops[int(MIRROR_LABELS[label])]
            own += float(np.linalg.norm(points[loop, :2].mean(0) - center))
            other += float(np.linalg.norm(points[swapped, :2].mean(0) - center))
    return MIRROR_LABELS[labels] if other < own else labels


def choose_mesh(
    meshes: list[np.ndarray],
    hand: np.ndarray | None,
    mask: np.ndarray | None,
    shape: tuple[int, ...],
) -> np.ndarray | None:
    """The mesh of the wanted face, None if no mesh is of that face."""
    meshes = [mesh for mesh in meshes if np.isfinite(mesh).all()]
    if not meshes:
        return None
    index = load_face_mesh().landmarks_68
    if hand is not None:
        size = np.sqrt(np.prod(np.ptp(hand, axis=0)))
        errors = [np.linalg.norm(m[index, :2] - hand, axis=1).mean() / size for m in meshes]
        best = int(np.argmin(errors))
        return meshes[best] if errors[best] < MAX_DISAGREEMENT else None
    if mask is not None:
        shares = [_share_inside(mesh, mask) for mesh in meshes]
        best = int(np.argmax(shares))
        return meshes[best] if shares[best] > 0.6 else None
    height, width = shape[:2]

    def rank(mesh: np.ndarray) -> float:
        area = np.prod(np.ptp(mesh[:, :2], axis=0)) / (width * height)
        offset = mesh[:, :2].mean(0) - [width / 2, height / 2]
        return float(area - np.linalg.norm(offset) / width)

    return max(meshes, key=rank)


def _share_inside(mesh: np.ndarray, mask: np.ndarray) -> float:
    """Share of the mesh's points that lie on any part of a label map."""
    height, width = mask.shape
    x, y = np.round(mesh[:, :2]).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return float((mask[y[inside], x[inside]] > 0).sum() / len(mesh))


def _cut(image: np.ndarray, matrix: np.ndarray, size: int, labels: bool) -> np.ndarray:
    """Warp a photo or a label map into the region; photos are filtered before shrinking."""
    if labels:
        return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_NEAREST)
    while matrix[0, 0] < 0.5:  # halve first: the last step then averages 2 x 2 samples at most
        height, width = image.shape[:2]
        image = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        ratio = np.array([width / (width // 2), height / (height // 2)])
        matrix = np.concatenate(
            [matrix[:, :2] * ratio, matrix[:, 2:] + matrix[:, :2] @ (ratio[:, None] - 1) / 2], 1
        )
    doubled = 2 * matrix
    doubled[:, 2] += 0.5
    double_size = (2 * size, 2 * size)
    inside = np.full(image.shape[:2], 255, np.uint8)
    image = cv2.warpAffine(
        image, doubled, double_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    inside = cv2.warpAffine(inside, doubled, double_size, flags=cv2.INTER_LINEAR)
    inside = cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA)
    return image if inside.all() else _blur_outside(image, inside)


def _blur_outside(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Smooth the reflections beyond a photo's border, gradually, so that no edge shows there."""
    size = image.shape[0]
    share = cv2.GaussianBlur(cv2.erode(inside, np.ones((5, 5))), (0, 0), size / 100)
    share = (np.minimum(share, inside) / 255.0)[..., None]
    blurred = cv2.GaussianBlur(image, (0, 0), size / 16, borderType=cv2.BORDER_REFLECT_101)
    return np.round(share * image + (1 - share) * blurred).astype(np.uint8)
