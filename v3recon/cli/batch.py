"""`v3recon batch SOURCE … -s FOLDER`: many photos to Parquet shards by local processes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

from v3recon.cli.program import GOES_ON, run_program
from v3recon.cli.reconstruct import make_folder


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line.

    Raises:
        SystemExit: after --help, or with status 2 for flags that cannot be understood.
    """
    parser = argparse.ArgumentParser(
        prog="v3recon batch",
        description="Reconstruct the faces of many photos into SAVEPATH/part-00000.parquet, …: "
        "a row a face, and one for each photo without a face or that cannot be read.",
        epilog="The same command goes on where a run was stopped: shards that are there stay. "
        "Exit status: 0 done (photos that cannot be read are in the tables), 1 shards failed, "
        "2 wrong usage.",
    )
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        help="photos, folders, patterns ('photos/**/*.jpg'), .tar files, lists (.txt, .parquet "
        "with a column path)",
    )
    add("-s", "--savepath", type=Path, required=True, help="folder of the shards")
    add("--shard-size", type=int, default=1000, help="photos in a shard (default: 1000)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    add("--face-model", help="photohead, bfm, or a file")
    add("--assets", help="official 3DDFA_V3 assets, or a checkpoint")
    add("--weights", help="a checkpoint, instead of the assets'")
    add("--device", default="cpu", help="cpu, cuda, … (default: cpu)")
    add("--max-faces", type=int, help="only so many of a photo's largest faces")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    return run_program("batch", parse_arguments, _batch, argv, interrupted=GOES_ON)


def _batch(options: argparse.Namespace) -> int:
    # Slow to import, and not needed to explain the flags.
    from v3recon.batch.run import ShardReport, run_batch
    from v3recon.batch.sources import list_items
    from v3recon.reconstruct.reconstructor import FaceReconstructor

    if options.shard_size < 1 or options.workers < 1:
        raise ValueError("--shard-size and --workers must be at least 1")
    items = list_items(options.sources)
    make_folder(options.savepath)
    settings = {
        "source": options.assets,
        "face_model": options.face_model,
        "weights": options.weights,
        "device": options.device,
        "max_faces": options.max_faces,
    }
    FaceReconstructor.from_pretrained(**settings)  # says what is wrong before processes start
    reports: list[ShardReport] = []
    started = time.perf_counter()
    with tqdm(total=len(items), unit="photo", disable=None) as bar:

        def done(report: ShardReport) -> None:
            reports.append(report)
            bar.update(report.photos)

        lost = run_batch(
            items,
            options.savepath,
            settings,
            shard_size=options.shard_size,
            workers=options.workers,
            done=done,
        )
    seconds = time.perf_counter() - started
    photos = sum(one.photos for one in reports)
    print(
        f"{photos} of {len(items)} photos in this run: {sum(one.faces for one in reports)} faces, "
        f"{sum(one.failed for one in reports)} failed; {seconds:.1f} s; "
        f"shards in {options.savepath}"
    )
    if lost:
        print(f"processes died at shards {', '.join(map(str, lost))}", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
