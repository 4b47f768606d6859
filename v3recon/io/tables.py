"""Tables of text: CSV as spreadsheets write it."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from v3recon.io.atomic import replace_on_success

_MAX_BYTES = 1 << 28
_BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEPARATORS = ",;\t"


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a line of column names.

    A byte order mark is skipped, UTF-16 is recognized by it; columns are separated by commas,
    semicolons or tabs, told from the first line. Rows without any text are left out; cells that a
    row lacks are empty.

    Raises:
        ValueError: naming the file, if it is missing, not UTF-8 or UTF-16, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path}: {path.stat().st_size / 1e6:.0f} MB are no table")
        data = path.read_bytes()
        text = data.decode(_BOMS.get(data[:2], "utf-8-sig"))
        if "\0" in text:
            raise ValueError(f"{path}: holds zero bytes, which no table does")
        return _rows(text)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not text in UTF-8; save it as CSV UTF-8") from None
    except (OSError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable CSV file ({error})") from None


def write_table(
    path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]
) -> None:
    """Write a CSV file with a line of column names, whole or not at all; its folder exists.

    Bytes of file names that no UTF-8 can hold are escaped.

    Args:
        path: the file.
        columns: names, in their order.
        rows: cells by column; those that a row lacks are empty.
    """
    with (
        replace_on_success(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        table.writerows([row.get(column, "") for column in columns] for row in rows)


def _rows(text: str) -> list[dict[str, str]]:
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names = [name.strip() for name in next(lines, [])]
    rows = []
    for line in lines:
        if any(cell.strip() for cell in line):
            cells = [*line, *[""] * (len(names) - len(line))]
            rows.append(dict(zip(names, cells, strict=False)))
    return rows
