"""Drawn heads with exact truth: random identities, expressions, albedo, light, hair, background.

Each head is placed in the crop by the crop rule, so its coefficients, pose and depth are labels
that no photograph has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from v3recon.data.augment import BOX_FACTOR, CROP_SIZE
from v3recon.decode import decode, posed_normals
from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.face_models.detector_mesh import POINT_COUNT, load_face_mesh
from v3recon.face_models.linear_face_model import LinearFaceModel, SurfacePoints, linear_points
from v3recon.geometry.camera import Camera, project, to_clip
from v3recon.geometry.rotation import euler_to_matrix
from v3recon.geometry.spherical_harmonics import shade_sh
from v3recon.io.atomic import replace_on_success
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_image
from v3recon.types import SH_SIZE, FaceCoeffs

DRAWING = 2
"""Number of this way of drawing; caches of another are not used."""
SIZE = 160
"""Side of the pictures, pixels."""
HAIR_SHARE = 0.75
"""Share of heads with hair."""
ID_SIGMA = 1.0
TURNED_SHARE = 0.6
"""Share of heads whose yaw is anything up to `MAX_YAW`; the others look about ahead."""
MAX_YAW = 95.0
ANY_ROLL = 0.06
_HAIR_COLORS = np.array(
    [[20, 16, 14], [45, 30, 22], [80, 55, 35], [140, 100, 60], [190, 155, 100], [130, 130, 130]]
)
_BATCH = 8


@dataclass(frozen=True)
class DrawnHeads:
    """N heads.

    Attributes:
        image: [N, 160, 160, 3] uint8 RGB.
        seen: [N, 80, 80] uint8, see `networks.encoder.SEEN_NAMES`; 255 where parts are unknown.
        detected, marked: [N, 468, 2] and [N, 68, 2] float32, crop pixels.
        truth: [N, K] float32 id, exp, alb, sh.
        rotation, trans: [N, 3, 3] and [N, 3] float32.
    """

    image: np.ndarray
    seen: np.ndarray
    detected: np.ndarray
    marked: np.ndarray
    truth: np.ndarray
    rotation: np.ndarray
    trans: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


def detected_points(model: LinearFaceModel) -> tuple[np.ndarray, SurfacePoints]:
    """Which of the detector's 468 points a face model has, and where they are on it.

    Returns:
        Their D numbers, and the points: all 468 where the model says where they are, elsewhere, as
        on official models, those of the 68 landmarks, in iBUG's order.
    """
    everything = np.arange(POINT_COUNT)
    if model.detector_points is not None:
        return everything, model.detector_points
    return load_face_mesh().landmarks_68, _at_vertices(model.landmarks_68)


def _at_vertices(index: Tensor) -> SurfacePoints:
    weights = torch.tensor([1.0, 0.0, 0.0]).repeat(len(index), 1)
    return SurfacePoints(index[:, None].repeat(1, 3), weights)


def random_coeffs(model: LinearFaceModel, count: int, generator: torch.Generator) -> FaceCoeffs:
    """Random heads in random poses, about in the middle of the crop (see `placed`)."""

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator)

    id_size, _, alb_size = model.sizes
    angle = torch.empty(count, 3)
    angle[:, 0] = 14 * normal(count).clamp(-2.5, 2.5)
    turned = uniform(count) < TURNED_SHARE
    angle[:, 1] = torch.where(turned, MAX_YAW * (2 * uniform(count) - 1), 15 * normal(count))
    rolled = uniform(count) < ANY_ROLL
    angle[:, 2] = torch.where(rolled, 360 * uniform(count) - 180, 13 * normal(count))
    sh = torch.zeros(count, 3, 9)
    sh[:, :, 0] = 0.16 * normal(count, 1)
    sh[:, :, 1:4] = 0.2 * normal(count, 1, 3)
    sh[:, :, 4:] = 0.07 * normal(count, 1, 5)
    sh = sh + 0.03 * normal(count, 3, 9)
    return FaceCoeffs(
        id=ID_SIGMA * normal(count, id_size),
        exp=_expressions(model, count, normal, uniform),
        alb=normal(count, alb_size),
        angle=torch.deg2rad(angle),
        sh=sh.reshape(count, SH_SIZE),
        trans=torch.zeros(count, 3),
    )


def _expressions(model: LinearFaceModel, count: int, normal, uniform) -> Tensor:
    """A few of the named shapes, both sides alike most times; the other modes about zero."""
    size = model.sizes[1]
    sigma = torch.ones(size) if model.exp_sigma is None else model.exp_sigma
    if not model.exp_names:
        return 0.7 * sigma * normal(count, size)
    names = list(model.exp_names)
    exp = 0.6 * sigma * normal(count, size)
    shapes = len(ARKIT_NAMES)
    active = uniform(count, shapes) < 0.06 + 0.12 * uniform(count, 1)
    weights = torch.where(active, uniform(count, shapes), 0.06 * uniform(count, shapes))
    alike = uniform(count) < 0.8
    for left, name in enumerate(names[:shapes]):
        if name.endswith("Left") and name[:-4] + "Right" in names[:shapes]:
            right = names.index(name[:-4] + "Right")
            weights[alike, right] = weights[alike, left]
    for name, often, root in (
        ("eyeBlink", 0.3, 0.5),
        ("jawOpen", 0.25, 1),
        ("mouthSmile", 0.25, 1),
    ):
        hit = (uniform(count) < often).float() * uniform(count) ** root
        for column in (k for k, n in enumerate(names[:shapes]) if n.startswith(name)):
            weights[:, column] = torch.maximum(weights[:, column], hit)
    tongue = names.index("tongueOut") if "tongueOut" in names else None
    if tongue is not None:
        weights[:, tongue] = 0
    exp[:, :shapes] = weights
    return exp


def placed(
    coeffs: FaceCoeffs, model: LinearFaceModel, generator: torch.Generator, camera: Camera
) -> FaceCoeffs:
    """The same heads, each where the crop rule puts it, give or take a detector's error."""
    count = len(coeffs)
    size = (
        CROP_SIZE / BOX_FACTOR * torch.exp(0.13 * (2 * torch.rand(count, generator=generator) - 1))
    )
    shift = CROP_SIZE * 0.05 * (2 * torch.rand(count, 2, generator=generator) - 1)
    middle = (CROP_SIZE - 1) / 2
    mean, basis = model.shape_basis_at(model.landmarks_68)
    points = linear_points(mean, basis, torch.cat([coeffs.id, coeffs.exp], 1))
    posed = points @ euler_to_matrix(coeffs.angle)
    trans = torch.zeros(count, 3)
    for _ in range(4):
        pixels = project(posed + trans[:, None], camera)
        low, high = pixels.amin(1), pixels.amax(1)
        depth = camera.distance - trans[:, 2] - posed[..., 2].mean(1)
        factor = (high - low).amax(1) / size
        trans[:, 2] -= depth * (factor - 1)
        off = (low + high) / 2 - middle - shift
        trans[:, 0] -= off[:, 0] * depth / camera.focal
        trans[:, 1] += off[:, 1] * depth / camera.focal
    return FaceCoeffs(coeffs.id, coeffs.exp, coeffs.alb, coeffs.angle, coeffs.sh, trans)


