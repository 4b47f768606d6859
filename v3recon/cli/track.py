"""`v3recon track VIDEO`: faces of a video into an overlay, values, CSV and animated GLB."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from tqdm import tqdm

from v3recon.cli.program import GOES_ON, add_network, reconstructor_of, run_program
from v3recon.cli.reconstruct import make_folder

EPILOG = """A run that was stopped goes on where it was when it is started again in the same way.
A camera (`v3recon track 0`) is shown in a window until q, Esc or Ctrl-C; then its values and CSV
are written. Exit status: 0 done, 1 no face in the video, 2 wrong usage, a file that is no video,
no camera, or no display."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line.

    Raises:
        SystemExit: after --help, or with status 2 for flags that cannot be understood.
    """
    parser = argparse.ArgumentParser(
        prog="v3recon track",
        description="Follow the faces of a video. Writes SAVEPATH/NAME.mp4 (landmarks drawn, sound "
        "kept) and for each person NAME_face1.npz (values of every frame); with a face model that "
        "has ARKit's shapes also NAME_face1.csv (Live Link Face) and NAME_face1.glb (animated).",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("video", type=Path, help="a file of any format that FFmpeg reads, or a camera's number")
    add("-s", "--savepath", type=Path, default=Path("results"), help="folder (default: results)")
    add(
        "--smoothing",
        choices=("offline", "live", "none"),
        default="offline",
        help="offline: frames before and after, no lag; live: One Euro (default: offline)",
    )
    for flag, what in (
        ("overlay", "the video with landmarks drawn"),
        ("values", "values as .npz"),
        ("live-link", "Live Link Face CSV"),
        ("glb", "animated head"),
    ):
        add(f"--no-{flag}", action="store_true", help=f"leave out {what}")
    add("--no-window", action="store_true", help="of a camera: show nothing, Ctrl-C ends")
    add("--live-link", metavar="HOST[:PORT]", help="of a camera: send every frame to Unreal "
        "Engine's Live Link (UDP, port 11111)")  # fmt: skip
    add("--texture-size", type=int, default=1024, help="texels of the head's (default: 1024)")
    add_network(parser)
    add("--max-people", type=int, help="only so many of a frame's largest new faces")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    return run_program("track", parse_arguments, _track, argv, interrupted=GOES_ON)


def _track(options: argparse.Namespace) -> int:
    # Slow to import, and not needed to explain the flags.
    from v3recon.reconstruct.glb import has_arkit_shapes
    from v3recon.video.frames import read_video_info
    from v3recon.video.track import TrackOptions, track_video

    if not 16 <= options.texture_size <= 8192:
        raise ValueError(f"--texture-size: 16…8192 texels, not {options.texture_size}")
    if options.video.name.isdecimal() and not options.video.exists():
        return _track_camera(options)
    if options.live_link is not None:
        raise ValueError("--live-link sends what a camera sees; of a file use the CSV")
    info = read_video_info(options.video)
    make_folder(options.savepath)
    reconstructor = reconstructor_of(options, max_faces=options.max_people)
    wanted = TrackOptions(
        smoothing=options.smoothing,
        overlay=not options.no_overlay,
        values=not options.no_values,
        live_link=not options.no_live_link,
        glb=not options.no_glb,
        texture_size=options.texture_size,
    )
    started = time.perf_counter()
    with tqdm(total=info.frame_count or None, unit="frame", disable=None) as bar:

        def progress(step: str, done: int) -> None:
            bar.set_description(step, refresh=False)
            bar.update(done - bar.n)

        result = track_video(options.video, reconstructor, options.savepath, wanted, progress)
    seconds = time.perf_counter() - started
    for take in result.takes:
        first, last = take.times[0], take.times[-1]
        print(f"face {take.person}: {len(take)} frames, {first:.2f} to {last:.2f} s")
    if result.announced > result.frame_count + 1:
        print(f"the file says {result.announced} frames; {result.frame_count} could be read")
    if result.takes and not has_arkit_shapes(reconstructor.model):
        name = reconstructor.model.name
        print(f"no CSV and GLB: face model {name} has no ARKit shapes (photohead has them)")
    print(
        f"{result.frame_count} frames, {result.shots} shots, {len(result.takes)} faces; "
        f"{seconds:.1f} s; results in {options.savepath}"
    )
    return 0 if result.takes else 1


def _track_camera(options: argparse.Namespace) -> int:
    from v3recon.reconstruct.glb import has_arkit_shapes
    from v3recon.video import live
    from v3recon.video.live_link import LiveLinkSender
    from v3recon.video.track import TrackOptions

    number = int(options.video.name)
    wanted = TrackOptions(
        options.smoothing, values=not options.no_values, live_link=not options.no_live_link
    )
    # The time in the name keeps the files of earlier recordings.
    stem = options.savepath / f"camera{number}_{time.strftime('%Y%m%d-%H%M%S')}"
    show = None if options.no_window else live.show_in_window
    with ExitStack() as held:
        sender = None
        if options.live_link is not None:
            sender = held.enter_context(closing(LiveLinkSender(options.live_link)))
        capture = live.open_camera(number)
        held.callback(capture.release)
        make_folder(options.savepath)
        reconstructor = reconstructor_of(options, max_faces=options.max_people)
        if sender is not None and not has_arkit_shapes(reconstructor.model):
            raise ValueError(
                f"--live-link needs ARKit's shapes; {reconstructor.model.name} has none"
            )
        started = time.perf_counter()
        frames = live.read_camera(capture)
        result = live.track_camera(frames, reconstructor, stem, wanted, show, sender)
    seconds = time.perf_counter() - started
    print(
        f"{result.frame_count} frames, {len(result.takes)} faces; {seconds:.1f} s; "
        f"{len(result.files)} files in {options.savepath}"
    )
    return 0 if result.takes else 1


if __name__ == "__main__":
    sys.exit(main())
