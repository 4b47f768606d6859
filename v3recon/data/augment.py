"""Augmentation of one training sample: what is drawn, the geometry of the crop, the colours.

Geometry is drawn once and composed into a single warp (`face_samples.FaceSamples`); colors are
changed on the small crop. Randomness comes from a `numpy.random.Generator` only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from v3recon.detection.crop import BOX_FACTOR

CROP_SIZE = 224
"""Side of the crop frame in which targets are given, pixels (geometry.camera.Camera)."""
FAR_SCALE = (0.65, 1.55)
"""Range of the face's size in crops of boxes that miss it, as MTCNN's do on some profiles."""
FAR_SHIFT = 0.2
"""Largest shift of such crops, as a share of the crop."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class AugmentSettings:
    """Probabilities and ranges; probabilities in 0…1, angles in degrees."""

    size: int = 112
    """Side of the network's input, pixels."""
    flip: float = 0.5
    """Probability of the mirror image."""
    roll_sigma: float = 14.0
    """Deviation of the rotation in the image plane."""
    any_roll: float = 0.0
    """Share of samples rolled by any angle."""
    scale: tuple[float, float] = (0.88, 1.15)
    """Range of the face's size in the crop, relative to the crop rule."""
    shift: float = 0.04
    """Largest shift in x and y, as a share of the crop."""
    far: float = 0.0
    """Share of samples placed as badly as a detector's box may be: `FAR_SCALE`, `FAR_SHIFT`."""
    color: float = 0.8
    """Probability of changed brightness, contrast, gamma, white balance, saturation, hue."""
    grey: float = 0.1
    """Probability of a grey picture."""
    noise: float = 0.25
    """Probability of sensor noise."""
    blur: float = 0.2
    """Probability of blur (Gaussian or motion)."""
    low_resolution: float = 0.2
    """Probability of being shrunk and enlarged again."""
    jpeg: float = 0.15
    """Probability of JPEG artefacts."""
    occlude: float = 0.3
    """Probability of one or two occluders."""

    def __post_init__(self) -> None:
        """Check sizes and ranges."""
        if self.size < 16:
            raise ValueError(f"size must be at least 16 pixels, got {self.size}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be an increasing pair above 0, got {self.scale}")

    def plain(self) -> AugmentSettings:
        """The same size without any augmentation, for validation."""
        names = (
            "flip roll_sigma any_roll shift far color grey noise blur low_resolution jpeg occlude"
        )
        off = dict.fromkeys(names.split(), 0.0)
        return replace(self, scale=(1.0, 1.0), **off)


@dataclass(frozen=True)
class Placement:
    """How a photo is put into the crop.

    Attributes:
        flip: mirror image or not.
        roll: rotation in the image plane, radians, counter-clockwise on screen.
        scale: size of the face relative to the crop rule.
        shift: [2] shift in x and y, share of the crop.
    """

    flip: bool = False
    roll: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


def draw_placement(rng: np.random.Generator, settings: AugmentSettings) -> Placement:
    """Draw flip, roll, scale and shift."""
    is_far = settings.far > 0 and rng.random() < settings.far
    low, high = np.log(FAR_SCALE if is_far else settings.scale)
    reach = FAR_SHIFT if is_far else settings.shift
    shift = rng.uniform(-reach, reach, 2)
    roll = np.radians(settings.roll_sigma) * np.clip(rng.standard_normal(), -3.2, 3.2)
    if settings.any_roll > 0 and rng.random() < settings.any_roll:
        roll = rng.uniform(-np.pi, np.pi)
    return Placement(
        flip=bool(rng.random() < settings.flip),
        roll=float(roll),
        scale=float(np.exp(rng.uniform(low, high))),
        shift=(float(shift[0]), float(shift[1])),
    )


def crop_matrix(points_68: np.ndarray, placement: Placement) -> np.ndarray:
    """Affine map from photo pixels to crop pixels by the crop rule of our networks.

    The rule is applied to the rolled and mirrored photo, as it would be at inference: a square
    of 1.414 times the longer side of the box around the 68 points, centred on the box, becomes
    the 224-pixel crop (its outer edges at -0.5 and 223.5).

    Args:
        points_68: [68, 2] photo pixels.
        placement: mirror, roll, scale and shift to apply.

    Returns:
        [2, 3] photo pixels to crop pixels.
    """
    c, s = np.cos(placement.roll), np.sin(placement.roll)
    linear = np.array([[c, s], [-s, c]])
    if placement.flip:
        linear = np.diag([-1.0, 1.0]) @ linear
    box = points_68 @ linear.T
    low, high = box.min(0), box.max(0)
    factor = placement.scale * CROP_SIZE / (BOX_FACTOR * max(high - low))
    center = (CROP_SIZE - 1) / 2 + CROP_SIZE * np.array(placement.shift)
    offset = center - factor * (low + high) / 2
    return np.concatenate([factor * linear, offset[:, None]], 1)


