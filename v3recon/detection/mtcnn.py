"""MTCNN faces (Zhang et al. 2016) of photos of any size; the networks are in `_cascade`."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch

from v3recon.detection._cascade import Stage, load_stages, run_cascade
from v3recon.types import Detection

MIN_FACE_SIZE = 20
"""Smallest face that is looked for, in pixels of the copy that is searched."""
MAX_SIDE = 1024
"""Larger photos are searched in a copy of this size, and for small faces in a finer one."""
MAX_SIDE_FINE = 2560
"""Size of that: of 24 megapixels, faces of 50 pixels are found."""
SMALL_FACE = 60
"""Faces below so many pixels of the coarse copy are told better by the fine one."""
_SAME_FACE = 0.5
"""Boxes that share more of the smaller one are of one face."""

# Its points count from 1, as the original's Matlab code did. Measured on 149 photos and their
# mirror images: 1.0 pixel to the right of pixel centres at whole numbers, whatever the face's
# size (boxes: 0.2 +- 0.3, left as they are).
_POINT_OFFSET = 1.0


def detect(image_np: np.ndarray, device: str = "cpu", thorough: bool = True) -> list[Detection]:
    """Faces of a photo in no particular order; see `detection.detect.detect_faces`.

    Args:
        image_np: [H, W, 3] uint8 RGB.
        device: torch device to run on.
        thorough: search photos of more than `MAX_SIDE` pixels in a finer copy as well.
    """
    longest = max(image_np.shape[:2])
    found = _detect_at(image_np, min(1.0, MAX_SIDE / longest), device)
    if thorough and longest > MAX_SIDE:
        fine = _detect_at(image_np, min(1.0, MAX_SIDE_FINE / longest), device)
        found = _merged(found, fine, SMALL_FACE * longest / MAX_SIDE)
    return found


def _merged(found: list[Detection], fine: list[Detection], small: float) -> list[Detection]:
    """Faces of the coarse search and those that the fine one adds.

    Of a face that both have found the coarse one's box stays, unless it is smaller than `small`
    and the fine search is surer of it.
    """
    merged = list(found)
    for face in fine:
        same = [number for number, other in enumerate(merged) if _shared(face, other) > _SAME_FACE]
        if not same:
            merged.append(face)
        elif len(same) == 1:
            other = merged[same[0]]
            if float((other.box[2:] - other.box[:2]).max()) < small and face.score > other.score:
                merged[same[0]] = face
    return merged


def _shared(one: Detection, other: Detection) -> float:
    """Share of the smaller box that lies in the other one, a detail of it if need be."""
    low = torch.maximum(one.box[:2], other.box[:2])
    high = torch.minimum(one.box[2:], other.box[2:])
    areas = [float((box[2:] - box[:2]).clamp(min=0).prod()) for box in (one.box, other.box)]
    return float((high - low).clamp(min=0).prod()) / max(min(areas), 1e-9)


def _detect_at(image_np: np.ndarray, scale: float, device: str) -> list[Detection]:
    """Faces found in a copy shrunk by `scale`, in the photo's own pixels."""
    small = image_np
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image_np.shape[:2])
        small = cv2.resize(image_np, (width, height), interpolation=cv2.INTER_AREA)
    with torch.autocast(torch.device(device).type, enabled=False):
        found = run_cascade(small, _stages(device), MIN_FACE_SIZE)
    boxes, scores, points = (values.cpu().numpy() for values in vars(found).values())
    ratio = np.array([image_np.shape[1] / small.shape[1], image_np.shape[0] / small.shape[0]])
    boxes = _to_photo(np.asarray(boxes, np.float64).reshape(-1, 2, 2), ratio)
    points = _to_photo(np.asarray(points, np.float64) - _POINT_OFFSET, ratio)
    return [
        Detection(torch.from_numpy(box.reshape(4)), float(score), torch.from_numpy(five))
        for box, score, five in zip(boxes, scores, points, strict=True)
    ]


def _to_photo(points: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Pixels of the shrunk copy to pixels of the photo; both have centres at whole numbers."""
    return (points + 0.5) * ratio - 0.5


@lru_cache(maxsize=2)
def _stages(device: str) -> tuple[Stage, Stage, Stage]:
    return load_stages(device)
