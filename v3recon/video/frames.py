"""The one file that knows PyAV, an optional library: video frames in and out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from v3recon.io.atomic import replace_on_success
from v3recon.io.messages import one_line

_ENCODER, _QUALITY, _PRESET = "libx264", "20", "veryfast"
_TIME_BASE = Fraction(1, 90_000)
_USUAL_RATE = Fraction(25)


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself.

    Attributes:
        frame_rate: frames a second on average; 25 where the file does not say.
        frame_count: about how many frames there are; 0 where the file does not say.
        has_audio: whether there is a sound track.
    """

    frame_rate: Fraction
    frame_count: int
    has_audio: bool


@dataclass(frozen=True)
class Frame:
    """A picture of a video.

    Attributes:
        index: from 0, in the order of display.
        time: seconds from the first frame; frames need not be evenly spaced.
        image: [H, W, 3] uint8 RGB, upright.
    """

    index: int
    time: float
    image: np.ndarray


def read_video_info(path: str | Path) -> VideoInfo:
    """Rate, length and sound of a video.

    Raises:
        ValueError: if PyAV is missing, or the file holds no video.
    """
    with _opened(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
        count = stream.frames
        if not count and container.duration:
            count = round(container.duration / 1e6 * rate)
        return VideoInfo(Fraction(rate), int(count), bool(container.streams.audio))


def read_frames(path: str | Path, start: int = 0) -> Iterator[Frame]:
    """The frames of a video, turned upright as its file says.

    A file that ends early, or is damaged further on, gives the frames before that.

    Args:
        path: the video.
        start: index of the first frame to give; those before are decoded all the same.

    Raises:
        ValueError: if PyAV is missing, or no frame can be read.
    """
    av = _library()
    index, first, last = 0, None, -1.0
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or _USUAL_RATE)
        try:
            for frame in container.decode(stream):
                seconds = index / rate if frame.time is None else float(frame.time)
                first = seconds if first is None else first
                time = max(seconds - first, last + 1e-4)  # stamps of odd files go back
                if index >= start:
                    yield Frame(index, time, _upright(frame))
                index, last = index + 1, time
        except av.FFmpegError as error:
            if index == 0:
                raise ValueError(f"{path} cannot be decoded ({one_line(error)})") from None
    if index == 0:
        raise ValueError(f"{path} holds no frames")


@contextmanager
def video_writer(path: Path, like: Path, rate: Fraction) -> Iterator[VideoWriter]:
    """Write an H.264 video with the sound of another one, whole or not at all.

    Args:
        path: the file to write, .mp4; its folder exists.
        like: the video whose sound is copied.
        rate: of the frames, for players; frames keep their own times.

    Raises:
        ValueError: if PyAV is missing.
    """
    av = _library()
    with replace_on_success(path) as temporary, av.open(str(temporary), "w", format="mp4") as out:
        with _opened(like) as (source, _):
            writer = VideoWriter(out, source, rate)
            yield writer
            writer.finish()


class VideoWriter:
    """Frames into an open file; see `video_writer`."""

    def __init__(self, container: Any, source: Any, rate: Fraction) -> None:
        self._container = container
        self._rate = rate
        self._stream: Any = None
        self._audio: Any = None
        self._packets: Iterator[Any] = iter(())
        self._waiting: Any = None
        with suppress(StopIteration, ValueError):  # of codecs that mp4 does not hold
            first = source.streams.audio[0] if source.streams.audio else None
            if first is not None:
                self._audio = container.add_stream_from_template(first)
                self._packets = source.demux(first)

    def write(self, image: np.ndarray, time: float) -> None:
        """Append a frame.

        Args:
            image: [H, W, 3] uint8 RGB, of one size in all calls.
            time: seconds, rising.
        """
        av = _library()
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2  # halves of chroma
        if self._stream is None:
            self._stream = self._container.add_stream(_ENCODER, rate=self._rate)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            self._stream.time_base = self._stream.codec_context.time_base = _TIME_BASE
            self._stream.options = {"crf": _QUALITY, "preset": _PRESET}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), "rgb24")
        frame.time_base, frame.pts = _TIME_BASE, round(time / _TIME_BASE)
        self._container.mux(self._stream.encode(frame))
        self._copy_audio(time)

    def finish(self) -> None:
        """Write what the encoder still holds, and the rest of the sound."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._copy_audio(float("inf"))

    def _copy_audio(self, until: float) -> None:
        """Sound up to a time, so that both tracks lie near each other in the file."""
        with suppress(_library().FFmpegError, StopIteration):  # of a file that ends early
            while self._audio is not None:
                packet = self._waiting or next(self._packets)
                self._waiting = None
                if packet.dts is None:
                    continue
                if packet.dts * packet.time_base > until:
                    self._waiting = packet
                    return
                packet.stream = self._audio
                self._container.mux(packet)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """An open video and its first picture track."""
    av = _library()
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{path} is not a video ({one_line(error)})") from None
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} holds no pictures, only sound")
        yield container, container.streams.video[0]


def _upright(frame: Any) -> np.ndarray:
    """[H, W, 3] uint8 RGB of a decoded frame, turned by whole quarters."""
    image = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def _library() -> ModuleType:
    try:
        import av
    except ImportError:
        raise ValueError("videos need the library PyAV: pip install 'v3recon[video]'") from None
    from av import logging

    logging.set_level(logging.PANIC)  # what goes wrong is said in one sentence
    return av
