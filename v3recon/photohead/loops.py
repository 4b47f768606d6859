"""Edge loops of the template around eyes and mouth, by MakeHuman's vertex ids."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from v3recon.photohead.template import HeadTemplate

# Two neighboring vertices of each loop around the person's left eye, from the eyeball outward.
_LID_LOOPS = ((13352, 13353), (6784, 6785), (11465, 11466), (6786, 6787), (6788, 6792))
# From the mouth cavity outward: behind the seam, the seam where the lips meet, its outer side.
_MOUTH_LOOPS = ((420, 436), (418, 433), (416, 417))
_VERMILION_LOOPS = ((412, 413), (402, 3737))
# The border of the upper lip's red lies on the first of these, that of the lower on the second.
_SOCKET_SEED, _MOUTH_SEED = 11915, 696
"""The deepest vertices of the left socket and of the mouth cavity."""
_SOCKET_LOOP = (7851, 7852)
"""The first loop of the socket that follows the eyeball instead of the lids."""
NOSE_TIP = 5054


@dataclass(frozen=True)
class HeadLoops:
    """Vertex ids of the template (not of the base mesh).

    Attributes:
        lids: loops around the left eye, from the eyeball outward; the right eye's are their
            mirror images.
        mouth: loops of the lips' inner side, from the cavity outward; [1] is the seam.
        vermilion: two loops; the first one's upper half and the second one's lower half are the
            border of the lips' red.
        socket: the left socket, lids left out.
        behind_lids: the left eye's vertices that lids hide, socket and first loop included.
        cavity: the mouth's inside up to the seam, seam included.
        nose_tip: one id.
    """

    lids: tuple[np.ndarray, ...]
    mouth: tuple[np.ndarray, ...]
    vermilion: tuple[np.ndarray, np.ndarray]
    socket: np.ndarray
    behind_lids: np.ndarray
    cavity: np.ndarray
    nose_tip: int


def find_loops(template: HeadTemplate) -> HeadLoops:
    """Trace the loops; see `HeadLoops`."""
    number = np.full(int(template.base_ids.max()) + 1, -1)
    number[template.base_ids] = np.arange(len(template.base_ids))
    mesh = _Neighbors(template.quads)
    lids = tuple(mesh.trace(number[a], number[b]) for a, b in _LID_LOOPS)
    mouth = tuple(mesh.trace(number[a], number[b]) for a, b in _MOUTH_LOOPS)
    first_socket = mesh.trace(*number[list(_SOCKET_LOOP)])
    socket = mesh.inside(number[_SOCKET_SEED], first_socket)
    return HeadLoops(
        lids=lids,
        mouth=mouth,
        vermilion=(
            mesh.trace(*number[list(_VERMILION_LOOPS[0])]),
            mesh.trace(*number[list(_VERMILION_LOOPS[1])]),
        ),
        socket=np.union1d(socket, first_socket),
        behind_lids=np.union1d(mesh.inside(number[_SOCKET_SEED], lids[0]), lids[0]),
        cavity=np.union1d(mesh.inside(number[_MOUTH_SEED], mouth[1]), mouth[1]),
        nose_tip=int(number[NOSE_TIP]),
    )


def split_loop(loop: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower half of a loop, each from its least to its greatest x, corners in both."""
    first, last = vertices[loop, 0].argmin(), vertices[loop, 0].argmax()
    rolled, middle = np.roll(loop, -first), (last - first) % len(loop)
    one, other = rolled[: middle + 1], np.append(rolled[middle:], rolled[0])[::-1]
    above = vertices[one, 1].mean() > vertices[other, 1].mean()
    return (one, other) if above else (other, one)


def arc_lengths(curve: np.ndarray) -> np.ndarray:
    """Arc length of each point of a curve [N, 3], 0…1."""
    length = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1)))
    return length / length[-1]


def points_along(curve: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Points of a curve [N, 3] at arc lengths 0…1."""
    arc = arc_lengths(curve)
    return np.stack([np.interp(where, arc, axis) for axis in curve.T], 1)


class _Neighbors:
    """Neighbors of vertices and the quads that edges share."""

    def __init__(self, quads: np.ndarray) -> None:
        self.vertices: dict[int, set[int]] = defaultdict(set)
        self.quads: dict[int, set[int]] = defaultdict(set)
        for number, quad in enumerate(quads.tolist()):
            for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
                self.vertices[a].add(b)
                self.vertices[b].add(a)
                self.quads[a].add(number)

    def trace(self, first: int, second: int) -> np.ndarray:
        """The edge loop that begins with an edge: straight on across vertices of valence 4."""
        path = [int(first), int(second)]
        while True:
            before, here = path[-2:]
            left = self.quads[before] & self.quads[here]
            ahead = [
                vertex
                for vertex in self.vertices[here]
                if vertex != before and not (self.quads[vertex] & self.quads[here] & left)
            ]
            if len(ahead) != 1 or len(path) > len(self.vertices):
                raise ValueError(f"the edge loop from {first} to {second} ends at vertex {here}")
            if ahead[0] == path[0]:
                return np.array(path)
            path.append(ahead[0])

    def inside(self, seed: int, border: np.ndarray) -> np.ndarray:
        """Vertices reached from a seed without crossing a border, which is left out."""
        seen, waiting, closed = {int(seed)}, [int(seed)], set(border.tolist())
        while waiting:
            for vertex in self.vertices[waiting.pop()]:
                if vertex not in seen and vertex not in closed:
                    seen.add(vertex)
                    waiting.append(vertex)
        return np.array(sorted(seen))
