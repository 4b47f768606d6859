"""How the threads of torch and of this package share the processor."""

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


_lock = threading.Lock()
_limits: list[int] = []  # of the calls that are in progress
_outside = 1  # torch's number where none is
_here = threading.local()


@contextmanager
def threads_limited(count: int) -> Iterator[None]:
    """Let single operations of torch that this thread calls use so many threads.

    For work whose operations are too small to be divided, or where several threads call them at
    the same time: else each waits in every small operation for helpers that another one keeps from
    running. Torch knows a number for each thread and gives new threads the one that was set last;
    in whatever order threads enter and leave, both are in the end what they were.

    Args:
        count: for the calling thread and for threads that are started inside.
    """
    import torch

    global _outside
    with _lock:
        own = torch.get_num_threads()
        if not _limits:
            _outside = own
        # A thread that was started under the limit of an unrelated one has that as its own number.
        borrowed = own in _limits and not getattr(_here, "belongs", False)
        before = _outside if borrowed else own
        belonged, _here.belongs = getattr(_here, "belongs", False), True
        _limits.append(count)
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with _lock:
            _limits.remove(count)
            _here.belongs = belonged
            torch.set_num_threads(before)


def belong_to_limit() -> None:
    """For threads that work for one inside of `threads_limited`: its limit is theirs."""
    _here.belongs = True


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
