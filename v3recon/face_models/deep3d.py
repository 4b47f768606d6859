"""The face model of Deep3DFaceRecon, `BFM_model_front.mat`: 35,709 vertices of the 2009 model.

The file has shape, color, triangles and 68 landmarks. What 3DDFA_V3's file adds (parts, more
landmarks, contour lines, texture coordinates) is carried over from PhotoHead: its mean face is
warped so that the 68 landmarks agree, and each place goes to the nearest vertex.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator
from scipy.spatial import KDTree

from v3recon.face_models.bfm import CONTOUR_LINES, Arrays, bfm_from_arrays
from v3recon.face_models.linear_face_model import PART_NAMES, LinearFaceModel
from v3recon.face_models.photohead import load_photohead
from v3recon.face_models.surfaces import outer_skin
from v3recon.io.mat import read_mat

DEEP3D_VARIABLES = {
    **{"u": "meanshape", "id": "idBase", "exp": "exBase", "u_alb": "meantex", "alb": "texBase"},
    **{"tri": "tri", "point_buf": "point_buf", "ldm68": "keypoints"},
}
"""Keys of 3DDFA_V3's dict to Deep3D's variables; its ids count from 1."""

_COUNTED_FROM_1 = ("tri", "point_buf", "ldm68")
_FAR = 0.12  # decimeters from the nearest PhotoHead vertex beyond which a vertex has no part
_UV_MARGIN = 0.02
_SKIN = PART_NAMES.index("skin") + 1

Points = npt.NDArray[np.float64]


def load_deep3d(path: str | Path) -> LinearFaceModel:
    """Load Deep3D's face model.

    Args:
        path: `BFM_model_front.mat`, of its PyTorch or its first release.

    Returns:
        The model, named "bfm" as 3DDFA_V3's, whose coefficients it shares. The mean face's middle
        is the origin, as in Deep3D's programs.

    Raises:
        ValueError: naming the file, if it is missing, damaged or of another program.
    """
    stored = read_mat(path, list(DEEP3D_VARIABLES.values()))
    arrays: Arrays = {key: stored[name] for key, name in DEEP3D_VARIABLES.items()}
    try:
        for key in _COUNTED_FROM_1:
            arrays[key] = arrays[key].astype(np.int64) - 1
        for key in ("u", "u_alb"):
            arrays[key] = arrays[key].reshape(-1, 1)
        shape = arrays["u"].astype(np.float64).reshape(-1, 3)
        arrays["u"] = (shape - shape.mean(0)).astype(np.float32).reshape(-1, 1)
        index = arrays["ldm68"].reshape(-1)
        if len(index) != 68 or index.min() < 0 or index.max() >= len(shape):
            raise ValueError("'keypoints' is not 68 vertices")
        return bfm_from_arrays(arrays | _annotations(shape - shape.mean(0), arrays["tri"], index))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: not a face model of Deep3D ({error})") from None


def _annotations(
    shape: Points, triangles: npt.NDArray[np.int64], landmarks: npt.NDArray[np.int64]
) -> Arrays:
    """Parts, landmarks, contour lines and texture coordinates in 3DDFA_V3's layout."""
    known = load_photohead()
    mean = known.mean_vertices().numpy().astype(np.float64)
    placed = _warped(mean, mean[known.landmarks_68.numpy()], shape[landmarks])
    nearest = np.asarray(KDTree(shape).query(placed)[1], np.int64)
    # Insides of mouth and eye sockets lie near the lips and lids, and are no part of them.
    outside = (outer_skin(known) | (known.part_labels > 0)).numpy()
    away, source = KDTree(placed[outside]).query(shape)
    labels = np.where(away < _FAR, known.part_labels.numpy()[outside][source], 0)
    labels[labels == 0] = _SKIN  # 3DDFA_V3's parts are a partition
    owner = labels[triangles]
    lines = [line[line >= 0].numpy() for line in known.contour_lines]
    assert len(lines) == CONTOUR_LINES, len(lines)
    return {
        "ldm106": nearest[known.landmarks_106.numpy()],
        "ldm134": nearest[known.landmarks_134.numpy()],
        "parallel": [np.unique(nearest[line]) for line in lines],
        "annotation": [np.flatnonzero(labels == part + 1) for part in range(len(PART_NAMES))],
        "annotation_tri": [
            triangles[(owner == part + 1).all(1)] for part in range(len(PART_NAMES))
        ],
        "uv_coords": _unrolled(shape),
    }


def _warped(points: Points, start: Points, end: Points) -> Points:
    """Points moved by the smoothest map (biharmonic spline) that takes places to others."""
    _, first = np.unique(start.round(6), axis=0, return_index=True)
    spline = RBFInterpolator(start[first], end[first], kernel="linear", degree=1)
    return spline(points)


def _unrolled(shape: Points) -> npt.NDArray[np.float32]:
    """Texture coordinates [V, 2] in 0…1: angle about a vertical axis behind the face, height."""
    x, y, z = (shape - (shape.min(0) + shape.max(0)) / 2).T
    behind = z - z.min() + 0.5 * (z.max() - z.min())
    places = np.stack([np.arctan2(x, behind), y], 1)
    low, high = places.min(0), places.max(0)
    share = (places - low) / (high - low)
    return (_UV_MARGIN + (1 - 2 * _UV_MARGIN) * share).astype(np.float32)
