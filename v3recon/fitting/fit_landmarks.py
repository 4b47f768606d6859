"""Pose, identity and expression from landmarks: regularised least squares, many faces at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from v3recon.face_models.linear_face_model import LinearFaceModel, SurfacePoints, linear_points
from v3recon.geometry.affine2d import apply_affine_2d
from v3recon.geometry.camera import Camera, project
from v3recon.geometry.rotation import axis_angle_to_matrix, matrix_to_euler
from v3recon.geometry.similarity import solve_scaled_pose, solve_similarity
from v3recon.types import SH_SIZE, FaceCoeffs

POSE_SIZE = 7  # log scale, rotation vector, translation


@dataclass(frozen=True)
class LandmarkFit:
    """A face model fitted to the landmarks of B faces.

    Attributes:
        coeffs: identity, expression and pose for the crop's camera; albedo and light are zero.
        rotation: [B, 3, 3], acts on row vectors; the same as `coeffs.angle` but without its jump
            at 90 degrees of yaw.
        error: [B] weighted root-mean-square distance in the image plane, crop pixels.
    """

    coeffs: FaceCoeffs
    rotation: Tensor
    error: Tensor


def fit_landmarks(
    points: Tensor,
    model: LinearFaceModel,
    camera: Camera | None = None,
    *,
    index: Tensor | SurfacePoints | None = None,
    to_crop: Tensor | None = None,
    weights: Tensor | None = None,
    people: Tensor | None = None,
    depth_weight: float = 0.3,
    noise: float = 0.02,
    iterations: int = 4,
) -> LandmarkFit:
    """Fit pose, identity and expression to 3D detections or to 2D landmarks.

    Minimises sum_i w_i |x_i - project(S_i R + t)|^2 / noise^2 + |id|^2 + |exp / sigma|^2 (a maximum
    a posteriori estimate under the model's own normal prior) by Gauss-Newton, expressions inside
    the model's bounds. Perspective enters through the depth of the previous step, so the normal
    equations of all shape coefficients are six small matrices that all faces share. 2D points say
    nothing of depth: it comes from the model's statistics.

    Args:
        points: [B, N, 3] detections (pixels, z toward the camera, any origin), or [B, N, 2].
        model: the face model.
        camera: camera of the crop; default the usual one.
        index: [N] dense vertex ids the points belong to, or N points of the surface; default
            the model's `detector_points` (MediaPipe's), else vertices 0…N-1.
        to_crop: [B, 2, 3] similarity from the points' pixels to crop pixels; default identity.
        weights: [N] or [B, N] non-negative weights (0 = not seen); default 1.
        people: [B] number of the person each face shows; faces of a person share their identity.
            Default: every face its own.
        depth_weight: weight of a squared depth error relative to one in the image; detectors are
            less sure of depth. Ignored for 2D points.
        noise: standard deviation of a point, decimetres; larger values stay nearer to the mean.
        iterations: Gauss-Newton steps.

    Returns:
        The fit, in the crop's frame.

    Raises:
        ValueError: if shapes disagree or fewer than six points have weight.
    """
    camera = camera or Camera()
    points = points.float()
    mean, basis = _check(points, model, index, to_crop, weights)
    if to_crop is not None:
        points = _to_crop(points, to_crop.to(points))
    weights = torch.ones_like(points[0, :, 0]) if weights is None else weights.to(points)
    has_depth = points.shape[2] == 3
    target = _centered(points, camera)
    prior = 1.0 / noise**2
    precision, lower, upper = _expression_prior(model)
    held = torch.zeros(len(points), basis.shape[2], dtype=torch.bool, device=points.device)
    grams = _grams(basis, weights)
    plane = torch.tensor([1.0, 1.0, depth_weight if has_depth else 0.0]).to(points)

    scale, rotation, shift = _start(mean, target, weights, has_depth)
    coeffs = points.new_zeros(len(points), basis.shape[2])
    shape = mean.expand(len(points), -1, -1)
    for _ in range(iterations):
        depth = (shape @ rotation)[..., 2:]
        relative = 1 - depth * (scale / camera.focal)[:, None, None]
        corrected = torch.cat([target[..., :2] * relative, target[..., 2:]], 2)
        back = ((corrected - shift[:, None]) / scale[:, None, None]) @ rotation.transpose(1, 2)
        metric = (rotation * plane) @ rotation.transpose(1, 2)
        normal, right = _normal_equations(
            shape, back - shape, coeffs, metric, basis, grams, weights, prior, precision
        )
        step = _solve_held(normal, right, held, people, model.sizes[0])
        pose, wanted = step[:, :POSE_SIZE], coeffs + step[:, POSE_SIZE:]
        coeffs = wanted.clamp(lower, upper)
        held = (wanted < lower) | (wanted > upper)
        shape = linear_points(mean, basis, coeffs)
        # The step lives in the model frame: new = scale (1 + a) (S exp(w) + u) R + shift.
        shift = shift + scale[:, None] * (pose[:, None, 4:] @ rotation)[:, 0]
        scale = scale * pose[:, 0].clamp(-0.5, 0.5).exp()
        rotation = axis_angle_to_matrix(pose[:, 1:4].clamp(-1, 1)) @ rotation
    return _finish(coeffs, rotation, scale, shift, shape, points, weights, model, camera)


def _check(
    points: Tensor,
    model: LinearFaceModel,
    index: Tensor | SurfacePoints | None,
    to_crop: Tensor | None,
    weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Raise ValueError for inputs that do not fit together; mean and basis of the points."""
    if points.ndim != 3 or points.shape[2] not in (2, 3):
        raise ValueError(f"expected points [B, N, 2] or [B, N, 3], got {tuple(points.shape)}")
    batch, count = points.shape[:2]
    if index is None and model.detector_points is not None:
        index = model.detector_points
    if index is None:
        index = torch.arange(count, device=points.device)
    if len(index) != count:
        raise ValueError(f"{count} points need an index [{count}], got {len(index)}")
    if to_crop is not None and tuple(to_crop.shape) != (batch, 2, 3):
        raise ValueError(f"expected to_crop [{batch}, 2, 3], got {tuple(to_crop.shape)}")
    if weights is not None and tuple(weights.shape) not in ((count,), (batch, count)):
        raise ValueError(f"expected weights [{count}] or [{batch}, {count}]")
    seen = count if weights is None else int((weights > 0).sum(-1).min())
    if seen < 6:
        raise ValueError(f"a face needs six points with weight, one has {seen}")
    if not bool(torch.isfinite(points).all()):
        raise ValueError("points must be finite; give unknown points any value and weight 0")
    if isinstance(index, SurfacePoints):
        return model.shape_basis_of(index)
    return model.shape_basis_at(index.to(model.mean_shape.device).long())


