"""A photo's face, cut out, fitted and ready to be edited; or the reason why it is not."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from v3recon.data.augment import Placement, crop_matrix
from v3recon.decode import decode
from v3recon.detection.crop_pixels import crop_image
from v3recon.face_models.detector_mesh import estimate_pose, load_face_mesh
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.fitting.fit_landmarks import fit_landmarks
from v3recon.geometry.camera import Camera, project
from v3recon.io.celebamask import labels_from_celebamask
from v3recon.synthetic_data.mesh_labels import polygon_labels, repair_sides_by_mesh
from v3recon.types import Decoded, FaceCoeffs

OVERSAMPLING = 2
"""Pictures are warped and painted at twice their resolution, then averaged down."""
MIN_FACE = 40
"""Smallest longer side of the 68 points' box, photo pixels."""
MIN_MARGIN = 1.6
"""Least side of a picture over the longer side of the 68 points' box."""
MAX_YAW, MAX_PITCH = np.radians(40.0), np.radians(30.0)
"""Beyond these a lid or a lip hides behind the nose or the cheek."""
MAX_FIT_ERROR = 2.5
"""Root-mean-square distance of the fit, crop pixels, of a detection that is no face."""
GLASSES, INNER_MOUTH = 3, 10
"""CelebAMask-HQ classes."""
CHEEKS = (50, 205, 187, 280, 425, 411)
_EYES_AND_BELOW = (
    ((33, 160, 159, 158, 133, 153, 145, 144), (230, 229, 228)),
    ((263, 387, 386, 385, 362, 380, 374, 373), (450, 449, 448)),
)
"""Outline of each eye, and skin below it."""
_LIP_INNER, _LIP_OUTER = (14, 87, 317), (17, 84, 314)
_MOUTH_CLASSES = (0, 1, 2, INNER_MOUTH, 11, 12)


class SkippedPhotoError(ValueError):
    """The photo cannot be edited; says why."""


@dataclass(frozen=True)
class SourceFace:
    """One face, in the pixels of its canvas (twice the resolution of the pictures written).

    Attributes:
        canvas: [H, H, 3] uint8 RGB.
        to_canvas: [2, 3] photo pixels to canvas pixels.
        points: [468, 3] detected mesh, canvas pixels, z toward the camera.
        landmarks_68: [68, 2] hand-made points, canvas pixels, or None.
        classes: [H, H] uint8 CelebAMask-HQ classes, or None without a hand-made mask.
        labels: [H, H] uint8 part labels 0…8 (hand-made, or polygons of the detection).
        pose: [3] pitch, yaw, roll, radians.
        coeffs: of the fit, B = 1; albedo and light are zero.
        rotation: [1, 3, 3] of the fit.
        crop_to_canvas: [2, 3] the fit's crop pixels to canvas pixels.
        decoded: geometry of the fit, in its crop.
    """

    canvas: np.ndarray
    to_canvas: np.ndarray
    points: np.ndarray
    landmarks_68: np.ndarray | None
    classes: np.ndarray | None
    labels: np.ndarray
    pose: np.ndarray
    coeffs: FaceCoeffs
    rotation: Tensor
    crop_to_canvas: np.ndarray
    decoded: Decoded

    @property
    def eye_width(self) -> float:
        """Mean distance between the corners of an eye, canvas pixels."""
        ends = self.points[[[33, 133], [263, 362]]]
        return float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).mean())


