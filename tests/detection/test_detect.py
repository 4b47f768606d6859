from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from v3recon.detection import detect as detect_module
from v3recon.detection.detect import detect_faces
from v3recon.types import Detection

EYES_NOSE_MOUTH = np.array([[205, 101], [247, 103], [224, 128], [202, 139], [245, 141]])
"""Seen by eye in the astronaut's picture, pixels."""


def distance(face: Detection, points: np.ndarray) -> float:
    assert face.points is not None
    return float(np.linalg.norm(face.points.numpy() - points, axis=1).max())


def test_astronaut():
    faces = detect_faces(astronaut())
    assert len(faces) == 1
    face = faces[0]
    left, top, right, bottom = face.box.tolist()
    assert left < 200 and right > 255 and top < 100 and bottom > 165 and bottom - top < 180
    assert face.score > 0.99 and face.points is not None
    assert distance(face, EYES_NOSE_MOUTH) < 4


def test_mirrored_photo_gives_mirrored_points():
    """Pixel centres at whole numbers: x becomes W - 1 - x; the detector shifts nothing."""
    image = astronaut()[:300, 80:400]
    width = image.shape[1]
    shifts = []
    for scale in (1, 2):
        large = np.kron(image, np.ones((scale, scale, 1), np.uint8))
        one = detect_faces(large)[0].points
        two = detect_faces(np.ascontiguousarray(large[:, ::-1]))[0].points
        assert one is not None and two is not None
        mirrored = scale * width - 1 - two[[1, 0, 2, 4, 3], 0]
        shifts.append(float((one[:, 0] - mirrored).mean() / 2))
    assert np.abs(shifts).max() < 1.0, shifts


def test_large_photo_is_searched_in_a_copy():
    import cv2

    image = cv2.resize(astronaut(), None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    face = detect_faces(image)[0]
    expected = (EYES_NOSE_MOUTH + 0.5) * 5 - 0.5
    assert distance(face, expected) < 20


def test_several_faces_come_by_size():
    import cv2

    canvas = np.full((512, 900, 3), 90, np.uint8)
    small = cv2.resize(astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    canvas[100:356, :256] = small
    canvas[:, 388:] = astronaut()
    faces = detect_faces(canvas)
    assert len(faces) == 2
    assert faces[0].box[0] > 388 > faces[1].box[2]
    assert len(detect_faces(canvas, max_faces=1)) == 1
    assert detect_faces(canvas, max_faces=1)[0].box[0] > 388
    assert detect_faces(canvas, min_confidence=1.0) == []


@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 300), (20, 20), (21, 21), (30, 24), (64, 64), (3000, 40)]
)
def test_photos_without_a_face(shape):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    assert detect_faces(noise) == []
    assert detect_faces(np.zeros((*shape, 3), np.uint8)) == []


def test_wrong_names(monkeypatch):
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(ValueError, match="choose from mtcnn, retinaface"):
        detect_faces(image, "haar")
    with pytest.raises(ValueError, match="needs assets"):
        detect_faces(image, "retinaface")


def test_confidence_default_belongs_to_the_detector(monkeypatch):
    found = [Detection(torch.tensor([0.0, 0, 9, 9]), score) for score in (0.95, 0.85)]
    monkeypatch.setattr(detect_module.mtcnn, "detect", lambda *_: found)
    image = np.zeros((40, 40, 3), np.uint8)
    assert [face.score for face in detect_faces(image)] == [0.95]
    assert len(detect_faces(image, min_confidence=0.5)) == 2


def group_photo(side: int, large: bool) -> tuple[np.ndarray, int]:
    """24 megapixels with rows of faces of about `side` pixels, and how many."""
    import cv2

    head = astronaut()[:220, 130:330]  # its face's box is about 95 pixels wide
    small = cv2.resize(head, None, fx=side / 95, fy=side / 95, interpolation=cv2.INTER_AREA)
    photo = np.full((4000, 6000, 3), 120, np.uint8)
    photo[:] = np.linspace(90, 160, 6000, dtype=np.uint8)[None, :, None]
    places = [(300 + 900 * row, 250 + 950 * column) for row in range(4) for column in range(6)]
    if large:
        photo[1500:3700, 2000:4000] = cv2.resize(head, (2000, 2200))
        places = [(y, x) for y, x in places if not (1300 < y and 1700 < x < 4100)]
    for y, x in places:
        photo[y : y + len(small), x : x + small.shape[1]] = small
    return photo, len(places) + large


@pytest.mark.parametrize("large", [False, True])
def test_small_faces_of_a_group(large):
    photo, count = group_photo(60, large)
    faces = detect_faces(photo)
    assert len(faces) == count
    assert all(50 < float((face.box[2:] - face.box[:2]).max()) < 100 for face in faces[large:])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (20, 20)])
def test_tiny_pictures_in_any_memory_order(size):
    assert detect_faces(np.zeros((*size, 3), np.uint8)[::-1, ::-1]) == []
