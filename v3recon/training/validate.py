"""What a run measures on held-out photos while it trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from v3recon.data.augment import AugmentSettings, Placement
from v3recon.data.samples import (
    LABELS_HAND,
    ProfiledValidation,
    Records,
    TrainingBatch,
    TrainingSample,
    collate,
    place_sample,
    to_float_image,
)
from v3recon.decode import decode
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.landmarks import INNER_51
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera
from v3recon.networks.regressor import Regressor
from v3recon.reconstruct.segment import part_overlaps, segment_visible
from v3recon.types import FaceCoeffs

PART_GROUPS = {
    "eyes": (1, 2),
    "brows": (3, 4),
    "nose": (5,),
    "upper_lip": (6,),
    "lower_lip": (7,),
}
"""Labels whose IoU is reported together, as the published tables do."""


class PlainValidation(Dataset[TrainingSample]):
    """Validation photos with the ground-truth crop and no change."""

    def __init__(self, records: Records, settings: AugmentSettings) -> None:
        """Keep the records that have a mesh or hand-made points."""
        self.records, self.size = records, settings.size
        found = [(i, records.record(i)) for i in range(len(records))]
        self.indices = [i for i, r in found if r.has_landmarks or r.labels_source == LABELS_HAND]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> TrainingSample:
        number = self.indices[index]
        return place_sample(self.records.record(number), Placement(), None, self.size, number)


@dataclass(frozen=True)
class Prediction:
    """Coefficients and rotations of a set of crops, on the CPU, with what they were made from."""

    coeffs: FaceCoeffs
    rotation: Tensor
    batch: TrainingBatch


@torch.no_grad()
def predict_set(
    regressor: Regressor, dataset: Dataset[TrainingSample], device: torch.device
) -> list[Prediction]:
    """Run the regressor over a data set in batches of 32."""
    regressor.eval()
    loader = DataLoader(dataset, batch_size=32, collate_fn=collate)
    result = []
    for batch in loader:
        image = to_float_image(batch).to(device, memory_format=torch.channels_last)
        coeffs, rotation = regressor.predict(image)
        result.append(Prediction(coeffs.to("cpu"), rotation.cpu(), batch))
    return result


def validate(
    regressor: Regressor, model: LinearFaceModel, records: Records, device: torch.device, size: int
) -> dict[str, float]:
    """Figures of the training issue, quickly: percent NME and part IoU on held-out photos.

    The evaluation programs are the authority; these use prepared crops and the model's own
    landmarks without marching.
    """
    camera = Camera()
    plain = predict_set(regressor, PlainValidation(records, AugmentSettings(size=size)), device)
    profiled = predict_set(regressor, ProfiledValidation(records, size), device)
    figures: dict[str, float] = {}
    all_68, inner, overlaps = [], [], []
    for prediction in plain:
        decoded = decode(prediction.coeffs, model, camera, prediction.rotation)
        error = landmark_nme(decoded.points_2d[:, model.landmarks_68], prediction.batch)
        all_68.append(error.mean(1))
        inner.append(error[:, INNER_51].mean(1))
        chosen = prediction.batch.labels_source == LABELS_HAND
        if chosen.any():
            size_in = prediction.batch.labels.shape[-1]
            labels = segment_visible(
                decoded, model, camera, (size_in, size_in), _shrink(camera, size_in)
            )
            overlaps.append(part_overlaps(labels[chosen], prediction.batch.labels[chosen]))
    figures["nme_68"] = 100 * float(torch.cat(all_68).nanmean())
    figures["nme_inner"] = 100 * float(torch.cat(inner).nanmean())
    if overlaps:
        mean = torch.cat(overlaps).nanmean(0)
        for name, labels in PART_GROUPS.items():
            figures[f"iou_{name}"] = float(mean[[label - 1 for label in labels]].mean())
    errors = []
    for prediction in profiled:
        decoded = decode(prediction.coeffs, model, camera, prediction.rotation)
        errors.append(_profile_nme(decoded.points_2d[:, model.landmarks_68], prediction.batch))
    figures["nme_profile"] = 100 * float(torch.cat(errors).nanmean())
    return figures


def landmark_nme(points: Tensor, batch: TrainingBatch) -> Tensor:
    """Distance [B, 68] to the hand-made points over sqrt(w h) of their box; NaN without them."""
    target, known = batch.landmarks_68, batch.landmarks_weight > 0
    complete = known.all(1)
    extent = target.amax(1) - target.amin(1)
    error = (points - target).norm(dim=-1) / extent.prod(1).sqrt()[:, None]
    return torch.where(complete[:, None], error, torch.nan)


def _profile_nme(points: Tensor, batch: TrainingBatch) -> Tensor:
    """NME [B] of turned photos: against hand-made points where they ride along, else the mesh."""
    mesh = batch.points[:, torch.from_numpy(np.array(load_face_mesh().landmarks_68)), :2]
    complete = (batch.landmarks_weight > 0).all(1)
    target = torch.where(complete[:, None, None], batch.landmarks_68, mesh)
    extent = target.amax(1) - target.amin(1)
    return (points - target).norm(dim=-1).mean(1) / extent.prod(1).sqrt()


def _shrink(camera: Camera, size: int) -> Tensor:
    """Crop pixels to pixels of a smaller map of the same field of view, [1, 2, 3]."""
    scale = size / camera.image_size
    shift = 0.5 * scale - 0.5
    return torch.tensor([[[scale, 0.0, shift], [0.0, scale, shift]]])
