"""One correction of an estimate, applied again and again: the mesh reads the map where it lies.

Points of the estimated mesh are projected into the fine map; a patch around each, its samples
denser toward the point, goes through one small network that knows which point it is. All of them
together with the estimate give a change of the coefficients; each of them says where its point is
and how sure that is, and a Gauss-Newton step brings the mesh there (`networks.point_solver`). The
loop is that of RAFT (Teed and Deng, ECCV 2020) and PyMAF (Zhang et al., ICCV 2021): the same
weights each time, the point's places without gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from v3recon.face_models.linear_face_model import LinearFaceModel, linear_points
from v3recon.geometry.camera import Camera, from_grid, project, to_grid
from v3recon.geometry.point_sets import farthest_point_sampling
from v3recon.geometry.rotation import rotation_6d_to_matrix
from v3recon.networks.point_solver import ROTATION_CHANGE, gauss_newton_step
from v3recon.types import TRANS_SIZE

ROTATION_SIZE = 6
POINT_CHANNELS = 16
"""Numbers kept of each point's patch."""
PATCH_WIDTH = 64
OFFSETS = (-4.5, -1.5, 0.0, 1.5, 4.5)
"""Samples of a patch along a side, cells of the map: dense near the point, and far-sighted."""
AIM_UNIT = 10.0
"""Crop pixels per unit of a point's offset inside the network."""
STEEP = 8.0
"""Logarithms of weights and dampings per unit inside the network, so that they learn as fast."""
WEIGHT_LIMITS = (-13.0, 3.0)
"""Between which the logarithm of a point's weight is kept."""
FIRST_WEIGHT, FIRST_DAMPING = -7.0, 3.0
"""Logarithms before training: points count little, the step is small."""
SHAPE_LIMIT, PLACE_LIMIT = 6.0, 3.0
"""Largest coefficients (units of the state) and distance (decimetres) that a refinement starts
from: no face is farther, and a wild first estimate must not send the mesh through the camera."""
ROTATION_DAMPING, PLACE_DAMPING = 100.0, 30.0
"""Damping of rotation (radians) and place (decimetres) relative to that of a coefficient."""