def make_source_face(
    image: np.ndarray,
    mesh: np.ndarray,
    model: LinearFaceModel,
    *,
    size: int,
    margin: float = 2.0,
    landmarks_68: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    turned: bool = False,
) -> SourceFace:
    """Cut a detected face out of its photo and fit the face model.

    Args:
        image: [H, W, 3] uint8 RGB photo.
        mesh: [468, 3] detection, photo pixels, z toward the camera.
        model: a face model with the detector's points; their depth is that of its statistics.
        size: side of the pictures to write.
        margin: side of the picture over the longer side of the 68 points' box.
        landmarks_68: [68, 2] hand-made points, photo pixels.
        classes: [H, W] CelebAMask-HQ classes of the photo.
        turned: allow any pose (for `poses`).

    Raises:
        SkippedPhotoError: if the face is too small, cut by the border, or turned too far.
    """
    index = load_face_mesh().landmarks_68
    height, width = image.shape[:2]
    box = np.ptp(mesh[index, :2], axis=0)
    if max(box) < MIN_FACE:
        raise SkippedPhotoError(f"the face is smaller than {MIN_FACE} pixels")
    outside = (mesh[:, :2] < -1) | (mesh[:, :2] > [width, height])
    if outside.any(1).mean() > 0.01:
        raise SkippedPhotoError("the face is cut by the photo's border")
    pose = estimate_pose(mesh)
    if not turned and (abs(pose[1]) > MAX_YAW or abs(pose[0]) > MAX_PITCH):
        raise SkippedPhotoError("extreme pose")
    if classes is not None and _covered_mouth(classes, mesh):
        raise SkippedPhotoError("the mouth is covered")
    to_canvas = canvas_matrix(mesh[index, :2], OVERSAMPLING * size, margin, (width, height))
    scale = to_canvas[0, 0]
    points = np.concatenate([mesh[:, :2] * scale + to_canvas[:, 2], mesh[:, 2:] * scale], 1)
    crop = crop_matrix(points[index, :2], Placement())
    fit = fit_landmarks(
        torch.from_numpy(points[None, :, :2]).float(),
        model,
        to_crop=torch.from_numpy(crop)[None].float(),
    )
    if float(fit.error[0]) > MAX_FIT_ERROR:
        raise SkippedPhotoError("the detection is not the shape of a face")
    side = OVERSAMPLING * size
    if classes is None:
        labels = polygon_labels(points, side)
        cut_classes = None
    else:
        cut_classes = cv2.warpAffine(classes, to_canvas, (side, side), flags=cv2.INTER_NEAREST)
        parts = labels_from_celebamask(np.asarray(cut_classes, np.uint8))
        labels = repair_sides_by_mesh(parts, points)
        if (labels != parts).any():
            cut_classes = _exchange_sides(np.asarray(cut_classes, np.uint8))
    return SourceFace(
        canvas=cut_canvas(image, to_canvas, side),
        to_canvas=to_canvas,
        points=points,
        landmarks_68=None if landmarks_68 is None else landmarks_68 * scale + to_canvas[:, 2],
        classes=cut_classes,
        labels=labels,
        pose=pose,
        coeffs=fit.coeffs,
        rotation=fit.rotation,
        crop_to_canvas=cv2.invertAffineTransform(crop),
        decoded=decode(fit.coeffs, model, Camera(), fit.rotation),
    )


def projected_mesh(decoded: Decoded, model: LinearFaceModel) -> np.ndarray:
    """The detector's points [468, 3] of a fit, crop pixels, z toward the camera."""
    camera = Camera()
    points = model.at_detector(decoded.vertices)[0]
    depth = points[:, 2:] * camera.focal / camera.distance
    return torch.cat([project(points[None], camera)[0], depth], 1).numpy().astype(float)


def canvas_matrix(
    points_68: np.ndarray, side: int, margin: float, photo: tuple[int, int]
) -> np.ndarray:
    """[2, 3] map from photo pixels to a square canvas around the box of points [N, 2].

    The square is kept inside the photo (width, height) where it can be without cutting the face
    closer than `MIN_MARGIN`.
    """
    low, high = points_68.min(0), points_68.max(0)
    box = float(max(high - low))
    width = max(min(margin * box, min(photo)), MIN_MARGIN * box)
    center = (low + high) / 2
    play = (MIN_MARGIN * box - box) / 4
    inside = np.clip(center, width / 2 - 0.5, np.array(photo) - 0.5 - width / 2)
    center = center + np.clip(inside - center, -play, play)
    factor = side / width
    offset = (side - 1) / 2 - factor * center
    return np.concatenate([factor * np.eye(2), offset[:, None]], 1)


