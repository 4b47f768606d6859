"""Landmark vertices of PhotoHead: 68 by the Basel model's points, 106 and 134 from them.

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

from dataclasses import dataclass
from importlib import resources

import numpy as np
from scipy.spatial import KDTree

from v3recon.face_models import landmarks
from v3recon.photohead.loops import points_along, split_loop
from v3recon.photohead.registration import solve_similarity, vertex_normals
from v3recon.photohead.shape import HeadShape

JAW = slice(0, 17)
INNER = slice(17, 68)
CONTOUR_COUNT = 33
LINE_REACH = 0.62
"""Share of the way from contour to midline that a contour line covers."""
LINE_SAMPLES = 40
_FRONT = -0.5
"""Least z (decimeters) of vertices that may be landmarks; the jaw begins in front of the ear."""
_LID_LOOP, _INNER_LIP_LOOP = 1, 2
MODERATE_YAW = 30.0
_MM_PER_UNIT = 100.0
FRONTAL = 12.0
"""Degrees of yaw and pitch below which the outline of a face is that of the mean pose."""
_JAW_OUTLIER = 0.1  # decimeters
_AVERTED, _DEPTH_SHARE = -0.3, 0.15
"""Least z of the normals of outline vertices, and the weight of depth in their choice."""
_RIGHT_BROW_UPPER = (70, 63, 105, 66, 107)
_RIGHT_BROW_LOWER = (46, 53, 52, 65, 55)
_RIGHT_NOSE_WING = 129
"""The detector's points, outer to inner end, and at the widest place of the nose."""

MIRROR_68 = np.array(landmarks.MIRROR_68)


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


def aims_68(basel: np.ndarray, scanned: np.ndarray) -> np.ndarray:
    """Places [68, 3] of the 68 points on the mean head, symmetric, model frame.

    The jaw is the Basel model's, moved by the similarity of the inner 51 points. Inner points
    are those of the scans (Multi-PIE), brows the mean of both: no mesh shows hair.

    Args:
        basel: [68, 3] points of the Basel mean.
        scanned: [68, 3] Multi-PIE points of ICT's mean.
    """
    scale, rotation, shift = solve_similarity(basel[INNER], scanned[INNER])
    moved = scale * basel @ rotation + shift
    aims = scanned.copy()
    aims[JAW] = moved[JAW]
    aims[17:27] = (moved[17:27] + scanned[17:27]) / 2
    return (aims + aims[MIRROR_68] * [-1.0, 1.0, 1.0]) / 2


def choose_68(shape: HeadShape, aims: np.ndarray) -> np.ndarray:
    """Vertices [68] nearest to the aims [68, 3], mirror images of each other.

    Lids and inner lips take vertices of their own edge loops, so that a closing gap closes between
    the points: eyes the lids' margin, inner lips both sides of the seam.
    """
    vertices = shape.dense.operator @ shape.mean
    index = np.empty(68, np.int64)
    allowed = face_vertices(shape)
    middle = shape.mirror == np.arange(len(shape.mirror))
    for point in range(68):
        own = (
            np.flatnonzero(allowed & middle) if MIRROR_68[point] == point else allowed.nonzero()[0]
        )
        index[point] = _nearest(vertices, own, aims[point])
    for points, line in _lines_68(shape):
        for point in points:
            own = line[middle[line]] if MIRROR_68[point] == point else line
            index[point] = _nearest(vertices, own, aims[point])
    later = MIRROR_68 < np.arange(68)
    index[later] = shape.mirror[index[MIRROR_68[later]]]
    return index


def marked_aims(aims: np.ndarray) -> np.ndarray:
    """Aims [68, 3] with the inner points where people mark them in photographs; the jaw as given.

    The places are in `data/marked_68.csv`, millimeters of the model's frame, written by
    `benchmarks/marked_places.py`: a network's meshes on the photographs of Helen and AFW say which
    vertices lie under the hand-made points.
    """
    source = resources.files("v3recon.photohead") / "data" / "marked_68.csv"
    with source.open(encoding="utf-8") as stream:
        rows = np.loadtxt(stream, delimiter=",", skiprows=1)
    result = aims.copy()
    result[rows[:, 0].astype(int)] = rows[:, 1:] / _MM_PER_UNIT
    return result