def _expression_prior(model: LinearFaceModel) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, lower and upper bound [Kid + Kexp] of the shape coefficients."""
    id_size, exp_size, _ = model.sizes
    like = model.mean_shape
    precision = torch.ones(id_size + exp_size).to(like)
    lower = torch.full_like(precision, -torch.inf)
    upper = torch.full_like(precision, torch.inf)
    if model.exp_sigma is not None:
        precision[id_size:] = model.exp_sigma**-2
    if model.exp_bounds is not None:
        lower[id_size:], upper[id_size:] = model.exp_bounds.unbind(1)
    return precision, lower, upper


def _to_crop(points: Tensor, matrix: Tensor) -> Tensor:
    """Points in crop pixels; depth is scaled like the image plane."""
    plane = apply_affine_2d(points[..., :2], matrix)
    factor = matrix[:, 0, :2].norm(dim=1)[:, None, None]
    return torch.cat([plane, points[..., 2:] * factor], 2)


def _centered(points: Tensor, camera: Camera) -> Tensor:
    """Crop pixels relative to the principal point, y up; always three columns."""
    row = camera.image_size - 1 - camera.center
    x, y = points[..., 0] - camera.center, row - points[..., 1]
    z = points[..., 2] if points.shape[2] == 3 else torch.zeros_like(x)
    return torch.stack([x, y, z], 2)


def _start(
    mean: Tensor, target: Tensor, weights: Tensor, has_depth: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pose of the mean face: scale [B] pixels per decimetre, rotation, shift [B, 3] pixels."""
    batch = len(target)
    weights = weights.expand(batch, -1)
    if has_depth:
        return solve_similarity(mean.expand(batch, -1, -1), target, weights)
    root = weights.sqrt()[..., None]
    if bool((weights == weights[:1, :1]).all()):
        scale, rotation, shift = solve_scaled_pose(mean, target[..., :2])
    else:
        # Weighted points: shrink toward their weighted mean, which keeps the affine fit exact
        # for exact data and mutes points without weight.
        total = weights.sum(1, keepdim=True)[..., None]
        source = mean.expand(batch, -1, -1)
        source_mean = (weights[..., None] * source).sum(1, keepdim=True) / total
        target_mean = (weights[..., None] * target).sum(1, keepdim=True) / total
        scale, rotation, _ = solve_scaled_pose(
            root * (source - source_mean), (root * (target - target_mean))[..., :2]
        )
        shift = (target_mean - scale[:, None, None] * (source_mean @ rotation))[:, 0, :2]
    return scale, rotation, torch.cat([shift, torch.zeros_like(shift[:, :1])], 1)


