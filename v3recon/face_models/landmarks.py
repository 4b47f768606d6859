"""Landmarks of a face model: fixed vertices, and contour points that march with the pose."""

from __future__ import annotations

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import euler_to_matrix, matrix_to_euler

CHIN_LINE = 16
"""Of the 33 contour lines: 0…15 the viewer's left, 16 the chin, 17…32 the viewer's right."""

CONTOUR_68 = slice(0, 33, 2)
"""Every other point of the 33-point contour is a point of the 17-point jaw of the 68 set."""

INNER_51 = slice(17, 68)
"""Of the 68 points: brows, nose, eyes and mouth, those without the jaw."""

MIRROR_68 = (
    *(*range(16, -1, -1), *range(26, 16, -1)),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
)
"""Landmark that each of the 68 becomes in the mirror image of a photo."""


def landmark_points(points: Tensor, index: Tensor) -> Tensor:
    """Points of chosen vertices.

    Args:
        points: [B, V, D] any frame.
        index: [L] vertex ids, or [B, L] where they differ from face to face.

    Returns:
        [B, L, D] in the frame of `points`.
    """
    assert points.ndim == 3 and index.ndim in (1, 2), (points.shape, index.shape)
    if index.ndim == 1:
        return points[:, index]
    return points.gather(1, index[..., None].expand(-1, -1, points.shape[-1]))


def march_contour(
    model_vertices: Tensor,
    rotation: Tensor,
    trans: Tensor,
    model: LinearFaceModel,
    camera: Camera | None = None,
) -> Tensor:
    """Vertices where the face's silhouette lies at this pose (3DDFA_V3's ldm106_2d).

    With the roll taken out of the pose, each contour line gives its vertex with the smallest
    image x (lines 0…15) or the largest (17…32); the chin stays `landmarks_106[16]`. Draw the
    vertices *with* the roll: `landmark_points(decoded.points_2d, index)`.

    Args:
        model_vertices: [B, V, 3] unposed vertices, decimetres.
        rotation: [B, 3, 3], acts on row vectors.
        trans: [B, 3] translation, decimetres (perspective makes it matter).
        model: the face model, for its contour lines.
        camera: default the camera of the crop.

    Returns:
        [B, 33] vertex ids; the choice has no gradient, the points have.
    """
    assert model_vertices.ndim == 3 and rotation.shape[1:] == (3, 3), model_vertices.shape
    lines = model.contour_lines  # [33, N], filled up with -1
    with torch.no_grad():
        angle = matrix_to_euler(rotation)
        upright = euler_to_matrix(angle * angle.new_tensor([1, 1, 0]))
        candidates = model_vertices[:, lines.clamp(min=0).reshape(-1)] @ upright + trans[:, None]
        x = project(candidates, camera or Camera())[..., 0].unflatten(1, lines.shape)
        return _outermost(x, lines, int(model.landmarks_106[CHIN_LINE]))


@torch.no_grad()
def march_contour_2d(points_2d: Tensor, lines: Tensor, roll: Tensor, chin: int) -> Tensor:
    """`march_contour` for points that are projected already, whatever they are numbered by.

    The roll is taken out in the picture, so that perspective is that of the rolled head: where two
    vertices of a line lie equally far out, the choice may differ from `march_contour`'s.

    Args:
        points_2d: [B, P, 2] pixels, y down.
        lines: [N, K] numbers of points of N (odd) lines, each filled up with -1.
        roll: [B] radians, as in `geometry.rotation.euler_to_matrix`.
        chin: number of the middle line's point, which does not march.

    Returns:
        [B, N] numbers of points.
    """
    assert points_2d.ndim == 3 and lines.ndim == 2, lines.shape
    cos, sin = roll.cos()[:, None, None], roll.sin()[:, None, None]
    x, y = points_2d[:, lines.clamp(min=0)].unbind(-1)  # [B, N, K]
    # y points down here, so turning back by the roll is x cos - y sin, not x cos + y sin.
    return _outermost(x * cos - y * sin, lines, chin)


def _outermost(x: Tensor, lines: Tensor, chin: int) -> Tensor:
    """[B, N] the point of each line with the smallest x (viewer's left) or the greatest.

    Args:
        x: [B, N, K] of the lines' points in the upright picture.
        lines: [N, K], -1 where a line has ended.
        chin: the middle line's point.
    """
    middle = len(lines) // 2
    to_left = torch.arange(len(lines), device=lines.device) < middle
    cost = torch.where(to_left[:, None], x, -x).masked_fill(lines < 0, torch.inf)
    slot = cost.argmin(2)
    index = lines.expand(len(x), -1, -1).gather(2, slot[..., None])[..., 0]
    index[:, middle] = chin
    return index


def marched_landmarks_106(contour: Tensor, model: LinearFaceModel) -> Tensor:
    """The 106 set with its 33 contour points replaced by marched ones.

    Args:
        contour: [B, 33] of `march_contour`.
        model: the face model.

    Returns:
        [B, 106] vertex ids.
    """
    inner = model.landmarks_106[contour.shape[1] :].expand(len(contour), -1)
    return torch.cat([contour, inner], 1)


def marched_landmarks_68(contour: Tensor, model: LinearFaceModel) -> Tensor:
    """The 68 set with its 17 jaw points replaced by every other marched contour point.

    Both contours run from ear to ear over the chin; upstream has no such rule, the photos'
    hand-made jaw points follow the silhouette, as the marched ones do.

    Args:
        contour: [B, 33] of `march_contour`.
        model: the face model.

    Returns:
        [B, 68] vertex ids.
    """
    jaw = contour[:, CONTOUR_68]
    inner = model.landmarks_68[jaw.shape[1] :].expand(len(contour), -1)
    return torch.cat([jaw, inner], 1)
