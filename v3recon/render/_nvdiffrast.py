"""The CUDA rasteriser of nvdiffrast (Laine et al., SIGGRAPH Asia 2020); an optional dependency.

Only ownership is taken from it; barycentrics are recomputed as for the others. Its row 0 is clip
y = -1 and its samples are pixel centres, which is what `geometry.camera.to_clip` means, so nothing
is flipped or shifted. It snaps vertices to a fraction of a pixel, so it may give a pixel beside an
edge to the neighbour, whose barycentrics are then slightly outside 0…1.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

LARGEST_TILE = 2048
"""Side in pixels of what older releases draw at once; larger rasters are drawn in tiles."""
GRANULE = 8
"""Older releases want sides that are multiples of this; tiles are enlarged, then cut."""


def find_faces(clip: Tensor, faces: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Owner of each pixel [B, H, W] int64, -1 = none; arguments as in `rasterize`.

    Raises:
        ValueError: if nvdiffrast is not installed or the tensors are not on an NVIDIA GPU.
    """
    library = _import()
    if clip.device.type != "cuda":
        raise ValueError(
            f"rasterizer='nvdiffrast' needs tensors on a CUDA device, these are on {clip.device}; "
            "rasterizer='cpu' and rasterizer='torch' work there"
        )
    height, width = image_size
    context = _context(clip.device.index or 0)
    triangles = faces.to(torch.int32).contiguous()
    owner = torch.full((len(clip), height, width), -1, dtype=torch.int64, device=clip.device)
    for top in range(0, height, LARGEST_TILE):
        for left in range(0, width, LARGEST_TILE):
            rows, columns = min(height - top, LARGEST_TILE), min(width - left, LARGEST_TILE)
            size = (_round_up(rows), _round_up(columns))
            tile = to_tile(clip.float(), image_size, (top, left), size).contiguous()
            raster, _ = library.rasterize(context, tile, triangles, resolution=list(size))
            ids = raster[:, :rows, :columns, 3].long() - 1
            owner[:, top : top + rows, left : left + columns] = ids
    return owner


def to_tile(
    clip: Tensor, image_size: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Clip coordinates for a window of the raster.

    Args:
        clip: [B, V, 4] for the whole raster.
        image_size: (H, W) of the whole raster.
        corner: (row, column) of the window's first pixel.
        size: (H, W) of the window, which may reach past the raster.

    Returns:
        [B, V, 4] for the window.
    """
    (height, width), (top, left), (rows, columns) = image_size, corner, size
    x, y, z, w = clip.unbind(-1)
    x = (x * width + w * (width - 2 * left - columns)) / columns
    y = (y * height + w * (height - 2 * top - rows)) / rows
    return torch.stack([x, y, z, w], -1)


def _import() -> ModuleType:
    try:
        import nvdiffrast.torch as library  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "nvdiffrast is not installed: run `pip install diffrp-nvdiffrast`, or use "
            "rasterizer='cpu' or rasterizer='torch', which need nothing more"
        ) from error
    return library


@functools.cache
def _context(device_index: int) -> Any:
    """The library's state for one GPU, made once."""
    return _import().RasterizeCudaContext(device=torch.device("cuda", device_index))


def _round_up(side: int) -> int:
    return -(-side // GRANULE) * GRANULE
