"""Errors of a shape as colors on the scan, and cumulative curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial import KDTree

from v3recon.geometry.camera import Camera, to_clip
from v3recon.geometry.mesh import vertex_faces_of, vertex_normals
from v3recon.io.atomic import replace_on_success
from v3recon.reconstruct.sheet import Panel
from v3recon.render.rasterize import rasterize
from v3recon.render.render import render_image
from v3recon.render.shading import gray_shading

WORST_MM = 4.0
"""The color scale ends here."""
NEAR_MM = 6.0
"""Vertices farther than this from every measured one stay gray."""
_SIZE, _SIDE_YAW = 256, 75.0


def error_colors(errors: np.ndarray) -> np.ndarray:
    """Colors [N, 3] RGB 0…1 of errors [N], millimeters: blue 0, yellow half, red `WORST_MM`."""
    share = np.clip(errors / WORST_MM, 0, 1)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_JET)
    table = np.asarray(table)[:, 0, ::-1]
    return table[np.round(share * 255).astype(int)] / 255


def error_panels(
    title: str, vertices: np.ndarray, faces: np.ndarray, chosen: np.ndarray, errors: np.ndarray
) -> list[Panel]:
    """The scan from the front and from the side, measured places colored by their error.

    Args:
        title: over the first picture.
        vertices: [V, 3] of the scan in the face model's frame, millimeters.
        faces: [F, 3].
        chosen: ids [N] of the measured vertices.
        errors: [N] millimeters.
    """
    used = np.unique(faces)
    distance, nearest = map(np.asarray, KDTree(vertices[chosen]).query(vertices[used]))
    colors = np.full((len(vertices), 3), 0.75)
    seen = distance < NEAR_MM
    colors[used[seen]] = error_colors(errors[nearest[seen]])
    points = torch.from_numpy(vertices / 100).float()[None]
    triangles = torch.from_numpy(np.ascontiguousarray(faces))
    middle = points[:, chosen].mean(1, keepdim=True)
    normals = vertex_normals(points, triangles, vertex_faces_of(triangles, len(vertices)))
    panels = []
    for name, yaw in ((title, 0.0), (f"side, red = {WORST_MM:g} mm", _SIDE_YAW)):
        angle = np.deg2rad(yaw)
        turn = torch.tensor(
            [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]],
            dtype=torch.float32,
        )
        camera = Camera()
        clip = to_clip((points - middle) @ turn, camera, (_SIZE, _SIZE), _whole(camera))
        fragments = rasterize(clip, triangles, (_SIZE, _SIZE))
        lit = torch.from_numpy(colors).float()[None] * (0.25 + gray_shading(normals @ turn))
        image, mask = render_image(lit, fragments, triangles)
        picture = torch.where(mask > 0, image.clamp(0, 1), torch.ones_like(image))[0]
        panels.append(Panel(name, (picture.permute(1, 2, 0) * 255).byte().numpy()))
    return panels


def write_curves(path: Path, errors: Mapping[str, np.ndarray]) -> None:
    """A picture of the share of points below each error, one line for each kind of shape."""
    from matplotlib.figure import Figure

    figure = Figure((6, 4), dpi=120)
    axes = figure.add_subplot()
    places = np.linspace(0, WORST_MM, 401)
    for name, values in errors.items():
        share = np.searchsorted(np.sort(values), places, side="right") / max(len(values), 1)
        axes.plot(places, share, label=f"{name} ({np.median(values):.2f} mm)")
    axes.set(xlabel="distance to the shape, mm", ylabel="share of points", xlim=(0, WORST_MM))
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    with replace_on_success(path) as temporary:
        figure.savefig(temporary, format="png")


def _whole(camera: Camera) -> torch.Tensor:
    """Map [1, 2, 3] from the crop to a picture that also holds the ears."""
    ratio = 0.8 * _SIZE / camera.image_size
    shift = (_SIZE - 1) / 2 - ratio * (camera.image_size - 1) / 2
    return torch.tensor([[[ratio, 0, shift], [0, ratio, shift]]])
