"""The surfaces of a face model's mesh that a viewer gives materials of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import LinearFaceModel

GROUP_NAMES = (
    "face",
    "scalp",
    "ears",
    "neck",
    "mouth_cavity",
    "eye_sockets",
    "eyeballs",
    "upper_teeth",
    "lower_teeth",
    "tongue",
)
"""Surfaces of PhotoHead; `group_labels` counts from 0 in this order."""

_SURFACES = {"eyes": ("eyeballs",), "teeth": ("upper_teeth", "lower_teeth"), "tongue": ("tongue",)}
"""Groups of each surface with a material of its own; all others are skin."""

SKIN = "skin"

_OUTER = ("face", "scalp", "ears", "neck")


def surface_faces(model: LinearFaceModel) -> dict[str, Tensor]:
    """Rows of `model.faces` of each surface that the model has, every triangle once.

    Returns:
        "skin" first, then "eyes", "teeth", "tongue" of models with `group_labels`.
    """
    every = torch.arange(len(model.faces), device=model.faces.device)
    if model.group_labels is None:
        return {SKIN: every}
    group = model.group_labels[model.faces[:, 0]]
    result = {}
    rest = torch.ones_like(group, dtype=torch.bool)
    for name, groups in _SURFACES.items():
        labels = [GROUP_NAMES.index(one) for one in groups]
        inside = torch.isin(group, torch.tensor(labels, device=group.device).to(group))
        result[name] = every[inside]
        rest &= ~inside
    named = {SKIN: every[rest]} | result
    return {name: rows for name, rows in named.items() if len(rows)}


def outer_skin(model: LinearFaceModel) -> Tensor:
    """Vertices [V] bool of the outer skin; all of a model that names no surfaces."""
    if model.group_labels is None:
        return torch.ones_like(model.part_labels, dtype=torch.bool)
    return torch.isin(
        model.group_labels, model.group_labels.new_tensor([GROUP_NAMES.index(n) for n in _OUTER])
    )
