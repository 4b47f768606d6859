"""Faces before a camera, followed while they are seen; values are written when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from v3recon.reconstruct.glb import has_arkit_shapes
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.types import FaceCoeffs
from v3recon.video.filters import OneEuro
from v3recon.video.follow import Follower, Sighting
from v3recon.video.frames import Frame
from v3recon.video.live_link import LiveLinkSender, live_link_packet, write_live_link
from v3recon.video.outputs import draw_people, write_take_arrays
from v3recon.video.take import make_takes
from v3recon.video.track import TrackOptions, TrackResult

_USUAL_RATE = Fraction(30)
_TITLE = "v3recon: q or Esc ends"
_END_KEYS = (ord("q"), 27)  # 27 is Esc

Show = Callable[[np.ndarray], bool]
"""Shows a frame [H, W, 3] uint8 RGB; False once the user wants to end."""


class Capture(Protocol):
    """What of `cv2.VideoCapture` is used."""

    def isOpened(self) -> bool: ...  # noqa: D102

    def read(self) -> tuple[bool, np.ndarray]: ...  # noqa: D102

    def release(self) -> None: ...  # noqa: D102


def open_camera(number: int) -> Capture:
    """An open camera.

    Raises:
        ValueError: if there is no such camera, or another program holds it.
    """
    with suppress(cv2.error):
        capture = cv2.VideoCapture(number)
        if capture.isOpened():
            return capture
        capture.release()
    raise ValueError(f"camera {number} cannot be opened: none there, or another program uses it")


def read_camera(
    capture: Capture, clock: Callable[[], float] = time.perf_counter
) -> Generator[Frame, None, None]:
    """Frames of an open camera until it gives none; the camera is released at the end.

    Args:
        capture: gives BGR pictures.
        clock: seconds; a frame's time is when it arrived, from the first frame on.

    Raises:
        ValueError: if the camera gives no frame at all.
    """
    index, first, last = 0, 0.0, -1.0
    try:
        while True:
            good, image = capture.read()
            if not good:
                break
            now = clock()
            first = now if index == 0 else first
            last = max(now - first, last + 1e-4)  # times of frames rise
            yield Frame(index, last, np.ascontiguousarray(image[..., ::-1]))
            index += 1
    finally:
        capture.release()
    if index == 0:
        raise ValueError("the camera gives no pictures; another program may use it")


def show_in_window(image: np.ndarray) -> bool:
    """Show a frame in a window; False after `q`, Esc, or once the window was closed.

    Raises:
        ValueError: if there is no display, or OpenCV was built without windows.
    """
    try:
        cv2.imshow(_TITLE, np.ascontiguousarray(image[..., ::-1]))
        ended = cv2.waitKey(1) & 0xFF in _END_KEYS
        return not ended and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:
        raise ValueError(
            "no window: there is no display, or OpenCV is the headless one; use --no-window"
        ) from None


def track_camera(
    frames: Generator[Frame, None, None],
    reconstructor: FaceReconstructor,
    stem: Path,
    options: TrackOptions,
    show: Show | None,
    sender: LiveLinkSender | None = None,
) -> TrackResult:
    """Follow faces until the camera, the user or Ctrl-C ends it, then write what was found.

    The files are `<stem>_face1.npz` and `.csv`, … for each person; their values are filtered
    as `options.smoothing` says. The window's landmarks are filtered by One Euro.

    Args:
        frames: see `read_camera`; closed at the end.
        reconstructor: with a detector.
        stem: start of the files' names; their folder exists.
        options: `overlay` and `glb` are not read, the pictures are not kept.
        show: see `show_in_window`; None shows nothing.
        sender: gets each face of each frame, filtered by One Euro, as subject `face1`, …; of
            face models with ARKit's shapes.
    """
    follower = Follower(reconstructor)
    filters: dict[tuple[int, int], OneEuro] = {}
    sent: dict[tuple[int, int], OneEuro] = {}
    sightings: list[Sighting] = []
    count = 0
    with suppress(KeyboardInterrupt), closing(frames):
        for frame in frames:
            found = follower(frame)
            sightings += found
            count = frame.index + 1
            if sender is not None:
                _send(sender, frame, found, sent, reconstructor.model.sizes)
            if show is None:
                continue
            try:
                if not show(_drawn(frame, found, filters)):
                    break
            except ValueError:
                if frame.index == 0:
                    raise
                break  # a display that goes away ends the recording, and loses nothing of it
    tool = reconstructor
    scene = (tool.model, tool.camera, tool.crop_rule, tool.points_3d)
    takes = make_takes(sightings, *scene, options.smoothing) if sightings else []
    takes = [take for take in takes if len(take) >= options.shortest]
    files = []
    for take in takes:
        name = f"{stem.name}_face{take.person}"
        if options.values:
            files.append(stem.with_name(f"{name}.npz"))
            write_take_arrays(files[-1], take, tool.model)
        if options.live_link and has_arkit_shapes(tool.model):
            files.append(stem.with_name(f"{name}.csv"))
            write_live_link(files[-1], take, _USUAL_RATE)
    return TrackResult(takes, files, count, follower.shot + 1, 0)


def _send(
    sender: LiveLinkSender,
    frame: Frame,
    found: list[Sighting],
    filters: dict[tuple[int, int], OneEuro],
    sizes: tuple[int, int, int],
) -> None:
    """Send the faces of a frame, filtered."""
    _forget_lost(filters, found)
    for one in found:
        coeffs = FaceCoeffs.from_tensor(torch.from_numpy(one.coeffs)[None], sizes)
        values = torch.cat([coeffs.exp, coeffs.angle], 1)[0].numpy().astype(float)
        known = filters.setdefault((one.person, one.shot), OneEuro())
        exp, angle = np.split(known(frame.time, values), [-3])
        subject = f"face{one.person}"
        sender.send(live_link_packet(subject, exp, angle, frame.index, int(_USUAL_RATE)))


def _drawn(
    frame: Frame, found: list[Sighting], filters: dict[tuple[int, int], OneEuro]
) -> np.ndarray:
    """The frame with filtered landmarks."""
    _forget_lost(filters, found)
    people = []
    for one in found:
        size = float(np.ptp(one.landmarks_68, axis=0).max())
        # The unit is fixed at a person's first frame, as the filter keeps values in it.
        known = filters.setdefault((one.person, one.shot), _ScaledOneEuro(max(size, 1.0)))
        points = known(frame.time, one.landmarks_68.astype(float).ravel()).reshape(-1, 2)
        people.append((one.person, points))
    return draw_people(frame.image, people)


def _forget_lost(filters: dict[tuple[int, int], OneEuro], found: list[Sighting]) -> None:
    """A person lost for a frame starts a new filter."""
    for gone in set(filters) - {(one.person, one.shot) for one in found}:
        del filters[gone]


class _ScaledOneEuro(OneEuro):
    """One Euro of pixels, in units of a face's size."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self._unit = unit

    def __call__(self, time: float, value: np.ndarray) -> np.ndarray:
        return super().__call__(time, value / self._unit) * self._unit
