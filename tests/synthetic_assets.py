"""A made-up face in the official 3DDFA_V3 asset format, for tests and benchmarks.

The shape is a height field over (azimuth, height): a smooth head front with a nose, eye sockets,
brows and lips. It looks like a face from afar and has everything that the official model has:
parts, landmark sets, contour lines, uv, smooth bases. Its networks have random weights.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch

from v3recon.face_models.bfm import bfm_from_arrays
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.mesh import vertex_faces_of

OFFICIAL_VERTEX_COUNT = 35_709
OFFICIAL_SIZE = {"rows": 189, "columns": 189, "vertex_count": OFFICIAL_VERTEX_COUNT}
"""Arguments for a model of the official size (35,709 vertices, 70,664 triangles)."""

TOP, BOTTOM = 1.05, -1.15  # decimetres
FILL = 0.93  # so that the posed face stays inside the 224-pixel crop
SIDE = np.deg2rad(100)  # the surface goes a little past the silhouette
EYE_X, EYE_Y = 0.32, 0.28
BROW_Y = 0.47
MOUTH_Y = -0.50
CONTOUR_LINES = 33
RESTRAINT = {"resnet50": 0.7, "mbnetv3": 0.15}  # photographs excite the small one far more


def write_official_assets(
    folder: str | Path,
    rows: int = 44,
    columns: int = 34,
    vertex_count: int | None = None,
    seed: int = 0,
    networks: tuple[str, ...] = ("resnet50", "mbnetv3"),
) -> Path:
    """Write face_model.npy, similarity_Lm3D_all.mat, net_recon.pth and net_recon_mbnet.pth.

    Args:
        folder: made if absent.
        rows: grid rows from forehead to neck.
        columns: grid columns from ear to ear.
        vertex_count: cut the grid to so many vertices; default all.
        seed: of the bases and the weights.
        networks: which networks to write (resnet50 is 96 MB).

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = official_arrays(rows, columns, vertex_count, seed=seed)
    np.save(folder / "face_model.npy", np.array(arrays, dtype=object), allow_pickle=True)
    landmarks = arrays["u"].reshape(-1, 3)[arrays["ldm68"]]
    scipy.io.savemat(folder / "similarity_Lm3D_all.mat", {"lm": landmarks.astype(np.float64)})
    files = {"resnet50": "net_recon.pth", "mbnetv3": "net_recon_mbnet.pth"}
    for backbone in networks:
        torch.save({"net_recon": random_network(backbone, seed)}, folder / files[backbone])
    return folder


def tiny_face_model(rows: int = 30, columns: int = 15, seed: int = 0) -> LinearFaceModel:
    """A face model of 450 vertices and 10 + 8 + 6 coefficients, through the official loader."""
    return bfm_from_arrays(official_arrays(rows, columns, sizes=(10, 8, 6), seed=seed))


def synthetic_face_model(
    rows: int = 44, columns: int = 34, vertex_count: int | None = None, seed: int = 0
) -> LinearFaceModel:
    """The model of `write_official_assets` without the disk; 80 + 64 + 80 coefficients."""
    return bfm_from_arrays(official_arrays(rows, columns, vertex_count, seed=seed))


