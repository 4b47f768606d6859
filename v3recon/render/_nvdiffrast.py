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
    context = _context(clip.device.index or 0)
    vertices = clip.float().contiguous()
    triangles = faces.to(torch.int32).contiguous()
    raster, _ = library.rasterize(context, vertices, triangles, resolution=list(image_size))
    return raster[..., 3].long() - 1  # the fourth channel is the face id + 1, 0 = none


def _import() -> ModuleType:
    try:
        import nvdiffrast.torch as library  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "nvdiffrast is not installed: run `pip install diffrp-nvdiffrast` (0.3.3 or newer), "
            "or use rasterizer='cpu' or rasterizer='torch', which need nothing more"
        ) from error
    return library


@functools.cache
def _context(device_index: int) -> Any:
    """The library's state for one GPU, made once."""
    return _import().RasterizeCudaContext(device=torch.device("cuda", device_index))
