"""Fragments in, images out."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from v3recon.render.interpolate import coverage, interpolate
from v3recon.render.shading import gray_shading
from v3recon.types import Fragments


def render_image(colors: Tensor, fragments: Fragments, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Draw vertex colours.

    Args:
        colors: [B, V, C] or [1, V, C], usually RGB, 0…1; not clamped here.
        fragments: what `rasterize` returned for these faces.
        faces: [F, 3] int64.

    Returns:
        image [B, C, H, W], 0 outside the mesh, and mask [B, 1, H, W] of the same type, 0 or 1.
    """
    values = interpolate(colors, fragments, faces).permute(0, 3, 1, 2)
    return values.contiguous(), coverage(fragments)[:, None].to(values.dtype)


def render_shape(normals: Tensor, fragments: Fragments, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the shape in grey, shaded at the vertices.

    Args:
        normals: [B, V, 3] rotated unit normals, world frame.
        fragments: what `rasterize` returned for these faces.
        faces: [F, 3] int64.

    Returns:
        image [B, 3, H, W] and mask [B, 1, H, W], as `render_image`.
    """
    return render_image(gray_shading(normals), fragments, faces)


def render_normals(normals: Tensor, fragments: Fragments, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Draw unit normals, interpolated and made unit again.

    Args:
        normals: [B, V, 3] unit normals in the frame that is to be seen.
        fragments: what `rasterize` returned for these faces.
        faces: [F, 3] int64.

    Returns:
        normals [B, 3, H, W], -1…1, 0 outside the mesh, and mask [B, 1, H, W]. For a picture take
        (normals + 1) / 2.
    """
    values, mask = render_image(normals, fragments, faces)
    return normalize(values, dim=1, eps=1e-12), mask
