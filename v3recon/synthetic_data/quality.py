"""Whether a synthetic picture shows what its labels say, without seams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from v3recon.data.augment import Placement, crop_matrix, resize_matrix
from v3recon.data.mesh_detection import MeshDetector, mediapipe_detector
from v3recon.detection.crop_pixels import crop_image
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.synthetic_data.expressions import EditedFace
from v3recon.synthetic_data.source_face import SourceFace
from v3recon.synthetic_data.warp import fold_share

StateReader = Callable[[np.ndarray, np.ndarray], np.ndarray | None]
"""(picture [S, S, 3] uint8, mesh [468, 3] in it) -> what it shows [468, 3], any frame and scale."""
MIN_RESPONSE = 0.35
"""Least share of the intended change that the reader must see."""
MAX_SEAM = 1.35
"""Greatest ratio of the face's strongest gradients after and before."""
MAX_FOLD = 0.02
"""Greatest share of the face's area that may turn over."""
STATES = ("right_eye", "left_eye", "mouth", "mouth_width", "right_brow", "left_brow", "frown")
_SCALES = np.array([0.09, 0.09, 0.3, 0.2, 0.06, 0.06, 0.15])
"""Typical change of each state, so that they weigh alike; of brows drawn together, readers with a
mean face in mind see a sixth only."""


@dataclass(frozen=True)
class Quality:
    """Figures of one picture.

    Attributes:
        response: share of the intended change of expression that the reader sees; NaN unread.
        seam: strongest gradients (99.5th percentile) of the face over those of the photo's.
        fold: share of the face's area that the mesh turns over.
        reason: why it is refused, "" if it is not.
    """

    response: float
    seam: float
    fold: float
    reason: str


def measure_states(points: np.ndarray) -> np.ndarray:
    """The seven `STATES` of a mesh [468 or more, 3], over the distance of the outer eye corners."""

    def length(a: int, b: int) -> float:
        return float(np.linalg.norm(points[a] - points[b]))

    lengths = [
        *(length(159, 145), length(386, 374), length(13, 14), length(61, 291)),
        *(length(105, 33) + length(107, 133), length(334, 263) + length(336, 362)),
        length(55, 285),
    ]
    lengths[4] /= 2
    lengths[5] /= 2
    return np.array(lengths) / max(length(33, 263), 1e-9)


def response(intended: np.ndarray, read: np.ndarray) -> float:
    """Share of an intended change of states [7] found in the change that was read."""
    wanted, found = intended / _SCALES, read / _SCALES
    wanted = np.where(np.abs(wanted) > 0.25 * np.abs(wanted).max(), wanted, 0)
    return float(wanted @ found / max(float(wanted @ wanted), 1e-9))


def seam_ratio(before: np.ndarray, after: np.ndarray, face: np.ndarray, moved: np.ndarray) -> float:
    """Strongest gradients within the face after over before.

    Args:
        before: [S, S, 3] the photo.
        after: [S, S, 3] the picture.
        face: [468, 2] where the photo's points lie.
        moved: [468, 2] where the picture's lie.
    """
    return _strongest(after, moved) / max(_strongest(before, face), 1e-6)


def _strongest(picture: np.ndarray, points: np.ndarray) -> float:
    """99.5th percentile of the gradient over the face and a band around it, without the mouth."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gradient = cv2.magnitude(cv2.Scharr(grey, cv2.CV_32F, 1, 0), cv2.Scharr(grey, cv2.CV_32F, 0, 1))
    mesh = load_face_mesh()
    region = np.zeros(grey.shape, np.uint8)
    outline = points[mesh.outline]
    cv2.fillPoly(region, [np.round(outline + 0.15 * (outline - outline.mean(0))).astype(int)], 1)
    cv2.fillPoly(region, [np.round(points[mesh.mouth]).astype(int)], 0)
    values = gradient[region > 0]
    return float(np.percentile(values, 99.5)) if len(values) else 0.0


def judge(
    reader: StateReader | None,
    face: SourceFace,
    edited: EditedFace,
    before: np.ndarray,
    after: np.ndarray,
    *,
    points: np.ndarray,
    states_before: np.ndarray | None,
    min_response: float = MIN_RESPONSE,
) -> Quality:
    """Measure a picture.

    Args:
        reader: reads the shape from a picture, or None.
        face: the photo's face.
        edited: its edit.
        before: [S, S, 3] the photo.
        after: [S, S, 3] the picture.
        points: [468, 3] its mesh, picture pixels.
        states_before: states read from the photo; None where nothing was found.
        min_response: least share of the intended change that must be read.
    """
    fold = fold_share(face.points, edited.points)
    scale = (face.points[:, :2] + 0.5) * before.shape[0] / face.canvas.shape[0] - 0.5
    seam = seam_ratio(before, after, scale, points[:, :2])
    found = None if reader is None else reader(after, points)
    share = np.nan
    if found is not None and states_before is not None:
        intended = measure_states(edited.points) - measure_states(face.points)
        share = response(intended, measure_states(found) - states_before)
    reason = ""
    if fold > MAX_FOLD:
        reason = "the mesh folds"
    elif seam > MAX_SEAM:
        reason = "a seam shows"
    elif reader is not None and found is None:
        reason = "the self-check finds no face"
    elif share < min_response:
        reason = "the self-check does not read the expression"
    return Quality(share, seam, fold, reason)


def regressor_reader(weights: Path, model: LinearFaceModel) -> StateReader:
    """Read shapes with our own regressor.

    Raises:
        ValueError: if the weights cannot be used with the face model.
    """
    regressor = load_checkpoint(weights, model).regressor
    index = load_face_mesh().landmarks_68
    mean, basis = model.shape_basis_of(model.known_detector_points())

    def read(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        size = regressor.input_size
        matrix = crop_matrix(points[index, :2].astype(float), Placement())
        crop = crop_image(picture, resize_matrix(matrix, size), size)
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            coeffs = regressor(image)
        codes = torch.cat([coeffs.id, coeffs.exp], 1)[0]
        return (mean + basis @ codes).numpy()

    return read


def detector_reader(detector: MeshDetector | None = None) -> StateReader:
    """Read shapes with the mesh detector, on the finished picture.

    Raises:
        NoMeshDetectorError: if there is no detector.
    """
    detect = detector or mediapipe_detector(max_faces=2)

    def read(picture: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        meshes = detect(Path(), "", picture)
        if not meshes:
            return None
        errors = [float(np.abs(mesh[:, :2] - points[:, :2]).mean()) for mesh in meshes]
        return meshes[int(np.argmin(errors))]

    return read
