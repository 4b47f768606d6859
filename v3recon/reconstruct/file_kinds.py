"""Files of a face that other programs write: Deep3D, PRNet, 3DDFA. One writer for each kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from v3recon.io import obj, ply
from v3recon.io.atomic import replace_on_success
from v3recon.io.images import write_png, write_png_16
from v3recon.io.mat import write_mat
from v3recon.reconstruct.alignment import dense_pose, points_photo_3d, visible_in_photo
from v3recon.reconstruct.deep3d_values import deep3d_values
from v3recon.reconstruct.draw import draw_landmarks
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.photo_camera import camera_values
from v3recon.reconstruct.photo_maps import (
    PhotoRaster,
    depth_map,
    depth_preview,
    depth_steps,
    draw_in_photo,
    paf_image,
    pncc_image,
    sampled_colors,
)
from v3recon.reconstruct.pose_picture import draw_pose
from v3recon.reconstruct.texture import Appearance, extract_texture
from v3recon.reconstruct.values import to_numpy, write_json
from v3recon.uv.bake import sample_uv, uv_layout

_COLOR_TEXTURE = 512  # texels a side: enough for one color a vertex


@dataclass(frozen=True)
class FaceInPhoto:
    """A face and what several of its files need, made at first use.

    Attributes:
        face: the face.
        image: [H, W, 3] uint8 RGB, its photo.
        appearance: of the face.
        front: meshes are of the unposed head.
    """

    face: Face
    image: np.ndarray
    appearance: Appearance
    front: bool = False

    @property
    def vertices(self) -> np.ndarray:
        """[V, 3] decimeters, posed, or of the unposed head with `front`."""
        face = self.face
        return to_numpy(face.decoded.model_vertices[0] if self.front else face.vertices)

    @property
    def triangles(self) -> np.ndarray:
        """[F, 3] vertex ids."""
        return self.face.triangles.cpu().numpy()

    @cached_property
    def raster(self) -> PhotoRaster:
        """The face's triangles in the photo."""
        return draw_in_photo(self.face)

    @cached_property
    def sampled(self) -> Tensor:
        """[V, 3] RGB 0…1, the photo at the vertices, hidden ones as well."""
        return sampled_colors(self.face, self.image)

    @cached_property
    def completed(self) -> np.ndarray:
        """[V, 3] RGB 0…1, the photo at seen vertices, a plausible color at hidden ones."""
        known = {"appearance": self.appearance, "workers": 1}
        texture = extract_texture(self.face.batch, self.image, _COLOR_TEXTURE, **known)
        return sample_uv(texture.texture, uv_layout(self.face.model, _COLOR_TEXTURE))[0] / 255


@dataclass(frozen=True)
class FileKind:
    """Files that are written together.

    Attributes:
        about: what they are, for `--help`.
        endings: of their names, behind the face's.
        write: writes them; the paths come in the order of the endings.
    """

    about: str
    endings: tuple[str, ...]
    write: Callable[[Sequence[Path], FaceInPhoto], None]


def _write_ply(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    ply.write_ply(paths[0], shown.vertices, shown.triangles, shown.completed)


def _write_sampled(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    obj.write_obj(paths[0], shown.vertices, shown.triangles, colors=shown.sampled.numpy())


def _write_landmarks(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    model, points = shown.face.model, to_numpy(points_photo_3d(shown.face.batch)[0])
    sets = model.landmarks_68, model.landmarks_106, model.landmarks_134
    for path, index in zip(paths, sets, strict=True):
        with replace_on_success(path) as temporary:
            np.savetxt(temporary, points[index.cpu().numpy()], fmt="%.3f")


def _write_vertices(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    points = to_numpy(points_photo_3d(shown.face.batch)[0])
    visible = visible_in_photo(shown.face, shown.appearance, shown.raster).cpu().numpy()
    pose = dense_pose(shown.face.batch)
    arrays = {
        "vertices": points,
        "vertex": points.T,
        "colors": shown.sampled.numpy(),
        "triangles": shown.triangles.astype(np.int32),
        "visible": visible.astype(np.uint8)[:, None],
        "pose_angles": to_numpy(pose.angle_degrees),
        "pose_scale": to_numpy(pose.scale)[:, None],
        "pose_rotation": to_numpy(pose.rotation[0]),
        "pose_translation": to_numpy(pose.translation),
    }
    write_mat(paths[0], arrays)
    write_png(paths[1], draw_landmarks(shown.image, points[visible, :2], radius=0.5))


def _write_camera(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    write_json(paths[0], camera_values(shown.face), decimals=9)


def _write_depth(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    depth = depth_map(shown.face, shown.raster)
    write_png_16(paths[0], depth_steps(depth))
    write_png(paths[1], depth_preview(depth))


def _write_pncc(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    write_png(paths[0], pncc_image(shown.face, shown.raster))


def _write_paf(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    write_png(paths[0], paf_image(shown.face, shown.image))


def _write_pose(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    write_png(paths[0], draw_pose(shown.face, shown.image))


def _write_deep3d(paths: Sequence[Path], shown: FaceInPhoto) -> None:
    write_mat(paths[0], deep3d_values(shown.face, shown.image, shown.appearance))


FILE_KINDS = {
    "ply": FileKind("mesh with colors, binary", (".ply",), _write_ply),
    "sampled": FileKind("OBJ colored by the photo", ("_sampled.obj",), _write_sampled),
    "landmarks": FileKind(
        "landmarks with depth, text",
        ("_ldm68.txt", "_ldm106.txt", "_ldm134.txt"),
        _write_landmarks,
    ),
    "vertices": FileKind(
        "all vertices in the photo, visibility, their pose",
        ("_vertices.mat", "_vertices.png"),
        _write_vertices,
    ),
    "camera": FileKind("K, R, t, OpenGL matrices, light", ("_camera.json",), _write_camera),
    "depth": FileKind(
        "16-bit picture and preview", ("_depth.png", "_depth_preview.png"), _write_depth
    ),
    "pncc": FileKind("coordinate code in the photo", ("_pncc.png",), _write_pncc),
    "paf": FileKind("patches around 64 x 64 anchors", ("_paf.png",), _write_paf),
    "pose": FileKind("box and axes in the photo", ("_pose.png",), _write_pose),
    "deep3d": FileKind("Deep3D's .mat", (".mat",), _write_deep3d),
}
"""Names of `--also`."""


def known_kinds(names: Sequence[str]) -> tuple[str, ...]:
    """Names of `FILE_KINDS` in its order; "all" stands for all of them.

    Raises:
        ValueError: for a name that is not known.
    """
    for name in names:
        if name != "all" and name not in FILE_KINDS:
            raise ValueError(f"also: {name!r} is not known; known: all, {', '.join(FILE_KINDS)}")
    return tuple(name for name in FILE_KINDS if name in names or "all" in names)


def write_kinds(folder: Path, name: str, shown: FaceInPhoto, kinds: Sequence[str]) -> list[Path]:
    """Write files of the kinds into a folder.

    Args:
        folder: exists.
        name: start of the files' names.
        shown: the face.
        kinds: names of `FILE_KINDS`, or "all".

    Returns:
        The files.

    Raises:
        ValueError: for a kind that is not known.
    """
    written: list[Path] = []
    for kind in map(FILE_KINDS.__getitem__, known_kinds(kinds)):
        paths = [folder / f"{name}{ending}" for ending in kind.endings]
        kind.write(paths, shown)
        written += paths
    return written
