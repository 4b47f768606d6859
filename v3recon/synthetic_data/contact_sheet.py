"""Photos beside the pictures made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from v3recon.face_models.parts import LABEL_COLORS
from v3recon.io.atomic import replace_on_success
from v3recon.io.celebamask import labels_from_celebamask
from v3recon.io.images import read_image
from v3recon.io.photo_index import read_pts
from v3recon.synthetic_data.generate import RunOptions
from v3recon.synthetic_data.manifest import WRITTEN
from v3recon.synthetic_data.source_face import cut_canvas

CELL = 160
ROWS = 10


def write_contact_sheet(options: RunOptions, records: list[dict[str, Any]]) -> None:
    """Two sheets of the same evenly spaced photos: pictures, and pictures with their labels.

    Each row is a photo (left) and one picture of each kind; empty where none was written.
    """
    kinds = options.kinds or tuple(str(n) for n in range(min(options.per_photo, 6)))
    by_photo: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        if record["status"] == WRITTEN:
            column = record["kind"] if options.kinds else str(record["number"])
            by_photo.setdefault(record["photo"], {}).setdefault(column, record)
    photos = sorted(by_photo)
    places = np.linspace(0, len(photos) - 1, min(ROWS, len(photos))).astype(int)
    chosen = [photos[place] for place in places]
    shape = (len(chosen) * CELL, (1 + len(kinds)) * CELL, 3)
    plain, labelled = np.full(shape, 255, np.uint8), np.full(shape, 255, np.uint8)
    for row, photo in enumerate(chosen):
        matrix = np.array(next(iter(by_photo[photo].values()))["photo_to_picture"])
        cut = cut_canvas(read_image(options.photos / photo), matrix, options.size)
        original = cv2.resize(cut, (CELL, CELL), interpolation=cv2.INTER_AREA)
        _put(plain, row, 0, original)
        _put(labelled, row, 0, original)
        for column, kind in enumerate(kinds, 1):
            record = by_photo[photo].get(kind)
            if record is not None:
                picture = read_image(options.out / record["file"])
                _put(plain, row, column, cv2.resize(picture, (CELL, CELL)))
                _put(labelled, row, column, _draw_labels(options.out, record, picture))
    for name, sheet in (("contact_sheet", plain), ("contact_sheet_labels", labelled)):
        with replace_on_success(options.out / f"{name}.jpg") as temporary:
            Image.fromarray(sheet).save(temporary, quality=90)


def _draw_labels(out: Path, record: dict[str, Any], picture: np.ndarray) -> np.ndarray:
    with Image.open(out / record["mask"]) as mask:
        parts = labels_from_celebamask(np.asarray(mask, np.uint8))
    tint = np.array(LABEL_COLORS, np.uint8)[parts]
    mixed = np.where(parts[..., None] > 0, 0.6 * picture + 0.4 * tint, picture).astype(np.uint8)
    scale = CELL / picture.shape[0]
    cell = cv2.resize(mixed, (CELL, CELL), interpolation=cv2.INTER_AREA)
    for x, y in (read_pts(out / record["landmarks"]) + 0.5) * scale - 0.5:
        cv2.circle(cell, (round(x), round(y)), 1, (255, 255, 255), -1)
    return cell


def _put(sheet: np.ndarray, row: int, column: int, cell: np.ndarray) -> None:
    sheet[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = cell
