"""A face model that learns with the network: mean and bases move smoothly away from their start.

The change of the mean and of each mode is a smooth field over the mean face: normalized Gaussians
around some of its vertices times offsets, which are what is learned. So the points that a loss sees
move the vertices between them, and lids, teeth and eyeballs move with the skin around them. A
quadratic penalty holds the change to the start. Albedo and expression names stay as they are.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.point_sets import farthest_point_sampling
from v3recon.networks.face_regressor import FaceRegressor
from v3recon.training.face_objective import FacePoints

_MM = 0.01  # decimetres
_MOVED = ("", "contour_", "part_", "aimed_")  # prefixes of the buffers of `FacePoints` that move


@dataclass(frozen=True)
class ShapeSettings:
    """`[shape]` of a recipe.

    Attributes:
        rate: millimetres by which an offset may move in a step at the full learning rate; 0 keeps
            the face model as it is.
        centers: number of Gaussians.
        width: of each, decimetres.
        weight: of the penalty, per square millimetre.
    """

    rate: float = 0.0
    centers: int = 200
    width: float = 0.25
    weight: float = 0.02

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: for a number out of range.
        """
        if self.rate < 0 or self.weight < 0 or self.centers < 1 or not self.width > 0:
            raise ValueError(
                "rate and weight must be at least 0, centers 1 and width above 0, got "
                f"{self.rate}, {self.weight}, {self.centers}, {self.width}"
            )


class LearnedShape(nn.Module):
    """Offsets of a face model's mean and modes.

    Attributes:
        offsets: [M, 3, 1 + K] of the mean, millimetres, and of each mode, millimetres at one
            standard deviation times the root of K.
        scale: [1 + K] decimetres per unit of `offsets`.
    """

    scale: Tensor
    field: Tensor
    aimed_points_field: Tensor
    gram: Tensor

    def __init__(
        self, model: LinearFaceModel, network: FaceRegressor, settings: ShapeSettings
    ) -> None:
        """Start at the model itself.

        Args:
            model: the face model.
            network: whose points are those of the model.
            settings: of the recipe.
        """
        super().__init__()
        unit = network.unit.cpu()
        self.offsets = nn.Parameter(torch.zeros(settings.centers, 3, 1 + len(unit)))
        modes = _MM / (len(unit) ** 0.5 * unit)
        self._keep("scale", torch.cat([torch.tensor([_MM]), modes]))
        field = smooth_field(model.mean_shape, settings.centers, settings.width)
        self._keep("field", field)
        self._keep("gram", field.T @ field / len(field))
        fields = copy.deepcopy(model)  # a model whose modes are the Gaussians
        fields.id_basis = field[:, None].expand(-1, 3, -1)
        fields.exp_basis = model.exp_basis[..., :0]
        points = FacePoints(fields, network.refiner.index.cpu())
        for prefix in _MOVED:
            self._keep(f"{prefix}points_field", getattr(points, f"{prefix}basis")[:, 0])

    def _keep(self, name: str, value: Tensor) -> None:
        """A buffer that follows from the face model and is not stored."""
        self.register_buffer(name, value.contiguous(), persistent=False)

    def change(self, field: Tensor) -> Tensor:
        """Change [N, 3, 1 + K] of the mean and the modes, decimetres, where a field is [N, M]."""
        change = (field @ self.offsets.flatten(1)).unflatten(1, self.offsets.shape[1:])
        return change * self.scale

    def moved(self, points: FacePoints) -> FacePoints:
        """The points of the changed model; gradients reach the offsets."""
        twin = copy.copy(points)
        twin._buffers = dict(points._buffers)
        for prefix in _MOVED:
            change = self.change(getattr(self, f"{prefix}points_field"))
            twin._buffers[f"{prefix}mean"] = getattr(points, f"{prefix}mean") + change[..., 0]
            twin._buffers[f"{prefix}basis"] = getattr(points, f"{prefix}basis") + change[..., 1:]
        return twin

    def penalty(self) -> Tensor:
        """Mean over vertices of |change|^2, mm^2: of the mean, plus that expected of random modes.

        With coefficients of variance 1, the modes' part is the mean over modes of their squares.
        """
        return torch.einsum("mck,mn,nck->", self.offsets, self.gram, self.offsets)

    @torch.no_grad()
    def place_looking_points(self, network: FaceRegressor, points: FacePoints) -> None:
        """Put the points at which a network looks where the changed model has them.

        Args:
            network: the network.
            points: of the model before the change, for this network.
        """
        moved = self.moved(points)
        network.refiner.mean.copy_(moved.aimed_mean)
        network.refiner.basis.copy_(moved.aimed_basis * network.unit)

    @torch.no_grad()
    def arrays(self, model: LinearFaceModel) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [Vc, 3], identity and expression basis [Vc, 3, K] of the changed model."""
        change = self.change(self.field).to(model.mean_shape.device)
        id_size = model.sizes[0]
        return (
            model.mean_shape + change[..., 0],
            model.id_basis + change[..., 1 : 1 + id_size],
            model.exp_basis + change[..., 1 + id_size :],
        )


def smooth_field(points: Tensor, centers: int, width: float) -> Tensor:
    """Normalized Gaussians: row n says how much each center's offset moves a point; sums are 1.

    Args:
        points: [N, 3] decimetres.
        centers: M, at most N of them are chosen, far apart.
        width: decimetres.

    Returns:
        [N, M].
    """
    if centers > len(points):
        raise ValueError(f"the face model has {len(points)} vertices, fewer than {centers} centers")
    chosen = points[farthest_point_sampling(points, centers)]
    return (-(torch.cdist(points, chosen) / width).square()).softmax(1)
