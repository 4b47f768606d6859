"""Photos of every kind as what the package works on: [H, W, 3] uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from v3recon.io.images import image_of_pillow, read_image

CHANNELS = (1, 3, 4)
"""Grey, RGB, RGB with opacity."""

_KINDS = "a path, a PIL image, an array [H, W, 3], a tensor [3, H, W], or a list of them"


@dataclass(frozen=True)
class InputImages:
    """Photos that were given.

    Attributes:
        images: [H, W, 3] uint8 RGB each, contiguous.
        names: of their files without suffix; "photo" where there is none.
        single: whether one photo was given, not a list or a batch.
    """

    images: list[np.ndarray]
    names: list[str]
    single: bool


def as_images(given: Any) -> InputImages:
    """Photos of any kind that people have.

    Args:
        given: a path; a PIL image; a numpy array [H, W], [H, W, 1 | 3 | 4] or a batch
            [B, H, W, C]; a torch tensor [C, H, W] or [B, C, H, W]; or a list of these. Values are
            uint8 0…255 or floating 0…1; channels are RGB; opacity is laid over white.

    Raises:
        ValueError: with a sentence that begins with "image:", for anything else.
    """
    if isinstance(given, list | tuple):
        found = [_one_or_more(one) for one in given]
        return InputImages(
            [image for images, _ in found for image in images],
            [name for images, name in found for _ in images],
            single=False,
        )
    images, name = _one_or_more(given)
    batched = isinstance(given, np.ndarray | torch.Tensor) and given.ndim == 4
    return InputImages(images, [name] * len(images), single=not batched)


def _one_or_more(given: Any) -> tuple[list[np.ndarray], str]:
    """The photos of one item, which may be a batch, and their name."""
    if isinstance(given, str | Path):
        try:
            return [read_image(given)], Path(given).stem
        except ValueError as error:
            raise ValueError(f"image: {given}: {error}") from None
    if isinstance(given, Image.Image):
        return [image_of_pillow(given)], "photo"
    if isinstance(given, torch.Tensor):
        if given.ndim not in (3, 4) or given.shape[-3] not in CHANNELS:
            raise ValueError(
                f"image: a tensor is [C, H, W] or [B, C, H, W] with C = 1, 3 or 4, "
                f"not {list(given.shape)}"
            )
        values = given.detach().cpu()
        values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        array = np.moveaxis(values.numpy(), -3, -1)
        return _of_arrays(array if array.ndim == 4 else array[None]), "photo"
    if isinstance(given, np.ndarray):
        array = given[..., None] if given.ndim == 2 else given
        if array.ndim not in (3, 4) or array.shape[-1] not in CHANNELS:
            raise ValueError(
                f"image: an array is [H, W], [H, W, C] or [B, H, W, C] with C = 1, 3 or 4, "
                f"not {list(given.shape)}"
            )
        return _of_arrays(array if array.ndim == 4 else array[None]), "photo"
    raise ValueError(f"image: {_KINDS} is expected, not {type(given).__name__}")


def _of_arrays(arrays: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    return [_rgb(_bytes(array)) for array in arrays]


def _bytes(array: np.ndarray) -> np.ndarray:
    """[H, W, C] uint8 of uint8, or of floating values 0…1."""
    if 0 in array.shape:
        raise ValueError(f"image: a photo of {array.shape[0]} x {array.shape[1]} pixels is empty")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"image: values are uint8 0…255 or floating 0…1, not {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("image: it has values that are not finite")
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(f"image: floating values are 0…1, not {low:.3g}…{high:.3g}")
    return (array.clip(0, 1) * 255).round().astype(np.uint8)


def _rgb(array: np.ndarray) -> np.ndarray:
    """[H, W, 3] of [H, W, 1 | 3 | 4]."""
    if array.shape[2] == 1:
        array = np.repeat(array, 3, 2)
    elif array.shape[2] == 4:
        opacity = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(array)
