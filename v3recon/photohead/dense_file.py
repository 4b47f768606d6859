"""Arrays of a PhotoHead file that describe shape (`face_models/photohead.py` reads them)."""

from __future__ import annotations

import numpy as np

from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.photohead.shape import HeadShape

FORMAT_VERSION = 1


def shape_arrays(shape: HeadShape, photo_basis: np.ndarray) -> dict[str, np.ndarray]:
    """Everything about shape.

    Args:
        shape: the built shape space.
        photo_basis: [Vc, 3, 12] expression modes learned from photographs, per unit weight.
    """
    operator = shape.dense.operator
    exp_basis = np.concatenate([shape.arkit_basis, photo_basis], 2)
    names = [*ARKIT_NAMES, *(f"photo{number + 1:02d}" for number in range(photo_basis.shape[2]))]
    return {
        "format_version": np.array(FORMAT_VERSION),
        "mean_shape": shape.mean.astype(np.float32),
        "id_basis": shape.id_basis.astype(np.float16),
        "exp_basis": exp_basis.astype(np.float16),
        "expression_names": np.array(names, dtype=str),
        "faces": shape.triangles.astype(np.uint16),
        "quads": shape.dense.quads.astype(np.uint16),
        "mirror": shape.mirror.astype(np.uint16),
        "surface": shape.surface.astype(np.uint8),
        "eye_centers": shape.eye_centers.astype(np.float32),
        "subdivision_data": operator.data.astype(np.float32),
        "subdivision_indices": operator.indices.astype(np.uint16),
        "subdivision_indptr": operator.indptr.astype(np.int32),
    }
