"""Everything that is known about a synthetic picture, in the picture's own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.landmarks import (
    march_contour,
    marched_landmarks_68,
    marched_landmarks_106,
)
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.parts import (
    EYE_LABELS,
    SKIN_LABEL,
)
from v3recon.geometry.camera import Camera, to_clip
from v3recon.io.celebamask import LABEL_TO_CELEBAMASK, classes_of_labels, labels_from_celebamask
from v3recon.render.rasterize import rasterize
from v3recon.synthetic_data.expressions import (
    EYE_CORNERS,
    LIPS,
    LOWER_LOOP,
    UPPER_LOOP,
    EditedFace,
    side_ids,
)
from v3recon.synthetic_data.interior import LOWER_LIP_EDGE, UPPER_LIP_EDGE
from v3recon.synthetic_data.profiling import affine_map, sample_labels
from v3recon.synthetic_data.source_face import (
    INNER_MOUTH,
    OVERSAMPLING,
    SourceFace,
    projected_mesh,
    to_pixels,
)
from v3recon.synthetic_data.warp import (
    eye_outline,
    lid_line,
    lid_outline,
    slit_height,
    smooth_curve,
)
from v3recon.types import Decoded, FaceCoeffs

SETS = ("68", "106", "134")
SKIN_CLASS = LABEL_TO_CELEBAMASK[SKIN_LABEL]
DEPTH_TOLERANCE = 0.05
"""A point hidden by less than this, decimetres, still counts as seen."""


@dataclass(frozen=True)
class Labels:
    """Labels of one picture of side S.

    Attributes:
        points: [468, 3] mesh, picture pixels, x right, y down, z toward the camera.
        landmarks: "68", "106", "134" -> [L, 2] picture pixels; contour points on the silhouette.
        landmarks_before: [68, 2] the same 68 points before the edit; after it for poses.
        visible: the same keys -> [L] bool.
        parts: [S, S] uint8 part labels 0…8.
        classes: [S, S] uint8 CelebAMask-HQ classes.
        coeffs: packed coefficients [K] for the crop's camera.
        crop_to_picture: [2, 3] pixels of that crop to picture pixels.
    """

    points: np.ndarray
    landmarks: dict[str, np.ndarray]
    landmarks_before: np.ndarray
    visible: dict[str, np.ndarray]
    parts: np.ndarray
    classes: np.ndarray
    coeffs: np.ndarray
    crop_to_picture: np.ndarray


def make_labels(
    face: SourceFace,
    source_map: np.ndarray,
    model: LinearFaceModel,
    *,
    points: np.ndarray,
    coeffs: FaceCoeffs,
    rotation: Tensor,
    decoded: Decoded,
    edited: EditedFace | None = None,
) -> Labels:
    """Labels of an edited or turned face.

    Landmarks are projected vertices of the model, moved by what the detected points near them
    differ from the model; hand-made points of the photo, where there are any, move by the
    model's own displacement. Those of closed lids lie on the line that is drawn.

    Args:
        face: the photo's face.
        source_map: [H, H, 2] of the warp, canvas pixels.
        model: the face model.
        points: [468, 3] mesh after the edit, canvas pixels.
        coeffs: coefficients after the edit, B = 1.
        rotation: [1, 3, 3] after the edit.
        decoded: their geometry in the fit's crop.
        edited: the change of expression, where there is one.
    """
    projected = to_pixels(decoded.points_2d[0].numpy().astype(float), face.crop_to_canvas)
    index = _landmark_ids(decoded if edited is None else face.decoded, rotation, coeffs, model)
    missed = points[:, :2] - _fitted_mesh(decoded, face, model)
    seen = _seen_vertices(decoded, model)
    projected_before = to_pixels(
        face.decoded.points_2d[0].numpy().astype(float), face.crop_to_canvas
    )
    missed_before = face.points[:, :2] - _fitted_mesh(face.decoded, face, model)
    landmarks, visible, before = {}, {}, None
    for name in SETS:
        ids = index[name]
        places, weights = _neighbors(model, ids.tobytes())
        moved = projected[ids] + (weights[..., None] * missed[places]).sum(1)
        if name == "68" and edited is not None:
            own = projected_before[ids] + (weights[..., None] * missed_before[places]).sum(1)
            before = own if face.landmarks_68 is None else face.landmarks_68
            moved = before + moved - own
        for side in () if edited is None else edited.closed:
            moved = close_lids(moved, points, places[:, 0], side)
        landmarks[name], visible[name] = to_picture(moved), seen[ids]
    parts, classes = _warp_labels(face, source_map, edited)
    crop_to_picture = matrix_to_picture(face.crop_to_canvas)
    mesh = mesh_to_picture(points)
    before = landmarks["68"] if before is None else to_picture(before)
    packed = coeffs.to_tensor()[0].numpy()
    return Labels(mesh, landmarks, before, visible, parts, classes, packed, crop_to_picture)


def _fitted_mesh(decoded: Decoded, face: SourceFace, model: LinearFaceModel) -> np.ndarray:
    """The detector's points [468, 2] of a fit in the face's crop, canvas pixels."""
    return to_pixels(projected_mesh(decoded, model)[:, :2], face.crop_to_canvas)


def close_lids(
    landmarks: np.ndarray, points: np.ndarray, nearest: np.ndarray, side: str
) -> np.ndarray:
    """Landmarks of a closing eye's lids, its corners left out, moved onto the lids' lines.

    Args:
        landmarks: [L, 2].
        points: [468, 3] mesh with the eye closed or half closed, the same pixels.
        nearest: [L] detector point nearest to each landmark on the mean face.
        side: "right" or "left".
    """
    result = landmarks.copy()
    for loop in (UPPER_LOOP, LOWER_LOOP):
        lid = side_ids(loop, side, load_face_mesh().mirror)
        chosen = np.isin(nearest, lid) & ~np.isin(nearest, EYE_CORNERS[side])
        line = lid_line(points, side, loop)
        start, step = line[:-1], np.diff(line, axis=0)
        offset = landmarks[chosen, None] - start
        share = (offset * step).sum(2) / np.maximum((step**2).sum(1), 1e-9)
        feet = start + share.clip(0, 1)[..., None] * step
        best = np.linalg.norm(feet - landmarks[chosen, None], axis=2).argmin(1)
        result[chosen] = feet[np.arange(len(best)), best]
    return result


def to_picture(points: np.ndarray) -> np.ndarray:
    """Canvas pixels [N, 2] to picture pixels."""
    return (points + 0.5) / OVERSAMPLING - 0.5


def mesh_to_picture(points: np.ndarray) -> np.ndarray:
    """Canvas pixels [N, 3] to picture pixels; depth is scaled like the plane."""
    return np.concatenate([to_picture(points[:, :2]), points[:, 2:] / OVERSAMPLING], 1)


def matrix_to_picture(to_canvas: np.ndarray) -> np.ndarray:
    """An affine map [2, 3] to canvas pixels as one to picture pixels."""
    return np.concatenate([to_canvas[:, :2] / OVERSAMPLING, to_picture(to_canvas[:, 2:])], 1)


def _landmark_ids(
    decoded: Decoded, rotation: Tensor, coeffs: FaceCoeffs, model: LinearFaceModel
) -> dict[str, np.ndarray]:
    contour = march_contour(decoded.model_vertices, rotation, coeffs.trans, model)
    return {
        "68": marched_landmarks_68(contour, model)[0].numpy(),
        "106": marched_landmarks_106(contour, model)[0].numpy(),
        "134": model.landmarks_134.numpy(),
    }


@lru_cache(maxsize=512)
def _neighbors(model: LinearFaceModel, ids: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The three detector points nearest to each vertex on the mean face, and their weights."""
    chosen = torch.from_numpy(np.frombuffer(ids, np.int64).copy())
    places = model.shape_basis_at(chosen)[0]
    detected = model.shape_basis_of(model.known_detector_points())[0]
    distance, index = torch.cdist(places, detected).topk(3, largest=False)
    weights = 1 / (distance + 1e-3)
    weights = weights / weights.sum(1, keepdim=True)
    return index.numpy(), weights.numpy().astype(float)


