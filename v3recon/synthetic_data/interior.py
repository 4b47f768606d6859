"""What the photo does not show: closed lids, lashes, the inside of a mouth, furrows.

All of it is painted into the canvas in small windows, with the light, the colourfulness, the
sharpness and the grain of the photo's own skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.synthetic_data.expressions import LOWER_LOOP, UPPER_LOOP, EditedFace
from v3recon.synthetic_data.profiling import draw_sheet
from v3recon.synthetic_data.source_face import CHEEKS, SourceFace
from v3recon.synthetic_data.warp import (
    eye_outline,
    grid_triangles,
    lid_line,
    lid_outline,
    slit_height,
    smooth_curve,
)

UPPER_LIP_EDGE = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_LIP_EDGE = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
"""Inner edges of the lips, the viewer's left corner first."""
OWN_TEETH = 0.07
"""Gap over width above which the photo's own teeth are kept."""
_UNDER_EYE = (231, 230, 229, 119, 118)
_CAVITY_RIM, _CAVITY_DEEP = np.array([104.0, 44, 42]), np.array([30.0, 11, 11])
_SKIN_TINT = np.array([1.2, 0.95, 0.8])
"""Colour of ordinary skin in white light over its luminance."""
_TEETH, _TONGUE = np.array([222.0, 207, 186]), np.array([176.0, 84, 84])
PROBE_BLUR = 3.0
"""Blur by which the photo's own blur is found, canvas pixels."""
_TOOTH_BORDERS = (0.0, 0.215, 0.40, 0.57, 0.71, 0.83)
"""Borders of the upper teeth from the middle to the corner, share of half the row."""
_BROW_TOPS, _FOREHEAD = (105, 66, 9, 296, 334), (69, 108, 151, 337, 299)
Lines = tuple[tuple[tuple[int, int, float], ...], ...]
FURROWS: dict[str, Lines] = {
    "frown": (
        ((8, 55, 0.5), (9, 55, 0.58), (9, 107, 0.48)),
        ((8, 285, 0.5), (9, 285, 0.58), (9, 336, 0.48)),
    ),
    "brows_raised": tuple(
        tuple((low, high, share) for low, high in zip(_BROW_TOPS, _FOREHEAD, strict=True))
        for share in (0.6, 1.05)
    ),
}
"""Folds of each named expression: lines through points between two of the mesh and a share."""


@dataclass(frozen=True)
class SkinLook:
    """How the photo draws skin.

    Attributes:
        color: [3] RGB of the cheeks, 0…255.
        light: luminance of the cheeks over that of well-lit skin.
        colorfulness: 0 for a grey photo … 1.
        sigma: blur of the photo, canvas pixels.
        grain: standard deviation of its noise.
    """

    color: np.ndarray
    light: float
    colorfulness: float
    sigma: float
    grain: float


def skin_look(face: SourceFace) -> SkinLook:
    """Measure the skin of a face."""
    side = face.canvas.shape[0]
    places = np.clip(np.round(face.points[list(CHEEKS), :2]).astype(int), 4, side - 5)
    patches = np.stack([face.canvas[y - 4 : y + 5, x - 4 : x + 5] for x, y in places]).astype(float)
    color = np.median(patches.reshape(-1, 3), 0)
    grey = patches.mean(3)
    smooth = np.stack([cv2.blur(patch, (3, 3)) for patch in grey])
    grain = 1.48 * float(np.median(np.abs(grey - smooth)))
    luminance = float(color @ [0.299, 0.587, 0.114])
    spread = float(color.max() - color.min()) / max(luminance, 1.0)
    least = max(0.8, 0.45 * float(face.to_canvas[0, 0]))
    return SkinLook(
        color,
        luminance / 175,
        float(np.clip(spread / 0.35, 0, 1)),
        float(np.clip(0.85 * _blur_of(face), least, 5.0)),
        min(grain, 8.0),
    )


