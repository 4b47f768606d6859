"""Faces before a camera that is drawn: how a recording ends and what is written."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from drawn_video import moved_photo, similarity

from v3recon.cli.track import main
from v3recon.video import live


class DrawnCamera:
    """Pictures in place of `cv2.VideoCapture`; ends, or raises, after the last one."""

    def __init__(self, images: list[np.ndarray], end: type[BaseException] | None = None) -> None:
        self.images, self.end, self.released = iter(images), end, False

    def isOpened(self) -> bool:
        return True

    def read(self):
        for image in self.images:
            return True, image[..., ::-1]
        if self.end is not None:
            raise self.end
        return False, None

    def release(self) -> None:
        self.released = True


def photos(count: int) -> list[np.ndarray]:
    return moved_photo([similarity(240 + x, 170) for x in range(count)])


def test_frames_are_rgb_with_rising_times_and_the_camera_is_released():
    images = photos(3)
    camera = DrawnCamera(images)
    frames = list(live.read_camera(camera, iter([5.0, 5.5, 5.5]).__next__))
    assert [frame.index for frame in frames] == [0, 1, 2]
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.5, 0.5001])
    assert all((frame.image == image).all() for frame, image in zip(frames, images, strict=True))
    assert camera.released


@pytest.mark.parametrize("end", ["key", "interrupt", "unplugged"])
def test_every_end_writes_the_files(end, tmp_path, monkeypatch, capsys):
    camera = DrawnCamera(photos(8), KeyboardInterrupt if end == "interrupt" else None)
    shown = []

    def show(image):
        shown.append(image)
        return not (end == "key" and len(shown) == 6)

    ticks = itertools.count()
    read = live.read_camera
    monkeypatch.setattr(live, "open_camera", lambda number: camera)
    monkeypatch.setattr(live, "read_camera", lambda one: read(one, lambda: next(ticks) / 30))
    monkeypatch.setattr(live, "show_in_window", show)
    assert main(["0", "-s", str(tmp_path)]) == 0
    count = 6 if end == "key" else 8
    (path,) = tmp_path.glob("camera0_*_face1.npz")
    with np.load(path) as arrays:
        np.testing.assert_allclose(arrays["times"], np.arange(count) / 30, atol=1e-9)
    (table,) = tmp_path.glob("camera0_*_face1.csv")
    assert len(table.read_text().splitlines()) == count + 1
    assert len(shown) == count and camera.released
    assert (shown[0] != photos(1)[0]).any()  # landmarks are drawn
    assert f"{count} frames, 1 faces" in capsys.readouterr().out


def test_no_camera_no_picture_and_no_display_are_said(tmp_path, monkeypatch, capsys):
    assert main(["97", "-s", str(tmp_path)]) == 2
    assert "camera 97 cannot be opened" in capsys.readouterr().err
    monkeypatch.setattr(live, "open_camera", lambda number: DrawnCamera([]))
    assert main(["0", "-s", str(tmp_path)]) == 2
    assert "gives no pictures" in capsys.readouterr().err

    def fail(*_):
        raise live.cv2.error("no display")

    camera = DrawnCamera(photos(2))
    monkeypatch.setattr(live, "open_camera", lambda number: camera)
    monkeypatch.setattr(live.cv2, "imshow", fail)
    assert main(["0", "-s", str(tmp_path)]) == 2
    assert "--no-window" in capsys.readouterr().err and camera.released
    assert not list(tmp_path.iterdir())
