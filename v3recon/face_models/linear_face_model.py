"""A linear 3D morphable model (Blanz and Vetter 1999) as a module with buffers only."""

from __future__ import annotations

import copy
import hashlib
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from v3recon.face_models.albedo_texture import AlbedoTexture
from v3recon.geometry.mesh import vertex_faces_of
from v3recon.geometry.mesh import vertex_normals as mesh_vertex_normals

PART_NAMES = (
    "right_eye",
    "left_eye",
    "right_eyebrow",
    "left_eyebrow",
    "nose",
    "up_lip",
    "down_lip",
    "skin",
)
"""The eight parts in 3DDFA_V3's order; label p + 1 in label maps, 0 = none."""

_CACHED_FACES = 8


@dataclass(frozen=True)
class SurfacePoints:
    """Points of a mesh's surface that are no vertices.

    Attributes:
        vertices: [N, 3] dense vertex ids, the corners of each point's triangle.
        weights: [N, 3] barycentric, sum 1.
    """

    vertices: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.vertices)

    def of(self, values: Tensor) -> Tensor:
        """Interpolate values [B, V, C] of the dense vertices: [B, N, C]."""
        return torch.einsum("nk,bnkc->bnc", self.weights.to(values), values[:, self.vertices])


@dataclass(frozen=True)
class FaceModelData:
    """Everything a `LinearFaceModel` is made of. Vc = control vertices, V = dense vertices.

    Attributes:
        name: "bfm", "photohead", ...
        mean_shape: [Vc, 3] decimetres.
        id_basis: [Vc, 3, Kid] per standard deviation.
        exp_basis: [Vc, 3, Kexp] per standard deviation.
        mean_albedo: [Va, 3] RGB in 0…1.
        alb_basis: [Va, 3, Kalb] per standard deviation.
        faces: [F, 3] dense triangles.
        part_labels: [V] uint8, 0 none, 1…8 = PART_NAMES.
        part_faces: eight [Fp, 3] triangle sets.
        landmarks_68, landmarks_106, landmarks_134: vertex ids.
        contour_lines: 33 vertex-id lists for landmark marching.
        uv_coords: [V, 2] in 0…1, v up.
        vertex_faces: [V, N] faces around each vertex, filled with F; default computed.
        subdivision: sparse [V, Vc] operator from control to dense shape; None = identity.
        albedo_subdivision: sparse [V, Va] operator for albedo; None = identity.
        named_expressions: name -> expression coefficients [Kexp], e.g. "eyes_closed".
        mirror: [V] id of each vertex's mirror image; empty when unknown.
        exp_names: name of each expression coefficient; empty where they have none.
        exp_sigma: [Kexp] standard deviation of each expression coefficient; None = 1.
        exp_bounds: [Kexp, 2] least and greatest value of each; None = unbounded.
        detector_points: MediaPipe's 468 points on the surface; None where vertices 0…467 are.
        group_labels: [V] surface of each vertex, see the model's own names; None = one surface.
        albedo_texture: the albedo in texture space; None where vertices are all there is.
    """

    name: str
    mean_shape: Tensor
    id_basis: Tensor
    exp_basis: Tensor
    mean_albedo: Tensor
    alb_basis: Tensor
    faces: Tensor
    part_labels: Tensor
    part_faces: tuple[Tensor, ...]
    landmarks_68: Tensor
    landmarks_106: Tensor
    landmarks_134: Tensor
    contour_lines: tuple[Tensor, ...]
    uv_coords: Tensor
    vertex_faces: Tensor | None = None
    subdivision: Tensor | None = None
    albedo_subdivision: Tensor | None = None
    named_expressions: dict[str, Tensor] = field(default_factory=dict)
    mirror: Tensor | None = None
    exp_names: tuple[str, ...] = ()
    exp_sigma: Tensor | None = None
    exp_bounds: Tensor | None = None
    detector_points: SurfacePoints | None = None
    group_labels: Tensor | None = None
    albedo_texture: AlbedoTexture | None = None


