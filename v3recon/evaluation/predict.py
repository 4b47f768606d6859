"""Run the reconstruction on the faces of a benchmark, one photo's failure never ending the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from v3recon.detection.crop import (
    CropTransform,
    crop_of_detection,
    crop_of_five_points,
    crop_of_square,
    landmark_box_of,
)
from v3recon.detection.detect import detect_faces
from v3recon.evaluation.options import EvaluateOptions
from v3recon.evaluation.report import NO_FACE, Report
from v3recon.fitting.fit_photo import fit
from v3recon.io.messages import one_line
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.types import Detection

MIN_OVERLAP = 0.2
"""Least IoU of a detected face's landmark square with the annotated one to be the same face."""


@dataclass(frozen=True)
class FacePlace:
    """Where the annotated face lies in its photo.

    Attributes:
        box: [4] left, top, right, bottom of the 68 points, photo pixels.
        five_points: [5, 2] for networks with the five-point crop; None where not known.
    """

    box: Tensor
    five_points: Tensor | None = None


@dataclass(frozen=True)
class Case:
    """One annotated face.

    Attributes:
        name: of the photo, for people.
        read: gives the photo [H, W, 3] uint8 RGB; ValueError if it cannot be read.
        place: where the face is.
        number: of the case, to find its annotation again.
    """

    name: str
    read: Callable[[], np.ndarray]
    place: FacePlace
    number: int


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: the face.
        image: its photo; None if it could not be read.
        face: the reconstruction; None if it failed.
        failure: why there is none; "" if there is.
    """

    case: Case
    image: np.ndarray | None
    face: Face | None
    failure: str = ""


def load_reconstructor(options: EvaluateOptions) -> FaceReconstructor:
    """The network and face model that the options name.

    Raises:
        ValueError: if a file is missing or malformed.
    """
    return FaceReconstructor.from_pretrained(
        options.assets,
        face_model=options.face_model,
        weights=options.weights,
        detector=options.detector,
        device=options.device,
        batch_size=options.batch_size,
    )


def predict_cases(
    reconstructor: FaceReconstructor, cases: Sequence[Case], options: EvaluateOptions
) -> Iterator[Outcome]:
    """Reconstruct the face of every case, in order.

    Photos that cannot be read, faces that are not found and crashes of the reconstruction become
    outcomes with a reason.
    """
    rule_passes = int(reconstructor.crop_rule.get("passes", 1))
    by_detector = options.crop == "detector"
    passes = options.passes or (rule_passes if by_detector else 1)
    for start in range(0, len(cases), options.batch_size):
        waiting: list[tuple[Case, np.ndarray, CropTransform]] = []
        outcomes: dict[int, Outcome] = {}
        for case in cases[start : start + options.batch_size]:
            image = None
            try:
                image = case.read()
                crop = _crop(reconstructor, case, image, by_detector)
            except Exception as error:  # one photo must not end the others
                outcomes[case.number] = Outcome(
                    case, image, None, f"not finished: {one_line(error)}"
                )
                continue
            if crop is None:
                outcomes[case.number] = Outcome(case, image, None, NO_FACE)
            else:
                waiting.append((case, image, crop))
        for outcome in _reconstruct(reconstructor, waiting, passes, options.fit):
            outcomes[outcome.case.number] = outcome
        for case in cases[start : start + options.batch_size]:
            yield outcomes[case.number]


def run_cases(
    cases: Sequence[Case],
    options: EvaluateOptions,
    report: Report,
    reconstructor: FaceReconstructor | None = None,
) -> Iterator[Outcome]:
    """`predict_cases` behind a progress bar; faces that fail are noted in the report.

    Raises:
        ValueError: if the network cannot be loaded.
    """
    outcomes = predict_cases(reconstructor or load_reconstructor(options), cases, options)
    for outcome in tqdm(outcomes, total=len(cases), unit="photo", disable=None):
        if outcome.face is None:
            report.failures.append((outcome.case.name, outcome.failure))
        yield outcome


def landmarks_68_of(face: Face) -> tuple[Tensor, Tensor]:
    """The 68 points [68, 2] in photo pixels: fixed vertices, and with the jaw on the outline."""
    return face.landmarks_68, face.landmarks_68_2d


def choose_detection(found: Sequence[Detection], place: FacePlace) -> Detection | None:
    """The detected face that is the annotated one; None if none of them is."""
    target = _square_around(place.box)
    best, best_overlap = None, MIN_OVERLAP
    for face in found:
        center, longer = landmark_box_of(face)
        half = longer / 2
        overlap = _overlap(torch.cat([center - half, center + half]), target)
        if overlap >= best_overlap:
            best, best_overlap = face, overlap
    return best


def _crop(
    reconstructor: FaceReconstructor, case: Case, image: np.ndarray, by_detector: bool
) -> CropTransform | None:
    """Where the case's face is cropped; None if the detector does not find it."""
    rule, camera = reconstructor.crop_rule, reconstructor.camera
    if by_detector:
        found = detect_faces(
            image,
            reconstructor.detector or "mtcnn",
            device=str(reconstructor.device),
            weights=reconstructor.detector_weights,
        )
        face = choose_detection(found, case.place)
        if face is None:
            return None
        return crop_of_detection(face, rule, reconstructor.points_3d, camera)
    if rule.get("name") == "box":
        square = _square_around(case.place.box)
        side = float(square[2] - square[0])
        return crop_of_square((square[:2] + square[2:]) / 2, float(rule["scale"]) * side, camera)
    if case.place.five_points is None:
        raise ValueError(
            "the annotation has no eyes, nose and mouth for the five-point crop; "
            "use --crop detector"
        )
    return crop_of_five_points(case.place.five_points, reconstructor.points_3d, camera)


def _reconstruct(
    reconstructor: FaceReconstructor,
    waiting: Sequence[tuple[Case, np.ndarray, CropTransform]],
    passes: int,
    fitted: bool,
) -> list[Outcome]:
    """Reconstruct together; where that fails, one by one, to name the one at fault."""
    if not waiting:
        return []
    images = [image for _, image, _ in waiting]
    try:
        crops = [crop for _, _, crop in waiting]
        faces = reconstructor.reconstruct_found(images, crops, [None] * len(crops), passes)
        if fitted:
            faces = fit(reconstructor.finished(images, faces)).faces
    except Exception as error:
        if len(waiting) > 1:
            singly = [_reconstruct(reconstructor, [item], passes, fitted) for item in waiting]
            return [outcome for outcomes in singly for outcome in outcomes]
        case, image, _ = waiting[0]
        return [Outcome(case, image, None, f"not finished: {one_line(error)}")]
    outcomes = []
    for (case, image, _), face in zip(waiting, faces, strict=True):
        if bool(face.points_photo.isfinite().all()):
            outcomes.append(Outcome(case, image, face))
        else:
            outcomes.append(Outcome(case, image, None, "not finished: points are not finite"))
    return outcomes


def _square_around(box: Tensor) -> Tensor:
    """Square [4] with a box's middle and longer side."""
    low, high = box[:2].double(), box[2:].double()
    half = (high - low).max() / 2
    middle = (low + high) / 2
    return torch.cat([middle - half, middle + half])


def _overlap(one: Tensor, other: Tensor) -> float:
    """Intersection over union of two boxes [4]."""
    extent = torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])
    shared = float(extent.clamp(min=0).prod())
    union = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - shared
    return shared / union if union > 0 else 0.0