def official_arrays(
    rows: int = 44,
    columns: int = 34,
    vertex_count: int | None = None,
    sizes: tuple[int, int, int] = (80, 64, 80),
    seed: int = 0,
) -> dict[str, Any]:
    """The 14 keys of `face_model.npy` for a made-up face."""
    if rows < 19 or columns < 9:
        raise ValueError(f"a {rows} x {columns} grid is too coarse for 33 contour lines")
    rng = np.random.default_rng(seed)
    count = rows * columns if vertex_count is None else vertex_count
    azimuth, height = np.meshgrid(_dense_in_front(columns), np.linspace(TOP, BOTTOM, rows))
    azimuth, height = azimuth.reshape(-1)[:count], height.reshape(-1)[:count]
    shape = _surface(azimuth, height)
    tri = _grid_triangles(rows, columns)
    tri = tri[(tri < count).all(1)]
    point_buf = vertex_faces_of(torch.from_numpy(tri), count, width=8).numpy()
    labels = _part_labels(shape / FILL, azimuth)
    ldm68, ldm106, ldm134 = _landmarks(shape / FILL, azimuth)
    grid = np.stack([azimuth / SIDE, (height - BOTTOM) / (TOP - BOTTOM) * 2 - 1], 1)
    bases = {
        "id": _smooth_basis(grid, sizes[0], 0.030, 3, rng),
        "exp": _smooth_basis(grid, sizes[1], 0.020, 4, rng),
        "alb": _smooth_basis(grid, sizes[2], 8.0, 4, rng),
    }
    return {
        "u": shape.reshape(-1, 1).astype(np.float32),
        **bases,
        "u_alb": _colors(labels, shape / FILL).reshape(-1, 1).astype(np.float32),
        "tri": tri,
        "point_buf": point_buf,
        "uv_coords": (0.5 + 0.48 * grid).astype(np.float32),
        "ldm68": ldm68,
        "ldm106": ldm106,
        "ldm134": ldm134,
        "annotation": [np.flatnonzero(labels == p).tolist() for p in range(8)],
        "annotation_tri": [tri[(labels[tri] == p).all(1)] for p in range(8)],
        "parallel": _contour_lines(rows, columns, azimuth, shape),
    }


