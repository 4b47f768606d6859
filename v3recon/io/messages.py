"""Texts of foreign origin as one short line."""

from __future__ import annotations

import sys
from collections.abc import Iterable

_LONGEST = 160
_MOST = 12


def one_line(error: object) -> str:
    """An error's message without line breaks or unprintable letters, shortened.

    Args:
        error: the error, or any text. Where it has no message, its type's name is taken.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def some_of(names: Iterable[object]) -> str:
    """Names for a message: the first dozen, "none" where there is none."""
    listed = [one_line(name)[:40] for name in names]
    more = ", …" if len(listed) > _MOST else ""
    return ", ".join(listed[:_MOST]) + more if listed else "none"


def say_anything() -> None:
    """Let standard output and error escape letters that they cannot encode; for programs."""
    for stream in (sys.stdout, sys.stderr):
        change = getattr(stream, "reconfigure", None)
        if change is not None:
            change(errors="backslashreplace")