def _grams(basis: Tensor, weights: Tensor) -> Tensor:
    """Sums over points of w B_a^T B_b for all axes a, b: [3, 3, K, K] or [B, 3, 3, K, K]."""
    count, _, modes = basis.shape
    flat = basis.reshape(count, 3 * modes)
    gram = flat.T @ (weights[..., None] * flat)
    return gram.unflatten(-1, (3, modes)).unflatten(-3, (3, modes)).transpose(-3, -2)


def _normal_equations(
    shape: Tensor,
    residual: Tensor,
    coeffs: Tensor,
    metric: Tensor,
    basis: Tensor,
    grams: Tensor,
    weights: Tensor,
    prior: float,
    precision: Tensor,
) -> tuple[Tensor, Tensor]:
    """Normal matrix [B, 7 + K, 7 + K] and right side [B, 7 + K] of a step in the model frame.

    Args:
        shape: [B, N, 3] current shape.
        residual: [B, N, 3] what is missing, model frame.
        coeffs: [B, K] current coefficients.
        metric: [B, 3, 3] weight of the squared residual by direction.
        basis: [N, 3, K].
        grams: see `_grams`.
        weights: [N] or [B, N].
        prior: weight of the residual relative to the coefficients' prior.
        precision: [K] of the coefficients' prior.
    """
    batch, count, _ = shape.shape
    modes = basis.shape[2]
    zero = torch.zeros_like(shape[..., 0])
    x, y, z = shape.unbind(2)
    one = torch.ones_like(zero)
    columns = [
        (x, y, z),  # scale
        *((zero, -z, y), (z, zero, -x), (-y, x, zero)),  # d(S exp(w)) / dw, row vectors
        *((one, zero, zero), (zero, one, zero), (zero, zero, one)),
    ]
    pose = torch.stack([torch.stack(column, 2) for column in columns], 1)  # [B, 7, N, 3]
    seen = weights.expand(batch, -1)[..., None]
    weighted = (pose.flatten(1, 2) @ metric).unflatten(1, (POSE_SIZE, count)) * seen[:, None]
    weighted, pose = weighted.flatten(2), pose.flatten(2)  # [B, 7, 3N]
    pull = (seen * (residual @ metric)).flatten(1)  # [B, 3N]
    flat = basis.reshape(count * 3, modes)
    pose_pose = weighted @ pose.transpose(1, 2)
    pose_shape = (weighted.flatten(0, 1) @ flat).unflatten(0, (batch, POSE_SIZE))
    letters = "bac,ackl->bkl" if grams.ndim == 4 else "bac,backl->bkl"
    shape_shape = torch.einsum(letters, metric, grams)
    above = torch.cat([pose_pose, pose_shape], 2)
    below = torch.cat([pose_shape.transpose(1, 2), shape_shape], 2)
    normal = torch.cat([above, below], 1).double() * prior
    right = torch.cat([(pose @ pull[..., None])[..., 0], pull @ flat], 1).double() * prior
    right[:, POSE_SIZE:] -= precision * coeffs
    damping = torch.ones(POSE_SIZE + modes, dtype=torch.float64, device=shape.device)
    # The depth of 2D points is free: damping keeps it where it is, above rounding errors.
    damping[:POSE_SIZE] = 1e-4 * prior * float(seen.mean()) * count
    damping[POSE_SIZE:] = precision.double()
    normal.diagonal(dim1=1, dim2=2).add_(damping)
    return normal, right


