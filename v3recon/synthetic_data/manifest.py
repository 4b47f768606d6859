"""What a run has written: one line a picture, and the files that `v3recon train` reads."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from v3recon.data.mesh_detection import store_detections
from v3recon.io.arrays import read_npz
from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.io.label_pictures import write_label_picture
from v3recon.io.photo_index import PhotoEntry, read_photo_index
from v3recon.io.tables import write_table
from v3recon.synthetic_data.labels import Labels

INDEX_COLUMNS = ("file", "source", "subject", "split", "landmarks", "mask", "mask_from")
WRITTEN, REFUSED, SKIPPED = "written", "refused", "skipped"
"""Picture and labels exist; the quality filter refused it; it could not be made."""


@dataclass(frozen=True)
class Job:
    """One photo of a run: its entry, its key (unique file stem) and its subject."""

    entry: PhotoEntry
    key: str
    subject: str


def plan_jobs(photos: Path, index: Path | None, limit: int = 0) -> list[Job]:
    """Photos of a folder or an index with unique keys, sorted by name.

    Raises:
        ValueError: if there is no photo.
    """
    entries = read_photo_index(photos, index)[: limit or None]
    keys = [Path(entry.file).with_suffix("").as_posix().replace("/", "__") for entry in entries]
    taken = Counter(keys)
    return [
        Job(
            entry,
            key if taken[key] == 1 else f"{key}_{zlib.crc32(entry.file.encode()):08x}",
            entry.subject,
        )
        for entry, key in zip(entries, keys, strict=True)
    ]


def write_picture(out: Path, kind: str, name: str, picture: np.ndarray, labels: Labels) -> dict:
    """Write a picture with all its labels; the paths, relative to `out`, for the manifest.

    Args:
        out: folder of the run.
        kind: subfolder.
        name: file stem.
        picture: [S, S, 3] uint8 RGB.
        labels: its labels.
    """
    paths = {
        "file": f"images/{kind}/{name}.jpg",
        "landmarks": f"landmarks/{kind}/{name}.pts",
        "mask": f"masks/{kind}/{name}.png",
        "parts": f"parts/{kind}/{name}.png",
        "labels": f"labels/{kind}/{name}.npz",
    }
    for path in paths.values():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
    points = labels.landmarks["68"] + 1  # iBUG's first pixel is 1
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
    write_text_atomic(
        out / paths["landmarks"], f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n"
    )
    write_label_picture(out / paths["mask"], labels.classes)
    write_label_picture(out / paths["parts"], labels.parts)
    arrays: dict[str, Any] = {}
    for name, points in labels.landmarks.items():
        arrays[f"landmarks_{name}"] = points.astype(np.float32)
    arrays |= {f"visible_{name}": value for name, value in labels.visible.items()}
    arrays |= {
        "landmarks_68_before": labels.landmarks_before.astype(np.float32),
        "coeffs": labels.coeffs.astype(np.float32),
        "crop_to_picture": labels.crop_to_picture,
        "points": labels.points.astype(np.float32),
    }
    with replace_on_success(out / paths["labels"]) as temporary:
        np.savez(temporary, **arrays)
    write_jpg(out / paths["file"], picture)
    return paths


def write_jpg(path: Path, picture: np.ndarray) -> None:
    """A picture [S, S, 3] uint8 RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_on_success(path) as temporary:
        Image.fromarray(picture).save(temporary, quality=95, subsampling=0)


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """A JSON-lines file."""
    write_text_atomic(path, "".join(json.dumps(record) + "\n" for record in records))


def read_manifest(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a manifest.

    Raises:
        ValueError: if a line is not JSON.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def finish(out: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Write manifest, index, meshes and report of a run.

    `v3recon train RECIPE --photos OUT --detections OUT/meshes.npz` then learns from the pictures
    with their exact labels; without `--detections` it detects the faces again. The index names 68
    points only where the photo's were hand-made: everywhere else the mesh says the same, and says
    more.

    Args:
        out: folder of the run.
        records: of all photos.

    Returns:
        The report.
    """
    write_records(out / "manifest.jsonl", records)
    written = [record for record in records if record["status"] == WRITTEN]
    rows = [
        {column: record[column] for column in INDEX_COLUMNS}
        | {
            "source": f"synthetic_{record['kind']}",
            "landmarks": record["landmarks"] if record["landmarks_from"] == "hand" else "",
        }
        for record in written
    ]
    write_index(out / "index.csv", rows)
    meshes = []
    for record in written:
        meshes.append(read_npz(out / record["labels"], ["points"])["points"])
    store_detections(out / "meshes.npz", [record["file"] for record in written], meshes)
    report = summarize(records)
    write_text_atomic(out / "report.json", json.dumps(report, indent=1))
    return report


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of a run: pictures by kind and status, reasons, share that passes the filter."""
    by_kind: dict[str, Counter[str]] = {}
    for record in records:
        by_kind.setdefault(record["kind"], Counter())[record["status"]] += 1
    written = sum(count[WRITTEN] for count in by_kind.values())
    refused = sum(count[REFUSED] for count in by_kind.values())
    return {
        "photos": len({record["photo"] for record in records}),
        "written": written,
        "refused": refused,
        "pass_share": written / max(written + refused, 1),
        "kinds": {kind: dict(count) for kind, count in sorted(by_kind.items())},
        "refused_reasons": _reasons(records, REFUSED),
        "skipped_reasons": _reasons(records, SKIPPED),
    }


def _reasons(records: list[dict[str, Any]], status: str) -> dict[str, int]:
    found = Counter(record["reason"] for record in records if record["status"] == status)
    return dict(found.most_common())


def read_published(folder: Path) -> list[dict[str, str]]:
    """Rows of an index for an unpacked archive of published synthetic pictures (images only).

    The first folder below `folder` that holds pictures names their kind.

    Raises:
        ValueError: if there is no picture.
    """
    rows = []
    for entry in read_photo_index(folder):
        parents = Path(entry.file).parts[:-1]
        kind = parents[-1] if parents else folder.name
        rows.append(
            {
                "file": entry.file,
                "source": f"published_{kind}",
                "subject": Path(entry.file).stem,
                "split": "train",
                "landmarks": "",
                "mask": "",
                "mask_from": "",
            }
        )
    return rows


def write_index(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """An index of photos as `io.photo_index` reads it."""
    write_table(path, INDEX_COLUMNS, rows)
