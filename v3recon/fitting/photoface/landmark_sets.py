"""Landmark vertices of PhotoFace: 68 chosen against hand-made points, 106 and 134 from them.

Orders (person's right = viewer's left; every group runs from the viewer's left to right unless
said otherwise):

- 68: iBUG. Jaw 0-16, brows 17-21 and 22-26, nose bridge 27-30, nostrils 31-35, eyes 36-41 and
  42-47, outer lips 48-59, inner lips 60-67.
- 106: contour 0-32 (chin 16), right brow 33-41, left brow 42-50 (five upper points, then four
  lower ones back), nose 51-65 (bridge 51-54, then wing and nostril outline 55-65), right eye
  66-74 and left eye 75-83 (eight around, then the middle), mouth 84-103 (twelve outer points
  clockwise from the viewer's left corner, then eight inner ones), pupils 104 and 105.
- 134: right brow 0-16, left brow 17-33, right eye 34-53, left eye 54-73, outer lips 74-105,
  inner lips 106-133; closed outlines, clockwise as seen, from the viewer's left end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from v3recon.fitting.photoface import topology

JAW = slice(0, 17)
FRONTAL_YAW = 12.0
"""Degrees; within it the visible contour is the jaw line of the 3D face."""
MODERATE_YAW = 30.0
CONTOUR_COUNT = 33
LINE_REACH = 0.62
"""Share of the way from contour to midline that a contour line covers."""
LINE_SAMPLES = 40
_RIGHT_NOSE_WING = 129  # the detector's point at the widest place of the nose

_MIRROR_FACE = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
_MIRROR_EYES = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
_MIRROR_LIPS = [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]
MIRROR_68 = np.array([*_MIRROR_FACE, *_MIRROR_EYES, *_MIRROR_LIPS])
"""Which of the 68 points is the mirror image of which."""


@dataclass(frozen=True)
class LandmarkSets:
    """Vertex ids on the dense mesh.

    Attributes:
        landmarks_68: [68].
        landmarks_106: [106].
        landmarks_134: [134].
        contour_lines: 33 id arrays, disjoint, each from the contour inward over the cheek.
    """

    landmarks_68: np.ndarray
    landmarks_106: np.ndarray
    landmarks_134: np.ndarray
    contour_lines: tuple[np.ndarray, ...]


def read_points(path: Path) -> np.ndarray:
    """Hand-made points of a 300-W `.pts` file, moved so that the first pixel is (0, 0).

    Args:
        path: the file; its first pixel is (1, 1).

    Returns:
        [L, 2] pixels, x right, y down.

    Raises:
        ValueError: if the file is not of that form.
    """
    text = path.read_text(encoding="ascii", errors="replace")
    try:
        body = text[text.index("{") + 1 : text.index("}")]
        points = np.array(body.split(), float).reshape(-1, 2)
    except ValueError as error:
        raise ValueError(f"{path.name} is not a 300-W .pts file: {error}") from error
    return points - 1.0


def box_size(points: np.ndarray) -> np.ndarray:
    """Size of point sets: square root of width times height of their box, [N] for [N, L, 2]."""
    return np.sqrt(np.prod(points.max(1) - points.min(1), axis=1))


def mean_squared_distances(
    control_2d: np.ndarray, operator: sparse.csr_matrix, truth: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Mean squared distance of every projected vertex to every known point.

    Distances are in units of each photo's face size. E|p - l|^2 = E|p|^2 - 2 E[p l] + E|l|^2, so
    photos are visited one by one and nothing of the size photos x vertices is kept.

    Args:
        control_2d: [N, Vc, 2] fitted control vertices in pixels.
        operator: [V, Vc] subdivision operator; its rows sum to one.
        truth: [N, L, 2] known points in the same pixels.
        size: [N] size of each face in pixels.

    Returns:
        [V, L].
    """
    count = len(operator.indptr) - 1
    vertex_term = np.zeros(count)
    cross_term = np.zeros((count, truth.shape[1]))
    truth_term = np.zeros(truth.shape[1])
    for control, points, unit in zip(control_2d, truth, size, strict=True):
        origin = points.mean(0)
        vertices = operator @ ((control - origin) / unit)
        points = (points - origin) / unit
        vertex_term += (vertices**2).sum(1)
        cross_term += vertices @ points.T
        truth_term += (points**2).sum(1)
    return (vertex_term[:, None] - 2 * cross_term + truth_term) / len(truth)


