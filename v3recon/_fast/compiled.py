"""Loops compiled to machine code: the one way in which this package calls numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """Decorator: compile a function, free of the interpreter's lock.

    The code is cached on disk; where no place can be written (a read-only installation without a
    home folder) it is compiled in memory, in each run anew.

    Args:
        options: of `numba.njit`, such as fastmath.
    """

    def decorate(function: Callable) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no writable place for the cache
            return numba.njit(nogil=True, **options)(function)

    return decorate
