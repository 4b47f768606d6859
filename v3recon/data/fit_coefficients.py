"""Coefficients of prepared faces: fitted once per photo, carried through turns and mirroring.

A photo's shape coefficients do not change when its face is turned, moved or scaled, and the
mirror image has coefficients of its own; so two codes and one rotation per photo are enough, and
the translation of a sample follows from its points.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from v3recon.data.augment import Placement, crop_matrix
from v3recon.data.samples import TrainingBatch
from v3recon.data.shards import ShapeFit, open_shard, write_fit
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.geometry.camera import Camera, solve_translation
from v3recon.geometry.rotation import matrix_to_euler
from v3recon.types import FaceCoeffs

FitPoints = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points [B, 468, 3] in crop pixels (z toward the camera) -> shape code [B, K] (identity, then
expression) and rotation [B, 3, 3] (acts on row vectors, world frame)."""


def fit_shard(folder: Path, fit_points: FitPoints, code_size: int, model_hash: str) -> int:
    """Fit the faces of one shard and store the result in it.

    Args:
        folder: the shard.
        fit_points: the fit.
        code_size: K, number of shape coefficients.
        model_hash: fingerprint of the face model; a shard fitted with it already is left alone.

    Returns:
        Number of faces fitted now.
    """
    shard = open_shard(folder)
    if shard.fit is not None and shard.fit.model_hash == model_hash:
        return 0
    points = np.asarray(shard.arrays["points"], np.float32)
    known = np.isfinite(points).all((1, 2))
    codes = np.full((len(points), 2, code_size), np.nan, np.float32)
    rotations = np.tile(np.eye(3, dtype=np.float32), (len(points), 1, 1))
    if known.any():
        crop = torch.from_numpy(np.stack([_crop_points(face) for face in points[known]]))
        mirror = torch.from_numpy(load_face_mesh().mirror)
        flipped = crop[:, mirror] * torch.tensor([-1.0, 1.0, 1.0])
        flipped[..., 0] += Camera().image_size - 1
        own, rotation = fit_points(crop)
        mirrored, _ = fit_points(flipped)
        codes[known] = torch.stack([own, mirrored], 1).numpy()
        rotations[known] = rotation.numpy()
    write_fit(folder, ShapeFit(model_hash, codes, rotations))
    return int(known.sum())


def _crop_points(points: np.ndarray) -> np.ndarray:
    """Points [468, 3] of a region in the crop of the plain crop rule."""
    matrix = crop_matrix(points[load_face_mesh().landmarks_68, :2], Placement())
    plane = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([plane, matrix[0, 0] * points[:, 2:]], 1).astype(np.float32)


def target_coeffs(
    batch: TrainingBatch, mean: Tensor, basis: Tensor, sizes: tuple[int, int, int], camera: Camera
) -> tuple[FaceCoeffs, Tensor]:
    """Coefficients that training samples should have; albedo and light are zero.

    Args:
        batch: samples with fitted coefficients; those with `shape_weight` 0 get the mean face.
        mean: [468, 3] mean positions of the detector's points in the face model.
        basis: [468, 3, Kid + Kexp] their modes.
        sizes: numbers of identity, expression and albedo coefficients.
        camera: of the crop.

    Returns:
        Coefficients of B faces, and their rotation [B, 3, 3].

    Raises:
        ValueError: if the set was not fitted, or with a model of other sizes.
    """
    if batch.shape_code.shape[1] != sizes[0] + sizes[1]:
        raise ValueError(
            f"the prepared set has {batch.shape_code.shape[1]} shape coefficients per face, the"
            f" face model {sizes[0] + sizes[1]}; run v3recon prepare again with its --face-model"
        )
    shape = mean + (batch.shape_code @ basis.flatten(0, 1).T).unflatten(1, (-1, 3))
    translation = solve_translation(shape @ batch.rotation, batch.points[..., :2], camera)
    zeros = FaceCoeffs.zeros(len(batch), sizes, batch.points.device)
    coeffs = FaceCoeffs(
        id=batch.shape_code[:, : sizes[0]],
        exp=batch.shape_code[:, sizes[0] :],
        alb=zeros.alb,
        angle=matrix_to_euler(batch.rotation),
        sh=zeros.sh,
        trans=translation,
    )
    return coeffs, batch.rotation