def _blur_of(face: SourceFace) -> float:
    """Blur of the photo around the eyes, standard deviation in canvas pixels.

    Blurring an edge of width a by b leaves a / sqrt(a^2 + b^2) of its slope; the slopes are the
    steepest ones of lids, lashes and irises.
    """
    mesh = load_face_mesh()
    ids = np.concatenate([mesh.right_eye, mesh.left_eye])
    window, shift = _window(face.points[ids, :2], 8 * PROBE_BLUR, face.canvas.shape[0])
    if window is None:
        return 0.0
    grey = cv2.cvtColor(face.canvas[window], cv2.COLOR_RGB2GRAY).astype(np.float32)
    region = np.zeros(grey.shape, np.uint8)
    for eye in (mesh.right_eye, mesh.left_eye):
        cv2.fillPoly(region, [np.round(face.points[eye, :2] - shift).astype(np.int32)], 1)
    around = cv2.dilate(region, np.ones((9, 9), np.uint8)) > 0
    slopes = []
    for picture in (grey, cv2.GaussianBlur(grey, (0, 0), PROBE_BLUR)):
        gradient = cv2.magnitude(
            cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1)
        )
        slopes.append(float(np.percentile(gradient[around], 95)))
    ratio = slopes[0] / max(slopes[1], 1e-6)
    return PROBE_BLUR / float(np.sqrt(max(ratio**2 - 1, 0.1)))


def paint(
    picture: np.ndarray, face: SourceFace, edited: EditedFace, rng: np.random.Generator
) -> np.ndarray:
    """Fill what the edit uncovered or covered.

    Args:
        picture: [H, H, 3] uint8 warped canvas.
        face: the photo's face.
        edited: where its points have moved.
        rng: draws teeth, tongue and grain.

    Returns:
        [H, H, 3] uint8.
    """
    look = skin_look(face)
    result = picture.copy()
    for side, amount in zip(edited.closed, edited.amounts, strict=True):
        _paint_lid(result, face, edited, side, amount, look, rng)
    if edited.opens_mouth:
        _paint_mouth(result, face, edited, look, rng)
    for name, lines in FURROWS.items():
        strength = edited.strengths.get(name, 0.0) * rng.uniform(0.1, 1.0)
        if strength > 0:
            _paint_furrows(result, edited.points[:, :2], lines, strength, look)
    return result


def _paint_furrows(
    result: np.ndarray, points: np.ndarray, lines: Lines, strength: float, look: SkinLook
) -> None:
    """Shade folds of the skin, dark in the fold and lit beside it; writes into `result`.

    Where the picture has not the colour of the cheeks (hair, a hat) nothing is drawn.

    Args:
        result: [H, H, 3] uint8.
        points: [468, 2] moved mesh, canvas pixels.
        lines: of this expression.
        strength: 0…1.5.
        look: of the photo's skin.
    """
    size = float(np.linalg.norm(points[33] - points[263]))
    curves = [
        smooth_curve(
            np.array([(1 - share) * points[a] + share * points[b] for a, b, share in line])
        )
        for line in lines
    ]
    window, shift = _window(np.concatenate(curves), 0.08 * size, result.shape[0])
    if window is None:
        return
    part = result[window].astype(np.float32)
    soft = max(0.02 * size, look.sigma)
    fold, lit = (np.zeros(part.shape[:2], np.float32) for _ in range(2))
    for curve in curves:
        along = np.gradient(curve, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], 1)
        across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
        taper = np.sin(np.pi * np.linspace(0.04, 0.96, len(curve)))[:, None]
        for mask, offset, breadth in ((fold, 0.0, 0.013), (lit, 0.04, 0.02)):
            middle = curve - shift + offset * size * across
            reach = breadth * size * taper * across
            mask += _mask(
                np.concatenate([middle - reach, (middle + reach)[::-1]]), mask.shape, soft
            )
    smooth = cv2.GaussianBlur(part, (0, 0), 2 * soft)
    distance = np.linalg.norm(smooth / np.maximum(look.color, 8) - 1, axis=2)
    skin = np.exp(-((distance / 0.8) ** 2))
    gain = 1 + strength * skin * (0.15 * np.minimum(lit, 1) - 0.4 * np.minimum(fold, 1))
    result[window] = np.clip(np.round(part * gain[..., None]), 0, 255).astype(np.uint8)


