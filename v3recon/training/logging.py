"""Where a run reports: the terminal, TensorBoard, and a JSON line per entry."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LOGGER = logging.getLogger("v3recon.training")


class RunLog:
    """Scalars and pictures of one run. A log that is not the first process's does nothing."""

    def __init__(self, folder: Path, active: bool) -> None:
        """Open TensorBoard and `log.jsonl` in `folder` (appended to when resuming)."""
        self._writer = None
        self._lines = None
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._lines = (folder / "log.jsonl").open("a", encoding="utf-8")

    def scalars(self, step: int, group: str, values: dict[str, float]) -> None:
        """Log numbers under `group/name`."""
        if self._writer is None or self._lines is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
        rounded = {name: round(float(value), 5) for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, "group": group, **rounded}) + "\n")
        self._lines.flush()

    def picture(self, step: int, name: str, image_np: np.ndarray) -> None:
        """Log an RGB picture [H, W, 3] uint8."""
        if self._writer is not None:
            self._writer.add_image(name, image_np, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None and self._lines is not None:
            self._writer.close()
            self._lines.close()
