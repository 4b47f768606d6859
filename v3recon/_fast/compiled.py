"""Loops compiled to machine code: the one way in which this package calls numba."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """Decorator: compile a function, free of the interpreter's lock.

    The code is cached on disk; where that cannot be (a read-only installation without a home
    folder, a full disk, a damaged cache) it is compiled in memory, in each run anew.

    Args:
        options: of `numba.njit`, such as fastmath.
    """

    def decorate(function: Callable) -> Any:
        dispatcher = numba.njit(nogil=True, **options)(function)
        if _has_place(function):
            try:
                vars(dispatcher)["_cache"] = _OptionalCache(function)
            except (RuntimeError, OSError):  # no writable place
                pass
        return dispatcher

    return decorate


class _OptionalCache(FunctionCache):
    """Numba's cache of a function, without which everything works too."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged files fail in any way
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:  # a full disk, a folder that is gone
            return


def _has_place(function: Callable) -> bool:
    """Whether numba may look for a place; without a home it would make a folder named "~"."""
    if os.path.isabs(os.path.expanduser("~")) or os.environ.get("XDG_CACHE_HOME"):
        return True
    source = os.path.dirname(function.__code__.co_filename)
    return bool(os.environ.get("NUMBA_CACHE_DIR")) or os.access(source, os.W_OK)
