"""A reconstructed face as one .glb file: head, texture, expressions as morph targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.surfaces import SKIN, surface_faces
from v3recon.io.glb import GlbAnimation, GlbMesh, GlbPart, MorphTargets, write_glb
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.precision import full_precision
from v3recon.reconstruct.texture import Appearance, extract_texture
from v3recon.types import FaceCoeffs
from v3recon.uv.bake import bake, uv_layout

METRES = 0.1
"""Metres in a decimetre, the unit of face models."""

PHOTO_EXPRESSION = "photoExpression"
"""The target that is a face's own expression, where its model has no named shapes."""

ROUGHNESS = {SKIN: 0.65, "eyes": 0.25, "teeth": 0.35, "tongue": 0.5}
"""Of glTF's material of each surface, 0…1."""

TextureKind = Literal["photo", "albedo", "none"]


def write_face_glb(
    path: str | Path,
    face: Face,
    *,
    texture: TextureKind | np.ndarray = "photo",
    texture_size: int = 1024,
    image: np.ndarray | None = None,
    appearance: Appearance | None = None,
    animation: GlbAnimation | None = None,
    name: str | None = None,
) -> None:
    """Write a face that three.js, Blender, Babylon and Unity open as it is.

    The head stands upright at the origin, unposed: metres, y up, its front toward +z. Its identity
    is in the mesh. Its expression is the weights of the morph targets, see `face_mesh`.

    Args:
        path: the .glb file; its folder exists.
        face: the face.
        texture: "photo", completed where the camera did not see; "albedo", the model's skin
            without light; "none" for the mesh alone; or a picture [S, S, 3] uint8 RGB.
        texture_size: side of the texture, texels.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it.
        appearance: of the face, where it is known already.
        animation: of the weights and the place.
        name: of node and mesh; default the photo's.

    Raises:
        ValueError: if the photo is needed and missing, or the texture is of no known kind.
    """
    picture = face_texture(face, texture, texture_size, image=image, appearance=appearance)
    mesh = face_mesh(face.coeffs, face.model, picture, name=name or face.batch.name)
    write_glb(path, mesh, animation)


def face_mesh(
    coeffs: FaceCoeffs,
    model: LinearFaceModel,
    texture: np.ndarray | None = None,
    *,
    name: str = "face",
) -> GlbMesh:
    """The mesh of one face in metres with its morph targets.

    Models whose first expression coefficients are ARKit's have these 52 targets by their names;
    other coefficients of the expression are in the mesh itself. Other models have their named
    expressions and `photoExpression`, which is the face's own, at weight 1. Either way the mesh at
    the file's weights is the face as it was reconstructed.

    Args:
        coeffs: of one face (B = 1).
        model: their face model.
        texture: [S, S, 3] uint8 RGB, row 0 at v = 1.
        name: of the mesh.
    """
    assert len(coeffs) == 1, len(coeffs)
    with torch.no_grad(), full_precision():
        names, directions, weights, base = _expression(coeffs, model)
        vertices = model.vertices(coeffs.id, base)
        moved = _displacements(model, directions)
        normals = model.normals(vertices)
        turned = torch.cat([model.normals(vertices + one[None]) - normals for one in moved])
    # Statistical expressions move every vertex; their shading is left alone for the file's size.
    arkit = has_arkit_shapes(model)
    targets = MorphTargets(
        names=names,
        offsets=_numpy(moved) * METRES,
        weights=_numpy(weights),
        normals=_numpy(turned) if arkit else None,
        smallest=2e-5 if arkit else 1e-4,
    )
    return GlbMesh(
        name=name,
        vertices=_numpy(vertices[0]) * METRES,
        faces=model.faces.cpu().numpy(),
        normals=_numpy(normals[0]),
        uv_coords=None if texture is None else _numpy(model.uv_coords),
        texture=texture,
        parts=[
            GlbPart(surface, rows.cpu().numpy(), ROUGHNESS[surface])
            for surface, rows in surface_faces(model).items()
        ],
        targets=targets,
    )


def has_arkit_shapes(model: LinearFaceModel) -> bool:
    """Whether the first 52 expression coefficients are ARKit's blend shapes."""
    return model.exp_names[: len(ARKIT_NAMES)] == ARKIT_NAMES