@functools.cache  # some seconds; callers must not write to it
def random_network(backbone: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """State dict of a network with random weights that gives believable coefficients.

    Batch-norm statistics and heads are set from a batch of random smooth pictures, so that
    activations neither vanish nor explode and different pictures give different faces.
    """
    from v3recon.networks.regressor import Regressor

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Regressor(backbone)
        pictures = _random_pictures(16)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # cumulative mean: one pass sets the statistics
        with torch.no_grad():
            network.train()
            network.backbone(pictures)
            network.eval()
            features = network.backbone(pictures)
            scales = (0.7, 0.6, 0.7, 0.15, 0.08, 0.05, 0.08)  # id exp alb angle sh txy tz
            for head, scale in zip(network.final_layers, scales, strict=True):
                weight = torch.randn(head.weight.shape[:2])
                weight *= RESTRAINT[backbone] * scale / (features @ weight.T).std(0).mean()
                head.weight.copy_(weight[..., None, None])
                head.bias.copy_(-(features.mean(0) @ weight.T))
    return {key: value.clone() for key, value in network.state_dict().items()}


def _random_pictures(count: int) -> torch.Tensor:
    """[B, 3, 224, 224] pictures with detail of all sizes, from smooth to noisy, grey to colored."""
    pictures = torch.rand(count, 3, 1, 1) * 0.6 + 0.2
    roughness = torch.rand(count, 1, 1, 1)
    contrast = 0.1 + 0.4 * torch.rand(count, 1, 1, 1)
    color = torch.rand(count, 1, 1, 1)
    for octave, detail in enumerate((4, 8, 16, 32, 64, 128, 224)):
        noise = torch.randn(count, 3, detail, detail)
        noise = color * noise + (1 - color) * noise[:, :1]
        noise = torch.nn.functional.interpolate(noise, size=224, mode="bilinear")
        pictures = pictures + contrast * roughness**octave * noise
    return pictures.clamp(0, 1)


def _dense_in_front(columns: int) -> np.ndarray:
    """Azimuths from the viewer's left ear to the right, closer together in front."""
    step = np.linspace(-1, 1, columns)
    return SIDE * (0.6 * step + 0.4 * step**3)


def _surface(azimuth: np.ndarray, height: np.ndarray) -> np.ndarray:
    """[V, 3] decimetres: an egg with a nose, brows, sockets and lips."""
    up = (height + 0.05) / 1.25
    width = 0.78 * np.sqrt(np.clip(1 - up**2, 0.16, 1)) * np.where(height < 0, 1 + 0.18 * height, 1)
    x = width * np.sin(azimuth)
    z = 0.72 * np.sqrt(np.clip(1 - (height / 1.6) ** 2, 0.2, 1)) * np.cos(azimuth) - 0.35

    def bump(center: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
        front = np.cos(azimuth) > 0
        distance = ((x - center[0]) / size[0]) ** 2 + ((height - center[1]) / size[1]) ** 2
        return np.exp(-distance) * front

    z = z + 0.26 * bump((0, -0.12), (0.11, 0.14)) + 0.13 * bump((0, 0.12), (0.09, 0.24))
    for side in (-1, 1):
        z = z - 0.07 * bump((side * EYE_X, EYE_Y), (0.17, 0.10))
        z = z + 0.035 * bump((side * EYE_X, BROW_Y), (0.20, 0.05))
    z = z + 0.05 * bump((0, MOUTH_Y + 0.06), (0.20, 0.05))
    z = z + 0.05 * bump((0, MOUTH_Y - 0.07), (0.18, 0.06))
    z = z + 0.10 * bump((0, -0.92), (0.22, 0.16))
    return np.stack([x, height, z], 1) * FILL


def _grid_triangles(rows: int, columns: int) -> np.ndarray:
    """[F, 3] counter-clockwise from outside; row 0 is the top, column 0 the viewer's left."""
    top_left = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    top_right, low_left, low_right = top_left + 1, top_left + columns, top_left + columns + 1
    first = np.stack([top_left, low_left, top_right], 1)
    second = np.stack([top_right, low_left, low_right], 1)
    return np.stack([first, second], 1).reshape(-1, 3).astype(np.int64)


def _part_labels(shape: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """[V] 0…7 in the order of PART_NAMES; the person's right is the viewer's left, x < 0."""
    x, y = shape[:, 0], shape[:, 1]
    front = np.abs(azimuth) < np.deg2rad(75)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return front & (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)

    labels = np.full(len(shape), 7)
    labels[ellipse(0, 0.02, 0.17, 0.26) | ellipse(0, -0.14, 0.20, 0.13)] = 4
    for part, side in ((0, -1), (1, 1)):
        labels[ellipse(side * EYE_X, EYE_Y, 0.17, 0.085)] = part
        labels[ellipse(side * EYE_X, BROW_Y, 0.22, 0.06)] = 2 + part
    mouth = ellipse(0, MOUTH_Y, 0.28, 0.135)
    labels[mouth & (y >= MOUTH_Y)] = 5
    labels[mouth & (y < MOUTH_Y)] = 6
    return labels


def _colors(labels: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """[V, 3] mean albedo, 0…255."""
    table = np.array(
        [[225, 215, 205]] * 2
        + [[75, 55, 45]] * 2
        + [[205, 150, 125]]
        + [[170, 80, 80]] * 2
        + [[200, 150, 125]],
        dtype=np.float64,
    )
    colors = table[labels]
    for side in (-1, 1):  # irises
        iris = ((shape[:, 0] - side * EYE_X) ** 2 + (shape[:, 1] - EYE_Y) ** 2) < 0.06**2
        colors[iris & (labels < 2)] = (60, 45, 40)
    return colors


def _ring(cx: float, cy: float, rx: float, ry: float, count: int, start: float = 180) -> np.ndarray:
    """Points on an ellipse, clockwise as seen by the viewer, from `start` degrees."""
    angle = np.deg2rad(start) - np.arange(count) * 2 * np.pi / count
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1)


def _line(x0: float, y0: float, x1: float, y1: float, count: int, bow: float = 0) -> np.ndarray:
    step = np.linspace(0, 1, count)
    bowed = y0 + (y1 - y0) * step + bow * np.sin(np.pi * step)
    return np.stack([x0 + (x1 - x0) * step, bowed], 1)


def _brow(side: int, count: int) -> np.ndarray:
    outer, inner = side * (EYE_X + 0.19), side * (EYE_X - 0.19)
    x0, x1 = (outer, inner) if side < 0 else (inner, outer)
    return _line(x0, BROW_Y, x1, BROW_Y, count, 0.03)


def _contour_targets(count: int) -> np.ndarray:
    """(azimuth, height) from the viewer's left ear over the chin to the right ear."""
    step = np.linspace(-1, 1, count)
    return np.stack(
        [np.deg2rad(84) * np.sign(step) * np.abs(step) ** 0.8, -1.05 + 1.35 * np.abs(step) ** 1.3],
        1,
    )


def _landmarks(shape: np.ndarray, azimuth: np.ndarray) -> tuple[np.ndarray, ...]:
    """Vertex ids of the sets 68 (iBUG order), 106 (33 contour first) and 134."""
    front = np.flatnonzero(np.abs(azimuth) < np.deg2rad(80))

    def nearest(points: np.ndarray) -> np.ndarray:
        """Nearest front vertices, each used once within a set."""
        free = np.ones(len(front), bool)
        chosen = []
        for point in points:
            distance = ((shape[front, :2] - point) ** 2).sum(1)
            distance[~free] = np.inf
            best = int(distance.argmin())
            free[best] = False
            chosen.append(front[best])
        return np.array(chosen, dtype=np.int64)

    def contour(count: int) -> np.ndarray:
        targets = _contour_targets(count)
        own = np.stack([azimuth, shape[:, 1]], 1)
        distance = ((own[None] - targets[:, None]) ** 2).sum(2)
        return distance.argmin(1).astype(np.int64)

    eyes = [(-EYE_X, EYE_Y), (EYE_X, EYE_Y)]
    outer, inner = (0.27, 0.12), (0.20, 0.04)
    inner_68 = np.concatenate(
        [
            _brow(-1, 5),
            _brow(1, 5),
            _line(0, 0.25, 0, -0.10, 4),
            _line(-0.14, -0.24, 0.14, -0.24, 5, -0.03),
            *(_ring(*eye, 0.15, 0.06, 6) for eye in eyes),
            _ring(0, MOUTH_Y, *outer, 12),
            _ring(0, MOUTH_Y, *inner, 8),
        ]
    )
    inner_106 = np.concatenate(
        [
            _ring(-EYE_X, BROW_Y, 0.19, 0.04, 9),
            _ring(EYE_X, BROW_Y, 0.19, 0.04, 9),
            _line(0, 0.25, 0, -0.10, 4),
            _ring(0, -0.14, 0.17, 0.12, 11),
            *(_ring(*eye, 0.15, 0.06, 10) for eye in eyes),
            _ring(0, MOUTH_Y, *outer, 12),
            _ring(0, MOUTH_Y, *inner, 8),
        ]
    )
    all_134 = np.concatenate(
        [
            _ring(-EYE_X, BROW_Y, 0.19, 0.04, 14),
            _ring(EYE_X, BROW_Y, 0.19, 0.04, 14),
            _line(0, 0.25, 0, -0.10, 6),
            _ring(0, -0.14, 0.17, 0.12, 16),
            *(_ring(*eye, 0.15, 0.06, 20) for eye in eyes),
            _ring(0, MOUTH_Y, *outer, 24),
            _ring(0, MOUTH_Y, *inner, 20),
        ]
    )
    ldm68 = np.concatenate([contour(17), nearest(inner_68)])
    ldm106 = np.concatenate([contour(33), nearest(inner_106)])
    return ldm68, ldm106, nearest(all_134)


def _contour_lines(
    rows: int, columns: int, azimuth: np.ndarray, shape: np.ndarray
) -> list[list[int]]:
    """33 disjoint vertex lists: half rows of the sides, and a short line at the chin."""
    last = len(shape) // columns - 1  # the last row may be cut
    first = min(round(0.34 * rows), last - 17)
    line_rows = np.linspace(first, last - 1, 16).round().astype(int)
    grid = np.arange((last + 1) * columns).reshape(-1, columns)
    angle = azimuth[:columns]
    left = [grid[row][angle < -np.deg2rad(30)].tolist() for row in line_rows]
    right = [grid[row][angle > np.deg2rad(30)].tolist() for row in line_rows]
    middle = columns // 2
    chin = [int(grid[last, middle]), int(grid[last - 1, middle])]
    return [*left, chin, *right[::-1]]


def _smooth_basis(
    grid: np.ndarray, count: int, amplitude: float, order: int, rng: np.random.Generator
) -> np.ndarray:
    """(3V, K) float32: random low-frequency fields, later modes weaker."""
    waves = np.stack(
        [
            np.cos(np.pi / 2 * (i * (grid[:, 0] + 1))) * np.cos(np.pi / 2 * (j * (grid[:, 1] + 1)))
            for i in range(order + 1)
            for j in range(order + 1)
        ],
        1,
    )
    weights = rng.normal(size=(waves.shape[1], 3 * count))
    fields = (waves @ weights).reshape(len(grid), 3, count)
    fields /= np.sqrt((fields**2).mean((0, 1), keepdims=True))
    strength = amplitude / (1 + 0.15 * np.arange(count))
    return (fields * strength).reshape(3 * len(grid), count).astype(np.float32)