def draw_heads(
    model: LinearFaceModel, backgrounds: Sequence[Path], count: int, seed: int
) -> DrawnHeads:
    """Draw heads; the same for the same arguments.

    Args:
        model: the face model.
        backgrounds: photos to draw before.
        count: how many.
        seed: of everything random.
    """
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    camera = Camera()
    arrays: dict[str, np.ndarray] = {}  # whole from the start: many small ones scatter the memory
    with torch.inference_mode():
        starts = range(0, count, _BATCH)
        for start in tqdm(starts, desc="drawing heads", unit_scale=_BATCH, mininterval=2):
            batch = min(_BATCH, count - start)
            coeffs = random_coeffs(model, batch, generator)
            coeffs = placed(coeffs, model, generator, camera)
            for place, row in enumerate(_draw(coeffs, model, camera, rng, backgrounds), start):
                for name, value in row.items():
                    if name not in arrays:
                        arrays[name] = np.empty((count, *value.shape), value.dtype)
                    arrays[name][place] = value
    return DrawnHeads(**arrays)


def _draw(
    coeffs: FaceCoeffs,
    model: LinearFaceModel,
    camera: Camera,
    rng: np.random.Generator,
    backgrounds: Sequence[Path],
) -> list[dict[str, np.ndarray]]:
    """Pictures and labels of a few heads."""
    decoded = decode(coeffs, model, camera)
    albedo = model.albedo(coeffs.alb).clamp(0.01, 1).clone()
    hair = _paint_hair(albedo, model, rng)
    colors = shade_sh(albedo, posed_normals(decoded, model), coeffs.sh)
    side = 2 * SIZE
    from_crop = torch.tensor([[side / CROP_SIZE, 0, 0.5 * side / CROP_SIZE - 0.5],
                              [0, side / CROP_SIZE, 0.5 * side / CROP_SIZE - 0.5]])  # fmt: skip
    clip = to_clip(decoded.vertices, camera, (side, side), from_crop.expand(len(coeffs), 2, 3))
    fragments = rasterize(clip, model.faces, (side, side))
    image, mask = render_image(colors, fragments, model.faces)
    owner = model.faces[fragments.face_id.clamp(min=0), 0]
    seen = model.part_labels[owner]
    if not (model.part_labels == 1).any():  # a model without parts says nothing of the face
        seen = torch.where(seen == 8, 255, seen)
    if hair is not None:
        seen = torch.where(hair.gather(1, owner.flatten(1)).view_as(owner), 9, seen)
    seen = torch.where(fragments.face_id >= 0, seen, 0).to(torch.uint8)[:, 1::4, 1::4]
    numbers, surface = detected_points(model)
    detected = torch.zeros(len(coeffs), POINT_COUNT, 2)  # nobody asks where a model has no points
    detected[:, numbers] = surface.of(decoded.points_2d)
    truth = torch.cat([coeffs.id, coeffs.exp, coeffs.alb, coeffs.sh], 1)
    result = []
    for k in range(len(coeffs)):
        ground = _background(backgrounds, rng, side)
        picture = image[k].permute(1, 2, 0).clamp(0, 1).numpy() * 255
        cover = mask[k, 0, :, :, None].numpy()
        picture = cover * picture + (1 - cover) * ground
        picture = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        result.append(
            {
                "image": picture.round().astype(np.uint8),
                "seen": seen[k].numpy(),
                "detected": detected[k].numpy(),
                "marked": decoded.points_2d[k, model.landmarks_68].numpy(),
                "truth": truth[k].numpy(),
                "rotation": decoded.rotation[k].numpy(),
                "trans": coeffs.trans[k].numpy(),
            }
        )
    return result


