"""How the threads of torch, OpenCV and this package share the processor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

HELPER_SPINS = ("GOMP_SPINCOUNT", "20000")
"""Environment of `let_helpers_sleep`: half a millisecond; libgomp's own 300,000 are seven."""


def let_helpers_sleep() -> None:
    """Make torch's helper threads sleep soon after their work; call before torch is imported.

    They wait for more work in a busy loop, for seven milliseconds by default: after the network has
    run they would keep one processor from what follows. What the user chose stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*HELPER_SPINS)


@contextmanager
def threads_limited(torch_threads: int, opencv_threads: int | None = None) -> Iterator[None]:
    """Let one call of torch, and of OpenCV where it is named, use so many threads.

    For work whose single operations are too small to be divided, or where several threads call
    them at the same time: else each waits in every small operation for helpers that another one
    keeps from running.

    Args:
        torch_threads: for torch, in the calling thread and in threads that are started inside.
        opencv_threads: for OpenCV, in the whole process; default as it is.
    """
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(torch_threads)
        if opencv_threads is not None:
            cv2.setNumThreads(opencv_threads)
        yield
    finally:
        torch.set_num_threads(before[0])
        if opencv_threads is not None:
            cv2.setNumThreads(before[1])


def share_out(task: Callable[[int], None], count: int, workers: int) -> None:
    """Call a task, most of whose work is free of the interpreter's lock, with 0…count - 1.

    Args:
        task: safe to be called by several threads at the same time.
        count: how often.
        workers: threads, the calling one among them.

    Raises:
        Whatever the task raises.
    """
    if min(workers, count) < 2:
        for item in range(count):
            task(item)
        return
    items, lock = iter(range(count)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                item = next(items, None)
            if item is None:
                return
            task(item)

    with ThreadPoolExecutor(min(workers, count) - 1) as pool:
        helpers = [pool.submit(work) for _ in range(min(workers, count) - 1)]
        work()
        for helper in helpers:
            helper.result()