def _paint_lid(
    result: np.ndarray,
    face: SourceFace,
    edited: EditedFace,
    side: str,
    amount: float,
    look: SkinLook,
    rng: np.random.Generator,
) -> None:
    """Even the stretched lid out, shade it and draw lashes; writes into `result`."""
    outline = lid_outline(edited.points, side)
    line = lid_line(edited.points, side, UPPER_LOOP)
    width = float(np.linalg.norm(line[-1] - line[0]))
    window, shift = _window(np.concatenate([outline, line]), 0.35 * width, result.shape[0])
    if window is None:
        return
    part = result[window].astype(np.float32)
    lid = _mask(outline - shift, part.shape, 0.05 * width)
    weight = float(lid.sum())
    if weight < 4:
        return
    own = (lid[..., None] * part).sum((0, 1)) / weight
    mirror = load_face_mesh().mirror
    under = np.array(_UNDER_EYE) if side == "right" else mirror[np.array(_UNDER_EYE)]
    near = _colors_at(face.canvas, face.points[under, :2])
    wanted = 0.45 * own + 0.55 * 0.92 * (0.6 * near + 0.4 * look.color)
    gain = np.clip(wanted / np.maximum(own, 4), 0.8, 2.2)
    even = cv2.GaussianBlur(part, (0, 0), 0.07 * width)
    smooth = 0.65 * amount**2  # less is stretched, less is invented
    filled = ((1 - smooth) * part + smooth * even) * (1 + amount**2 * (gain - 1))
    filled += _grain(part.shape, look, rng)
    part += 0.92 * lid[..., None] * (filled - part)
    if slit_height(edited.points, side) > 1:
        _shade_slit(part, edited, side, width, shift, look, rng)
    _shade_lid(part, edited, side, amount, width, shift, look, rng)
    # Lashes: a tapered dark line at the lid's edge, a faint fringe under it.
    eye = _mask(eye_outline(face.points, side), face.canvas.shape, 0.0) > 0.5
    seen = face.canvas[eye]
    dark = np.percentile(seen, 6, axis=0) if len(seen) else 0.3 * look.color
    dark = np.minimum(0.75 * dark + 0.25 * 0.35 * look.color, 0.5 * look.color)
    s = np.linspace(0, 1, len(line))
    taper = np.sqrt(np.sin(np.pi * np.clip(0.06 + 0.9 * s, 0, 1)))[:, None]
    down = np.array([-(line[-1] - line[0])[1], (line[-1] - line[0])[0]]) / width
    down = down if down[1] > 0 else -down
    fringe = rng.uniform(0.15, 0.5)
    thick = rng.uniform(0.5, 1.5)
    edge = (0.024 * thick, 0.036 * thick, rng.uniform(0.3, 0.95))
    for above, below, strength in (edge, (0.03, 0.1 * thick, fringe)):
        strip = np.concatenate(
            [line - above * width * taper * down, (line + below * width * taper * down)[::-1]]
        )
        lashes = strength * _mask(strip - shift, part.shape, max(0.018 * width, 0.9 * look.sigma))
        part += lashes[..., None] * (dark - part)
    result[window] = np.clip(np.round(part), 0, 255).astype(np.uint8)


def _shade_slit(
    part: np.ndarray,
    edited: EditedFace,
    side: str,
    width: float,
    shift: np.ndarray,
    look: SkinLook,
    rng: np.random.Generator,
) -> None:
    """Darken what shows between lids, most below the upper one; writes into `part` [h, w, 3]."""
    upper, lower = (lid_line(edited.points, side, loop) for loop in (UPPER_LOOP, LOWER_LOOP))
    soft = max(0.015 * width, 0.6 * look.sigma)
    darkness = rng.uniform(0.0, 0.55)
    for below, strength in ((1.0, darkness), (0.5, 0.35)):
        outline = np.concatenate([upper, (upper + below * (lower - upper))[::-1]])
        shade = strength * _mask(outline - shift, part.shape, soft)
        part *= 1 - shade[..., None]


