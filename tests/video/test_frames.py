"""Videos in and out: stamps, rotation, sound, and files that are none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from drawn_video import turn_file, write_video

from v3recon.video.frames import read_frames, read_video_info, video_writer


def flat_frames(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Frames whose grey tells their number; the top left corner is white."""
    frames = [np.full((*size, 3), 40 + 8 * index, np.uint8) for index in range(count)]
    for frame in frames:
        frame[:16, :16] = 255
    return frames


def numbers(path: Path) -> list[int]:
    return [round((float(frame.image[-8:, -8:].mean()) - 40) / 8) for frame in read_frames(path)]


def test_frames_come_in_order_with_their_times(tmp_path):
    path = write_video(tmp_path / "a.mp4", flat_frames(12), sound=True)
    info = read_video_info(path)
    assert (info.frame_rate, info.frame_count, info.has_audio) == (25, 12, True)
    assert numbers(path) == list(range(12))
    times = [frame.time for frame in read_frames(path)]
    np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-4)
    assert [frame.index for frame in read_frames(path, 9)] == [9, 10, 11]


def test_uneven_times_are_kept(tmp_path):
    times = [0, 0.03, 0.1, 0.11, 0.4, 0.5]
    path = write_video(tmp_path / "a.mp4", flat_frames(6), times=times)
    found = [frame.time for frame in read_frames(path)]
    np.testing.assert_allclose(found, times, atol=1e-4)
    with video_writer(tmp_path / "b.mp4", path, Fraction(25)) as writer:
        for frame in read_frames(path):
            writer.write(frame.image, frame.time)
    again = [frame.time for frame in read_frames(tmp_path / "b.mp4")]
    np.testing.assert_allclose(again, times, atol=1e-3)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_phones_rotation_is_undone(tmp_path, quarters):
    upright = flat_frames(2)
    stored = [np.ascontiguousarray(np.rot90(frame, quarters)) for frame in upright]
    path = write_video(tmp_path / "a.mp4", stored)
    turn_file(path, quarters)  # players turn clockwise, rot90 does the other way
    for frame, expected in zip(read_frames(path), upright, strict=True):
        assert frame.image.shape == expected.shape
        assert np.abs(frame.image.astype(int) - expected).mean() < 4


def test_sound_is_copied(tmp_path):
    source = write_video(tmp_path / "a.mp4", flat_frames(20), sound=True)
    with video_writer(tmp_path / "b.mp4", source, Fraction(25)) as writer:
        for frame in read_frames(source):
            writer.write(frame.image[:-1, :-1], frame.time)  # odd sizes lose a row
    packets = []
    for path in (source, tmp_path / "b.mp4"):
        with av.open(str(path)) as container:
            found = [bytes(one) for one in container.demux(container.streams.audio[0])]
            packets.append([one for one in found if one])
    assert packets[0] == packets[1] and len(packets[0]) > 10
    assert next(read_frames(tmp_path / "b.mp4")).image.shape == (46, 62, 3)


def test_a_video_that_ends_early_gives_what_it_has(tmp_path):
    path = tmp_path / "a.mkv"
    random = np.random.default_rng(0)
    noisy = [random.integers(0, 255, (96, 128, 3)).astype(np.uint8) for _ in range(40)]
    write_video(path, noisy)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    count = len(list(read_frames(path)))
    assert 5 < count < 35


def test_what_is_no_video_is_told_in_a_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        tone = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
        part.sample_rate = 16_000
        container.mux(tone.encode(part))
    for name, message in (
        ("text.mp4", "is not a video"),
        ("empty.mp4", "is not a video"),
        ("sound.wav", "only sound"),
        ("none.mp4", "no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            list(read_frames(tmp_path / name))


def test_a_stopped_writer_leaves_nothing(tmp_path):
    source = write_video(tmp_path / "a.mp4", flat_frames(4))
    with pytest.raises(RuntimeError), video_writer(tmp_path / "b.mp4", source, Fraction(25)) as one:
        one.write(flat_frames(1)[0], 0)
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
