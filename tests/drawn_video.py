"""Videos for tests: a photo moved by known similarities, with noise, cuts, sound and odd stamps."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from skimage.data import astronaut

SIZE = (480, 360)  # width, height
FACE = np.array([222.0, 110.0])  # middle of the astronaut's face, pixels of the photo


def similarity(x: float, y: float, scale: float = 1.0, roll: float = 0.0) -> np.ndarray:
    """[2, 3] photo to frame: the face's middle comes to (x, y), turned by `roll` radians."""
    cos, sin = scale * np.cos(roll), scale * np.sin(roll)
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.concatenate([linear, (np.array([x, y]) - linear @ FACE)[:, None]], 1)


def moved_photo(
    matrices: Sequence[np.ndarray], noise: float = 0.0, seed: int = 0, size: tuple = SIZE
) -> list[np.ndarray]:
    """Frames [H, W, 3] uint8, each the photo under one map, with the camera's noise."""
    photo, random = np.ascontiguousarray(astronaut()), np.random.default_rng(seed)
    frames = []
    for matrix in matrices:
        frame = cv2.warpAffine(
            photo, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(90, 110, 90)
        )
        noisy = frame + noise * random.standard_normal(frame.shape)
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return frames


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    rate: int = 25,
    times: Sequence[float] | None = None,
    sound: bool = False,
) -> Path:
    """An H.264 file of frames, at even times or given ones, with a tone if wanted."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12", "preset": "ultrafast"}
        stream.time_base = stream.codec_context.time_base = Fraction(1, 90_000)
        tone = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.time_base = Fraction(1, 90_000)
            frame.pts = round((index / rate if times is None else times[index]) * 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            count = 16_000 * len(frames) // rate
            wave = np.sin(np.arange(count) * 0.17).astype(np.float32)[None]
            for start in range(0, count, 1024):
                part = av.AudioFrame.from_ndarray(wave[:, start : start + 1024], "fltp", "mono")
                part.sample_rate, part.pts = 16_000, start
                container.mux(tone.encode(part))
            container.mux(tone.encode(None))
    return path


def turn_file(path: Path, quarters: int) -> None:
    """Write a rotation into an .mp4's track header, as phones do; clockwise for players."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix = at + (40 if data[at] == 0 else 52)
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    one = 1 << 16
    numbers = (cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in numbers)
    path.write_bytes(data)
