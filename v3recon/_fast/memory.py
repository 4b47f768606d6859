"""How freed memory is kept for the next use."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's mallopt
_LARGEST_BLOCK = 1 << 30  # bytes; larger ones are mapped and given back one by one


def keep_freed_memory(one_pool: bool = False) -> None:
    """Tell glibc to keep freed blocks for the next step instead of giving them back.

    A program that works in steps frees and asks again for the same blocks; mapping them anew each
    time, page by page, can cost more than the arithmetic (a training on two cores: 20 samples a
    second without this, 71 with it). Without glibc nothing happens.

    Args:
        one_pool: all threads share what is kept (a tenth less memory where several write files).
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # musl has another allocator
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    if one_pool:
        libc.mallopt(_M_ARENA_MAX, 1)
