"""`v3recon show-face-model`: contact sheets of a face model, to be looked at."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from v3recon.decode import decode
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import DEFAULT_FACE_MODEL, load_face_model
from v3recon.face_models.parts import color_table
from v3recon.geometry.affine2d import apply_affine_2d
from v3recon.geometry.camera import Camera, to_clip
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.io.images import write_png
from v3recon.reconstruct.sheet import Panel, contact_sheet
from v3recon.render.interpolate import interpolate
from v3recon.render.rasterize import rasterize
from v3recon.render.shading import gray_shading
from v3recon.types import FaceCoeffs

Image = npt.NDArray[np.uint8]

SIDES = {
    "yaw -75": (0.0, -75.0),
    "yaw -35": (0.0, -35.0),
    "front": (0.0, 0.0),
    "yaw 35": (0.0, 35.0),
    "yaw 75": (0.0, 75.0),
    "from behind": (0.0, 180.0),
    "from below": (-30.0, 0.0),
    "from above": (30.0, 0.0),
}
"""Pitch and yaw in degrees of the views of the mean face."""
MODE_SIZE = 2.5
_BACKGROUND = 255.0
_FACE_SHARE = 0.88  # of the crop's side that the mean face fills
_CHECKS = 32
_COLUMNS, _LARGE_COLUMNS = 8, 3
_CONTOUR_COLORS = ((220, 40, 40), (40, 90, 230), (20, 150, 60))


@dataclass(frozen=True)
class Look:
    """How faces are drawn.

    Attributes:
        model: the face model.
        size: side of a panel, pixels.
        camera: camera of the crop.
        from_crop: [1, 2, 3] crop pixels to panel pixels, the same for every panel.
    """

    model: LinearFaceModel
    size: int
    camera: Camera
    from_crop: Tensor


def main(argv: list[str] | None = None) -> int:
    """Write all sheets; 0 = done, 2 = wrong usage or missing model."""
    parser = argparse.ArgumentParser(prog="v3recon show-face-model", description=__doc__)
    parser.add_argument(
        "--face-model", default=DEFAULT_FACE_MODEL, help="photohead, or a model file"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write PNG sheets to")
    parser.add_argument("--size", type=int, default=240, help="side of a panel, pixels")
    parser.add_argument("--modes", type=int, default=16, help="modes shown of each kind")
    parser.add_argument("--random", type=int, default=24, help="random faces shown of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the random faces")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    try:
        if not 64 <= args.size <= 2048:
            raise ValueError(f"--size {args.size}: give 64 to 2048 pixels")
        if args.modes < 1 or args.random < 1:
            raise ValueError("--modes and --random must be at least 1")
        model = load_face_model(args.face_model)
        args.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"v3recon show-face-model: {error}", file=sys.stderr)
        return 2
    for name, draw in SHEETS.items():
        look = make_look(model, args.size)
        generator = torch.Generator().manual_seed(args.seed)
        panels = draw(look, args.modes, args.random, generator)
        if not panels:
            continue
        side = panels[0].image.shape[0]
        columns = _LARGE_COLUMNS if side > args.size else SHEET_COLUMNS.get(name, _COLUMNS)
        path = args.out / f"{name}.png"
        write_png(path, contact_sheet(panels, columns, side))
        print(path)
    return 0


def make_look(model: LinearFaceModel, size: int) -> Look:
    """A view in which the mean face fills a panel of `size` pixels."""
    camera = Camera()
    points = decode(FaceCoeffs.zeros(1, model.sizes), model, camera).points_2d[0]
    low, high = points.amin(0), points.amax(0)
    scale = float(_FACE_SHARE * size / (high - low).max())
    matrix = torch.zeros(1, 2, 3)
    matrix[0, 0, 0] = matrix[0, 1, 1] = scale
    matrix[0, :, 2] = (size - 1) / 2 - scale * (low + high) / 2
    return Look(model, size, camera, matrix)


def draw_face(
    look: Look,
    coeffs: FaceCoeffs,
    colors: Tensor | None = None,
    shade: float = 1.0,
) -> tuple[Image, Tensor]:
    """One face over white.

    Args:
        look: the view.
        coeffs: one face; its pose counts, its light does not.
        colors: [V, 3] RGB, 0…1; default grey.
        shade: strength of the shading of coloured faces, 0 = flat colours.

    Returns:
        picture [S, S, 3], and projected vertices [V, 2] in its pixels.
    """
    with torch.no_grad():
        decoded = decode(coeffs, look.model, look.camera)
        normals = look.model.normals(decoded.model_vertices) @ decoded.rotation
        gray = gray_shading(normals).clamp(0, 1)
        if colors is None:
            drawn = gray
        else:
            drawn = colors[None].clamp(0, 1) * (1 - shade + shade * (0.35 + 0.85 * gray))
        double = 2 * look.size
        clip = to_clip(decoded.vertices, look.camera, (double, double), _doubled(look.from_crop))
        fragments = rasterize(clip, look.model.faces, (double, double))
        picture = 255 * interpolate(drawn.contiguous(), fragments, look.model.faces)[0].clamp(0, 1)
        picture[fragments.face_id[0] < 0] = _BACKGROUND
        points = apply_affine_2d(decoded.points_2d, look.from_crop)[0]
    small = cv2.resize(picture.numpy(), (look.size, look.size), interpolation=cv2.INTER_AREA)
    return np.round(small).astype(np.uint8), points


def make_coeffs(look: Look, **blocks: Tensor) -> FaceCoeffs:
    """One face from some of its blocks, each a vector; the others are zero."""
    zero = FaceCoeffs.zeros(1, look.model.sizes)
    values = {name: getattr(zero, name) for name in ("id", "exp", "alb", "angle", "sh", "trans")}
    values.update({name: block.float()[None] for name, block in blocks.items()})
    return FaceCoeffs(**values)


def _doubled(matrix: Tensor) -> Tensor:
    """The map [1, 2, 3] to a raster of twice the size (pixel edges stay on pixel edges)."""
    result = 2 * matrix
    result[..., 2] += 0.5
    return result


def _turned(look: Look, pitch: float, yaw: float) -> dict[str, Tensor]:
    """Pose blocks that turn the face about the middle of the mean face, degrees."""
    angle = torch.deg2rad(torch.tensor([[pitch, yaw, 0.0]]))
    mean = decode(FaceCoeffs.zeros(1, look.model.sizes), look.model, look.camera)
    vertices = mean.model_vertices[0]
    middle = (vertices.amin(0) + vertices.amax(0)) / 2
    return {"angle": angle[0], "trans": middle - middle @ euler_to_matrix(angle)[0]}


def _sizes(model: LinearFaceModel) -> dict[str, int]:
    """Number of coefficients of each block."""
    id_size, exp_size, alb_size = model.sizes
    return {"id": id_size, "exp": exp_size, "alb": alb_size}


def _mean_sheet(look: Look, modes: int, count: int, generator: torch.Generator) -> list[Panel]:
    albedo = look.model.albedo(torch.zeros(1, look.model.sizes[2]))[0]
    panels = []
    for colors in (None, albedo):
        for title, (pitch, yaw) in SIDES.items():
            coeffs = make_coeffs(look, **_turned(look, pitch, yaw))
            panels.append(Panel(title, draw_face(look, coeffs, colors, 0.5)[0]))
    return panels


def _mode_sheet(block: str, yaw: float) -> Callable[..., list[Panel]]:
    def draw(look: Look, modes: int, count: int, generator: torch.Generator) -> list[Panel]:
        size = _sizes(look.model)[block]
        panels = []
        for mode in range(min(modes, size)):
            for value in (-MODE_SIZE, MODE_SIZE):
                vector = torch.zeros(size)
                vector[mode] = value
                coeffs = make_coeffs(look, **_turned(look, 0, yaw), **{block: vector})
                colors = look.model.albedo(coeffs.alb)[0] if block == "alb" else None
                panels.append(
                    Panel(f"{block} {mode + 1}: {value:+g}", draw_face(look, coeffs, colors, 0)[0])
                )
        return panels

    return draw


def _random_sheet(blocks: tuple[str, ...], yaw: float) -> Callable[..., list[Panel]]:
    def draw(look: Look, modes: int, count: int, generator: torch.Generator) -> list[Panel]:
        sizes = _sizes(look.model)
        panels = []
        for number in range(count):
            vectors = {name: torch.randn(sizes[name], generator=generator) for name in blocks}
            coeffs = make_coeffs(look, **_turned(look, 0, yaw), **vectors)
            colors = look.model.albedo(coeffs.alb)[0] if "alb" in blocks else None
            panels.append(Panel(str(number + 1), draw_face(look, coeffs, colors, 0.5)[0]))
        return panels

    return draw


def _expression_sheet(
    look: Look, modes: int, count: int, generator: torch.Generator
) -> list[Panel]:
    return [
        Panel(name.replace("_", " "), draw_face(look, make_coeffs(look, exp=vector))[0])
        for name, vector in look.model.named_expressions.items()
    ]


def _unit_sheet(look: Look, modes: int, count: int, generator: torch.Generator) -> list[Panel]:
    """Expression coefficients that have names, at their greatest value, else at 2 deviations."""
    panels = []
    for number, name in enumerate(look.model.exp_names):
        vector = torch.zeros(len(look.model.exp_names))
        limit = float("inf")
        if look.model.exp_bounds is not None:
            limit = float(look.model.exp_bounds[number, 1])
        vector[number] = min(limit, 2.0)
        panels.append(Panel(name, draw_face(look, make_coeffs(look, exp=vector))[0]))
    return panels


def _albedo_sheet(look: Look, modes: int, count: int, generator: torch.Generator) -> list[Panel]:
    """The mean texture and random ones, flat."""
    texture = look.model.albedo_texture
    if texture is None:
        return []
    coeffs = torch.randn(4, look.model.sizes[2], generator=generator)
    coeffs[0] = 0
    pictures = texture.texture(coeffs).permute(0, 2, 3, 1).mul(255).round().to(torch.uint8)
    return [
        Panel(f"albedo {number}" if number else "mean albedo", picture.numpy())
        for number, picture in enumerate(pictures)
    ]


def _part_sheet(look: Look, modes: int, count: int, generator: torch.Generator) -> list[Panel]:
    colors = color_table().float()[look.model.part_labels] / 255
    return [
        Panel(title, draw_face(look, make_coeffs(look, **_turned(look, *turn)), colors, 0.7)[0])
        for title, turn in SIDES.items()
    ]


def _landmark_sheet(look: Look, modes: int, count: int, generator: torch.Generator) -> list[Panel]:
    large = make_look(look.model, max(720, 3 * look.size))
    panels = []
    sets = {
        "68 landmarks": large.model.landmarks_68,
        "106 landmarks": large.model.landmarks_106,
        "134 landmarks": large.model.landmarks_134,
    }
    for title, index in sets.items():
        picture, points = draw_face(large, make_coeffs(large))
        panels.append(Panel(title, _numbered(picture, points[index].numpy())))
    for yaw in (0.0, 40.0, 75.0):
        picture, points = draw_face(large, make_coeffs(large, **_turned(large, 0, yaw)))
        for number, line in enumerate(large.model.contour_lines):
            dots = points[line[line >= 0]].numpy()
            picture = _dots(picture, dots, _CONTOUR_COLORS[number % 3])
        panels.append(Panel(f"33 contour lines, yaw {yaw:g}", picture))
    return panels


def _uv_sheet(look: Look, modes: int, count: int, generator: torch.Generator) -> list[Panel]:
    """A checkerboard on the face, and the parts laid flat."""
    large = make_look(look.model, max(720, 3 * look.size))
    panels = []
    for title in ("front", "yaw 35"):
        picture = _draw_checks(large, make_coeffs(large, **_turned(large, *SIDES[title])))
        panels.append(Panel(f"uv checkerboard, {title}", picture))
    panels.append(Panel("parts in the texture", _draw_flat(large)))
    return panels


def _draw_checks(look: Look, coeffs: FaceCoeffs) -> Image:
    """A face with a checkerboard of _CHECKS squares a side, drawn per pixel."""
    model, size = look.model, look.size
    with torch.no_grad():
        decoded = decode(coeffs, model, look.camera)
        normals = model.normals(decoded.model_vertices) @ decoded.rotation
        clip = to_clip(decoded.vertices, look.camera, (size, size), look.from_crop)
        fragments = rasterize(clip, model.faces, (size, size))
        values = torch.cat([model.uv_coords[None], gray_shading(normals)[..., :1]], 2)
        drawn = interpolate(values.contiguous(), fragments, model.faces)[0]
    column, row = (drawn[..., axis].mul(_CHECKS).floor() for axis in range(2))
    tile = torch.where((column + row) % 2 == 0, 1.0, 0.45)[..., None]
    # Hue tells where in the texture a tile lies.
    hue = torch.stack([drawn[..., 0], 0.6 * torch.ones_like(column), drawn[..., 1]], 2)
    picture = 255 * tile * (0.4 + 0.6 * hue) * (0.3 + drawn[..., 2:])
    picture[fragments.face_id[0] < 0] = _BACKGROUND
    return picture.clamp(0, 255).round().to(torch.uint8).numpy()


def _draw_flat(look: Look) -> Image:
    """The texture square with the parts' colours."""
    model, size = look.model, look.size
    flat = torch.cat([model.uv_coords * 2 - 1, torch.zeros(model.vertex_count, 1)], 1)
    clip = torch.cat([flat * torch.tensor([1.0, -1.0, 1.0]), torch.ones_like(flat[:, :1])], 1)
    fragments = rasterize(clip[None], model.faces, (size, size))
    shape = model.mean_vertices()[None]
    shade = 0.35 + 0.65 * model.normals(shape)[..., 2:].clamp(0, 1)
    colors = color_table().float()[model.part_labels] * shade
    picture = interpolate(colors.contiguous(), fragments, model.faces)[0]
    picture[fragments.face_id[0] < 0] = _BACKGROUND
    return picture.clamp(0, 255).round().to(torch.uint8).numpy()


