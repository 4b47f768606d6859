"""What a photo really shows of a face: parts, and the hair, glasses or hands before them.

The network's part head tells it place by place (`networks.encoder.SEEN_NAMES`); official networks
have none. Values are kept as bytes, 255 = certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d, normalize

from v3recon.decode import posed_normals
from v3recon.face_models.landmarks import landmark_points
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera, to_grid
from v3recon.networks.encoder import MIRROR_SEEN, SEEN_NAMES
from v3recon.types import Decoded

FIRST_COVER = SEEN_NAMES.index("hair")
"""From here on `SEEN_NAMES` are things before the face."""
_INWARD = 0.06
"""Share of the way to the middle of the face at which the cover of a landmark is read: at the
outline itself the map is undecided between face and background."""
_AROUND = 40
_EDGE_ON = 0.1
"""Cosine between normal and view below which a point counts as turned away by degrees."""


def seen_bytes(logits: Tensor, *, mirrored: bool) -> Tensor:
    """Probabilities [B, 12, h, w] as bytes.

    Args:
        logits: [B, 12, h, w].
        mirrored: they are of the mirror image of the crop; the result is of the crop.
    """
    shares = logits.softmax(1)
    if mirrored:
        shares = shares.flip(3)[:, list(MIRROR_SEEN)]
    return (255 * shares).round().to(torch.uint8)


def cover_at(seen: Tensor, points_2d: Tensor, camera: Camera) -> Tensor:
    """How probably hair, glasses or something else lies before points.

    Args:
        seen: [N, 12, h, w] uint8, over the crops.
        points_2d: [N, P, 2] crop pixels.
        camera: of the crop.

    Returns:
        [N, P] 0…1; beyond the crop the value at its border.
    """
    return _read(seen[:, FIRST_COVER:].float().sum(1, keepdim=True), points_2d, camera)


def other_than_face_at(seen: Tensor, points_2d: Tensor, camera: Camera) -> Tensor:
    """How probably points show none of the eight parts: background, or what lies before the face.

    Arguments and result are those of `cover_at`.
    """
    parts = seen[:, 1:FIRST_COVER].float().sum(1, keepdim=True)
    return 1 - _read(parts, points_2d, camera)


def near_hair_at(seen: Tensor, points_2d: Tensor, camera: Camera, around: float) -> Tensor:
    """How probably hair lies before or near points: its shadow falls on the skin beside it.

    Args:
        seen: [N, 12, h, w] uint8, over the crops.
        points_2d: [N, P, 2] crop pixels.
        camera: of the crop.
        around: distance that is near, share of the crop's side.

    Returns:
        [N, P] 0…1; beyond the crop the value at its border.
    """
    cells = round(around * seen.shape[-1])
    hair = seen[:, FIRST_COVER : FIRST_COVER + 1].float()
    return _read(max_pool2d(hair, 2 * cells + 1, stride=1, padding=cells), points_2d, camera)


def _read(map_of_bytes: Tensor, points_2d: Tensor, camera: Camera) -> Tensor:
    """Values [N, P], 0…1, of a map [N, 1, h, w] of bytes at points [N, P, 2]."""
    found = grid_sample(
        map_of_bytes.to(points_2d.dtype) / 255, to_grid(points_2d, camera)[:, :, None],
        padding_mode="border", align_corners=False,
    )  # fmt: skip
    return found[:, 0, :, 0].clamp(0, 1)


def point_visibility(
    decoded: Decoded, model: LinearFaceModel, camera: Camera, seen: Tensor | None, index: Tensor
) -> Tensor:
    """Visibility of vertices: do they face the camera, and is nothing before them.

    Args:
        decoded: geometry of N faces.
        model: their face model.
        camera: of the crop.
        seen: [N, 12, h, w] uint8; None where the network does not tell.
        index: [L] vertex ids.

    Returns:
        [N, L] 0…1.
    """
    vertices = decoded.vertices[:, index]
    around = _surroundings(model)[index.to(model.faces.device)]
    normals = normalize(posed_normals(decoded, model)[:, around].mean(2), dim=-1)
    eye = vertices.new_tensor([0.0, 0.0, camera.distance])
    cosine = (normals * normalize(eye - vertices, dim=-1)).sum(-1)
    facing = torch.sigmoid(cosine / _EDGE_ON)
    if seen is None:
        return facing
    points = landmark_points(decoded.points_2d, index)
    inward = points + _INWARD * (points.mean(1, keepdim=True) - points)
    return facing * (1 - cover_at(seen, inward, camera))


@lru_cache(maxsize=4)
def _surroundings(model: LinearFaceModel) -> Tensor:
    """[V, 40] the nearest labeled vertices of each vertex of the mean face.

    Normals at lids and lips point along their folds; together they tell which way the face looks.
    """
    mean = model.mean_vertices()
    labeled = (model.part_labels > 0).nonzero()[:, 0]
    tree = KDTree(mean[labeled].cpu().numpy())
    near = tree.query(mean.cpu().numpy(), k=min(_AROUND, len(labeled)))[1]
    return labeled[torch.from_numpy(np.asarray(near)).to(labeled.device)]


def seen_in_photo(
    seen: Tensor, to_photo: Tensor, camera: Camera, image_size: tuple[int, int]
) -> np.ndarray:
    """Numbers [N, H, W] uint8 of `SEEN_NAMES` that each pixel of the photo shows.

    Args:
        seen: [N, 12, h, w] uint8, over the crops.
        to_photo: [N, 2, 3] crop pixels to photo pixels.
        camera: of the crop.
        image_size: (H, W) of the photo. Outside of the crops it is 0, background.
    """
    height, width = image_size
    result = np.zeros((len(seen), height, width), np.uint8)
    for number, (map_, matrix) in enumerate(zip(seen.cpu().numpy(), to_photo.numpy(), strict=True)):
        factor = camera.image_size / map_.shape[-1]
        of_map = matrix @ np.array([[factor, 0, factor / 2 - 0.5], [0, factor, factor / 2 - 0.5],
                                    [0, 0, 1]])  # fmt: skip
        best = np.zeros((height, width), np.uint8)
        for name, share in enumerate(map_):
            placed = cv2.warpAffine(share, of_map, (width, height), flags=cv2.INTER_LINEAR)
            better = placed > best
            best[better] = placed[better]
            result[number][better] = name
    return result


def stacked_seen(maps: Sequence[Tensor | None]) -> Tensor | None:
    """The maps of several faces together; None where one of them has none."""
    known = [one for one in maps if one is not None]
    return torch.cat(known) if known and len(known) == len(maps) else None