def _lines_68(shape: HeadShape) -> list[tuple[list[int], np.ndarray]]:
    """Points of the viewer's left side or the middle and the vertices they may be."""
    upper, lower = dense_halves(shape, shape.loops.lids[_LID_LOOP])
    mirror = shape.mirror
    outer_up, _ = lip_border(shape)
    inner_up, inner_low = dense_halves(shape, shape.loops.mouth[_INNER_LIP_LOOP])
    return [
        ([37, 38], mirror[upper[2:-2]]),
        ([40, 41], mirror[lower[2:-2]]),
        ([36], mirror[upper[-1:]]),
        ([39], mirror[upper[:1]]),
        ([48], outer_up[:1]),
        ([60], inner_up[:1]),
        ([61, 62], inner_up[2:-2]),
        ([66, 67], inner_low[2:-2]),
    ]


def face_vertices(shape: HeadShape) -> np.ndarray:
    """Which dense vertices [V] are visible skin in front of the ears."""
    hidden = np.zeros(len(shape.mean))
    lids = shape.loops.behind_lids
    hidden[np.concatenate([lids, shape.template.mirror[lids], shape.loops.cavity])] = 1.0
    hidden = shape.dense.operator @ hidden
    front = (shape.dense.operator @ shape.mean)[:, 2] > _FRONT
    return (shape.surface == 0) & (hidden < 0.3) & front