class LinearFaceModel(nn.Module):
    """Shape S = mean + id a + exp b and albedo T = mean + alb c, dense = subdivision @ control.

    Coefficients stay outside: every method takes them as tensors. Moving the module moves the
    model; nothing here is trained.
    """

    mean_shape: Tensor
    id_basis: Tensor
    exp_basis: Tensor
    mean_albedo: Tensor
    alb_basis: Tensor
    faces: Tensor
    vertex_faces: Tensor
    part_labels: Tensor
    landmarks_68: Tensor
    landmarks_106: Tensor
    landmarks_134: Tensor
    contour_lines: Tensor
    uv_coords: Tensor
    mirror: Tensor
    subdivision: Tensor | None
    albedo_subdivision: Tensor | None
    exp_sigma: Tensor | None
    exp_bounds: Tensor | None
    group_labels: Tensor | None
    _detector_vertices: Tensor | None
    _detector_weights: Tensor | None

    def __init__(self, data: FaceModelData) -> None:
        """Register buffers; shapes are checked.

        Raises:
            ValueError: if shapes disagree or an index is out of range.
        """
        super().__init__()
        self.name = data.name
        self.source: tuple[str, str | None] | None = None  # arguments of `load_face_model`
        vertex_count = len(data.part_labels)
        _check(data, vertex_count)
        vertex_faces = data.vertex_faces
        if vertex_faces is None:
            vertex_faces = vertex_faces_of(data.faces.long(), vertex_count)
        contour = torch.nn.utils.rnn.pad_sequence(
            [line.long() for line in data.contour_lines], batch_first=True, padding_value=-1
        )
        mirror = torch.zeros(0) if data.mirror is None else data.mirror
        floats = dict(
            mean_shape=data.mean_shape,
            id_basis=data.id_basis,
            exp_basis=data.exp_basis,
            mean_albedo=data.mean_albedo,
            alb_basis=data.alb_basis,
            uv_coords=data.uv_coords,
        )
        indices = dict(
            faces=data.faces,
            vertex_faces=vertex_faces,
            part_labels=data.part_labels,
            landmarks_68=data.landmarks_68,
            landmarks_106=data.landmarks_106,
            landmarks_134=data.landmarks_134,
            contour_lines=contour,
            mirror=mirror,
        )
        for key, value in floats.items():
            self.register_buffer(key, value.float().contiguous(), persistent=False)
        for key, value in indices.items():
            self.register_buffer(key, value.long().contiguous(), persistent=False)
        for part, part_faces in enumerate(data.part_faces):
            self.register_buffer(f"part_faces_{part}", part_faces.long(), persistent=False)
        self.register_buffer("subdivision", _as_csr(data.subdivision), persistent=False)
        self.register_buffer(
            "albedo_subdivision", _as_csr(data.albedo_subdivision), persistent=False
        )
        self.register_buffer("exp_sigma", data.exp_sigma, persistent=False)
        self.register_buffer("exp_bounds", data.exp_bounds, persistent=False)
        self.register_buffer("group_labels", data.group_labels, persistent=False)
        points = data.detector_points
        for key in ("vertices", "weights"):
            value = None if points is None else getattr(points, key)
            self.register_buffer(f"_detector_{key}", value, persistent=False)
        self.exp_names = data.exp_names
        self.albedo_texture = data.albedo_texture
        self.named_expressions = {k: v.float() for k, v in data.named_expressions.items()}
        self.content_hash = _hash(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> LinearFaceModel:
        """A model with buffers of its own; torch cannot copy sparse ones by itself."""
        twin = copy.copy(self)
        twin._buffers = {
            key: None if value is None else value.clone() for key, value in self._buffers.items()
        }
        memo[id(self)] = twin
        return twin

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of identity, expression and albedo coefficients."""
        return self.id_basis.shape[-1], self.exp_basis.shape[-1], self.alb_basis.shape[-1]

    @property
    def vertex_count(self) -> int:
        """V, dense vertices."""
        return self.part_labels.shape[0]

    @property
    def part_faces(self) -> tuple[Tensor, ...]:
        """The eight parts' own triangles, [Fp, 3] each, in the order of PART_NAMES."""
        return tuple(getattr(self, f"part_faces_{part}") for part in range(len(PART_NAMES)))

    def control_vertices(self, id_coeffs: Tensor, exp_coeffs: Tensor) -> Tensor:
        """Control mesh [B, Vc, 3] (the dense mesh itself where there is no subdivision).

        Args:
            id_coeffs: [B, Kid].
            exp_coeffs: [B, Kexp].
        """
        count = self.mean_shape.numel()
        offset = torch.addmm(
            self.mean_shape.reshape(1, count),
            id_coeffs,
            self.id_basis.reshape(count, -1).T,
        )
        offset = torch.addmm(offset, exp_coeffs, self.exp_basis.reshape(count, -1).T)
        return offset.reshape(-1, count // 3, 3)

    def vertices(self, id_coeffs: Tensor, exp_coeffs: Tensor) -> Tensor:
        """Unposed dense vertices.

        Args:
            id_coeffs: [B, Kid].
            exp_coeffs: [B, Kexp].

        Returns:
            [B, V, 3] model frame, decimetres.
        """
        return _subdivide(self.subdivision, self.control_vertices(id_coeffs, exp_coeffs))

    def mean_vertices(self) -> Tensor:
        """The mean face [V, 3], model frame, decimetres."""
        return self.vertices(*(self.mean_shape.new_zeros(1, size) for size in self.sizes[:2]))[0]

    def albedo(self, alb_coeffs: Tensor) -> Tensor:
        """Reflectance of the dense vertices, not clamped.

        Args:
            alb_coeffs: [B, Kalb].

        Returns:
            [B, V, 3] RGB, 0…1.
        """
        count = self.mean_albedo.numel()
        values = torch.addmm(
            self.mean_albedo.reshape(1, count), alb_coeffs, self.alb_basis.reshape(count, -1).T
        )
        return _subdivide(self.albedo_subdivision, values.reshape(-1, count // 3, 3))

    def shape_basis_at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and stacked basis of chosen dense vertices, for fitting and for landmark losses.

        Args:
            index: [L] dense vertex ids.

        Returns:
            mean [L, 3] and basis [L, 3, Kid + Kexp].
        """
        basis = torch.cat([self.id_basis, self.exp_basis], -1)
        if self.subdivision is None:
            return self.mean_shape[index], basis[index]
        control = len(self.mean_shape)
        rows = _dense_rows(self.subdivision, index)
        mean = rows @ self.mean_shape
        return mean, (rows @ basis.reshape(control, -1)).reshape(len(index), 3, -1)

    @property
    def detector_points(self) -> SurfacePoints | None:
        """MediaPipe's 468 points; None where the model does not say where they are."""
        if self._detector_vertices is None or self._detector_weights is None:
            return None
        return SurfacePoints(self._detector_vertices, self._detector_weights)

    def known_detector_points(self) -> SurfacePoints:
        """`detector_points` where they are needed.

        Raises:
            ValueError: if the model does not say where these points are.
        """
        if self.detector_points is None:
            raise ValueError(f"the face model {self.name!r} does not say where detected points are")
        return self.detector_points

    def at_detector(self, values: Tensor) -> Tensor:
        """Values [B, V, C] of the vertices at `known_detector_points`, [B, 468, C]."""
        return self.known_detector_points().of(values)

    def shape_basis_of(self, points: SurfacePoints) -> tuple[Tensor, Tensor]:
        """Mean [N, 3] and stacked basis [N, 3, Kid + Kexp] of points of the surface."""
        mean, basis = self.shape_basis_at(points.vertices.reshape(-1))
        weights = points.weights.to(mean)
        mean = (weights[..., None] * mean.reshape(*weights.shape, 3)).sum(1)
        basis = basis.reshape(*weights.shape, 3, -1)
        return mean, (weights[..., None, None] * basis).sum(1)

    def normals(self, vertices: Tensor) -> Tensor:
        """Unit vertex normals [B, V, 3] in the frame of `vertices` [B, V, 3]."""
        return mesh_vertex_normals(vertices, self.faces, self.vertex_faces)


def linear_offsets(basis: Tensor, code: Tensor) -> Tensor:
    """Modes [N, C, K] times coefficients [B, K], [B, N, C]."""
    return (code @ basis.flatten(0, 1).T).unflatten(1, basis.shape[:2])


def linear_points(mean: Tensor, basis: Tensor, code: Tensor) -> Tensor:
    """Mean [N, C] plus `linear_offsets`, [B, N, C]."""
    return mean + linear_offsets(basis, code)


def _subdivide(operator: Tensor | None, control: Tensor) -> Tensor:
    """Dense values [B, V, 3] of control values [B, Vc, 3]."""
    if operator is None:
        return control
    batch, count, channels = control.shape
    if control.is_cuda or (torch.is_grad_enabled() and control.requires_grad):
        flat = control.permute(1, 0, 2).reshape(count, batch * channels)
        dense = (operator @ flat).reshape(-1, batch, channels)
        return dense.permute(1, 0, 2).contiguous()
    # A few faces at a time stay in the processor's cache, four times faster than all at once;
    # summing bags of rows is a sparse product that needs no gradient here.
    dense = control.new_empty(batch, operator.shape[0], channels)
    columns, offsets = operator.col_indices().int(), operator.crow_indices().int()
    for start in range(0, batch, _CACHED_FACES):
        part = control[start : start + _CACHED_FACES]
        rows = torch.nn.functional.embedding_bag(
            columns,
            part.permute(1, 0, 2).reshape(count, len(part) * channels),
            offsets,
            mode="sum",
            per_sample_weights=operator.values(),
            include_last_offset=True,
        )
        dense[start : start + _CACHED_FACES] = rows.unflatten(1, (-1, channels)).transpose(0, 1)
    return dense


def _dense_rows(operator: Tensor, index: Tensor) -> Tensor:
    """Chosen rows [L, Vc] of a CSR matrix, which torch cannot index by rows."""
    start = operator.crow_indices()[index]
    count = operator.crow_indices()[index + 1] - start
    row = torch.repeat_interleave(torch.arange(len(index), device=index.device), count)
    first = torch.cumsum(count, 0) - count
    entry = torch.arange(len(row), device=index.device) + (start - first)[row]
    rows = torch.zeros(len(index), operator.shape[1], device=index.device)
    rows[row, operator.col_indices()[entry]] = operator.values()[entry]
    return rows


def _as_csr(operator: Tensor | None) -> Tensor | None:
    if operator is None:
        return None
    if operator.layout == torch.sparse_csr:
        return operator.float()
    with warnings.catch_warnings():  # torch calls the format beta once per process
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return operator.coalesce().float().to_sparse_csr()


def _check(data: FaceModelData, vertex_count: int) -> None:
    """Raise ValueError for shapes that disagree or indices out of range."""

    def expect(condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(f"face model {data.name!r}: {message}")

    control = len(data.mean_shape)
    for key in ("id_basis", "exp_basis"):
        shape = tuple(getattr(data, key).shape)
        expect(
            len(shape) == 3 and shape[:2] == (control, 3),
            f"{key} is {shape}, not ({control}, 3, K)",
        )
    expect(
        tuple(data.alb_basis.shape[:2]) == (len(data.mean_albedo), 3),
        f"alb_basis is {tuple(data.alb_basis.shape)}, not ({len(data.mean_albedo)}, 3, K)",
    )
    for operator, rows, key in (
        (data.subdivision, control, "mean_shape"),
        (data.albedo_subdivision, len(data.mean_albedo), "mean_albedo"),
    ):
        expected = vertex_count if operator is None else operator.shape[1]
        expect(rows == expected, f"{key} has {rows} rows, expected {expected}")
    expect(
        tuple(data.uv_coords.shape) == (vertex_count, 2),
        f"uv_coords is {tuple(data.uv_coords.shape)}, not ({vertex_count}, 2)",
    )
    expect(len(data.part_faces) == len(PART_NAMES), f"{len(data.part_faces)} part face sets, not 8")
    expect(len(data.contour_lines) == 33, f"{len(data.contour_lines)} contour lines, not 33")
    indices = {
        "faces": data.faces,
        "landmarks_68": data.landmarks_68,
        "landmarks_106": data.landmarks_106,
        "landmarks_134": data.landmarks_134,
        **{f"part_faces[{p}]": f for p, f in enumerate(data.part_faces)},
        **{f"contour_lines[{i}]": line for i, line in enumerate(data.contour_lines)},
    }
    for key, index in indices.items():
        if index.numel():
            low, high = int(index.min()), int(index.max())
            expect(
                low >= 0 and high < vertex_count,
                f"{key} has vertex ids {low}…{high}, not 0…{vertex_count - 1}",
            )
    for key, count in (("landmarks_68", 68), ("landmarks_106", 106), ("landmarks_134", 134)):
        found = len(getattr(data, key))
        expect(found == count, f"{key} has {found} entries")


def _hash(model: LinearFaceModel) -> str:
    """Short fingerprint of the shape space, to tie checkpoints to the model they were made for."""
    digest = hashlib.sha256()
    for buffer in (model.mean_shape, model.id_basis, model.exp_basis, model.faces):
        digest.update(buffer.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
