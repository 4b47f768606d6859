"""Faces fitted to their photos: analysis by synthesis from the regressed start.

A face is drawn again and again, and its coefficients move until picture, parts and landmarks agree
with the photo (Deng et al., Deep3D, CVPRW 2019; Wang et al., 3DDFA_V3, CVPR 2024, section 3; losses
of `losses.total`). Several photos of one person share identity and albedo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from v3recon.decode import decode, posed_normals, render
from v3recon.detection.crop import crop_photo, input_matrix
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.parts import BROW_LABELS, EYE_LABELS
from v3recon.fitting.part_targets import (
    PART_SIDE,
    PART_WEIGHTS,
    crop_anchors,
    names_parts,
    part_aims,
    part_points,
)
from v3recon.geometry.affine2d import resize_affine_2d
from v3recon.geometry.camera import Camera
from v3recon.geometry.rotation import axis_angle_to_matrix, euler_to_matrix, matrix_to_euler
from v3recon.losses.part_distribution import part_distribution_loss
from v3recon.losses.photometric import skin_attention
from v3recon.losses.total import LossTarget, LossWeights, total_loss
from v3recon.reconstruct.faces import Face, Faces, join_faces, packed_coeffs, with_coeffs
from v3recon.reconstruct.one_person import with_one_identity
from v3recon.reconstruct.precision import full_precision
from v3recon.reconstruct.seen import cover_at
from v3recon.types import Decoded, FaceCoeffs

PART_POINTS = 256
"""Most vertices of one part that the part loss sees."""
FAR_PART = 100.0
"""Part loss, square pixels, from which the network's map and mesh contradict each other: one of
them is wrong, and the mesh is right more often."""
_RATES = {"id": 0.03, "exp": 0.05, "alb": 0.05, "turn": 0.004, "trans": 0.004, "sh": 0.02}
"""Steps of Adam: standard deviations, radians, decimetres, light."""


@dataclass(frozen=True)
class FitOptions:
    """How faces are fitted.

    Attributes:
        steps: of Adam, the rate falling to zero.
        own_parts: weight of the network's own part map against that of given labels. 0: on masked
            photos the shipped network's map puts lips and eyes less exactly than its mesh.
        render_size: side at which the faces are drawn, pixels.
        weights: of the terms; see `losses.total.LossWeights`. `landmark` holds the 68 points where
            the start has them, `coefficient` holds the coefficients near the start.
    """

    steps: int = 60
    own_parts: float = 0.0
    render_size: int = 112
    weights: LossWeights = field(
        default_factory=lambda: LossWeights(
            part=5e-4, landmark=1e-3, photometric=2.0, coefficient=1e-3, reflectance=0.0, gamma=1.0
        )
    )

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot work."""
        if self.steps < 1 or not 16 <= self.render_size <= 1024:
            raise ValueError("steps must be at least 1 and render_size in 16…1024")


@dataclass(frozen=True)
class Fitted:
    """Fitted faces.

    Attributes:
        faces: one for each given face, in their order.
        before, after: unweighted terms of the loss at the first and the last step, by name
            (`losses.total.total_loss`): pixels squared, RGB distance, …
    """

    faces: list[Face]
    before: dict[str, float]
    after: dict[str, float]


def fit(
    faces: Faces | Face | Sequence[Face],
    *,
    one_person: bool = False,
    labels: Sequence[np.ndarray] | None = None,
    recognition: Callable[[Tensor], Tensor] | None = None,
    options: FitOptions | None = None,
    progress: bool = False,
) -> Fitted:
    """Fit faces to their photos.

    Args:
        faces: of one photo or of several, with their photos (`Faces.image`).
        one_person: all of them show one person, who has one identity and one albedo.
        labels: part labels of each face's photo, [H, W] uint8: 0 none, 1 … 8 `PART_NAMES`, 255 for
            what hides the face. Without them the term of parts is left out, or with
            `FitOptions.own_parts` made from what the network's part head tells.
        recognition: network [B, 3, S, S] in 0…1 -> [B, D] for the perceptual term.
        options: see `FitOptions`.
        progress: show a bar.

    Returns:
        The fitted faces and the terms of the loss.

    Raises:
        ValueError: if there is no face, a photo is missing, or the faces are of several models.
    """
    options = options or FitOptions()
    given = [faces] if isinstance(faces, Face) else list(faces)
    if not given:
        raise ValueError("faces: none to fit")
    packed_coeffs(given)  # ValueError where they are of several face models
    if labels is not None and len(labels) != len(given):
        raise ValueError(f"labels: {len(labels)} for {len(given)} faces")
    masks = [None] * len(given) if labels is None else labels
    for face, mask in zip(given, masks, strict=True):
        face.batch.photo()  # ValueError where it is missing
        if mask is not None and mask.shape != face.image_size:
            raise ValueError(f"labels: {mask.shape} of a photo {face.image_size}")
    together = len(given) if one_person else 1
    result, firsts, lasts = [], [], []
    hidden = None if progress else True
    total = len(given) // together * options.steps
    with tqdm(total=total, unit="step", disable=hidden) as bar:
        for begin in range(0, len(given), together):
            group = slice(begin, begin + together)
            found, first, last = _fit_group(
                given[group], masks[group], recognition, options, one_person, bar
            )
            result += found
            firsts.append(first)
            lasts.append(last)
    return Fitted(result, _mean_terms(firsts), _mean_terms(lasts))