class Refiner(nn.Module):
    """State and fine map to a better state; a state is [B, K + 9]: shape, 6D rotation, place.

    Attributes:
        mean: [P, 3] points of the mean face, decimetres.
        basis: [P, 3, K] their modes per unit of the state.
        index: [P] their vertices. All three come from a face model by `set_points` and travel
            with the weights.
    """

    index: Tensor
    mean: Tensor
    basis: Tensor
    damping_scale: Tensor

    def __init__(self, map_width: int, shape_size: int, points: int, hidden: int) -> None:
        """Build with random weights whose changes are 0.

        Args:
            map_width: channels of the map.
            shape_size: K, identity and expression together.
            points: P, points of the mesh that look.
            hidden: width between what all points saw and the change.
        """
        super().__init__()
        state = shape_size + ROTATION_SIZE + TRANS_SIZE
        self.register_buffer("index", torch.zeros(points, dtype=torch.long))
        self.register_buffer("mean", torch.zeros(points, 3))
        self.register_buffer("basis", torch.zeros(points, 3, shape_size))
        self.normalize = nn.LayerNorm(len(OFFSETS) ** 2 * map_width)
        self.widen = nn.Linear(len(OFFSETS) ** 2 * map_width, PATCH_WIDTH)
        self.names = nn.Parameter(0.02 * torch.randn(points, PATCH_WIDTH))
        self.narrow = nn.Linear(PATCH_WIDTH, POINT_CHANNELS)
        self.change = nn.Sequential(
            nn.Linear(points * (POINT_CHANNELS + 2) + state, hidden),
            nn.Hardswish(),
            nn.Linear(hidden, hidden),
            nn.Hardswish(),
            nn.Linear(hidden, state),
        )
        self.aim = nn.Linear(PATCH_WIDTH, 3)
        nn.init.zeros_(self.aim.weight)
        nn.init.zeros_(self.aim.bias)
        moved = shape_size + ROTATION_CHANGE + TRANS_SIZE
        self.damping = nn.Parameter(torch.full((moved,), FIRST_DAMPING / STEEP))
        scale = torch.ones(moved)
        scale[shape_size:] = ROTATION_DAMPING
        scale[shape_size + ROTATION_CHANGE :] = PLACE_DAMPING
        self.register_buffer("damping_scale", scale, persistent=False)
        last = self.change[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, fine: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Correct a state.

        Args:
            fine: [B, M, h, w] map of the whole crop.
            state: [B, K + 9].

        Returns:
            The corrected state [B, K + 9], and where its points were seen, [B, P, 2] crop pixels.
        """
        state = self._within_limits(state)
        places = self.places(state.detach())
        reach = fine.new_tensor(OFFSETS)
        rows, columns = torch.meshgrid(reach, reach, indexing="ij")
        cell = fine.new_tensor([2 / fine.shape[-1], 2 / fine.shape[-2]])
        offsets = torch.stack([columns, rows], -1).flatten(0, 1) * cell
        seen = grid_sample(fine, places[:, :, None] + offsets, align_corners=False)
        patch = self.normalize(seen.permute(0, 2, 3, 1).flatten(2))
        wide = torch.nn.functional.hardswish(self.widen(patch) + self.names)
        known = torch.cat([self.narrow(wide).flatten(1), places.flatten(1), state.detach()], 1)
        offset, sure = self.aim(wide).split([2, 1], 2)
        aims = from_grid(places, Camera()) + AIM_UNIT * offset
        weights = (STEEP * sure[..., 0] + FIRST_WEIGHT).clamp(*WEIGHT_LIMITS).exp()
        damping = (STEEP * self.damping).exp() * self.damping_scale
        changed = gauss_newton_step(
            split_state(state + self.change(known)), (self.mean, self.basis),
            aims, weights, damping,
        )  # fmt: skip
        return changed, aims

    @staticmethod
    def _within_limits(state: Tensor) -> Tensor:
        shape, axes, place = split_state(state)
        shape = shape.clamp(-SHAPE_LIMIT, SHAPE_LIMIT)
        return torch.cat([shape, axes, place.clamp(-PLACE_LIMIT, PLACE_LIMIT)], 1)

    def places(self, state: Tensor) -> Tensor:
        """Where the points of a state are in the crop, [B, P, 2] in -1…1 (the crop's borders)."""
        camera = Camera()
        shape, rotation, trans = split_state(state)
        points = linear_points(self.mean, self.basis, shape)
        posed = points @ rotation_6d_to_matrix(rotation) + trans[:, None]
        pixels = project(posed, camera)
        return to_grid(pixels, camera).clamp(-2, 2)

    @torch.no_grad()
    def set_points(self, model: LinearFaceModel, unit: Tensor, index: Tensor | None = None) -> None:
        """Take the points from a face model, before training or where the model has changed.

        Args:
            model: the face model.
            unit: [K] value of each coefficient per unit of the state.
            index: [P] their vertices; default `looking_points`.

        Raises:
            ValueError: if the network is for another number of coefficients.
        """
        index = looking_points(model, len(self.mean)) if index is None else index.cpu()
        mean, basis = model.shape_basis_at(index)
        if basis.shape != self.basis.shape:
            raise ValueError(
                f"the network expects {tuple(self.basis.shape)} points, axes and modes, the face "
                f"model {model.name!r} gives {tuple(basis.shape)}"
            )
        self.index.copy_(index)
        self.mean.copy_(mean)
        self.basis.copy_(basis * unit.to(basis))


def split_state(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape [B, K], two axes of the rotation [B, 6], place [B, 3] of a state."""
    shape_size = state.shape[1] - ROTATION_SIZE - TRANS_SIZE
    shape, rotation, trans = state.split([shape_size, ROTATION_SIZE, TRANS_SIZE], 1)
    return shape, rotation, trans


def looking_points(model: LinearFaceModel, count: int) -> Tensor:
    """Vertices [count] at which a network looks: 68 landmarks, parts, the rest of the surface."""
    mean = model.mean_vertices()
    parts = ((model.part_labels > 0) & (model.part_labels < 8)).nonzero()[:, 0]
    others = _outer_skin(model, mean)
    more = max(count - len(model.landmarks_68), 0)
    parts = parts[farthest_point_sampling(mean[parts], more // 2)]
    others = others[farthest_point_sampling(mean[others], more - len(parts))]
    return torch.cat([model.landmarks_68, parts, others])[:count]


def _outer_skin(model: LinearFaceModel, mean: Tensor) -> Tensor:
    """Vertices of the labeled skin and, where the model names surfaces, of the first one."""
    if model.group_labels is None:
        return (model.part_labels == 8).nonzero()[:, 0]
    return ((model.group_labels == 0) & (mean[:, 2] > mean[:, 2].mean())).nonzero()[:, 0]
