"""One identity and albedo for several looks at a person; expression, pose and light stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from v3recon.geometry.camera import solve_translation
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.reconstruct.faces import Face, packed_coeffs, with_coeffs
from v3recon.types import FaceCoeffs

FRONTAL = 0.7
"""Radians of yaw at which a look counts for exp(-1/2) of a frontal one."""

_LEAST_QUALITY = 1e-3


def look_weights(coeffs: FaceCoeffs, quality: Sequence[float]) -> Tensor:
    """Confidence of each look at a person: quality times exp(-(yaw / FRONTAL)^2 / 2).

    Deep3D (Deng et al. 2019, section 4) trains a network for the same purpose, with a small gain
    over the plain mean.

    Args:
        coeffs: of N looks.
        quality: of each look, 0…1; NaN counts as 1.

    Returns:
        [N], sum 1.
    """
    known = [1.0 if math.isnan(one) else max(one, _LEAST_QUALITY) for one in quality]
    weights = torch.tensor(known).to(coeffs.id) * torch.exp(
        -0.5 * (coeffs.angle[:, 1] / FRONTAL) ** 2
    )
    return weights / weights.sum().clamp(min=1e-12)


def with_one_identity(coeffs: FaceCoeffs, quality: Sequence[float]) -> FaceCoeffs:
    """The looks with identity and albedo of all of them together, weighted by `look_weights`.

    Args:
        coeffs: of N looks at one person.
        quality: of each look, 0…1.
    """
    weights, count = look_weights(coeffs, quality), len(coeffs)
    return replace(
        coeffs,
        id=(weights @ coeffs.id).expand(count, -1).clone(),
        alb=(weights @ coeffs.alb).expand(count, -1).clone(),
    )


def one_person(faces: Sequence[Face]) -> list[Face]:
    """Faces of one person in several photos, with one identity and one albedo.

    Each head is moved so that its 68 landmarks stay where they were, in the least squares.

    Args:
        faces: one of each photo, of one face model, with their photos.

    Raises:
        ValueError: if there is none, or they are of several face models.
    """
    if not faces:
        raise ValueError("faces: none to take together")
    model, camera = faces[0].model, faces[0].camera
    shared = with_one_identity(packed_coeffs(faces), [face.quality for face in faces])
    index = model.landmarks_68
    shape = model.vertices(shared.id, shared.exp)[:, index]
    before = torch.cat([face.decoded.points_2d[:, index] for face in faces])
    trans = solve_translation(shape @ euler_to_matrix(shared.angle), before, camera)
    return with_coeffs(faces, replace(shared, trans=trans))
