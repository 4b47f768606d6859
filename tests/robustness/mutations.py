"""Seeded damage to the bytes of a file, and what counts as an answer of a reader."""

from __future__ import annotations

import io
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE_WORDS = (b"nan", b"inf", b"-1", b"1e999", b"99999999999999999999", b"", b"\xff\xfe", b"(((")


@dataclass(frozen=True)
class Format:
    """One kind of file with its reader.

    Attributes:
        name: of the kind.
        write: makes sound files below a folder; the paths are mutated one by one.
        read: reads one of them; returns, or raises ValueError.
        names_file: whether the reader's errors must name the file (some leave it to the caller).
    """

    name: str
    write: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    names_file: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of one mutated file: `fault` is "" where the reader answered rightly."""

    refused: bool
    fault: str
    seconds: float


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """A damaged copy: one to four changes of the kinds that cables, disks and people make."""
    for _ in range(int(random.integers(1, 5))):
        data = _CHANGES[int(random.integers(len(_CHANGES)))](data, random)
    return data


def mutate_inside(data: bytes, random: np.random.Generator) -> bytes:
    """A copy damaged below its checksums: in an archive's member, a PNG's chunk, packed arrays."""
    if data[:2] == b"PK":
        return _repacked(data, random)
    if data[:8] == _PNG:
        return _rechecked(data, random)
    if data[:6] == b"MATLAB" and data[128] == 15:
        inner = mutate(zlib.decompress(data[136:]), random)
        packed = zlib.compress(inner)
        return data[:132] + struct.pack("<I", len(packed)) + packed
    return mutate(data, random)


def mutations(path: Path, count: int, seed: int) -> Iterator[Path]:
    """Damage a file `count` times in place; it is whole again afterwards."""
    whole = path.read_bytes()
    random = np.random.default_rng([seed, len(whole)])
    try:
        for _ in range(count):
            change = mutate if random.random() < 0.5 else mutate_inside
            path.write_bytes(change(whole, random))
            yield path
    finally:
        path.write_bytes(whole)


def try_reader(kind: Format, path: Path, max_seconds: float = 5.0) -> Outcome:
    """Read one file; faults are other errors than ValueError, and messages of no use."""
    start = time.perf_counter()
    refused, fault = False, ""
    try:
        kind.read(path)
    except ValueError as error:
        refused = True
        message = str(error)
        if type(error) is UnicodeDecodeError or not message.strip() or "\n" in message:
            fault = f"no sentence: {message!r:.200}"
        elif kind.names_file and path.name not in message and path.parent.name not in message:
            fault = f"does not name the file: {message!r:.200}"
        elif len(re.sub(re.escape(str(path.parent)), "", message)) > 500:
            fault = f"too long: {message!r:.200}"
    except MemoryError as error:
        fault = f"MemoryError: {error}"
    except Exception as error:
        fault = f"{type(error).__name__}: {error!s:.200}"
    seconds = time.perf_counter() - start
    if not fault and seconds > max_seconds:
        fault = f"took {seconds:.1f} s"
    return Outcome(refused, fault, seconds)


def _repacked(data: bytes, random: np.random.Generator) -> bytes:
    """An archive with one damaged member, whole otherwise; not packed, as torch's are."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as copy:
        names = archive.namelist()
        chosen = names[int(random.integers(len(names)))]
        for name in names:
            content = archive.read(name)
            copy.writestr(name, mutate(content, random) if name == chosen else content)
    return out.getvalue()


def _rechecked(data: bytes, random: np.random.Generator) -> bytes:
    """A PNG with one damaged chunk under a right checksum; pixels are damaged unpacked."""
    out, at, chunks = bytearray(_PNG), 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    chosen = int(random.integers(len(chunks)))
    for number, (kind, content) in enumerate(chunks):
        if number == chosen and kind == b"IDAT" and random.random() < 0.5 and len(chunks) == 3:
            content = zlib.compress(mutate(zlib.decompress(content), random))
        elif number == chosen:
            content = mutate(content, random)
        out += struct.pack(">I", len(content)) + kind + content
        out += struct.pack(">I", zlib.crc32(kind + content))
    return bytes(out)


def _place(data: bytes, random: np.random.Generator) -> int:
    """A position; headers, where most damage tells, are as likely as all the rest."""
    end = max(len(data), 1)
    return int(random.integers(min(end, 512) if random.random() < 0.5 else end))


def _flip(data: bytes, random: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        if out:
            out[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(out)


def _noise(data: bytes, random: np.random.Generator) -> bytes:
    at, length = _place(data, random), int(random.integers(1, 64))
    return data[:at] + random.bytes(min(length, len(data) - at)) + data[at + length :]


def _field(data: bytes, random: np.random.Generator) -> bytes:
    width = int(random.choice([1, 2, 4, 8]))
    value = EXTREME[int(random.integers(len(EXTREME)))] % (1 << 8 * width)
    at = _place(data, random) // width * width
    order = "little" if random.random() < 0.5 else "big"
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


def _cut(data: bytes, random: np.random.Generator) -> bytes:
    return data[: _place(data, random)]


def _remove(data: bytes, random: np.random.Generator) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + int(random.integers(1, 256)) :]


def _repeat(data: bytes, random: np.random.Generator) -> bytes:
    at = _place(data, random)
    part = data[at : at + int(random.integers(1, 256))]
    return data[:at] + part * int(random.integers(2, 20)) + data[at:]


def _move(data: bytes, random: np.random.Generator) -> bytes:
    at, to = _place(data, random), _place(data, random)
    part = data[at : at + int(random.integers(1, 128))]
    return data[:to] + part + data[to:]


def _word(data: bytes, random: np.random.Generator) -> bytes:
    """Replace a number in text, or a run of letters."""
    found = [match.span() for match in re.finditer(rb"[-+\w.]{1,24}", data[:20_000])]
    if not found:
        return data
    start, end = found[int(random.integers(len(found)))]
    word = HOSTILE_WORDS[int(random.integers(len(HOSTILE_WORDS)))]
    return data[:start] + word + data[end:]


def _empty(data: bytes, random: np.random.Generator) -> bytes:
    return b"" if random.random() < 0.2 else data[:1] * len(data)


_CHANGES = (_flip, _noise, _field, _field, _cut, _remove, _repeat, _move, _word, _word, _empty)