def choose_68(
    control_2d: np.ndarray,
    yaw: np.ndarray,
    truth: np.ndarray,
    operator: sparse.csr_matrix,
    mirror: np.ndarray,
    allowed: np.ndarray,
) -> np.ndarray:
    """The vertices whose projections fall nearest to the hand-made points, symmetric.

    Jaw points are chosen on nearly frontal photos, where the contour that people mark is a fixed
    line of the 3D face; the others on moderate views.

    Args:
        control_2d: [N, Vc, 2] fitted control vertices in pixels.
        yaw: [N] degrees.
        truth: [N, 68, 2] hand-made points, pixels.
        operator: [V, Vc] subdivision operator.
        mirror: [V] mirror images.
        allowed: [V] bool, vertices that may be chosen (faces the camera in the mean face).

    Returns:
        [68] vertex ids.

    Raises:
        ValueError: if there are too few photos.
    """
    moderate, frontal = np.abs(yaw) < MODERATE_YAW, np.abs(yaw) < FRONTAL_YAW
    if frontal.sum() < 10:
        raise ValueError(
            f"{int(frontal.sum())} nearly frontal photos with hand-made points; at least 10 needed"
        )
    size = box_size(truth)
    cost = mean_squared_distances(control_2d[moderate], operator, truth[moderate], size[moderate])
    cost[:, JAW] = mean_squared_distances(
        control_2d[frontal], operator, truth[frontal, JAW], size[frontal]
    )
    cost += cost[mirror][:, MIRROR_68]
    cost[~(allowed & allowed[mirror])] = np.inf
    middle = MIRROR_68 == np.arange(68)
    cost[np.ix_(mirror != np.arange(len(mirror)), middle)] = np.inf
    index = cost.argmin(0)
    later = MIRROR_68 < np.arange(68)  # ties must not break the symmetry
    index[later] = mirror[index[MIRROR_68[later]]]
    return index


def choose_pupils(
    control_2d: np.ndarray,
    irises: np.ndarray,
    operator: sparse.csr_matrix,
    mirror: np.ndarray,
    allowed: np.ndarray,
) -> np.ndarray:
    """The vertices on which pupils lie on average, mirror images of each other.

    Args:
        control_2d: [N, Vc, 2] fitted control vertices in pixels.
        irises: [N, 2, 2] middles of the right and the left iris, same pixels.
        operator: [V, Vc] subdivision operator.
        mirror: [V] mirror images.
        allowed: [V] bool, the eyes' vertices.

    Returns:
        [2] vertex ids, right and left.
    """
    size = np.linalg.norm(irises[:, 0] - irises[:, 1], axis=1)
    cost = mean_squared_distances(control_2d, operator, irises, size)
    right = np.where(allowed, cost[:, 0] + cost[mirror, 1], np.inf).argmin()
    return np.array([right, mirror[right]])


def make_landmark_sets(
    index_68: np.ndarray,
    vertices: np.ndarray,
    mirror: np.ndarray,
    operator: sparse.csr_matrix,
    brows: tuple[np.ndarray, np.ndarray],
    pupils: np.ndarray,
) -> LandmarkSets:
    """106 and 134 points and contour lines from the 68 vertices and the detector's contours.

    Args:
        index_68: [68] vertex ids.
        vertices: [V, 3] mean face, symmetric; its first 468 vertices are the detector's.
        mirror: [V] mirror images.
        operator: [V, Vc] subdivision operator.
        brows: vertex ids of the right and the left brow part.
        pupils: [2] vertex ids of the right and the left pupil.
    """
    picker = _Picker(vertices, mirror, operator)
    contour = _contour(index_68, vertices, picker)
    brow = _brow_outline(vertices, brows[0])
    landmarks_106 = _landmarks_106(index_68, vertices, picker, contour, brow, pupils)
    landmarks_134 = _landmarks_134(vertices, picker, brow)
    return LandmarkSets(
        landmarks_68=index_68,
        landmarks_106=landmarks_106,
        landmarks_134=landmarks_134,
        contour_lines=_contour_lines(contour, vertices, mirror, index_68),
    )


