"""Pictures of random heads of a face model, whose shape is known exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from v3recon.decode import decode, lit_colors
from v3recon.evaluation.scan_fit import neutral_vertices
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera, to_clip
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_image
from v3recon.types import FaceCoeffs

SIZE = 336
"""Side of a picture, pixels."""
YAWS = (0.0, -35.0, 35.0, -60.0, 60.0, -15.0, 15.0)
"""Yaw of each view, degrees; a head has at most so many."""
EXPRESSION_SPREAD, ALBEDO_SPREAD, LIGHT_SPREAD = 0.3, 0.7, 0.15


@dataclass(frozen=True)
class DrawnHead:
    """One head and its pictures.

    Attributes:
        name: for people.
        vertices: [V, 3] without expression, millimeters.
        pictures: [SIZE, SIZE, 3] uint8 RGB each.
        landmarks: [68, 2] of each picture, pixels.
    """

    name: str
    vertices: np.ndarray
    pictures: list[np.ndarray]
    landmarks: list[torch.Tensor]


def draw_random_heads(
    model: LinearFaceModel, count: int, views: int, seed: int
) -> Iterator[DrawnHead]:
    """Random identities, each seen from `views` sides under other light with a faint expression.

    Args:
        model: the face model; identities are drawn from its own statistics.
        count: heads.
        views: pictures of each, at most the number of `YAWS`.
        seed: the same seed gives the same heads.

    Raises:
        ValueError: for more views than there are.
    """
    if not 1 <= views <= len(YAWS):
        raise ValueError(f"a head has 1 to {len(YAWS)} views, not {views}")
    for number in range(count):
        random = torch.Generator().manual_seed(seed * 100_003 + number)
        identity = torch.randn(1, model.sizes[0], generator=random)
        albedo = torch.randn(1, model.sizes[2], generator=random) * ALBEDO_SPREAD
        pictures, landmarks = [], []
        for yaw in YAWS[:views]:
            picture, points = _draw(model, identity, albedo, yaw, random)
            pictures.append(picture)
            landmarks.append(points)
        vertices = neutral_vertices(model, identity.to(model.mean_shape.device))
        yield DrawnHead(f"head {number}", vertices, pictures, landmarks)


def _draw(
    model: LinearFaceModel,
    identity: torch.Tensor,
    albedo: torch.Tensor,
    yaw: float,
    random: torch.Generator,
) -> tuple[np.ndarray, torch.Tensor]:
    """A picture and its 68 points."""
    degrees = torch.tensor([[0.0, yaw, 0.0]]) + 5 * torch.randn(1, 3, generator=random)
    light = torch.randn(1, 3, 9, generator=random) * LIGHT_SPREAD
    light = 0.3 * light + 0.7 * light.mean(1, keepdim=True)  # colored a little
    coeffs = FaceCoeffs(
        id=identity,
        exp=_faint_expression(model, random),
        alb=albedo,
        angle=torch.deg2rad(degrees),
        sh=light.reshape(1, 27),
        trans=torch.zeros(1, 3),
    ).to(model.mean_shape.device)
    camera = Camera()
    ratio = SIZE / camera.image_size
    shift = (ratio - 1) / 2
    matrix = torch.tensor([[[ratio, 0, shift], [0, ratio, shift]]]).to(coeffs.id)
    with torch.no_grad():
        decoded = decode(coeffs, model, camera)
        clip = to_clip(decoded.vertices, camera, (SIZE, SIZE), matrix)
        fragments = rasterize(clip, model.faces, (SIZE, SIZE))
        image, mask = render_image(lit_colors(coeffs, decoded, model), fragments, model.faces)
    image, mask = (one[0].permute(1, 2, 0).cpu() for one in (image, mask))
    colors = torch.rand(2, 1, 3, generator=random)  # a background from one color to another
    across = torch.linspace(0, 1, SIZE)[:, None, None]
    background = colors[0] * (1 - across) + colors[1] * across
    picture = torch.where(mask > 0, image.clamp(0, 1), background.expand_as(image))
    points = decoded.points_2d[0, model.landmarks_68].cpu() * ratio + shift
    return (picture * 255).round().to(torch.uint8).numpy(), points.double()


def _faint_expression(model: LinearFaceModel, random: torch.Generator) -> torch.Tensor:
    """Coefficients [1, Kexp] of a face almost at rest, within the model's bounds."""
    exp = EXPRESSION_SPREAD * torch.randn(1, model.sizes[1], generator=random)
    if model.exp_sigma is not None:
        exp = exp * model.exp_sigma.cpu()
    if model.exp_bounds is not None:
        exp = exp.clamp(*model.exp_bounds.cpu().T)
    return exp
