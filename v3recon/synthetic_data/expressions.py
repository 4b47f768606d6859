"""What each kind of expression changes, and where that moves the detected points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from v3recon.decode import decode
from v3recon.face_models.linear_face_model import LinearFaceModel, SurfacePoints
from v3recon.geometry.camera import Camera
from v3recon.synthetic_data.source_face import (
    SkippedPhotoError,
    SourceFace,
    looks_covered,
    looks_shaded,
    projected_mesh,
)
from v3recon.types import Decoded, FaceCoeffs

RIGHT_LIDS = (159, 145)
LEFT_LIDS = (386, 374)
LIPS = (13, 14)
EYE_CORNERS = {"right": (33, 133), "left": (263, 362)}
UPPER_LOOP = (33, 246, 161, 160, 159, 158, 157, 173, 133)
LOWER_LOOP = (33, 7, 163, 144, 145, 153, 154, 155, 133)
"""Right eye from the outer to the inner corner; the mesh's mirror gives the left one."""
CLOSED_OPENING = 0.1
"""Opening over width below which an eye counts as closed already."""
MEETING = (0.6, 0.95)
"""Where closed lids meet, share of the way from the open upper lid to the open lower one."""
SQUINT = 0.3
"""Least of that share where eyes only narrow: in a squint the lower lid rises as well."""
UNEQUAL = 0.35
"""Greatest difference of the amounts by which two eyes close."""
OPEN_MOUTH = 0.34
"""Gap of the lips over the mouth's width above which a mouth counts as open already."""


@dataclass(frozen=True)
class Kind:
    """One kind of edit.

    Attributes:
        strengths: (named expression of the model, lowest, highest factor); the sum with the
            face's own expression stays inside the model's bounds.
        closes: sides whose eye is closed: "right", "left", or "one" of them, drawn.
    """

    strengths: tuple[tuple[str, float, float], ...] = ()
    closes: tuple[str, ...] = ()

    @property
    def opens_mouth(self) -> bool:
        """Whether the jaw drops."""
        return any(name in ("mouth_open", "mouth_round") for name, _, _ in self.strengths)


@dataclass(frozen=True)
class Closing:
    """How far eyes close.

    Attributes:
        amount: range of the share of the open gap that closes; 1 is closed.
        partial: share of the pictures whose amount is drawn from that range; others are closed.
            In half of them the two eyes differ, by up to `UNEQUAL`.
    """

    amount: tuple[float, float] = (1.0, 1.0)
    partial: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.2 <= self.amount[0] <= self.amount[1] <= 1:
            raise ValueError(f"amount must be 0.2 <= LOW <= HIGH <= 1, got {self.amount}")
        if not 0 <= self.partial <= 1:
            raise ValueError(f"partial must be 0 to 1, got {self.partial}")

    def draw(self, rng: np.random.Generator, eyes: int) -> tuple[float, ...]:
        """Amount of each closing eye of one picture."""
        amount = float(rng.uniform(*self.amount))
        if rng.random() >= self.partial:
            return (1.0,) * eyes
        more = float(rng.uniform(-UNEQUAL, UNEQUAL)) if rng.random() < 0.5 else 0.0
        amounts = (amount, float(np.clip(amount + more, *self.amount)))[:eyes]
        return amounts if rng.random() < 0.5 else amounts[::-1]


CLOSED = Closing()
KINDS = {
    "eyes_closed": Kind((("brows_raised", -0.4, 0.1),), ("right", "left")),
    "mouth_open": Kind((("mouth_open", 0.6, 1.4),)),
    "frown": Kind((("frown", 0.6, 1.0), ("corners_down", 0.2, 0.8))),
    "mouth_open+eyes_closed": Kind((("mouth_open", 0.6, 1.4),), ("right", "left")),
    "brows_raised": Kind((("brows_raised", 0.7, 1.0),)),
    "pucker": Kind((("pucker", 0.6, 1.0),)),
    "one_eye_closed": Kind(closes=("one",)),
}


@dataclass(frozen=True)
class EditedFace:
    """A face after the edit, in canvas pixels.

    Attributes:
        points: [468, 3] where the detected points have moved, z toward the camera.
        coeffs: fitted coefficients with the edited expression.
        decoded: their geometry, in the fit's crop.
        closed: sides whose eye is closed now.
        opens_mouth: whether the jaw dropped.
        strengths: factor of each named expression.
        amounts: share of the open gap that is closed, of each of `closed`.
        gaze: share of the upper lid's way that what shows of a half-closed eye follows down.
    """

    points: np.ndarray
    coeffs: FaceCoeffs
    decoded: Decoded
    closed: tuple[str, ...]
    opens_mouth: bool
    strengths: dict[str, float]
    amounts: tuple[float, ...] = ()
    gaze: float = 0.0


def side_ids(ids: tuple[int, ...], side: str, mirror: np.ndarray) -> np.ndarray:
    """Vertex ids of the right eye, or their mirror images."""
    return np.array(ids) if side == "right" else mirror[np.array(ids)]


