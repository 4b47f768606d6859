"""Samples per second and core: python benchmarks/samples.py PREPARED."""

from __future__ import annotations

import sys
import time

import cv2

from v3recon.data.augment import AugmentSettings
from v3recon.data.samples import TrainingDataset
from v3recon.data.shards import PreparedSet


def main(folder: str, count: int = 500) -> None:
    cv2.setNumThreads(1)
    records = PreparedSet(folder)
    for size in (112, 128, 224):
        for profile in (0.0, 0.65, 1.0):
            data = TrainingDataset(records, AugmentSettings(size=size, profile=profile))
            data[0]  # compiles
            start = time.process_time()
            for index in range(count):
                data[index]
            rate = count / (time.process_time() - start)
            print(f"{size} px, {profile:.0%} profiled: {rate:5.0f} samples/s of processor time")


if __name__ == "__main__":
    main(sys.argv[1])
