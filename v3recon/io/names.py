"""Names for files made from names of other files, whatever those are."""

from __future__ import annotations

import os
import re
import unicodedata
from zlib import crc32

MAX_BYTES = 120
"""Longest name made here; with endings and temporary names it stays below the 255 of disks."""

_RESERVED = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)))
)


def file_name_of(text: str) -> str:
    r"""A file name that works everywhere and says what `text` said.

    Letters of all scripts and blanks inside stay. Bytes that are no UTF-8, control characters and
    what Windows forbids become "_", as do blanks, dots and dashes at the ends. Longer names than
    `MAX_BYTES` are cut and end with a checksum of the whole.

    Args:
        text: a file's stem, as Python decodes it.

    Returns:
        Not empty, never "." or "..", without "/" and "\".
    """
    name = "".join(letter if _is_plain(letter) else "_" for letter in text)
    name = _edges(name)
    if name.split(".")[0].strip().lower() in _RESERVED:
        name = f"_{name}"
    data = name.encode("utf-8")
    if len(data) > MAX_BYTES:
        kept = data[: MAX_BYTES - 9].decode("utf-8", "ignore")
        name = f"{_edges(kept)}_{_checksum(text)}"
    return name


def ascii_name_of(text: str) -> str:
    """A name of ASCII letters, digits, "_", "." and "-" alone, for use inside mesh files.

    Readers split such names at blanks and decode them in different ways. A name that is changed
    ends with a checksum, so that two names never become one.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", file_name_of(text))
    return name if name == text else f"{name}_{_checksum(text)}"


def _is_plain(letter: str) -> bool:
    return letter not in '/\\<>:"|?*' and unicodedata.category(letter) not in (
        "Cc",
        "Cs",
        "Cn",
        "Zl",
    )


def _edges(name: str) -> str:
    """Blanks, dots and dashes at the ends as "_"."""
    start = re.match(r"[\s.-]*", name)
    name = "_" * bool(start and start[0]) + name[start.end() if start else 0 :]
    end = re.search(r"[\s.]*$", name)
    name = name[: end.start()] + "_" if end and end[0] else name
    return name or "_"


def _checksum(text: str) -> str:
    return f"{crc32(os.fsencode(text) if _encodes(text) else text.encode('utf-8', 'replace')):08x}"


def _encodes(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
