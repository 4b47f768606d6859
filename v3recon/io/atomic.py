"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

_LONGEST = 60  # bytes of a file's name kept in its temporary one; file systems allow 255
_HOST = f"{crc32(socket.gethostname().encode('utf-8', 'replace')):08x}"
_TEMPORARY = re.compile(r"\.[^.]*~([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(\..*)?", re.DOTALL)
_cleaned: set[tuple[int, str]] = set()  # folders seen by this process


@contextmanager
def replace_on_success(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an error.

    A new file has the permissions that the umask leaves, an old one keeps its own. What a killed
    process left behind in the folder is removed.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        Where to write: an empty file with the suffix of `path`. On an error it is removed and
        `path` is untouched.
    """
    path = Path(path)
    _clean_once(path.parent)
    temporary = _create(path)
    try:
        yield temporary
        with suppress(FileNotFoundError):
            os.chmod(temporary, path.lstat().st_mode & 0o777)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write UTF-8 text so that readers see the old file or the new one, never a part."""
    with replace_on_success(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _create(path: Path) -> Path:
    """An empty file beside `path`; the name says which process of which machine made it."""
    stem = os.fsdecode(os.fsencode(path.stem)[:_LONGEST]).replace(".", "_")
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST else ""
    while True:
        name = f".{stem}~{_HOST}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"
        temporary = path.with_name(name)
        with suppress(FileExistsError):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
            return temporary


def _clean_once(folder: Path) -> None:
    """Remove temporary files of processes of this machine that are gone."""
    key = os.getpid(), os.path.abspath(folder)
    if key in _cleaned:
        return
    _cleaned.add(key)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and match[1] == _HOST and not _is_alive(int(match[2])):
                with suppress(OSError):
                    os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except (OSError, OverflowError) as error:
        return getattr(error, "errno", None) == errno.EPERM  # alive, of another user
    return True
