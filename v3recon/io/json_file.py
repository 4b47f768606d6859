"""JSON files of earlier runs, which may be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from v3recon.io.messages import one_line

_MAX_BYTES = 1 << 28


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: naming the file, if it is missing, too large, or no JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path.stat().st_size / 1e6:.0f} MB")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a readable JSON file ({one_line(error)})") from None
