"""Faces before a camera that is drawn: how a recording ends and what is written."""

from __future__ import annotations

import itertools
import socket
import struct

import numpy as np
import pytest
from drawn_video import moved_photo, similarity

from v3recon.cli.track import main
from v3recon.face_models.arkit import ARKIT_NAMES
from v3recon.video import live
from v3recon.video.live_link import LiveLinkSender, live_link_packet


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
    engine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    engine.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{engine.getsockname()[1]}"
    assert main(["0", "-s", str(tmp_path), "--live-link", address]) == 0
    count = 6 if end == "key" else 8
    (path,) = tmp_path.glob("camera0_*_face1.npz")
    with np.load(path) as arrays:
        np.testing.assert_allclose(arrays["times"], np.arange(count) / 30, atol=1e-9)
    (table,) = tmp_path.glob("camera0_*_face1.csv")
    assert len(table.read_text().splitlines()) == count + 1
    assert len(shown) == count and camera.released
    assert (shown[0] != photos(1)[0]).any()  # landmarks are drawn
    engine.settimeout(5)
    packets = [engine.recv(1000) for _ in range(count)]
    engine.close()
    for number, packet in enumerate(packets):
        assert packet[:5] == b"\x06\0\0\0$" and packet[41:50] == b"\0\0\0\x05face1"
        assert struct.unpack("!IfIIB", packet[50:67]) == (number, 0, 30, 1, 61)
        values = np.array(struct.unpack("!61f", packet[67:]))
        assert (values[:52] >= 0).all() and (values[:52] <= 1).all()
    assert f"{count} frames, 1 faces" in capsys.readouterr().out


def test_a_packet_has_left_before_right():
    exp = np.zeros(64)
    exp[ARKIT_NAMES.index("jawLeft")], exp[ARKIT_NAMES.index("mouthLeft")] = 0.25, 2.0
    packet = live_link_packet("a", exp, np.array([0.1, 0.2, 0.3]), 7, 30)
    values = np.array(struct.unpack("!61f", packet[-61 * 4 :]))
    assert values[15] == 0.25 and values[21] == 1 and values[:52].sum() == 1.25
    np.testing.assert_allclose(values[52:55], [0.2, 0.1, 0.3], rtol=1e-6)
    for wrong in ("", ":5", "nowhere.invalid", "127.0.0.1:99999", "127.0.0.1:x"):
        with pytest.raises(ValueError, match="no HOST"):
            LiveLinkSender(wrong)


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
