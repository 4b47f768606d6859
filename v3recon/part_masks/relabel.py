"""A copy of a face model file with other part labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from v3recon.face_models.bfm import bfm_from_arrays, read_pickled_dict
from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.face_models.parts import faces_of_labels
from v3recon.face_models.photohead import load_photohead
from v3recon.face_models.save import write_official_arrays, write_open_arrays
from v3recon.io.arrays import read_npz
from v3recon.part_masks.labels import Labels, read_labels


def relabel_model_file(source: str | Path, labels_file: str | Path, target: str | Path) -> None:
    """Copy a model file; only its part labels change.

    Args:
        source: `.npy` in the official layout or a PhotoHead `.npz`.
        labels_file: `.npy` or `.csv`, one label a vertex.
        target: file of the same kind.

    Raises:
        ValueError: if the kinds differ, a file is malformed, or the labels do not fit.
    """
    source, target = Path(source), Path(target)
    kind = source.suffix.lower()
    if kind not in (".npy", ".npz") or target.suffix.lower() != kind:
        raise ValueError(f"{source} and {target} must both be .npy (official) or .npz (PhotoHead)")
    if kind == ".npz":
        labels = read_labels(labels_file, load_photohead(source).vertex_count)
        arrays = read_npz(source)
        arrays["part_labels"] = labels
        write_open_arrays(target, arrays)
        return
    arrays = read_pickled_dict(source)
    labels = read_labels(labels_file, bfm_from_arrays(arrays).vertex_count)
    write_official_arrays(target, arrays | official_annotation(labels, arrays["tri"]))


def official_annotation(labels: Labels, triangles: Any) -> dict[str, list]:
    """The keys `annotation` and `annotation_tri` of the official layout.

    Args:
        labels: [V] 0…8.
        triangles: [F, 3].
    """
    faces = torch.from_numpy(np.asarray(triangles, np.int64))
    part_faces = faces_of_labels(torch.from_numpy(labels.astype(np.int64)), faces)
    return {
        "annotation": [
            np.flatnonzero(labels == part + 1).tolist() for part in range(len(PART_NAMES))
        ],
        "annotation_tri": [part.numpy() for part in part_faces],
    }
