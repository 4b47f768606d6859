"""The camera of a face in the pixels of its photo, as OpenCV and OpenGL take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import rq

from v3recon.geometry.spherical_harmonics import white_light
from v3recon.reconstruct.faces import Face

Matrix = npt.NDArray[np.float64]

_Y_DOWN = np.diag([1.0, -1.0, -1.0])
"""World axes (x right, y up, z toward the camera) to OpenCV's (x right, y down, z forward)."""


@dataclass(frozen=True)
class PhotoCamera:
    """Pinhole camera of a face; pixel = K (R x + t) after division by the third coordinate.

    Pixels are the photo's: x right, y down, the center of the first pixel is (0, 0), as in OpenCV.
    The camera frame is OpenCV's: x right, y down, z forward; decimeters.

    Attributes:
        image_size: (H, W) of the photo.
        intrinsics: K [3, 3], pixels.
        rotation: R [3, 3] of points of the model frame, the unposed head.
        translation: t [3], decimeters.
        posed_rotation: R [3, 3] of points of the world frame, as `Face.vertices` and the posed
            OBJ and PLY files.
        posed_translation: t [3], decimeters.
        near: nearest depth, decimeters.
        far: farthest depth, decimeters.
    """

    image_size: tuple[int, int]
    intrinsics: Matrix
    rotation: Matrix
    translation: Matrix
    posed_rotation: Matrix
    posed_translation: Matrix
    near: float
    far: float

    def project(self, points: npt.NDArray, *, posed: bool = False) -> Matrix:
        """Points [N, 3] of the model frame, or of the world frame, to photo pixels [N, 2]."""
        rotation = self.posed_rotation if posed else self.rotation
        translation = self.posed_translation if posed else self.translation
        seen = (points @ rotation.T + translation) @ self.intrinsics.T
        return seen[:, :2] / seen[:, 2:]

    def gl_projection(self) -> Matrix:
        """[4, 4] OpenGL projection, acts on columns; y of clip space points up.

        A viewport of the photo's size shows pixel (column, row) at its own place: OpenGL counts
        from the corner of the first pixel, so half a pixel is added.
        """
        height, width = self.image_size
        k, near, far = self.intrinsics, self.near, self.far
        matrix = np.zeros((4, 4))
        matrix[0, :3] = 2 * k[0, 0], -2 * k[0, 1], width - 2 * k[0, 2] - 1
        matrix[0] /= width
        matrix[1, 1:3] = 2 * k[1, 1] / height, (2 * k[1, 2] + 1) / height - 1
        matrix[2, 2:] = -(far + near) / (far - near), -2 * far * near / (far - near)
        matrix[3, 2] = -1
        return matrix

    def gl_view(self, *, posed: bool = False) -> Matrix:
        """[4, 4] OpenGL view of the model frame, or of the world frame; acts on columns."""
        matrix = np.eye(4)
        matrix[:3, :3] = _Y_DOWN @ (self.posed_rotation if posed else self.rotation)
        matrix[:3, 3] = _Y_DOWN @ (self.posed_translation if posed else self.translation)
        return matrix


def photo_camera(face: Face) -> PhotoCamera:
    """The camera that projects a face's vertices to `Face.points_photo`.

    The crop's camera is followed by the affine map from crop to photo. Their product is split into
    an upper triangular K and a rotation about the optical axis (RQ decomposition), which is not
    the identity for heads that were found on their side.

    Args:
        face: the face.
    """
    camera = face.camera
    below = camera.image_size - 1 - camera.center
    crop = np.array([[camera.focal, 0, camera.center], [0, camera.focal, below], [0, 0, 1.0]])
    to_photo = np.eye(3)
    to_photo[:2] = face.crop.inverse_matrix.numpy()
    upper, turn = rq((to_photo @ crop)[:2, :2])
    signs = np.diag(np.sign(np.diag(upper)))
    intrinsics = np.eye(3)
    intrinsics[:2, :2] = upper @ signs
    intrinsics[:2, 2] = (to_photo @ crop)[:2, 2]
    about_axis = np.eye(3)
    about_axis[:2, :2] = signs @ turn
    posed_rotation = about_axis @ _Y_DOWN
    posed_translation = np.array([0.0, 0.0, camera.distance])
    rotation = face.decoded.rotation[0].double().cpu().numpy().T  # acts on columns
    trans = face.coeffs.trans[0].double().cpu().numpy()
    return PhotoCamera(
        image_size=face.image_size,
        intrinsics=intrinsics,
        rotation=posed_rotation @ rotation,
        translation=posed_rotation @ trans + posed_translation,
        posed_rotation=posed_rotation,
        posed_translation=posed_translation,
        near=camera.near,
        far=camera.far,
    )


def camera_values(face: Face) -> Mapping[str, Any]:
    """What `<name>_camera.json` holds; see docs/files.md."""
    camera = photo_camera(face)
    return {
        "image_size": list(camera.image_size),
        "unit": "decimeter",
        "K": camera.intrinsics,
        "R": camera.rotation,
        "t": camera.translation,
        "R_posed": camera.posed_rotation,
        "t_posed": camera.posed_translation,
        "gl_projection": camera.gl_projection(),
        "gl_view": camera.gl_view(),
        "gl_view_posed": camera.gl_view(posed=True),
        "near": camera.near,
        "far": camera.far,
        "light": face.coeffs.sh[0].reshape(3, 9).double().cpu().numpy(),
        "white_light": white_light(face.coeffs.sh)[0].double().cpu().numpy(),
    }