def _expression(
    coeffs: FaceCoeffs, model: LinearFaceModel
) -> tuple[Sequence[str], Tensor, Tensor, Tensor]:
    """Names, coefficients [K, Kexp] and weights [K] of the targets; the mesh's own exp [1, Kexp].

    The mesh's own coefficients and the weighted sum of the targets' are the face's.
    """
    exp = coeffs.exp
    if has_arkit_shapes(model):
        count = len(ARKIT_NAMES)
        base = exp.clone()
        base[:, :count] = 0
        directions = torch.eye(count, exp.shape[1], device=exp.device)
        return ARKIT_NAMES, directions, exp[0, :count], base
    named = {name: one for name, one in model.named_expressions.items() if bool(one.any())}
    directions = torch.stack([exp[0], *(one.to(exp) for one in named.values())])
    weights = torch.zeros(len(directions), device=exp.device)
    weights[0] = 1
    return (PHOTO_EXPRESSION, *named), directions, weights, torch.zeros_like(exp)


def _displacements(model: LinearFaceModel, directions: Tensor) -> Tensor:
    """[K, V, 3] decimetres that expressions [K, Kexp] move the vertices by."""
    nobody = directions.new_zeros(1, model.sizes[0])
    neutral = model.vertices(nobody, torch.zeros_like(directions[:1]))
    return model.vertices(nobody.expand(len(directions), -1), directions) - neutral


def face_texture(
    face: Face,
    kind: TextureKind | np.ndarray = "photo",
    size: int = 1024,
    *,
    image: np.ndarray | None = None,
    appearance: Appearance | None = None,
) -> np.ndarray | None:
    """The texture of a face's file for other programs, [S, S, 3] uint8 RGB, row 0 at v = 1.

    Args:
        face: the face.
        kind: see `write_face_glb`.
        size: side S, texels.
        image: [H, W, 3] uint8 RGB, the photo, where the face does not hold it.
        appearance: of the face, where it is known already.

    Raises:
        ValueError: if the photo is needed and missing, or the kind is unknown.
    """
    if isinstance(kind, np.ndarray):
        return kind
    if kind == "none":
        return None
    if kind == "albedo":
        return albedo_texture(face.coeffs.alb, face.model, size)[0]
    if kind != "photo":
        raise ValueError(f"texture: {kind!r} is not one of photo, albedo, none")
    unwrapped = extract_texture(face.batch, image, size, appearance=appearance)
    return photo_texture(face, unwrapped.texture[0])


def photo_texture(face: Face, unwrapped: np.ndarray) -> np.ndarray:
    """A face's texture from its photo, eyes, teeth and tongue from its model.

    A camera sees slits of these, too little to fill the rest from.

    Args:
        face: the face.
        unwrapped: [S, S, 3] uint8 RGB, see `extract_texture`.
    """
    size = len(unwrapped)
    other = _not_skin(face.model, size)
    if not other.any():
        return unwrapped
    painted = albedo_texture(face.coeffs.alb, face.model, size)[0]
    return np.where(other[..., None], painted, unwrapped)


def _not_skin(model: LinearFaceModel, size: int) -> np.ndarray:
    """[S, S] bool, texels that belong to eyes, teeth or tongue."""
    other = np.ones(len(model.faces), bool)
    other[surface_faces(model)[SKIN].cpu().numpy()] = False
    return other[uv_layout(model, size).triangle]


def albedo_texture(alb_coeffs: Tensor, model: LinearFaceModel, size: int) -> np.ndarray:
    """The model's skin without light, [B, S, S, 3] uint8 RGB, row 0 at v = 1.

    Args:
        alb_coeffs: [B, Kalb].
        model: the face model.
        size: side S, texels.
    """
    if model.albedo_texture is None:
        colors = _numpy(model.albedo(alb_coeffs)).clip(0, 1)
        return (255 * bake(colors, uv_layout(model, size)) + 0.5).astype(np.uint8)
    picture = model.albedo_texture.to(alb_coeffs.device).texture(alb_coeffs)
    picture = torch.nn.functional.interpolate(
        picture, (size, size), mode="bicubic", align_corners=False, antialias=True
    )
    return (255 * picture.clamp(0, 1) + 0.5).byte().permute(0, 2, 3, 1).cpu().numpy()


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
