"""Jitter, lag and speed of `v3recon track` on videos whose movement is known exactly.

    python benchmarks/track_video.py

A photo (scikit-image's astronaut) is moved by known similarities and gets the noise of a camera.
Jitter is the standard deviation of the landmarks' change from frame to frame on a still face;
lag the shift in time that explains best where the face was found.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from drawn_video import moved_photo, similarity

from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.video.follow import Follower, Sighting
from v3recon.video.frames import Frame
from v3recon.video.take import make_takes

RATE, COUNT = 25, 100
SIZE = (1280, 720)
NOISE = 6.0  # grey levels


def follow(tool: FaceReconstructor, maps: list[np.ndarray]) -> list[Sighting]:
    """Sightings; prints the time a frame."""
    images = moved_photo(maps, NOISE, size=SIZE)
    follower, found = Follower(tool), []
    for index, image in enumerate(images):
        if index == 5:
            started = time.process_time(), time.perf_counter()
        found += follower(Frame(index, index / RATE, image))
    spent = np.array([time.process_time(), time.perf_counter()]) - started
    print("milliseconds a frame: processor {:.1f}, wall {:.1f}".format(*1e3 * spent / (COUNT - 5)))
    return found


def main() -> None:
    tool = FaceReconstructor.from_pretrained(device="cpu")
    scene = (tool.model, tool.camera, tool.crop_rule, tool.points_3d)
    t = np.arange(COUNT) / RATE
    still = follow(tool, [similarity(640, 330, 1.6)] * COUNT)
    wave = np.sin(2 * np.pi * t / 1.2)
    moved = follow(tool, [similarity(640 + 120 * w, 330, 1.6, 0.2 * w) for w in wave])
    shifts = np.arange(-0.1, 0.1, 0.001)
    print("smoothing  jitter pixels  expression  lag of place, ms  lag of roll, ms")
    for smoothing in ("none", "live", "offline"):
        (rest,) = make_takes(still, *scene, smoothing)
        points = np.diff(rest.landmarks_68[5:], axis=0).std()
        exp = np.diff(rest.coeffs.exp.numpy()[5:], axis=0).std()
        (take,) = make_takes(moved, *scene, smoothing)
        lags = []
        for values, scale in (
            (take.landmarks_68[:, :, 0].mean(1), 120),
            (take.coeffs.angle[:, 2].numpy(), -0.2),
        ):
            centered = (values - values.mean()) / scale
            inner = slice(10, -10)
            errors = [
                np.square(np.interp(t - s, t, wave)[inner] - centered[inner]).sum() for s in shifts
            ]
            lags.append(1e3 * shifts[int(np.argmin(errors))])
        print(f"{smoothing:9s}  {points:13.3f}  {exp:10.4f}  {lags[0]:16.0f}  {lags[1]:15.0f}")


if __name__ == "__main__":
    main()
