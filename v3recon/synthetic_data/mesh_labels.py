"""Part labels of a detected mesh, and the mesh of the face that labels are of."""

from __future__ import annotations

import cv2
import numpy as np

from v3recon.face_models.detector_mesh import MIRROR_LABELS, load_face_mesh

MAX_DISAGREEMENT = 0.12
"""Mean distance of detected from hand-made points, over the box size, of another face."""
MIN_INSIDE = 0.6
"""Share of a mesh's points that lie on the mask of the same face."""

# Polygons of the detected contours, in the order of PART_NAMES; the face comes first as skin.
_BROW = [70, 63, 105, 66, 107, 55, 65, 52, 53, 46]
_NOSE = [
    168, 122, 196, 198, 209, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 429, 420, 419, 351,
]  # fmt: skip
_UP_LIP = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 308, 415, 310, 311, 312, 13, 82, 81, 80]
_DOWN_LIP = [
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 308, 324, 318, 402, 317, 14, 87, 178,
]  # fmt: skip
_UP_LIP_END, _DOWN_LIP_END = [191, 78], [88, 95, 78]


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
        return meshes[best] if shares[best] > MIN_INSIDE else None
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