class _Picker:
    """Nearest vertices of positions, points along the detector's lines, mirror images."""

    def __init__(
        self, vertices: np.ndarray, mirror: np.ndarray, operator: sparse.csr_matrix
    ) -> None:
        self._vertices = vertices
        self._tree = KDTree(vertices)
        self._mirror = mirror
        self._operator = operator

    def nearest(self, positions: np.ndarray) -> np.ndarray:
        """Vertex ids [N] of positions [N, 3]; none twice where a free neighbour is near."""
        _, candidates = self._tree.query(positions, k=6)
        chosen: list[int] = []
        for row in np.asarray(candidates).tolist():
            chosen.append(next((v for v in row if v not in chosen), row[0]))
        return np.array(chosen)

    def along(self, line: Sequence[int], count: int) -> np.ndarray:
        """Vertices at equal arc length on a lid or an inner lip, both ends included.

        Such lines follow their own control vertices only. Taking vertices of the line itself, not
        the nearest ones, keeps the lips apart where they touch.
        """
        known = np.isin(np.arange(int(self._operator.indices.max()) + 1), line).astype(float)
        on_line = np.flatnonzero(self._operator @ known > 1 - 1e-9)
        wanted = resample(self._vertices[list(line)], count)
        _, nearest = KDTree(self._vertices[on_line]).query(wanted)
        return on_line[nearest]

    def image(self, index: np.ndarray) -> np.ndarray:
        """Mirror images of vertex ids."""
        return self._mirror[index]


def resample(line: np.ndarray, count: int) -> np.ndarray:
    """Points at equal arc length along a polyline, both ends included.

    Args:
        line: [N, D].
        count: number of points.
    """
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0, length[-1], count)
    return np.stack([np.interp(at, length, axis) for axis in line.T], 1)


def _contour(index_68: np.ndarray, vertices: np.ndarray, picker: _Picker) -> np.ndarray:
    """The 33 contour vertices: the 17 jaw vertices and the ones half-way between them."""
    jaw = index_68[JAW]
    half = picker.nearest((vertices[jaw[:8]] + vertices[jaw[1:9]]) / 2)
    contour = np.zeros(CONTOUR_COUNT, np.int64)
    contour[0::2] = jaw
    contour[1:16:2] = half
    contour[17::2] = picker.image(half[::-1])
    return contour


