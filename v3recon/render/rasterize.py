"""Triangles to pixels: one contract, three rasterisers that are chosen by name.

The definition (all three follow it; `_reference.py` is its slow form): with the vertices in
homogeneous pixels (X, Y, w), X / w the column and Y / w the row, pixel (c, r) has three edge values
E0 = det[p, v1, v2], E1 = det[v0, p, v2], E2 = det[v0, v1, p] with p = (c, r, 1) (Olano and Greer,
"Triangle scan conversion using 2D homogeneous coordinates", 1997). The pixel is inside where all
three have one sign, and b_i = E_i / sum(E) are perspective-correct barycentrics. Nothing is divided
by w before the test, so triangles that cross the near plane or the camera's own plane need no
clipping: a pixel is kept where the interpolated z and w obey w > 0 and -w <= z <= w. On an edge the
top-left rule decides: the pixel belongs to the triangle that lies to its right, or below it where
the edge is horizontal. The nearest w (as float32) wins, the lower face id where they are equal.
Both windings are drawn.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from v3recon.types import Fragments

RASTERIZERS = {
    "cpu": "v3recon.render._cpu",
    "torch": "v3recon.render._torch",
    "nvdiffrast": "v3recon.render._nvdiffrast",
}
"""Name to module; each is imported when it is used first."""


def choose_rasterizer(device: torch.device | str) -> str:
    """The fastest rasteriser that works for tensors on this device."""
    kind = torch.device(device).type
    if kind == "cpu":
        return "cpu"
    if kind == "cuda" and importlib.util.find_spec("nvdiffrast") is not None:
        return "nvdiffrast"
    return "torch"


def rasterize(
    clip: Tensor,
    faces: Tensor,
    image_size: tuple[int, int],
    rasterizer: str = "auto",
) -> Fragments:
    """Which triangle owns each pixel, and where in it the pixel's centre lies.

    Ownership has no gradient; barycentrics and depth are differentiable in `clip`.

    Args:
        clip: [B, V, 4] clip coordinates of `geometry.camera.to_clip` (y down, w = depth).
        faces: [F, 3] int64 vertex ids, either winding.
        image_size: (H, W) of the raster.
        rasterizer: "cpu", "torch", "nvdiffrast" or "auto" (see `choose_rasterizer`).

    Returns:
        Fragments [B, H, W] on the device and in the floating type of `clip`.

    Raises:
        ValueError: for an unknown name, a wrong shape, or a rasteriser that cannot run here.
    """
    find = _backend(clip, faces, image_size, rasterizer, "find_faces")
    faces = faces.long()
    known = find(clip.detach(), faces, image_size)
    if isinstance(known, Fragments):  # the cpu rasteriser has them at hand
        if not _needs_gradient(clip) and clip.dtype == known.bary.dtype:
            return known
        face_id = known.face_id
    else:
        face_id = known
    return fragments_of(clip, faces, face_id)


def cover(
    clip: Tensor,
    faces: Tensor,
    face_group: Tensor,
    image_size: tuple[int, int],
    rasterizer: str = "auto",
) -> Tensor:
    """Which of up to eight groups of triangles cover each pixel, each drawn as if alone.

    Args:
        clip: [B, V, 4] clip coordinates.
        faces: [F, 3] int64 vertex ids.
        face_group: [F] uint8, group 0…7 of each triangle.
        image_size: (H, W).
        rasterizer: as in `rasterize`; "nvdiffrast" draws with "torch" here.

    Returns:
        [B, H, W] uint8, bit g is set where a triangle of group g covers the pixel's centre.
    """
    assert face_group.shape == faces.shape[:1], (face_group.shape, faces.shape)
    name = choose_rasterizer(clip.device) if rasterizer == "auto" else rasterizer
    name = "torch" if name == "nvdiffrast" else name
    run = _backend(clip, faces, image_size, name, "find_cover")
    return run(clip.detach(), faces.long(), face_group, image_size)


def fragments_of(clip: Tensor, faces: Tensor, face_id: Tensor) -> Fragments:
    """Barycentrics and depth of known owners, differentiable in `clip`.

    Args:
        clip: [B, V, 4] clip coordinates.
        faces: [F, 3] int64.
        face_id: [B, H, W] int64, -1 = none.

    Returns:
        Fragments with that `face_id`.
    """
    height, width = face_id.shape[1:]
    owner = face_id.reshape(-1)
    pixel = torch.nonzero(owner >= 0).squeeze(1)
    item = torch.div(pixel, height * width, rounding_mode="floor")
    vertex = faces[owner[pixel]] + (item * clip.shape[1])[:, None]
    corners = clip.reshape(-1, 4).index_select(0, vertex.reshape(-1)).reshape(-1, 3, 4)
    # Small triangles far from the origin lose their shape in float32, so compute in float64.
    exact = corners if clip.device.type == "mps" else corners.double()
    row = torch.div(pixel % (height * width), width, rounding_mode="floor").to(exact.dtype)
    column = (pixel % width).to(exact.dtype)
    w = exact[..., 3]
    x = exact[..., 0] - w * ((2 * column + 1) / width - 1)[:, None]  # seen from the pixel's centre
    y = exact[..., 1] - w * ((2 * row + 1) / height - 1)[:, None]
    edges = torch.stack(
        [
            x[:, 1] * y[:, 2] - x[:, 2] * y[:, 1],
            x[:, 2] * y[:, 0] - x[:, 0] * y[:, 2],
            x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0],
        ],
        1,
    )
    total = edges.sum(1, keepdim=True)
    weights = edges / torch.where(total == 0, torch.ones_like(total), total)
    depth = (weights * w).sum(1)
    flat_bary = clip.new_zeros(owner.numel(), 3).index_copy(0, pixel, weights.to(clip.dtype))
    flat_depth = clip.new_zeros(owner.numel()).index_copy(0, pixel, depth.to(clip.dtype))
    return Fragments(
        face_id, flat_bary.reshape(*face_id.shape, 3), flat_depth.reshape(face_id.shape)
    )


def _needs_gradient(clip: Tensor) -> bool:
    return clip.requires_grad and torch.is_grad_enabled()


def _backend(
    clip: Tensor, faces: Tensor, image_size: tuple[int, int], name: str, function: str
) -> Callable:
    """Check the input and import the rasteriser."""
    if clip.ndim != 3 or clip.shape[-1] != 4:
        raise ValueError(f"expected clip coordinates [B, V, 4], got {tuple(clip.shape)}")
    if faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(f"expected faces [F, 3], got {tuple(faces.shape)}")
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(f"expected image_size (H, W) of at least 1, got {image_size}")
    if name == "auto":
        name = choose_rasterizer(clip.device)
    if name not in RASTERIZERS:
        raise ValueError(f"unknown rasterizer {name!r}; use auto, {', '.join(RASTERIZERS)}")
    return getattr(importlib.import_module(RASTERIZERS[name]), function)
