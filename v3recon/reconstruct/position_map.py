"""Position maps: a face's surface in the photo, laid out in its face model's texture space (PRNet).

Texel (column c, row r) of a map is the place of the texture that `uv.bake` says, row 0 at v = 1
(Feng et al., ECCV 2018, section 3.1).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import KDTree

from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.surfaces import GROUP_NAMES
from v3recon.losses.position_map import position_map_weights
from v3recon.reconstruct.alignment import points_photo_3d
from v3recon.reconstruct.faces import Face
from v3recon.uv.bake import bake, uv_layout

MAP_SIZE = 256
"""Side of PRNet's maps, texels."""
_INNER = ("right_eye", "left_eye", "nose", "up_lip", "down_lip")


def position_map(face: Face, size: int = MAP_SIZE) -> npt.NDArray[np.float32]:
    """Where each place of a face's texture lies in the photo.

    Args:
        face: the face.
        size: side of the map, texels.

    Returns:
        [S, S, 3] photo pixels: x right, y down, z toward the camera, 0 at the head's origin
        (`alignment.points_photo_3d`); zeros where the texture shows nothing of the face.
    """
    layout = uv_layout(face.model, size)
    return bake(points_photo_3d(face.batch), layout)[0] * layout.inside[..., None]


def map_weights(model: LinearFaceModel, size: int = MAP_SIZE) -> npt.NDArray[np.float32]:
    """PRNet's weights of the loss on position maps.

    16 at the 68 landmarks, 4 at eyes, nose and mouth, 3 at skin and brows, 0 at what is no part of
    the face, as the neck, and at eyeballs, whose front and back lie over each other.

    Args:
        model: the face model.
        size: side of the maps, texels.

    Returns:
        [S, S].
    """
    layout = uv_layout(model, size)
    corner = layout.bary.argmax(2)[..., None]
    vertex = np.take_along_axis(layout.faces[layout.triangle], corner, 2)[..., 0]
    label = model.part_labels.cpu().numpy()[vertex] * layout.inside
    if model.group_labels is not None:
        eyeballs = GROUP_NAMES.index("eyeballs")
        label = label * (model.group_labels.cpu().numpy()[vertex] != eyeballs)
    columns, rows = landmark_texels(model, size)
    key = np.zeros((size, size), bool)
    key[rows, columns] = True
    inner = np.isin(label, [PART_NAMES.index(name) + 1 for name in _INNER])
    return position_map_weights(*(torch.from_numpy(one) for one in (key, inner, label > 0))).numpy()


def landmark_texels(model: LinearFaceModel, size: int = MAP_SIZE) -> npt.NDArray[np.int64]:
    """Columns and rows [2, 68] of the 68 landmarks in a map (PRNet's `uv_kpt_ind`).

    `position_map(face)[rows, columns]` are the landmarks, to a texel. On the rim of a mouth that is
    open in the texture it is the nearest texel that shows the face.
    """
    layout = uv_layout(model, size)
    rows, columns = np.nonzero(layout.inside)
    places = layout.uv_pixels[model.landmarks_68.cpu().numpy()]
    _, nearest = KDTree(np.stack([columns, rows], 1)).query(places)
    return np.stack([columns[nearest], rows[nearest]])