def _brow_outline(vertices: np.ndarray, brow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower border of the right brow, outer to inner end, [24, 3] each."""
    points = vertices[brow]
    center = points.mean(0)
    _, _, axes = np.linalg.svd(points[:, :2] - center[:2], full_matrices=False)
    along = axes[0] * np.sign(axes[0, 0])  # toward the nose: +x on the right side
    across = np.array([-along[1], along[0]])  # up
    s, t = (points[:, :2] - center[:2]) @ along, (points[:, :2] - center[:2]) @ across
    low, high = s.min(), s.max()
    at = np.linspace(low, high, 24)
    width = (high - low) / 16
    near = [np.abs(s - x) <= width for x in at]
    upper = np.stack([points[m][t[m].argmax()] for m in near])
    lower = np.stack([points[m][t[m].argmin()] for m in near])
    return _smooth(upper), _smooth(lower)


def _smooth(line: np.ndarray, rounds: int = 6) -> np.ndarray:
    """A polyline with its inner points averaged with their neighbours."""
    for _ in range(rounds):
        line = np.concatenate([line[:1], (line[:-2] + 2 * line[1:-1] + line[2:]) / 4, line[-1:]])
    return line


def _landmarks_106(
    index_68: np.ndarray,
    vertices: np.ndarray,
    picker: _Picker,
    contour: np.ndarray,
    brow: tuple[np.ndarray, np.ndarray],
    pupils: np.ndarray,
) -> np.ndarray:
    upper = picker.nearest(resample(brow[0], 5))
    lower = picker.nearest(resample(brow[1], 6)[1:5])
    right_brow = np.concatenate([upper, lower[::-1]])
    left_brow = picker.image(np.concatenate([upper[::-1], lower]))
    eye_upper = picker.along(topology.RIGHT_EYE_UPPER, 5)
    eye_lower = picker.along(topology.RIGHT_EYE_LOWER, 5)[1:4]
    corners = vertices[[topology.RIGHT_EYE_UPPER[0], topology.RIGHT_EYE_UPPER[-1]]]
    middle = picker.nearest(corners.mean(0, keepdims=True))
    right_eye = np.concatenate([eye_upper, eye_lower[::-1], middle])
    left_eye = np.concatenate(
        [picker.image(eye_upper[::-1]), picker.image(eye_lower), picker.image(middle)]
    )
    nose = _nose_15(index_68, vertices, picker)
    mouth = index_68[48:68]
    return np.concatenate(
        [contour, right_brow, left_brow, nose, right_eye, left_eye, mouth, pupils]
    )


def _nose_15(index_68: np.ndarray, vertices: np.ndarray, picker: _Picker) -> np.ndarray:
    """Bridge (4), then down the right wing (3), nostrils (5) and up the left wing (3)."""
    bridge = index_68[27:31]
    corner = vertices[topology.RIGHT_EYE_UPPER[-1]]
    wing = vertices[_RIGHT_NOSE_WING]
    start = 0.45 * corner + 0.55 * vertices[index_68[27]]
    side = picker.nearest(np.stack([start, 0.45 * start + 0.55 * wing, wing]))
    return np.concatenate([bridge, side, index_68[31:36], picker.image(side[::-1])])


def _landmarks_134(
    vertices: np.ndarray, picker: _Picker, brow: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    def ring(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.concatenate([top, bottom[1:-1][::-1]])

    def image(closed: np.ndarray, up: int) -> np.ndarray:
        flipped = picker.image(closed)
        return np.concatenate([flipped[:up][::-1], flipped[up:][::-1]])

    def nearest(ids: Sequence[int], count: int) -> np.ndarray:
        return picker.nearest(resample(vertices[list(ids)], count))

    right_brow = ring(picker.nearest(resample(brow[0], 9)), picker.nearest(resample(brow[1], 10)))
    right_eye = ring(
        picker.along(topology.RIGHT_EYE_UPPER, 11), picker.along(topology.RIGHT_EYE_LOWER, 11)
    )
    outer = ring(nearest(topology.OUTER_LIP_UPPER, 17), nearest(topology.OUTER_LIP_LOWER, 17))
    inner = ring(
        picker.along(topology.INNER_LIP_UPPER, 15), picker.along(topology.INNER_LIP_LOWER, 15)
    )
    rings = [right_brow, image(right_brow, 9), right_eye, image(right_eye, 11), outer, inner]
    return np.concatenate(rings)


def _contour_lines(
    contour: np.ndarray, vertices: np.ndarray, mirror: np.ndarray, index_68: np.ndarray
) -> tuple[np.ndarray, ...]:
    """For each contour vertex the vertices from it inward, as a fan toward the midline.

    The ends of the fan lie on the midline between chin and nose bridge in the order of the contour
    points, so the lines do not cross; near the ears they run level, like BFM's.
    """
    bridge, chin = vertices[index_68[27]], vertices[contour[16]]
    lip = vertices[index_68[57]]
    share = (vertices[contour[:16], 1] - chin[1]) / (vertices[contour[0], 1] - chin[1])
    ends = np.zeros((16, 2))
    ends[:, 1] = lip[1] + share * (bridge[1] - lip[1])
    tree = KDTree(vertices[:, :2])
    taken = np.zeros(len(vertices), bool)
    taken[contour] = True
    taken[mirror == np.arange(len(mirror))] = True  # the midline belongs to neither side
    right = []
    # Closer together near the contour, where the surface turns away from the camera.
    reach = LINE_REACH * np.linspace(0, 1, LINE_SAMPLES)[1:, None] ** 1.5
    for vertex, end in zip(contour[:16], ends, strict=True):
        path = (1 - reach) * vertices[vertex, :2] + reach * end
        line = [int(vertex)]
        for candidates in np.asarray(tree.query(path, k=4)[1]).tolist():
            free = next((v for v in candidates if not taken[v]), None)
            if free is not None:
                line.append(free)
                taken[[free, mirror[free]]] = True
        right.append(np.array(line))
    left = [mirror[line] for line in right[::-1]]
    return (*right, contour[16:17].copy(), *left)