def _shade_lid(
    part: np.ndarray,
    edited: EditedFace,
    side: str,
    amount: float,
    width: float,
    shift: np.ndarray,
    look: SkinLook,
    rng: np.random.Generator,
) -> None:
    """The eyeball's bulge: light on the lid's middle, shade along its crease; into `part`."""
    outline = lid_outline(edited.points, side)
    count = len(outline) // 2
    crease, line = outline[:count], outline[: count - 1 : -1]
    soft = max(0.045 * width, 0.6 * look.sigma)
    light = amount * rng.uniform(0.0, 0.22)
    dark = amount * rng.uniform(-0.04, 0.2)
    for low, high, strength in ((0.25, 0.65, light), (-0.1, 0.12, -dark)):
        inner = slice(count // 6, count - count // 6)
        top, bottom = (crease + share * (line - crease) for share in (low, high))
        area = np.concatenate([top[inner], bottom[inner][::-1]])
        part *= 1 + strength * _mask(area - shift, part.shape, soft)[..., None]


def _paint_mouth(
    result: np.ndarray,
    face: SourceFace,
    edited: EditedFace,
    look: SkinLook,
    rng: np.random.Generator,
) -> None:
    """Draw cavity, teeth and tongue between the lips; writes into `result`."""
    upper, lower = (smooth_curve(edited.points[list(e), :2]) for e in _LIP_EDGES)
    upper_own, lower_own = (smooth_curve(face.points[list(e), :2]) for e in _LIP_EDGES)
    width = float(np.linalg.norm(upper[-1] - upper[0]))
    window, shift = _window(np.concatenate([upper, lower]), 0.1 * width, result.shape[0])
    if window is None:
        return
    part = result[window].astype(np.float32)
    height = np.linalg.norm(lower - upper, axis=1)
    s, d = _mouth_coordinates(upper - shift, lower - shift, part.shape)
    column = np.clip(s, 0, 1) * (len(upper) - 1)
    inside = _interior(s, d, np.interp(column, np.arange(len(upper)), height), width, rng)
    grey = inside @ np.array([0.299, 0.587, 0.114])
    inside = grey[..., None] + look.colorfulness * (inside - grey[..., None])
    tint = look.color / max(float(look.color @ [0.299, 0.587, 0.114]), 1) / _SKIN_TINT - 1
    # Small differences are those of skins, large ones those of coloured light.
    share = 0.35 + 0.5 * _step(0.2, 0.5, np.abs(tint).max())
    tint = 1 + share * look.colorfulness * tint
    inside *= np.clip(look.light, 0.25, 1.25) * np.clip(tint, 0.3, 1.3)
    inside = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), max(look.sigma, 0.008 * width))
    inside += _grain(part.shape, look, rng)
    gap = np.linalg.norm(lower_own - upper_own, axis=1)
    if float(np.median(gap)) > OWN_TEETH * width:
        inside = _keep_own_teeth(inside, face, (upper_own, lower_own, gap), column, d, width)
    outline = np.concatenate([upper, lower[-2:0:-1]])
    opening = _mask(outline - shift, part.shape, max(0.012 * width, 0.6 * look.sigma))
    part += opening[..., None] * (inside - part)
    result[window] = np.clip(np.round(part), 0, 255).astype(np.uint8)