def dense_halves(shape: HeadShape, loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower half of a control loop as dense vertices, each from least to greatest x."""
    edge_number = {tuple(edge): index for index, edge in enumerate(shape.dense.edges.tolist())}
    ahead = np.roll(loop, -1)
    middles = [
        edge_number[tuple(sorted(edge))] for edge in zip(loop.tolist(), ahead.tolist(), strict=True)
    ]
    dense = np.stack([loop, len(shape.mean) + np.array(middles)], 1).ravel()
    return split_loop(dense, shape.dense.operator @ shape.mean)


def lip_border(shape: HeadShape) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower border of the lips' red as dense vertices, from least to greatest x."""
    first, second = shape.loops.vermilion
    return dense_halves(shape, first)[0], dense_halves(shape, second)[1]


def _nearest(vertices: np.ndarray, own: np.ndarray, aim: np.ndarray) -> int:
    return int(own[((vertices[own] - aim) ** 2).sum(1).argmin()])


def resample(line: np.ndarray, count: int) -> np.ndarray:
    """Points at equal arc length along a polyline [N, D], both ends included."""
    return points_along(line, np.linspace(0, 1, count))


def outline_jaw(
    shape: HeadShape, index: np.ndarray, residual: np.ndarray, rotation: np.ndarray
) -> np.ndarray:
    """Vertices [17] of the outline from ear to ear as people mark it in frontal photographs.

    The Basel jaw is a place on the bone; a marked one is where the face ends in the picture, and
    spaced otherwise around the chin. Contour lines start here.

    Args:
        shape: the head.
        index: [68] vertices of the 68 points.
        residual: [N, 68, 2] marked minus projected, decimeters at the point's depth, x right, y up;
            photos turned by less than `FRONTAL`.
        rotation: [N, 3, 3] of the fits, for row vectors.
    """
    jaw = residual[:, JAW]
    weight = 1 / (1 + (np.linalg.norm(jaw, axis=2, keepdims=True) / _JAW_OUTLIER) ** 2)
    flat = np.einsum("bnk,bik->bni", jaw, rotation[:, :, :2])
    offset = (weight * flat).sum(0) / weight.sum(0)
    offset = (offset + offset[::-1] * [-1.0, 1.0, 1.0]) / 2
    vertices = shape.dense.operator @ shape.mean
    aims = vertices[index[JAW]] + offset
    toward = vertex_normals(vertices, shape.triangles)[:, 2] > _AVERTED
    allowed = face_vertices(shape) & toward
    middle = shape.mirror == np.arange(len(shape.mirror))
    chosen = np.zeros(17, np.int64)
    for point in range(9):
        own = np.flatnonzero(allowed & middle if point == 8 else allowed)
        scale = [1.0, 1.0, _DEPTH_SHARE]
        chosen[point] = _nearest(vertices * scale, own, aims[point] * scale)
    chosen[9:] = shape.mirror[chosen[7::-1]]
    return chosen


def make_landmark_sets(
    shape: HeadShape, index_68: np.ndarray, jaw: np.ndarray, detector: np.ndarray
) -> LandmarkSets:
    """106 and 134 points and contour lines from the 68 vertices and the detector's points.

    Args:
        shape: the head.
        index_68: [68] vertex ids.
        jaw: [17] vertices of the outline, from `outline_jaw`.
        detector: [468, 3] the detector's points on the mean head.
    """
    picker = _Picker(shape)
    brow = detector[list(_RIGHT_BROW_UPPER)], detector[list(_RIGHT_BROW_LOWER)]
    contour = _contour(jaw, picker)
    return LandmarkSets(
        landmarks_68=index_68,
        landmarks_106=_landmarks_106(shape, index_68, picker, contour, brow, detector),
        landmarks_134=_landmarks_134(shape, picker, brow),
        contour_lines=_contour_lines(contour, picker, index_68),
    )


class _Picker:
    """Nearest visible vertices of positions, and mirror images."""

    def __init__(self, shape: HeadShape) -> None:
        self.vertices = shape.dense.operator @ shape.mean
        self.mirror = shape.mirror
        self.allowed = np.flatnonzero(face_vertices(shape))
        self._tree = KDTree(self.vertices[self.allowed])

    def nearest(self, positions: np.ndarray) -> np.ndarray:
        """Vertex ids [N] of positions [N, 3]; none twice where a free neighbor is near."""
        _, candidates = self._tree.query(positions, k=6)
        chosen: list[int] = []
        for row in self.allowed[np.asarray(candidates)].tolist():
            chosen.append(next((v for v in row if v not in chosen), row[0]))
        return np.array(chosen)

    def along(self, line: np.ndarray, count: int) -> np.ndarray:
        """Vertices of a line [N] at equal arc length, both ends included."""
        wanted = resample(self.vertices[line], count)
        return line[KDTree(self.vertices[line]).query(wanted)[1]]


def _contour(jaw: np.ndarray, picker: _Picker) -> np.ndarray:
    """The 33 contour vertices: the 17 of the outline and the ones half-way between them."""
    half = picker.nearest((picker.vertices[jaw[:8]] + picker.vertices[jaw[1:9]]) / 2)
    contour = np.zeros(CONTOUR_COUNT, np.int64)
    contour[0::2] = jaw
    contour[1:16:2] = half
    contour[17::2] = picker.mirror[half[::-1]]
    return contour


def _landmarks_106(
    shape: HeadShape,
    index_68: np.ndarray,
    picker: _Picker,
    contour: np.ndarray,
    brow: tuple[np.ndarray, np.ndarray],
    detector: np.ndarray,
) -> np.ndarray:
    mirror = picker.mirror
    upper = picker.nearest(resample(brow[0], 5))
    lower = picker.nearest(resample(brow[1], 6)[1:5])
    right_brow = np.concatenate([upper, lower[::-1]])
    left_brow = mirror[np.concatenate([upper[::-1], lower])]
    left_upper, left_lower = dense_halves(shape, shape.loops.lids[_LID_LOOP])
    eye_upper = picker.along(mirror[left_upper[::-1]], 5)
    eye_lower = picker.along(mirror[left_lower[::-1]], 5)[1:4]
    pupil = _pupil(shape, picker)
    right_eye = np.concatenate([eye_upper, eye_lower[::-1], [pupil]])
    left_eye = np.concatenate([mirror[eye_upper[::-1]], mirror[eye_lower], [mirror[pupil]]])
    nose = _nose_15(index_68, picker, detector)
    mouth = index_68[48:68]
    pupils = [pupil, mirror[pupil]]
    return np.concatenate(
        [contour, right_brow, left_brow, nose, right_eye, left_eye, mouth, pupils]
    )


def _pupil(shape: HeadShape, picker: _Picker) -> int:
    """The foremost vertex of the right eyeball."""
    eyes = np.flatnonzero(shape.surface == 1)
    right = eyes[picker.vertices[eyes, 0] < 0]
    return int(right[picker.vertices[right, 2].argmax()])


def _nose_15(index_68: np.ndarray, picker: _Picker, detector: np.ndarray) -> np.ndarray:
    """Bridge (4), then down the right wing (3), nostrils (5) and up the left wing (3)."""
    vertices = picker.vertices
    wing = detector[_RIGHT_NOSE_WING]
    start = 0.45 * vertices[index_68[39]] + 0.55 * vertices[index_68[27]]
    side = picker.nearest(np.stack([start, 0.45 * start + 0.55 * wing, wing]))
    return np.concatenate([index_68[27:31], side, index_68[31:36], picker.mirror[side[::-1]]])


def _landmarks_134(
    shape: HeadShape, picker: _Picker, brow: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    def ring(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.concatenate([top, bottom[1:-1][::-1]])

    def image(closed: np.ndarray, up: int) -> np.ndarray:
        flipped = picker.mirror[closed]
        return np.concatenate([flipped[:up][::-1], flipped[up:][::-1]])

    right_brow = ring(picker.nearest(resample(brow[0], 9)), picker.nearest(resample(brow[1], 10)))
    upper, lower = dense_halves(shape, shape.loops.lids[_LID_LOOP])
    right_eye = ring(
        picker.along(picker.mirror[upper[::-1]], 11), picker.along(picker.mirror[lower[::-1]], 11)
    )
    outer = lip_border(shape)
    inner = dense_halves(shape, shape.loops.mouth[_INNER_LIP_LOOP])
    rings = [
        right_brow,
        image(right_brow, 9),
        right_eye,
        image(right_eye, 11),
        ring(picker.along(outer[0], 17), picker.along(outer[1], 17)),
        ring(picker.along(inner[0], 15), picker.along(inner[1], 15)),
    ]
    return np.concatenate(rings)


def _contour_lines(
    contour: np.ndarray, picker: _Picker, index_68: np.ndarray
) -> tuple[np.ndarray, ...]:
    """For each contour vertex the vertices from it inward, as a fan toward the midline.

    The ends of the fan lie on the midline between chin and nose bridge in the order of the contour
    points, so the lines do not cross; near the ears they run level, like BFM's. They come nearer
    to the midline with every vertex: seen from the front, the outline is where they start.
    """
    vertices, mirror = picker.vertices, picker.mirror
    bridge, chin = vertices[index_68[27]], vertices[contour[16]]
    lip = vertices[index_68[57]]
    share = (vertices[contour[:16], 1] - chin[1]) / (vertices[contour[0], 1] - chin[1])
    ends = np.zeros((16, 3))
    ends[:, 1] = lip[1] + share * (bridge[1] - lip[1])
    ends[:, 2] = lip[2]
    tree = KDTree(vertices[picker.allowed])
    taken = np.zeros(len(vertices), bool)
    taken[contour] = True
    taken[mirror == np.arange(len(mirror))] = True  # the midline belongs to neither side
    right = []
    # Closer together near the contour, where the surface turns away from the camera.
    reach = LINE_REACH * np.linspace(0, 1, LINE_SAMPLES)[1:, None] ** 1.5
    for vertex, end in zip(contour[:16], ends, strict=True):
        line = [int(vertex)]
        for place in _over_surface(vertices, picker.allowed, vertices[vertex], end, reach):
            candidates = picker.allowed[np.asarray(tree.query(place, k=4)[1])].tolist()
            inward = [v for v in candidates if abs(vertices[v, 0]) < abs(vertices[line[-1], 0])]
            free = next((v for v in inward if not taken[v]), None)
            if free is not None:
                line.append(free)
                taken[[free, mirror[free]]] = True
        right.append(np.array(line))
    left = [mirror[line] for line in right[::-1]]
    return (*right, contour[16:17].copy(), *left)


def _over_surface(
    vertices: np.ndarray, allowed: np.ndarray, start: np.ndarray, end: np.ndarray, reach: np.ndarray
) -> np.ndarray:
    """Places [N, 3] from start toward end: straight seen from the side's diagonal, on the surface.

    The line is drawn in the plane whose normal halves the angle between the side and the front,
    where cheek and jaw are seen without folds; each place takes the nearest vertex's third
    coordinate.
    """
    axis = np.array([-np.sqrt(0.5), 0.0, np.sqrt(0.5)])  # toward the viewer's left and front
    across = np.array([np.sqrt(0.5), 0.0, np.sqrt(0.5)])
    plane = np.stack([across, [0.0, 1.0, 0.0]], 1)
    own = allowed[vertices[allowed, 0] <= 0]
    flat = KDTree(vertices[own] @ plane)
    path = (1 - reach) * (start @ plane) + reach * (end @ plane)
    height = (vertices[own] @ axis)[flat.query(path)[1]]
    return path @ plane.T + height[:, None] * axis
