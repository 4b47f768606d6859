"""Speed of `v3recon synthesize expressions`: pictures per second and process, part by part.

    python benchmarks/synthesize.py --photos FOLDER --count 20

Photos are read and detected inside the measured time; starting the process is not.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import torch

from v3recon.cli.synthesize import ExpressionsConfig, make_options
from v3recon.synthetic_data.generate import Worker
from v3recon.synthetic_data.manifest import WRITTEN, plan_jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--check", default="auto")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    jobs = plan_jobs(arguments.photos, arguments.index)
    jobs = jobs[:: max(1, len(jobs) // (arguments.count + 1))][: arguments.count + 1]
    with tempfile.TemporaryDirectory() as folder:
        config = ExpressionsConfig(
            arguments.photos, Path(folder), size=arguments.size, check=arguments.check
        )
        worker = Worker(make_options(config))
        worker.make(jobs[0])  # compiles and loads
        wall, busy = time.perf_counter(), time.process_time()
        made = [record for job in jobs[1:] for record in worker.make(job)]
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
    tried = len([record for record in made if "seam" in record])
    written = len([record for record in made if record["status"] == WRITTEN])
    print(f"{len(jobs) - 1} photos, {tried} pictures drawn, {written} pass the filter")
    print(f"one process, one thread, {os.cpu_count()} cores in the machine:")
    print(f"  {tried / wall:.1f} pictures/s of wall time, {tried / busy:.1f} of processor time")


if __name__ == "__main__":
    main()