def _solve_held(
    normal: Tensor, right: Tensor, held: Tensor, people: Tensor | None, id_size: int
) -> Tensor:
    """Step [B, 7 + K]; coefficients at a bound stay, faces of a person step alike in identity.

    Args:
        normal: [B, 7 + K, 7 + K], changed here.
        right: [B, 7 + K], changed here.
        held: [B, K] coefficients that stay where they are.
        people: [B] person of each face, or None.
        id_size: number of identity coefficients, the first of the K.
    """
    free = torch.ones_like(right)
    free[:, POSE_SIZE:] = (~held).to(free)
    normal = normal * free[:, :, None] * free[:, None]
    normal.diagonal(dim1=1, dim2=2).add_(1 - free)
    right = right * free
    if people is None:
        factor, _ = torch.linalg.cholesky_ex(normal)
        return torch.cholesky_solve(right[..., None], factor)[..., 0].float()
    # Schur complement: each face's own unknowns are eliminated, what is left of a person's
    # faces is added up. The prior of a shared identity counts once for each of its faces, as
    # photos of one day repeat each other's errors.
    identity = slice(POSE_SIZE, POSE_SIZE + id_size)
    own = torch.ones(normal.shape[1], dtype=torch.bool, device=normal.device)
    own[identity] = False
    cross = normal[:, identity][:, :, own]
    factor, _ = torch.linalg.cholesky_ex(normal[:, own][:, :, own])
    solved = torch.cholesky_solve(
        torch.cat([cross.transpose(1, 2), right[:, own, None]], 2), factor
    )
    reduced = normal[:, identity, identity] - cross @ solved[..., :-1]
    remaining = right[:, identity] - (cross @ solved[..., -1:])[..., 0]
    names, person = torch.unique(people.to(normal.device), return_inverse=True)
    summed = normal.new_zeros(len(names), id_size, id_size).index_add_(0, person, reduced)
    pull = right.new_zeros(len(names), id_size).index_add_(0, person, remaining)
    shared = torch.linalg.solve(summed, pull)[person]
    step = torch.zeros_like(right)
    step[:, identity] = shared
    step[:, own] = solved[..., -1] - (solved[..., :-1] @ shared[..., None])[..., 0]
    return step.float()


def _finish(
    coeffs: Tensor,
    rotation: Tensor,
    scale: Tensor,
    shift: Tensor,
    shape: Tensor,
    points: Tensor,
    weights: Tensor,
    model: LinearFaceModel,
    camera: Camera,
) -> LandmarkFit:
    """Scaled orthographic pose to the perspective camera's translation, and the error."""
    batch = len(coeffs)
    id_size, _, alb_size = model.sizes
    distance = camera.focal / scale
    trans = torch.cat([shift[:, :2] / scale[:, None], camera.distance - distance[:, None]], 1)
    projected = project(shape @ rotation + trans[:, None], camera)
    squared = ((projected - points[..., :2]) ** 2).sum(2)
    total = weights.expand(batch, -1)
    return LandmarkFit(
        coeffs=FaceCoeffs(
            id=coeffs[:, :id_size],
            exp=coeffs[:, id_size:],
            alb=coeffs.new_zeros(batch, alb_size),
            angle=matrix_to_euler(rotation),
            sh=coeffs.new_zeros(batch, SH_SIZE),
            trans=trans,
        ),
        rotation=rotation,
        error=((total * squared).sum(1) / total.sum(1)).sqrt(),
    )