def openings(points: np.ndarray) -> dict[str, float]:
    """State of a mesh [468, 2 or 3]: eye gaps over eye widths, lip gap over mouth width."""

    def length(a: int, b: int) -> float:
        return float(np.linalg.norm(points[a] - points[b]))

    return {
        "right_eye": length(*RIGHT_LIDS) / max(length(*EYE_CORNERS["right"]), 1e-6),
        "left_eye": length(*LEFT_LIDS) / max(length(*EYE_CORNERS["left"]), 1e-6),
        "mouth": length(*LIPS) / max(length(61, 291), 1e-6),
    }


def edit_expression(
    face: SourceFace,
    name: str,
    model: LinearFaceModel,
    mirror: np.ndarray,
    seed: list[int],
    closing: Closing = CLOSED,
) -> EditedFace:
    """Draw the strengths of a kind and move the face's points.

    Only *displacements* of projected vertices are added to the detected points, so what the fit
    missed does not move the picture. Lids of closed eyes are brought together exactly.

    Args:
        face: the photo's face.
        name: key of `KINDS`.
        model: a face model with the detector's points and named expressions.
        mirror: [468] mirror pairs of the mesh.
        seed: numbers that make the draw.
        closing: how far eyes close.

    Raises:
        SkippedPhotoError: if the photo shows the expression already, or its mouth is covered.
    """
    kind = KINDS[name]
    rng = np.random.default_rng(seed)
    closed = kind.closes
    if closed == ("one",):
        closed = (("right", "left")[int(rng.integers(2))],)
    state = openings(face.points[:, :2])
    if any(state[f"{side}_eye"] < CLOSED_OPENING for side in closed):
        raise SkippedPhotoError("the eye is closed already")
    if closed and looks_shaded(face):
        raise SkippedPhotoError("the eyes are covered")
    if kind.opens_mouth and state["mouth"] > OPEN_MOUTH:
        raise SkippedPhotoError("the mouth is open already")
    if kind.opens_mouth and looks_covered(face):
        raise SkippedPhotoError("the mouth is covered")
    strengths = {key: float(rng.uniform(low, high)) for key, low, high in kind.strengths}
    coeffs, decoded = _express(face, strengths, model)
    points = face.points + point_displacement(face, decoded, model)
    if not closed:
        return EditedFace(points, coeffs, decoded, closed, kind.opens_mouth, strengths)
    amounts = closing.draw(rng, len(closed))
    gaze, place = float(rng.uniform(0, 0.5)), rng.random()
    for side, amount in zip(closed, amounts, strict=True):
        strengths[f"{side}_eye_closed"] = amount * _closing_strength(face, side, model)
    unclosed = points
    coeffs, decoded = _express(face, strengths, model)
    points = face.points + point_displacement(face, decoded, model)
    for side, amount in zip(closed, amounts, strict=True):
        upper = side_ids(UPPER_LOOP, side, mirror)
        lower = side_ids(LOWER_LOOP, side, mirror)
        least = MEETING[0] if amount == 1 else SQUINT
        meeting = least + place * (MEETING[1] - least)
        line = (1 - meeting) * unclosed[upper] + meeting * unclosed[lower]
        points[upper] = unclosed[upper] + amount * (line - unclosed[upper])
        points[lower] = unclosed[lower] + amount * (line - unclosed[lower])
        if amount == 1:
            points[upper] = points[lower] = line
    return EditedFace(
        points, coeffs, decoded, closed, kind.opens_mouth, strengths, amounts=amounts, gaze=gaze
    )


def _express(
    face: SourceFace, strengths: dict[str, float], model: LinearFaceModel
) -> tuple[FaceCoeffs, Decoded]:
    """The fit with named expressions added, inside the model's bounds."""
    exp = face.coeffs.exp.clone()
    for key, factor in strengths.items():
        exp += factor * model.named_expressions[key].to(exp)
    if model.exp_bounds is not None:
        exp = exp.clamp(model.exp_bounds[:, 0], model.exp_bounds[:, 1])
    coeffs = replace(face.coeffs, exp=exp)
    return coeffs, decode(coeffs, model, Camera(), face.rotation)


def point_displacement(face: SourceFace, decoded: Decoded, model: LinearFaceModel) -> np.ndarray:
    """[468, 3] how far the detector's points move from the fit to `decoded`, canvas pixels."""
    scale = float(np.hypot(*face.crop_to_canvas[0, :2]))
    moved = projected_mesh(decoded, model) - projected_mesh(face.decoded, model)
    turn = np.eye(3)
    turn[:2, :2] = face.crop_to_canvas[:, :2] / scale
    return scale * moved @ turn.T


def _closing_strength(face: SourceFace, side: str, model: LinearFaceModel) -> float:
    """Factor of the one-eyed expression that brings the fitted lids together."""
    upper, lower = RIGHT_LIDS if side == "right" else LEFT_LIDS
    points, ids = model.known_detector_points(), torch.tensor([upper, lower])
    lids = SurfacePoints(points.vertices[ids], points.weights[ids])
    mean, basis = model.shape_basis_of(lids)
    shape = mean + basis @ torch.cat([face.coeffs.id[0], face.coeffs.exp[0]])
    change = basis[..., -len(face.coeffs.exp[0]) :] @ model.named_expressions[f"{side}_eye_closed"]
    gap, closing = shape[0] - shape[1], change[0] - change[1]
    factor = float(-(gap @ closing) / (closing @ closing))
    return float(np.clip(factor, 0.2, 1.6))
