"""Faces from frame to frame: detected once, then followed by their own landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from v3recon.detection.crop import crop_again
from v3recon.reconstruct.faces import Face
from v3recon.reconstruct.quality import DOUBTFUL, face_quality
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.video.frames import Frame

CHECK_EVERY = 15
"""Frames after which new faces are looked for and followed ones are checked."""

_SEARCH_EVERY = 4  # frames, while nobody is followed or somebody is lost
_REMEMBERED = 2.0  # seconds a lost face keeps its number
_SAME = 0.5  # distance of two faces' middles over their size below which they are one
_REGAINED = 1.5  # the same for a lost face and a found one
_JUMP = 0.35  # change of size, or step over size, from frame to frame that no head makes
_SUSPECT = 0.07  # the same from which on a face is looked at in the mirror at once
_THUMBNAIL = (32, 18)
_CUT, _CUT_RATIO = 22.0, 4.0  # grey levels between thumbnails of two shots; over the usual change


@dataclass(frozen=True)
class Sighting:
    """A person's face in one frame.

    Attributes:
        person: number of the person, from 1.
        shot: number of the shot, from 0; a cut begins a new one.
        frame: index of the frame.
        time: seconds.
        coeffs: [K] packed `FaceCoeffs`.
        crop_matrix: [2, 3] float64, photo pixels to crop pixels.
        landmarks_68: [68, 2] photo pixels.
        quality: 0…1 at the last check, see `reconstruct.quality`.
    """

    person: int
    shot: int
    frame: int
    time: float
    coeffs: np.ndarray
    crop_matrix: np.ndarray
    landmarks_68: np.ndarray
    quality: float


@dataclass(frozen=True)
class _Followed:
    """A person as last seen.

    Attributes:
        person: number.
        landmarks: [68, 2] photo pixels in the last frame.
        step: [68, 2] of the last frame, pixels.
        sure: [68, 2] landmarks at the last check that went well.
        time: seconds, of the last frame.
        quality: at the last check.
        lost: out of sight, but remembered.
    """

    person: int
    landmarks: Tensor
    step: Tensor
    sure: Tensor
    time: float
    quality: float
    lost: bool = False


class Follower:
    """Follows all faces of a video, frame by frame.

    Every `CHECK_EVERY` frames the whole frame is searched and what is followed is looked at in the
    mirror; a face whose two looks disagree is lost. A lost face that is found again nearby keeps
    its number. A cut ends all.
    """

    def __init__(self, reconstructor: FaceReconstructor, check_every: int = CHECK_EVERY) -> None:
        """Start before the first frame.

        Args:
            reconstructor: with a detector.
            check_every: frames between two checks.
        """
        self.reconstructor = reconstructor
        self.check_every = check_every
        self.shot = 0
        self._people: list[_Followed] = []
        self._count = 0
        self._thumbnail: np.ndarray | None = None
        self._usual_change = 0.0
        self._searched = -check_every

    def __call__(self, frame: Frame) -> list[Sighting]:
        """The faces of the next frame, by number."""
        if self._is_cut(frame.image):
            self.shot += 1
            self._people = []
            self._searched = -self.check_every
        faces = self._follow(frame)
        complete = faces and not any(one.lost for one in self._people)
        wait = self.check_every if complete else min(_SEARCH_EVERY, self.check_every)
        if frame.index - self._searched >= wait:
            self._searched = frame.index
            faces = self._check(frame, faces)
        return [_sighting(faces[person], one, frame, self.shot) for person, one in self._seen()]

    def state(self) -> dict[str, np.ndarray]:
        """Everything that a later `restore` needs to go on as if there had been no stop."""
        points = [torch.stack([one.landmarks, one.step, one.sure]) for one in self._people]
        numbers = [(one.person, one.time, one.quality, one.lost) for one in self._people]
        none = np.zeros(0, np.uint8)
        return {
            "people": np.array(numbers, np.float64).reshape(-1, 4),
            "points": torch.stack(points).numpy() if points else np.zeros((0, 3, 68, 2)),
            "counts": np.array([self._count, self.shot, self._searched]),
            "usual_change": np.array(self._usual_change),
            "thumbnail": none if self._thumbnail is None else self._thumbnail,
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over the state of another follower."""
        self._count, self.shot, self._searched = (int(one) for one in state["counts"])
        self._usual_change = float(state["usual_change"])
        self._thumbnail = state["thumbnail"] if state["thumbnail"].size else None
        self._people = [
            _Followed(int(person), points[0], points[1], points[2], time, quality, bool(lost))
            for (person, time, quality, lost), points in zip(
                state["people"].tolist(), torch.from_numpy(state["points"]), strict=True
            )
        ]

    def _seen(self) -> list[tuple[int, _Followed]]:
        return [(one.person, one) for one in self._people if not one.lost]

    def _follow(self, frame: Frame) -> dict[int, Face]:
        """Faces of the people who are in sight, by number; others become lost or are forgotten."""
        tool = self.reconstructor
        self._people = [one for one in self._people if frame.time - one.time <= _REMEMBERED]
        seen = [one for _, one in self._seen()]
        crops = [
            crop_again(one.landmarks + one.step, tool.crop_rule, tool.points_3d, tool.camera)
            for one in seen
        ]
        found = tool.reconstruct_crops([frame.image] * len(crops), crops) if crops else []
        faces = {one.person: face for one, face in zip(seen, found, strict=True)}
        for index, one in enumerate(self._people):
            if one.person in faces:
                surprise = _surprise(one, faces[one.person], frame)
                if surprise < _SUSPECT:
                    self._people[index] = _moved(one, faces[one.person], frame)
                elif surprise < _JUMP:
                    self._people[index] = self._looked_at(one, faces[one.person], frame)
                else:
                    self._people[index] = _lost(one)
        return {person: faces[person] for person, _ in self._seen()}

    def _check(self, frame: Frame, faces: dict[int, Face]) -> dict[int, Face]:
        """Look for new faces, and whether those followed are faces still."""
        tool = self.reconstructor
        faces = dict(faces)
        for index, one in enumerate(self._people):
            if one.person in faces:
                self._people[index] = self._looked_at(one, faces[one.person], frame)
                if self._people[index].lost:
                    del faces[one.person]
        for detection, crop in tool.find_faces(frame.image, thorough=False):
            box = detection.box.reshape(2, 2) if detection is not None else None
            if box is None or self._nearest(box, _SAME, lost=False) is not None:
                continue
            passes = int(tool.crop_rule.get("passes", 1))
            (face,) = tool.reconstruct_found([frame.image], [crop], [detection], passes)
            quality = mirror_quality(tool, frame.image, face)
            points = face.landmarks_68
            if quality < DOUBTFUL or self._nearest(points, _SAME, lost=False) is not None:
                continue
            known = self._nearest(points, _REGAINED, lost=True)
            if known is None:
                self._count += 1
                person = self._count
            else:
                person = known.person
                self._people.remove(known)
            still = torch.zeros_like(points)
            new = _Followed(person, points, still, points, frame.time, quality)
            self._people = sorted([*self._people, new], key=lambda one: one.person)
            faces[person] = face
        return faces

    def _looked_at(self, one: _Followed, face: Face, frame: Frame) -> _Followed:
        """A person after a look in the mirror: at the face's place, or lost."""
        quality = mirror_quality(self.reconstructor, frame.image, face)
        if quality < DOUBTFUL:
            return _lost(one)
        moved = one if frame.time == one.time else _moved(one, face, frame)
        return replace(moved, quality=quality, sure=moved.landmarks)

    def _nearest(self, points: Tensor, limit: float, lost: bool) -> _Followed | None:
        """Who is nearest to the middle of points [N, 2], within `limit` of a face's size."""
        middle = _middle(points)
        apart = [
            (float((_middle(one.landmarks) - middle).norm() / _size(one.landmarks)), one)
            for one in self._people
            if one.lost == lost
        ]
        distance, nearest = min(apart, key=lambda pair: pair[0], default=(np.inf, None))
        return nearest if distance < limit else None

    def _is_cut(self, image: np.ndarray) -> bool:
        """Whether a frame is of another shot than the one before."""
        small = cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._thumbnail = self._thumbnail, small
        if before is None:
            return False
        change = float(np.abs(small - before).mean())
        cut = change > _CUT and change > _CUT_RATIO * self._usual_change
        if not cut:
            self._usual_change = 0.9 * self._usual_change + 0.1 * change
        return cut


