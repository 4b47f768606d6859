"""Find the faces of a photo: one contract for all detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from v3recon.detection import mtcnn, retinaface
from v3recon.types import Detection

DETECTORS = ("mtcnn", "retinaface")
DEFAULT_MIN_CONFIDENCE = {"mtcnn": 0.9, "retinaface": 0.7}


def detect_faces(
    image_np: np.ndarray,
    detector: str = "mtcnn",
    *,
    min_confidence: float | None = None,
    max_faces: int | None = None,
    device: str = "cpu",
    weights: str | Path | None = None,
    thorough: bool = True,
) -> list[Detection]:
    """Faces of a photo, the largest first.

    Args:
        image_np: [H, W, 3] uint8 RGB.
        detector: one of `DETECTORS`.
        min_confidence: lowest score that is kept, 0…1; default the detector's own.
        max_faces: how many of the largest are kept; None = all.
        device: torch device to run on.
        weights: file of weights; only "retinaface" needs one.
        thorough: look for small faces of large photos as well, where the detector can.

    Raises:
        ValueError: for an unknown detector, missing weights or a missing library.
    """
    assert image_np.ndim == 3 and image_np.dtype == np.uint8, (image_np.shape, image_np.dtype)
    if detector not in DETECTORS:
        raise ValueError(f"unknown detector {detector!r}; choose from {', '.join(DETECTORS)}")
    if min_confidence is None:
        min_confidence = DEFAULT_MIN_CONFIDENCE[detector]
    if detector == "mtcnn":
        found = mtcnn.detect(image_np, device, thorough)
    elif weights is None:
        raise ValueError(
            f"detector: 'retinaface' needs assets with {retinaface.WEIGHTS_FILE}; or use 'mtcnn'"
        )
    else:
        found = retinaface.detect(image_np, weights, min_confidence, device)
    kept = [face for face in found if face.score >= min_confidence]
    return sorted(kept, key=lambda face: -box_area(face.box))[:max_faces]


def box_area(box: Tensor) -> float:
    """Area of a box [4], square pixels."""
    left, top, right, bottom = box.tolist()
    return max(0.0, right - left) * max(0.0, bottom - top)