def _mouth_coordinates(
    upper: np.ndarray, lower: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Place along the mouth (0…1) and distance below the upper lip (pixels) of each pixel."""
    rows, columns = 14, len(upper)
    t = np.linspace(0, 1, rows)[:, None]
    over = 0.06 * np.linalg.norm(upper[-1] - upper[0])  # past the edges, under the soft border
    direction = lower - upper
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    mean = direction.sum(0) / max(float(np.linalg.norm(direction.sum(0))), 1e-6)
    unit = np.where(length > 1, direction / np.maximum(length, 1e-6), mean)
    along = -over + t * (length[:, 0] + 2 * over)
    target = upper + along[..., None] * unit
    flat = np.concatenate([target.reshape(-1, 2), np.zeros((rows * columns, 1))], 1)
    s = np.broadcast_to(np.linspace(0, 1, columns), (rows, columns))
    source = np.stack([s, along], 2).reshape(-1, 2)
    coordinates = np.full((*shape[:2], 2), np.nan, np.float32)
    draw_sheet(
        flat.astype(np.float32),
        source.astype(np.float32),
        grid_triangles(rows, columns),
        coordinates,
    )
    coordinates = np.nan_to_num(coordinates, nan=0.0)
    return coordinates[..., 0], coordinates[..., 1]


def _interior(
    s: np.ndarray, d: np.ndarray, height: np.ndarray, width: float, rng: np.random.Generator
) -> np.ndarray:
    """Colours [h, w, 3] of a mouth's inside under full light."""
    x = 2 * s - 1
    v, room = d / width, height / width
    below = room - v
    edge = np.minimum(np.minimum(v, below), 0.5 * (1 - np.abs(x)))
    rim = 1 - _step(0.0, 0.11, edge)
    color = _CAVITY_DEEP + (rim**1.5)[..., None] * (_CAVITY_RIM - _CAVITY_DEEP)
    color = rng.uniform(0.8, 1.5) * color
    opening = float(room.max())
    # Tongue: a low mound behind the lower lip.
    mound = rng.uniform(0.3, 0.75) * opening * np.sqrt(np.clip(1 - (x / 0.74) ** 2, 0, 1))
    tongue = _step(-0.045, 0.05, mound - below) * _step(0.0, 0.12, 0.78 - np.abs(x))
    bulge = rng.uniform(0.3, 0.7) + 0.5 * _step(-0.02, 0.3, mound - below)
    bulge = bulge * (1 - 0.15 * np.exp(-((x / 0.1) ** 2))) * (1 - 0.35 * x**2)
    bulge = np.minimum(bulge * (0.35 + 0.65 * _step(-0.02, 0.09, below)), 1.1)
    color = color + tongue[..., None] * (bulge[..., None] * _TONGUE - color)
    # Upper teeth hang from the upper jaw: a row behind the lip, darker toward the corners.
    half = rng.uniform(0.7, 0.8)
    shown = min(rng.uniform(0.05, 0.125), 0.5 * opening)
    place = np.abs(x) / half
    length = shown * np.sqrt(np.clip(1.08 - place**2, 0, 1))
    borders = sum(np.exp(-(((place - b) / 0.016) ** 2)) for b in _TOOTH_BORDERS)
    round_ends = sum(np.exp(-(((place - b) / 0.035) ** 2)) for b in _TOOTH_BORDERS)
    row = _step(-0.008, 0.012, length - 0.012 * round_ends - v) * _step(0.0, 0.12, 1.02 - place)
    shade = (0.94 - 0.5 * place**2) * (0.5 + 0.5 * _step(-0.01, 0.05, v)) * (1 - 0.16 * borders)
    shade = shade * rng.uniform(0.78, 0.95)
    color = color + row[..., None] * (np.clip(shade, 0, 1)[..., None] * _TEETH - color)
    if rng.random() < 0.5:  # tips of the lower teeth over the lower lip
        tips = rng.uniform(0.02, 0.05) * np.sqrt(np.clip(1.05 - (x / 0.55) ** 2, 0, 1))
        row = _step(-0.01, 0.014, tips - below) * _step(0.0, 0.15, 0.6 - np.abs(x))
        shade = 0.62 - 0.35 * (x / 0.55) ** 2
        color = color + row[..., None] * (np.clip(shade, 0, 1)[..., None] * _TEETH - color)
    return color


def _keep_own_teeth(
    inside: np.ndarray,
    face: SourceFace,
    own: tuple[np.ndarray, np.ndarray, np.ndarray],
    column: np.ndarray,
    d: np.ndarray,
    width: float,
) -> np.ndarray:
    """Keep what the photo shows between the lips, rigid under the upper lip, over the cavity."""
    upper, lower, gap = own
    direction = (lower - upper).sum(0)
    direction /= max(float(np.linalg.norm(direction)), 1e-6)
    ids = np.arange(len(upper))
    x = np.interp(column, ids, upper[:, 0]) + d * direction[0]
    y = np.interp(column, ids, upper[:, 1]) + d * direction[1]
    shown = cv2.remap(
        face.canvas,
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    room = np.interp(column, ids, gap) - 0.02 * width
    share = _step(0.0, 0.05 * width, room - d)[..., None]
    return inside + share * (shown.astype(np.float32) - inside)


_LIP_EDGES = (UPPER_LIP_EDGE, LOWER_LIP_EDGE)


def _step(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _window(
    points: np.ndarray, margin: float, side: int
) -> tuple[tuple[slice, slice] | None, np.ndarray]:
    """Rows and columns around points, and the window's first pixel (x, y)."""
    low = np.clip(np.floor(points.min(0) - margin), 0, side).astype(int)
    high = np.clip(np.ceil(points.max(0) + margin) + 1, 0, side).astype(int)
    if (high - low).min() < 4:
        return None, low
    return (slice(low[1], high[1]), slice(low[0], high[0])), low


def _mask(outline: np.ndarray, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Filled polygon [H, W] float32 0…1 with an edge softened by `sigma` pixels."""
    mask = np.zeros(shape[:2], np.uint8)
    corners = np.round(outline * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, lineType=cv2.LINE_AA, shift=4)
    soft = mask.astype(np.float32) / 255
    return cv2.GaussianBlur(soft, (0, 0), sigma) if sigma > 0.3 else soft


def _colors_at(canvas: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Median colour [3] of 5 x 5 patches."""
    side = canvas.shape[0]
    chosen = np.clip(np.round(places).astype(int), 2, side - 3)
    patches = [canvas[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3) for x, y in chosen]
    return np.median(np.concatenate(patches), 0)


def _grain(shape: tuple[int, ...], look: SkinLook, rng: np.random.Generator) -> np.ndarray:
    """Noise like the photo's, [h, w, 1] float32."""
    noise = rng.standard_normal(shape[:2], dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), look.sigma)
    return (noise * (look.grain / max(float(noise.std()), 1e-6)))[..., None]
