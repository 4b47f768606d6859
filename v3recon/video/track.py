"""A video's faces into files: followed, filtered, written; goes on where a run was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from v3recon.io.arrays import read_npz
from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.io.json_file import read_json
from v3recon.io.names import file_name_of
from v3recon.reconstruct.glb import has_arkit_shapes
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.video.follow import CHECK_EVERY, Follower, Sighting
from v3recon.video.frames import read_frames, read_video_info, video_writer
from v3recon.video.live_link import write_live_link
from v3recon.video.outputs import best_face, draw_people, write_take_arrays, write_take_glb
from v3recon.video.take import Smoothing, Take, make_takes

PART = 20 * CHECK_EVERY
"""Frames after which what was found is kept on disk."""

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class TrackOptions:
    """What of a video is written.

    Attributes:
        smoothing: see `take.make_takes`.
        overlay: the video with landmarks drawn, its sound kept.
        values: `.npz` a person.
        live_link: Live Link Face CSV a person, for models with ARKit's shapes.
        glb: animated head a person, for models with ARKit's shapes.
        texture_size: of the head, texels.
        shortest: people seen in fewer frames are left out.
    """

    smoothing: Smoothing = "offline"
    overlay: bool = True
    values: bool = True
    live_link: bool = True
    glb: bool = True
    texture_size: int = 1024
    shortest: int = 5


@dataclass(frozen=True)
class TrackResult:
    """What became of a video.

    Attributes:
        takes: one a person.
        files: what was written.
        frame_count: frames that could be read.
        shots: shots between cuts.
        announced: about how many frames the file says it has; 0 where it does not say.
    """

    takes: list[Take]
    files: list[Path]
    frame_count: int
    shots: int
    announced: int


def track_video(
    path: str | Path,
    reconstructor: FaceReconstructor,
    folder: str | Path,
    options: TrackOptions | None = None,
    progress: Progress | None = None,
) -> TrackResult:
    """Follow the faces of a video and write what was asked for.

    The files are `<folder>/<name>.mp4` and `<name>_face1.npz`, `.csv`, `.glb`, … for each person.
    A run that was stopped goes on from its last `PART` frames if video and weights are the same.

    Args:
        path: the video.
        reconstructor: with a detector.
        folder: made if absent.
        options: default everything.
        progress: called with "frames" or "writing" and the number of frames done.

    Raises:
        ValueError: if the video cannot be read.
    """
    path, folder, options = Path(path), Path(folder), options or TrackOptions()
    info = read_video_info(path)
    folder.mkdir(parents=True, exist_ok=True)
    name = file_name_of(path.stem)
    kept = folder / f"{name}.part"
    sightings, frame_count, shots = follow_video(path, reconstructor, kept, progress)
    takes = [
        take
        for take in make_takes(
            sightings,
            reconstructor.model,
            reconstructor.camera,
            reconstructor.crop_rule,
            reconstructor.points_3d,
            options.smoothing,
        )
        if len(take) >= options.shortest
    ]
    files = []
    arkit = has_arkit_shapes(reconstructor.model)
    best: dict[int, np.ndarray] = {}
    heads = options.glb and arkit
    colored = heads or (options.values and reconstructor.fits_colors)
    if options.overlay or colored:
        best = _second_pass(path, folder / f"{name}.mp4", takes, options, progress)
        files += [folder / f"{name}.mp4"] if options.overlay else []
    for take in takes:
        face = None
        if colored:
            face = best_face(take, reconstructor, best[take.person])
            alb = face.coeffs.alb.expand(len(take), -1)
            take = replace(take, coeffs=replace(take.coeffs, alb=alb))
        stem = folder / f"{name}_face{take.person}"
        if options.values:
            files.append(stem.with_name(f"{stem.name}.npz"))
            write_take_arrays(files[-1], take, reconstructor.model)
        if options.live_link and arkit:
            files.append(stem.with_name(f"{stem.name}.csv"))
            write_live_link(files[-1], take, info.frame_rate)
        if heads and face is not None:
            files.append(stem.with_name(f"{stem.name}.glb"))
            write_take_glb(files[-1], take, face, options.texture_size)
    shutil.rmtree(kept, ignore_errors=True)
    return TrackResult(takes, files, frame_count, shots, info.frame_count)


def follow_video(
    path: Path, reconstructor: FaceReconstructor, kept: Path, progress: Progress | None = None
) -> tuple[list[Sighting], int, int]:
    """All faces of a video, its number of frames and of shots.

    Args:
        path: the video.
        reconstructor: with a detector.
        kept: folder of an earlier, stopped run of the same video, and of this one.
        progress: called with "frames" and the number of frames done.
    """
    follower = Follower(reconstructor)
    sightings, done = _restore(path, kept, follower)
    fresh = len(sightings)
    for frame in read_frames(path, done):
        sightings += follower(frame)
        done = frame.index + 1
        if progress is not None:
            progress("frames", done)
        if done % PART == 0:
            _keep(kept, done, sightings[fresh:], follower)
            fresh = len(sightings)
    return sightings, done, follower.shot + 1


def _keep(kept: Path, done: int, sightings: Sequence[Sighting], follower: Follower) -> None:
    """Write what a stopped run needs to go on."""
    arrays: dict[str, Any] = {
        one.name: np.array([getattr(sighting, one.name) for sighting in sightings])
        for one in fields(Sighting)
    }
    arrays |= {f"state_{key}": value for key, value in follower.state().items()}
    path = kept / f"{done:09d}.npz"
    with replace_on_success(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _restore(path: Path, kept: Path, follower: Follower) -> tuple[list[Sighting], int]:
    """What an earlier run found, and how many frames it saw; the follower is where it was then."""
    about = _about(path, follower.reconstructor)
    try:
        known = read_json(kept / "about.json") if kept.is_dir() else None
    except ValueError:
        known = None
    if known != about:
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        write_text_atomic(kept / "about.json", json.dumps(about))
        return [], 0
    sightings: list[Sighting] = []
    done, state = 0, None
    for part in _parts(kept):
        try:
            arrays = read_npz(part)
            rows = zip(*(arrays[one.name] for one in fields(Sighting)), strict=True)
            sightings += [_sighting(row) for row in rows]
            state = {key[6:]: value for key, value in arrays.items() if key.startswith("state_")}
        except (ValueError, KeyError):
            break  # what follows a damaged part is found again
        done += PART
    if state is not None:
        follower.restore(state)
    return sightings, done


def _parts(kept: Path) -> Iterator[Path]:
    """Parts from the first on, without a gap."""
    done = PART
    while (part := kept / f"{done:09d}.npz").is_file():
        yield part
        done += PART


def _sighting(row: tuple[Any, ...]) -> Sighting:
    person, shot, frame, time, coeffs, matrix, landmarks, quality = row
    numbers = (int(person), int(shot), int(frame), float(time))
    return Sighting(*numbers, coeffs, matrix, landmarks, float(quality))


def _about(path: Path, reconstructor: FaceReconstructor) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    status = path.stat()
    weights = sum(float(one.double().abs().sum()) for one in reconstructor.regressor.parameters())
    return {
        "video": [status.st_size, status.st_mtime_ns],
        "face_model": reconstructor.model.content_hash,
        "weights": round(weights, 3),
        "part": PART,
    }


def _second_pass(
    path: Path,
    overlay: Path,
    takes: Sequence[Take],
    options: TrackOptions,
    progress: Progress | None,
) -> dict[int, np.ndarray]:
    """Draw the overlay; returns the picture that shows each person best."""
    wanted = {int(take.frames[take.best]): take.person for take in takes}
    # Two people may be seen best in the same frame.
    people = {take.person: int(take.frames[take.best]) for take in takes}
    rows = {
        (int(frame), take.person): row for take in takes for row, frame in enumerate(take.frames)
    }
    best: dict[int, np.ndarray] = {}

    def look(write: Callable[[np.ndarray, float], None] | None) -> None:
        for frame in read_frames(path):
            if frame.index in wanted:
                same = [person for person, index in people.items() if index == frame.index]
                best.update(dict.fromkeys(same, frame.image))
            if write is not None:
                here = [
                    (take.person, take.landmarks_68[rows[frame.index, take.person]])
                    for take in takes
                    if (frame.index, take.person) in rows
                ]
                write(draw_people(frame.image, here), frame.time)
            if progress is not None:
                progress("writing", frame.index + 1)

    if not options.overlay:
        look(None)
        return best
    rate = read_video_info(path).frame_rate
    with video_writer(overlay, path, rate) as writer:
        look(writer.write)
    return best