def _seen_vertices(decoded: Decoded, model: LinearFaceModel) -> np.ndarray:
    """[V] whether each vertex faces the camera with nothing in front of it."""
    camera = Camera()
    size = camera.image_size
    fragments = rasterize(to_clip(decoded.vertices, camera), model.faces, (size, size))
    depth = camera.distance - decoded.vertices[0, :, 2]
    column, row = decoded.points_2d[0].round().long().clamp(0, size - 1).unbind(1)
    front = fragments.depth[0, row, column]
    return ((front == 0) | (depth < front + DEPTH_TOLERANCE)).numpy()


def _warp_labels(
    face: SourceFace, source_map: np.ndarray, edited: EditedFace | None
) -> tuple[np.ndarray, np.ndarray]:
    """Part labels and classes of the picture."""
    side = face.canvas.shape[0]
    x, y = np.ascontiguousarray(np.round(source_map).astype(np.float32).transpose(2, 0, 1))
    classes = classes_of_labels(face.labels) if face.classes is None else face.classes
    moved = cv2.remap(
        classes, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    if edited is not None:
        _redraw(moved, edited)
    parts = sample_labels(
        labels_from_celebamask(np.asarray(moved, np.uint8)), affine_map(np.eye(2, 3), side)
    )
    return parts, sample_labels(moved, affine_map(np.eye(2, 3), side))


def _redraw(classes: np.ndarray, edited: EditedFace) -> None:
    """Lids are skin, an opened mouth is inner mouth; writes into `classes`."""
    for side in edited.closed:
        eye_class = LABEL_TO_CELEBAMASK[EYE_LABELS[side == "left"]]
        region = np.zeros_like(classes)
        width = edited.points[33, :2] - edited.points[133, :2]
        _fill(region, lid_outline(edited.points, side))
        _fill(region, eye_outline(edited.points, side))
        reach = max(1, round(0.12 * float(np.linalg.norm(width))))
        region = cv2.dilate(region, np.ones((2 * reach + 1,) * 2, np.uint8))
        eye = (classes == eye_class) & (region > 0)
        classes[eye] = SKIN_CLASS
        if eye.any() and slit_height(edited.points, side) > 1:
            slit = np.zeros_like(classes)
            _fill(slit, eye_outline(edited.points, side))
            classes[slit > 0] = eye_class
    if edited.opens_mouth and np.linalg.norm(np.subtract(*edited.points[list(LIPS), :2])) > 2:
        region = np.zeros_like(classes)
        upper, lower = (
            smooth_curve(edited.points[list(edge), :2]) for edge in (UPPER_LIP_EDGE, LOWER_LIP_EDGE)
        )
        _fill(region, np.concatenate([upper, lower[-2:0:-1]]))
        classes[region > 0] = INNER_MOUTH


def _fill(region: np.ndarray, outline: np.ndarray) -> None:
    cv2.fillPoly(region, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
