"""Colors of what photographs of faces do not show well: eyeballs, teeth, gums, tongue, cavity."""

from __future__ import annotations

import numpy as np
import torch

from v3recon.face_models.surfaces import GROUP_NAMES
from v3recon.photohead.shape import HeadShape
from v3recon.photohead.template import SURFACES
from v3recon.photohead.uv_atlas import ISLANDS
from v3recon.render.rasterize import rasterize
from v3recon.types import Fragments

IRIS_ANGLE, PUPIL_ANGLE = np.radians(27.0), np.radians(9.5)
"""Half angles of iris and pupil seen from the eyeball's center: 5.9 and 2.1 mm of 12.8."""
_SCLERA = (0.80, 0.76, 0.73)
_SCLERA_RIM = (0.70, 0.56, 0.53)
_IRIS, _LIMBUS, _PUPIL = (0.33, 0.21, 0.12), (0.14, 0.10, 0.08), (0.02, 0.02, 0.02)
IRIS_AXES = ((-0.14, 0.03, 0.22), (0.14, 0.11, 0.08))
"""Change of the iris per standard deviation: brown to blue, dark to light."""
_TOOTH, _GUM, _TONGUE, _CAVITY = (
    (0.82, 0.78, 0.70),
    (0.62, 0.34, 0.33),
    (0.66, 0.36, 0.36),
    (0.36, 0.14, 0.13),
)
_CROWN = 0.5
"""Share of a row of teeth's height that is crown; the rest is gum."""


def paint_parts(
    shape: HeadShape, uv: np.ndarray, group_labels: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Painted texels.

    Args:
        shape: the head.
        uv: [V, 2] texture coordinates.
        group_labels: [V] groups.
        size: rows and columns of the texture.

    Returns:
        colors [T, T, 3], which texels they are for [T, T], and the iris's share [T, T] 0…1.
    """
    colors, painted = np.zeros((size, size, 3)), np.zeros((size, size), bool)
    iris = np.zeros((size, size))
    v, u = 1 - (np.arange(size)[:, None] + 0.5) / size, (np.arange(size)[None] + 0.5) / size
    for name in ("right_eye", "left_eye"):
        middle_u, middle_v, (width, height) = ISLANDS[name]
        radius = np.hypot((u - middle_u) / width, (v - middle_v) / height)
        own = radius < 1.12
        colors[own], share = _eye_colors(radius[own], np.arctan2(v - middle_v, u - middle_u)[own])
        iris[own] = share
        painted |= own
    for name in ("upper_teeth", "lower_teeth", "tongue"):
        middle_u, middle_v, (width, height) = ISLANDS[name]
        up = (v - middle_v) / height + 0 * u
        own = (np.abs(u - middle_u) < 1.08 * width) & (np.abs(up) < 1.08)
        color = np.broadcast_to(_TONGUE, (size, size, 3))
        if name != "tongue":
            gum = _gum_share(shape, uv, name, size)[..., None]
            color = gum * np.array(_GUM) + (1 - gum) * _tooth_row(u - middle_u, width)
        colors[own] = color[own]
        painted |= own
    cavity = _cavity(shape, uv, group_labels, size)
    colors[cavity & ~painted] = _CAVITY
    return colors, painted | cavity, iris


def _eye_colors(radius: np.ndarray, around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colors [N, 3] and iris share [N] at distances 0…1 from the middle of an eye's island."""
    polar = np.pi * np.clip(radius, 0, 1) ** 2
    rim = np.clip((polar - np.radians(35)) / np.radians(45), 0, 1)[:, None]
    color = (1 - rim) * np.array(_SCLERA) + rim * np.array(_SCLERA_RIM)
    fibers = 1 + 0.18 * np.sin(23 * around) * np.sin(31 * around + 1.0)
    limbus = np.clip((polar / IRIS_ANGLE - 0.78) / 0.2, 0, 1)[:, None]
    iris = (1 - limbus) * np.array(_IRIS) * fibers[:, None] + limbus * np.array(_LIMBUS)
    edge = np.radians(2.0)
    in_iris = np.clip((IRIS_ANGLE - polar) / edge + 0.5, 0, 1)[:, None]
    in_pupil = np.clip((PUPIL_ANGLE - polar) / edge + 0.5, 0, 1)[:, None]
    color = color * (1 - in_iris) + iris * in_iris
    color = color * (1 - in_pupil) + np.array(_PUPIL) * in_pupil
    return color, (in_iris * (1 - in_pupil) * (1 - 0.7 * limbus))[:, 0]


def _gum_share(shape: HeadShape, uv: np.ndarray, name: str, size: int) -> np.ndarray:
    """How much of each texel [T, T] of a row of teeth is gum: by height over the teeth's edge."""
    own = shape.surface == SURFACES.index(name)
    height = (shape.dense.operator @ shape.mean)[:, 1]
    low, high = height[own].min(), height[own].max()
    level = (height - low) / (high - low)
    level = level if name == "upper_teeth" else 1 - level
    triangles = shape.triangles[own[shape.triangles].all(1)].astype(np.int64)
    fragments = _flat(uv, triangles, size)
    owner, bary = fragments.face_id[0].numpy(), fragments.bary[0].numpy()
    value = (level[triangles[np.maximum(owner, 0)]] * bary).sum(2)
    return np.where(owner >= 0, np.clip((value - _CROWN) / 0.06 + 0.5, 0, 1), 0.0)


def _tooth_row(offset: np.ndarray, width: float) -> np.ndarray:
    """Colors of a row of teeth with darker gaps between them."""
    phase = np.abs(((offset / width * 7.0) + 0.5) % 1 - 0.5)
    gap = np.clip(1 - phase / 0.09, 0, 1)
    return np.array(_TOOTH) * (1 - 0.35 * gap[..., None])


def _cavity(shape: HeadShape, uv: np.ndarray, group_labels: np.ndarray, size: int) -> np.ndarray:
    """Texels [T, T] of the mouth cavity and the sockets."""
    hidden = [GROUP_NAMES.index("mouth_cavity"), GROUP_NAMES.index("eye_sockets")]
    inside = np.isin(group_labels[shape.triangles], hidden).all(1)
    triangles = shape.triangles[inside].astype(np.int64)
    return _flat(uv, triangles, size).face_id[0].numpy() >= 0


def _flat(uv: np.ndarray, triangles: np.ndarray, size: int) -> Fragments:
    """Triangles [F, 3] drawn in the texture, row 0 at v = 1."""
    ones = np.ones(len(uv))
    clip = np.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1], 0 * ones, ones], 1)
    return rasterize(
        torch.from_numpy(clip).float()[None], torch.from_numpy(triangles), (size, size)
    )