def _dots(picture: Image, points: np.ndarray, color: tuple[int, int, int]) -> Image:
    result = picture.copy()
    for x, y in np.rint(points * 8).astype(int):
        cv2.circle(result, (int(x), int(y)), 16, color, -1, cv2.LINE_AA, shift=3)
    return result


def _numbered(picture: Image, points: np.ndarray) -> Image:
    """Dots with their numbers beside them."""
    result = _dots(picture, points, (210, 30, 30))
    for number, (x, y) in enumerate(np.rint(points).astype(int)):
        origin = (int(x) + 3, int(y) - 3)
        cv2.putText(result, str(number), origin, 0, 0.34, (20, 20, 120), 1, cv2.LINE_AA)
    return result


SHEETS: dict[str, Callable[[Look, int, int, torch.Generator], list[Panel]]] = {
    "mean": _mean_sheet,
    "id_modes": _mode_sheet("id", 0.0),
    "exp_modes": _mode_sheet("exp", 0.0),
    "identities": _random_sheet(("id",), 25.0),
    "people": _random_sheet(("id", "alb"), 0.0),
    "expressions": _expression_sheet,
    "exp_names": _unit_sheet,
    "albedo_texture": _albedo_sheet,
    "albedo_modes": _mode_sheet("alb", 0.0),
    "albedos": _random_sheet(("alb",), 0.0),
    "parts": _part_sheet,
    "landmarks": _landmark_sheet,
    "uv": _uv_sheet,
}
"""Name of the file -> what draws its panels."""

SHEET_COLUMNS = {"mean": len(SIDES), "parts": len(SIDES)}
"""Panels in a row where it is not the usual number."""