def fit_photo(faces: Faces, *, options: FitOptions | None = None, progress: bool = False) -> Faces:
    """All faces of one photo, each fitted for itself; a photo without a face stays as it is."""
    if not len(faces):
        return faces
    return join_faces(fit(faces, options=options, progress=progress).faces)


def _fit_group(
    faces: Sequence[Face],
    labels: Sequence[np.ndarray | None],
    recognition: Callable[[Tensor], Tensor] | None,
    options: FitOptions,
    shared: bool,
    bar: tqdm,
) -> tuple[list[Face], dict[str, float], dict[str, float]]:
    """Faces that are fitted together, and their terms before and after."""
    model, camera = faces[0].model, faces[0].camera
    with full_precision():
        start = packed_coeffs(faces)
        if shared:
            start = with_one_identity(start, [face.quality for face in faces])
        target = _target(faces, start, labels, recognition, options)
        state = _State(start, model, shared)
        before, after = _descend(state, target, camera, options, bar)
        found = state.coeffs().detach()
    return with_coeffs(faces, found), before, after


def _mean_terms(terms: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {name: None for one in terms for name in one}
    return {name: float(np.mean([one[name] for one in terms if name in one])) for name in names}


class _State:
    """What is optimized: changes of the start in comparable units, identity perhaps shared."""

    def __init__(self, start: FaceCoeffs, model: LinearFaceModel, shared: bool) -> None:
        self.start, self.model = start, model
        self.rotation = euler_to_matrix(start.angle)
        sigma = model.exp_sigma
        self.sigma = torch.ones_like(start.exp[:1]) if sigma is None else sigma.to(start.exp)
        rows = {"id": 1, "alb": 1} if shared else {}
        sizes = {
            "id": start.id, "exp": start.exp, "alb": start.alb, "turn": start.angle,
            "trans": start.trans, "sh": start.sh,
        }  # fmt: skip
        self.changes = {
            name: torch.zeros_like(value[: rows.get(name, len(start))]).requires_grad_()
            for name, value in sizes.items()
        }

    def rotated(self) -> Tensor:
        """[B, 3, 3]."""
        return self.rotation @ axis_angle_to_matrix(self.changes["turn"])

    def coeffs(self) -> FaceCoeffs:
        """Coefficients, expression inside its bounds."""
        start, change = self.start, self.changes
        exp = start.exp + change["exp"] * self.sigma
        bounds = self.model.exp_bounds
        if bounds is not None:
            exp = torch.minimum(torch.maximum(exp, bounds[:, 0]), bounds[:, 1])
        return FaceCoeffs(
            start.id + change["id"], exp, start.alb + change["alb"],
            matrix_to_euler(self.rotated()), start.sh + change["sh"], start.trans + change["trans"],
        )  # fmt: skip

    def moved(self) -> FaceCoeffs:
        """Changes in standard deviations, in the place of coefficients, for the regularizer."""
        count = len(self.start)
        full = {name: value.expand(count, -1) for name, value in self.changes.items()}
        zeros = torch.zeros_like(self.start.angle)
        return FaceCoeffs(full["id"], full["exp"], full["alb"], zeros, self.start.sh + full["sh"],
                          zeros)  # fmt: skip


@torch.enable_grad()
def _descend(
    state: _State,
    target: LossTarget,
    camera: Camera,
    options: FitOptions,
    bar: tqdm,
) -> tuple[dict[str, float], dict[str, float]]:
    """Adam with a falling rate; the terms at the first and the last step."""
    model = state.model
    groups = [{"params": [state.changes[name]], "lr": rate} for name, rate in _RATES.items()]
    optimizer = torch.optim.Adam(groups, betas=(0.8, 0.99))
    size = (options.render_size, options.render_size)
    from_crop = resize_affine_2d(options.render_size / camera.image_size)
    from_crop = from_crop.to(state.start.id).expand(len(state.start), 2, 3)
    before: dict[str, float] = {}
    terms: dict[str, Tensor] = {}
    for step in range(options.steps + 1):
        coeffs = state.coeffs()
        decoded = decode(coeffs, model, camera, state.rotated())
        rendered, mask = render(
            coeffs, model, camera, decoded=decoded, image_size=size, from_crop=from_crop
        )
        loss, terms = total_loss(
            decoded, target, options.weights, coeffs=state.moved(), rendered=rendered,
            rendered_mask=mask,
        )  # fmt: skip
        if not step:
            before = {name: float(value) for name, value in terms.items()}
        if step == options.steps:
            break
        for group, rate in zip(optimizer.param_groups, _RATES.values(), strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        bar.update()
    return before, {name: float(value) for name, value in terms.items()}


def _target(
    faces: Sequence[Face],
    start: FaceCoeffs,
    labels: Sequence[np.ndarray | None],
    recognition: Callable[[Tensor], Tensor] | None,
    options: FitOptions,
) -> LossTarget:
    """What photos say of their faces."""
    model, camera = faces[0].model, faces[0].camera
    size, device = options.render_size, start.id.device
    pixels = np.stack([crop_photo(face.batch.photo(), face.crop, size, camera) for face in faces])
    image = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
    decoded = decode(start, model, camera)
    shown = [_shown(face, mask) for face, mask in zip(faces, labels, strict=True)]
    own = torch.cat([face.decoded.points_2d for face in faces])
    index = model.landmarks_68
    target = LossTarget(
        landmarks=own[:, index],
        landmark_index=index,
        image=image,
        attention=skin_attention(image) * _uncovered(shown, size).to(image),
        recognition=recognition,
    )
    known = [mask is not None or options.own_parts > 0 for mask in labels]
    told = [one if use else None for one, use in zip(shown, known, strict=True)]
    if not names_parts(model) or all(one is None for one in told):
        return target
    sets = part_points(model, PART_POINTS)
    aims = [
        part_aims(np.zeros((PART_SIDE, PART_SIDE), np.uint8) if one is None else one,
                  camera.image_size)
        for one in told
    ]  # fmt: skip
    present = torch.from_numpy(np.stack([one[1] for one in aims])).to(device)
    statistics = torch.from_numpy(np.stack([one[0] for one in aims])).to(device)
    anchors = torch.from_numpy(crop_anchors(camera.image_size)).to(device)
    in_view = _in_view(faces, decoded, model, camera)
    for number, mask in enumerate(labels):
        if mask is None and told[number] is not None:
            one = slice(number, number + 1)
            apart = _apart(decoded.points_2d[one], sets, statistics[one], anchors, in_view[one])
            present[number] *= options.own_parts * (apart < FAR_PART)
    return replace(
        target,
        part_statistics=statistics,
        part_anchors=anchors,
        part_index=sets,
        part_weights=present * present.new_tensor(PART_WEIGHTS),
        vertex_weights=in_view,
    )


def _apart(
    points_2d: Tensor, sets: Tensor, statistics: Tensor, anchors: Tensor, weights: Tensor
) -> Tensor:
    """[8] part loss of each part of one face, square pixels."""
    every = torch.eye(len(sets), device=points_2d.device)
    return torch.stack(
        [
            part_distribution_loss(
                points_2d, sets, statistics, anchors, part_weights=one, vertex_weights=weights
            )
            for one in every
        ]
    )


def _in_view(
    faces: Sequence[Face], decoded: Decoded, model: LinearFaceModel, camera: Camera
) -> Tensor:
    """[B, V] 1 for vertices that face the camera with nothing before them."""
    with torch.no_grad():
        weight = (posed_normals(decoded, model)[..., 2] > 0).to(decoded.vertices)
        for number, face in enumerate(faces):
            if face.seen is not None:
                points = decoded.points_2d[number : number + 1]
                cover = cover_at(face.seen[None].to(points.device), points, camera)
                # The skin's part of the mask ends where hair begins, on the mesh as well.
                weight[number] *= (cover[0] < 0.5).to(weight)
    return weight


def _shown(face: Face, labels: np.ndarray | None) -> np.ndarray | None:
    """What the crop shows, [112, 112] uint8: part labels, above 8 what hides them; or None."""
    side = PART_SIDE
    if labels is not None:
        matrix = input_matrix(face.crop.matrix, side, face.camera)
        return cv2.warpAffine(labels, np.asarray(matrix), (side, side), flags=cv2.INTER_NEAREST)
    if face.seen is None:
        return None
    larger = interpolate(face.seen[None].float(), (side, side), mode="bilinear")
    return _sides_of_mesh(larger[0].argmax(0).to(torch.uint8).cpu().numpy(), face)


def _sides_of_mesh(labels: np.ndarray, face: Face) -> np.ndarray:
    """Labels of a crop with left and right eyes and brows told apart by the mesh that is there.

    A part head sees a small surrounding of each place: that it shows an eye, not which one.
    """
    rows, columns = np.indices(labels.shape)
    scale = face.camera.image_size / len(labels)
    places = (np.stack([columns, rows], -1) + 0.5) * scale - 0.5
    points, model_labels = face.decoded.points_2d[0], face.model.part_labels
    result = labels.copy()
    for pair in (EYE_LABELS, BROW_LABELS):
        centers = [points[model_labels == one].mean(0).cpu().numpy() for one in pair]
        nearer = np.stack([np.linalg.norm(places - center, axis=-1) for center in centers])
        chosen = np.array(pair, np.uint8)[nearer.argmin(0)]
        result = np.where(np.isin(labels, pair), chosen, result)
    return result


def _uncovered(shown: Sequence[np.ndarray | None], size: int) -> Tensor:
    """[B, 1, size, size] 0 where something hides the face or the network sees none."""
    maps = []
    for one in shown:
        free = np.ones((size, size), np.float32)
        if one is not None:
            face = ((one > 0) & (one <= len(PART_NAMES))).astype(np.float32)
            free = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
        maps.append(free)
    return torch.from_numpy(np.stack(maps))[:, None]