def resize_matrix(matrix: np.ndarray, size: int) -> np.ndarray:
    """The crop's affine map [2, 3] for a crop drawn `size` instead of 224 pixels wide."""
    factor = size / CROP_SIZE
    resized = matrix * factor
    resized[:, 2] += 0.5 * factor - 0.5  # pixel centres: (x + 0.5) factor - 0.5
    return resized


def change_colors(
    image: np.ndarray, rng: np.random.Generator, settings: AugmentSettings
) -> np.ndarray:
    """Occluders, resolution, blur, colour, noise and compression on a small crop.

    Args:
        image: [S, S, 3] uint8 RGB; not changed.
        rng: source of randomness.
        settings: probabilities.

    Returns:
        [S, S, 3] uint8 RGB.
    """
    chance = rng.random(7)
    if chance[0] < settings.occlude:
        image, _ = occlude(image, rng)
    if chance[1] < settings.low_resolution:
        image = _lower_resolution(image, rng)
    if chance[2] < settings.blur:
        image = _blur(image, rng)
    if chance[3] < settings.color:
        image = _recolor(image, rng)
    if chance[4] < settings.grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if chance[5] < settings.noise:
        sigma = rng.uniform(2.0, 14.0)
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if chance[6] < settings.jpeg:
        quality = int(rng.integers(12, 70))
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return image


def _recolor(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Saturation and hue as one 3 x 3 matrix, then gain, offset and gamma as a table."""
    saturation = rng.uniform(0.5, 1.4)
    matrix = saturation * np.eye(3) + (1 - saturation) * LUMA[None]
    angle = rng.normal(0, 0.12)  # hue: a turn about the grey axis
    c, s = np.cos(angle), np.sin(angle) / np.sqrt(3)
    hue = c * np.eye(3) + (1 - c) / 3 + s * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    image = cv2.transform(image, matrix @ hue)
    gain = rng.uniform(0.6, 1.4) * rng.uniform(0.88, 1.12, 3)
    offset = rng.uniform(-0.12, 0.12)
    gamma = np.exp(rng.uniform(-0.35, 0.35))
    levels = np.linspace(0, 1, 256)[:, None]
    table = ((levels - 0.45) * gain + 0.45 + offset).clip(0, 1) ** gamma
    return cv2.LUT(image, (table * 255).astype(np.uint8).reshape(1, 256, 3))


def _lower_resolution(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    small = max(int(size * rng.uniform(0.2, 0.7)), 8)
    image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    method = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[int(rng.integers(3))]
    return cv2.resize(image, (size, size), interpolation=method)


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.6:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6) * image.shape[0] / 112)
    length = int(rng.integers(3, 9))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    middle = (length - 1) / 2
    for t in np.linspace(-middle, middle, 2 * length):
        row, column = middle + t * np.sin(angle), middle + t * np.cos(angle)
        kernel[round(row), round(column)] = 1
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def occlude(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One or two ellipses or turned rectangles, flat or filled with a scrap of the picture.

    Args:
        image: [S, S, 3] uint8; not changed.
        rng: source of randomness.

    Returns:
        The picture, and where it is hidden, [S, S] bool.
    """
    size = image.shape[0]
    result = image.copy()
    hidden = np.zeros((size, size), bool)
    for _ in range(1 + int(rng.random() < 0.3)):
        center = rng.uniform(0, size, 2)
        axes = size * rng.uniform(0.05, 0.25, 2)
        angle = rng.uniform(0, 180)
        mask = np.zeros((size, size), np.uint8)
        if rng.random() < 0.5:
            cv2.ellipse(mask, (tuple(center), tuple(2 * axes), angle), 255, -1)
        else:
            corners = cv2.boxPoints((tuple(center), tuple(2 * axes), angle))
            cv2.fillConvexPoly(mask, corners.astype(np.int32), 255)
        if rng.random() < 0.5:
            filling = np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), image.shape)
        else:
            roll = rng.integers(size // 4, 3 * size // 4, 2)
            filling = np.roll(image, roll, axis=(0, 1))[:, ::-1]
        result[mask > 0] = filling[mask > 0]
        hidden |= mask > 0
    return result, hidden