def mirror_quality(tool: FaceReconstructor, image: np.ndarray, face: Face) -> float:
    """0…1, how probably a face is one and found right, by a look at its mirror image."""
    apart = tool.mirror_distances([image], [face])
    return face_quality(float(apart[0]), face.landmarks_68, None)


def _surprise(one: _Followed, face: Face, frame: Frame) -> float:
    """How far a face is from where and how large it was expected, over its size.

    Fast heads are expected; infinite where the face has left the picture.
    """
    points = face.landmarks_68
    x, y = _middle(points).tolist()
    height, width = frame.image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):  # false for NaN
        return np.inf
    size = _size(one.landmarks)
    step = float((_middle(points) - _middle(one.landmarks + one.step)).norm() / size)
    return max(step, abs(float(torch.log(_size(points) / size))))


def _moved(one: _Followed, face: Face, frame: Frame) -> _Followed:
    """A person at the place of the next frame."""
    points = face.landmarks_68
    step = (_middle(points) - _middle(one.landmarks)).expand_as(points).clone()
    return replace(one, landmarks=points, step=step, time=frame.time)


def _lost(one: _Followed) -> _Followed:
    """A person out of sight, remembered where they were seen surely."""
    return replace(one, landmarks=one.sure, step=torch.zeros_like(one.sure), lost=True)


def _sighting(face: Face, one: _Followed, frame: Frame, shot: int) -> Sighting:
    return Sighting(
        person=one.person,
        shot=shot,
        frame=frame.index,
        time=frame.time,
        coeffs=face.coeffs.to_tensor()[0].cpu().numpy(),
        crop_matrix=face.crop.matrix.numpy(),
        landmarks_68=face.landmarks_68.cpu().numpy(),
        quality=one.quality,
    )


def _middle(points: Tensor) -> Tensor:
    """[2] middle of the box of points [N, 2]; of a box's two corners as well."""
    return (points.amax(0) + points.amin(0)) / 2


def _size(points: Tensor) -> Tensor:
    """Longer side of the box of points [N, 2]."""
    return (points.amax(0) - points.amin(0)).max().clamp(min=1e-6)