def _paint_hair(albedo: Tensor, model: LinearFaceModel, rng: np.random.Generator) -> Tensor | None:
    """Color the scalp of most heads, in place; where it is, [B, V] bool."""
    mean = model.mean_vertices()
    top, back = mean[:, 1].max(), mean[:, 2].min()
    height = (mean[:, 1] - mean[:, 1].mean()) / (top - mean[:, 1].mean())
    depth = (mean[:, 2] - back) / (mean[:, 2].max() - back)
    hair = torch.zeros(albedo.shape[:2], dtype=torch.bool)
    for k in range(len(albedo)):
        if rng.random() >= HAIR_SHARE:
            continue
        long, fringe = rng.uniform(-0.9, 0.5), rng.uniform(0.4, 0.8)
        ragged = 0.08 * torch.from_numpy(rng.standard_normal(len(mean))).float()
        line = torch.where(depth < 0.42, torch.full_like(depth, long), 0.1 + fringe * depth / 0.8)
        hair[k] = height + ragged > line
        color = _HAIR_COLORS[rng.integers(len(_HAIR_COLORS))] / 255 * rng.uniform(0.7, 1.3)
        strands = torch.from_numpy(rng.uniform(0.6, 1.3, (len(mean), 1))).float()
        tint = torch.from_numpy(color).float() * strands
        albedo[k] = torch.where(hair[k, :, None], tint, albedo[k])
    return hair


def _background(paths: Sequence[Path], rng: np.random.Generator, side: int) -> np.ndarray:
    """A scrap of a photo, upside down or blurred at times so that its face is none."""
    photo = cv2.imread(str(paths[int(rng.integers(len(paths)))]), cv2.IMREAD_COLOR_RGB)
    if photo is None:
        return np.full((side, side, 3), rng.integers(0, 256, 3), np.float32)
    height, width = photo.shape[:2]
    share = rng.uniform(0.25, 0.5)
    rows, columns = max(int(height * share), 2), max(int(width * share), 2)
    corner = rng.random(2) < 0.5
    top = 0 if corner[0] else height - rows
    left = 0 if corner[1] else width - columns
    scrap = cv2.resize(photo[top : top + rows, left : left + columns], (side, side))
    if rng.random() < 0.5:
        scrap = cv2.GaussianBlur(scrap, (0, 0), rng.uniform(2, 12))
    return np.asarray(scrap[::-1] if rng.random() < 0.5 else scrap, np.float32)


def save_heads(path: Path, heads: DrawnHeads) -> None:
    """Write a folder of `.npy` files, whole or not at all; read with `load_heads`."""
    path.mkdir(parents=True, exist_ok=True)
    for f in fields(DrawnHeads):
        with (
            replace_on_success(path / f"{f.name}.npy") as temporary,
            temporary.open("wb") as stream,
        ):
            np.save(stream, getattr(heads, f.name))


def load_heads(path: Path) -> DrawnHeads:
    """Open `save_heads`'s folder; pictures stay on the disk until they are used.

    Raises:
        ValueError: if a file is missing or broken.
    """
    try:
        return DrawnHeads(
            *(
                np.load(path / f"{f.name}.npy", mmap_mode="r", allow_pickle=False)
                for f in fields(DrawnHeads)
            )
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no drawn heads: {error}") from None