def cut_canvas(image: np.ndarray, to_canvas: np.ndarray, side: int) -> np.ndarray:
    """A square [side, side, 3] of a photo; beyond its border lies its blurred reflection."""
    height, width = image.shape[:2]
    corner = cv2.invertAffineTransform(to_canvas) @ [[-1, side], [-1, side], [1, 1]]
    low = np.maximum(0, np.ceil(-corner[:, 0])).astype(int)
    high = np.maximum(0, np.ceil(corner[:, 1] - [width - 1, height - 1])).astype(int)
    if not (low.any() or high.any()):
        return crop_image(image, to_canvas, side)
    low, high = np.minimum(low, [width - 1, height - 1]), np.minimum(high, [width - 1, height - 1])
    padded = cv2.copyMakeBorder(image, low[1], high[1], low[0], high[0], cv2.BORDER_REFLECT_101)
    shifted = to_canvas.copy()
    shifted[:, 2] -= to_canvas[:, :2] @ low
    sharp = crop_image(padded, shifted, side)
    inside = crop_image(np.full((height, width, 3), 255, np.uint8), to_canvas, side)[..., :1]
    near = cv2.erode(inside, np.ones((9, 9)))
    share = np.minimum(cv2.GaussianBlur(near, (0, 0), side / 100), inside[..., 0])[..., None] / 255
    small = cv2.resize(sharp, (side // 8, side // 8), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), 3.0, borderType=cv2.BORDER_REFLECT_101)
    soft = cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.round(share * sharp + (1 - share) * soft).astype(np.uint8)


def to_pixels(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points [N, 2] by an affine map [2, 3]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def looks_covered(face: SourceFace) -> bool:
    """Whether the lower lip has lost the redness of the cheeks: a hand, a microphone, a coat.

    A guess from colour for photos without a mask; grey photos never look covered.
    """
    lip = (face.points[list(_LIP_INNER), :2] + face.points[list(_LIP_OUTER), :2]) / 2
    cheek = _redness(face.canvas, face.points[list(CHEEKS), :2])
    return cheek > 0.05 and _redness(face.canvas, lip) < 0.36 * cheek


def looks_shaded(face: SourceFace) -> bool:
    """Whether dark glasses hide both eyes: neither white of the eye nor skin below it is bright.

    A guess from brightness, for photos with and without a mask.
    """
    grey = cv2.cvtColor(face.canvas, cv2.COLOR_RGB2GRAY)
    cheek = _brightness(grey, face.points[list(CHEEKS), :2])
    for eye, below in _EYES_AND_BELOW:
        region = np.zeros(grey.shape, np.uint8)
        cv2.fillPoly(region, [np.round(face.points[list(eye), :2]).astype(np.int32)], 1)
        inside = grey[region > 0]
        white = float(np.percentile(inside, 90)) if len(inside) else cheek
        under = _brightness(grey, face.points[list(below), :2])
        if white > 0.5 * cheek or under > 0.6 * cheek:
            return False
    return True


def _brightness(grey: np.ndarray, places: np.ndarray) -> float:
    """Median over small patches of a grey canvas."""
    side = grey.shape[0]
    chosen = np.clip(np.round(places).astype(int), 2, side - 3)
    return float(np.median([grey[y - 2 : y + 3, x - 2 : x + 3].mean() for x, y in chosen]))


def _redness(canvas: np.ndarray, places: np.ndarray) -> float:
    """Median of (R - G) / (R + G + B) over small patches."""
    side = canvas.shape[0]
    chosen = np.clip(np.round(places).astype(int), 2, side - 3)
    patches = np.stack([canvas[y - 2 : y + 3, x - 2 : x + 3] for x, y in chosen]).astype(float)
    red, green, blue = np.moveaxis(patches.mean((1, 2)), 1, 0)
    return float(np.median((red - green) / (red + green + blue + 30)))


def _covered_mouth(classes: np.ndarray, mesh: np.ndarray) -> bool:
    """Whether something that is neither mouth nor skin lies over the lips."""
    region = np.zeros(classes.shape, np.uint8)
    outer = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409]
    outer += [291, 375, 321, 405, 314, 17, 84, 181, 91, 146]
    cv2.fillPoly(region, [np.round(mesh[outer, :2]).astype(np.int32)], 1)
    found = classes[region > 0]
    return len(found) > 0 and float(np.isin(found, _MOUTH_CLASSES, invert=True).mean()) > 0.1


def _exchange_sides(classes: np.ndarray) -> np.ndarray:
    swap = np.arange(256, dtype=np.uint8)
    swap[[4, 5, 6, 7, 8, 9]] = [5, 4, 7, 6, 9, 8]
    return swap[classes]
