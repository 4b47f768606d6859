"""Typed results that pass between the layers. All tensors are batched, B first."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

ANGLE_SIZE = 3
SH_SIZE = 27
TRANS_SIZE = 3


@dataclass(frozen=True)
class FaceCoeffs:
    """Coefficients of a face in one photo, in 3DDFA_V3's order (CVPR 2024; 257 in all there).

    Attributes:
        id: identity [B, Kid], in standard deviations.
        exp: expression [B, Kexp], in standard deviations.
        alb: albedo [B, Kalb], in standard deviations.
        angle: pitch, yaw, roll [B, 3] in radians, see `geometry.rotation.euler_to_matrix`.
        sh: spherical-harmonics light [B, 27], colour first (3 x 9).
        trans: translation [B, 3], world frame, decimetres.
    """

    id: Tensor
    exp: Tensor
    alb: Tensor
    angle: Tensor
    sh: Tensor
    trans: Tensor

    @classmethod
    def from_tensor(cls, packed: Tensor, sizes: tuple[int, int, int] = (80, 64, 80)) -> FaceCoeffs:
        """Split packed coefficients.

        Args:
            packed: [B, K] with K = sum(sizes) + 33.
            sizes: numbers of identity, expression and albedo coefficients.

        Raises:
            ValueError: if K does not match the sizes.
        """
        blocks = (*sizes, ANGLE_SIZE, SH_SIZE, TRANS_SIZE)
        if packed.ndim != 2 or packed.shape[1] != sum(blocks):
            raise ValueError(f"expected coefficients [B, {sum(blocks)}], got {tuple(packed.shape)}")
        return cls(*packed.split(blocks, dim=1))

    @classmethod
    def zeros(
        cls,
        batch: int,
        sizes: tuple[int, int, int] = (80, 64, 80),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> FaceCoeffs:
        """Mean face, frontal, in the centre of the crop, lit by ambient light only."""
        size = sum(sizes) + ANGLE_SIZE + SH_SIZE + TRANS_SIZE
        return cls.from_tensor(torch.zeros(batch, size, device=device, dtype=dtype), sizes)

    def to_tensor(self) -> Tensor:
        """Packed coefficients [B, K] in the order of the fields."""
        return torch.cat([getattr(self, field.name) for field in fields(self)], dim=1)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of identity, expression and albedo coefficients."""
        return self.id.shape[1], self.exp.shape[1], self.alb.shape[1]

    def __len__(self) -> int:
        return self.id.shape[0]

    def __getitem__(self, index: slice | Tensor) -> FaceCoeffs:
        return FaceCoeffs(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> FaceCoeffs:
        """The same coefficients on another device."""
        return FaceCoeffs(*(getattr(self, field.name).to(device) for field in fields(self)))

    def detach(self) -> FaceCoeffs:
        """The same coefficients without gradient history."""
        return FaceCoeffs(*(getattr(self, field.name).detach() for field in fields(self)))


@dataclass(frozen=True)
class Fragments:
    """What a rasteriser says about each pixel; row 0 on top.

    Attributes:
        face_id: [B, H, W] int64, index of the triangle that owns the pixel, -1 = none.
        bary: [B, H, W, 3] perspective-correct barycentric weights of that triangle's three
            vertices at the pixel's centre, differentiable in the vertex positions; 0 where empty.
        depth: [B, H, W] distance along the optical axis (clip w), decimetres; 0 where empty.
    """

    face_id: Tensor
    bary: Tensor
    depth: Tensor

    def detach(self) -> Fragments:
        """The same fragments without gradient history."""
        return Fragments(self.face_id, self.bary.detach(), self.depth.detach())


@dataclass(frozen=True)
class Decoded:
    """Geometry of a batch of faces (see `v3recon.decode.decode`).

    Attributes:
        model_vertices: [B, V, 3] unposed vertices, model frame, decimetres.
        rotation: [B, 3, 3], acts on row vectors: vertices = model_vertices @ rotation + trans.
        vertices: [B, V, 3] posed vertices, world frame, decimetres.
        points_2d: [B, V, 2] projected vertices, crop pixels (x right, y down).
    """

    model_vertices: Tensor
    rotation: Tensor
    vertices: Tensor
    points_2d: Tensor


@dataclass(frozen=True)
class Detection:
    """A face found in a photo, in the photo's pixels (x right, y down, first centre (0, 0)).

    Attributes:
        box: [4] left, top, right, bottom.
        score: the detector's confidence, 0…1.
        points: [5, 2] eye centres, nose tip, mouth corners, the viewer's left one first; None
            where a detector gives a box only.
    """

    box: Tensor
    score: float
    points: Tensor | None = None
