"""Shards of photos through processes: each shard's table is written once, whole or not at all.

A shard that has its file is done. A run that was stopped, or lost processes, does the others.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from v3recon.batch.parquet import write_parquet
from v3recon.batch.sources import Item, read_item
from v3recon.io.atomic import write_text_atomic
from v3recon.io.json_file import read_json
from v3recon.io.messages import one_line
from v3recon.reconstruct.faces import Faces
from v3recon.reconstruct.reconstructor import FaceReconstructor

PLAN = "plan.json"
_WAITING = 2  # shards a process has before it, so that memory does not grow with the list
_TRIES = 3  # of a shard whose process was killed

_reconstructor: FaceReconstructor | None = None


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard.

    Attributes:
        number: of the shard, from 0.
        photos: photos in it.
        faces: faces found.
        failed: photos that could not be read or reconstructed.
    """

    number: int
    photos: int
    faces: int
    failed: int


def run_batch(
    items: Sequence[Item],
    folder: Path,
    settings: Mapping[str, Any],
    *,
    shard_size: int = 1000,
    workers: int = 1,
    done: Callable[[ShardReport], None] | None = None,
) -> list[int]:
    """Reconstruct the faces of many photos into `<folder>/part-00000.parquet`, ….

    Args:
        items: the photos; the same list in the same order when a run goes on.
        folder: made if absent.
        settings: arguments of `FaceReconstructor.from_pretrained`, JSON values.
        shard_size: photos in a shard.
        workers: processes.
        done: called after each shard.

    Returns:
        Numbers of shards that failed because their process died each time.

    Raises:
        ValueError: if the folder holds the shards of another list or of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_plan(items, folder, settings, shard_size)
    count = -(-len(items) // shard_size)
    waiting = [number for number in range(count) if not shard_path(folder, number).is_file()]
    lost: list[int] = []
    common = (items, folder, settings, shard_size)
    while waiting:
        begun = _run_pool(waiting, *common, workers, done)
        waiting = [number for number in waiting if not shard_path(folder, number).is_file()]
        # A process died. Alone, a shard shows whether it was the reason.
        for number in begun & set(waiting):
            for _ in range(_TRIES - 1):
                if not shard_path(folder, number).is_file():
                    _run_pool([number], *common, 1, done)
            if not shard_path(folder, number).is_file():
                lost.append(number)
            waiting.remove(number)
    return lost


def shard_path(folder: Path, number: int) -> Path:
    """A shard's file."""
    return folder / f"part-{number:05d}.parquet"


def _run_pool(
    waiting: Sequence[int],
    items: Sequence[Item],
    folder: Path,
    settings: Mapping[str, Any],
    shard_size: int,
    workers: int,
    done: Callable[[ShardReport], None] | None,
) -> set[int]:
    """Shards through one pool until all are done or a process dies; those that were begun."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (dict(settings),))
    left = list(reversed(waiting))
    begun: set[int] = set()
    pending: set[Future[ShardReport]] = set()
    try:
        while left or pending:
            while left and len(pending) < _WAITING * workers:
                number = left.pop()
                part = list(items[number * shard_size : (number + 1) * shard_size])
                pending.add(pool.submit(_run_shard, number, part, folder))
                begun.add(number)
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            for one in ended:
                report = one.result()
                if done is not None:
                    done(report)
    except BrokenProcessPool:
        pass
    finally:
        pool.shutdown(cancel_futures=True)
    return begun


def _start_worker(settings: dict[str, Any]) -> None:
    """Load what a process needs; it computes on one core."""
    global _reconstructor
    torch.set_num_threads(1)
    _reconstructor = FaceReconstructor.from_pretrained(**settings)


def _run_shard(number: int, items: Sequence[Item], folder: Path) -> ShardReport:
    assert _reconstructor is not None
    rows: list[dict[str, Any]] = []
    failed = 0
    for item in items:
        try:
            faces = _reconstructor(read_item(item))
            rows += rows_of(item.name, faces)
        except Exception as error:  # one photo must not end the others
            failed += 1
            rows.append(_row(item.name, 0, 0, one_line(error)))
    write_parquet(shard_path(folder, number), _columns(rows, _reconstructor.model.sizes))
    found = sum(row["face"] > 0 for row in rows)
    return ShardReport(number, len(items), found, failed)


def rows_of(name: str, faces: Faces) -> list[dict[str, Any]]:
    """A row a face, or one row with face 0 where there is none."""
    rows = []
    for number, face in enumerate(faces, 1):
        row = _row(name, number, len(faces), "")
        row["quality"] = float(face.quality)
        row["image_size"] = np.array(face.image_size, np.float32)
        if face.detection is not None:
            row["box"] = face.detection.box.float().numpy()
            row["score"] = float(face.detection.score)
        for key in ("id", "exp", "alb", "angle", "sh", "trans"):
            row[key] = getattr(face.coeffs, key)[0].float().cpu().numpy()
        row["crop_matrix"] = face.crop.matrix.float().numpy()
        row["landmarks_68"] = face.landmarks_68.float().cpu().numpy()
        rows.append(row)
    return rows or [_row(name, 0, 0, "")]


def _row(name: str, face: int, faces: int, error: str) -> dict[str, Any]:
    return {"photo": name, "face": face, "faces": faces, "error": error}


def _columns(rows: Sequence[Mapping[str, Any]], sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Rows as columns; what a row lacks is missing."""
    columns: dict[str, Any] = {
        key: [row[key] for row in rows] for key in ("photo", "face", "faces", "error")
    }
    columns |= {key: [row.get(key) for row in rows] for key in ("quality", "score")}
    shapes = {"image_size": 2, "box": 4, "crop_matrix": 6, "landmarks_68": 136}
    shapes |= dict(zip(("id", "exp", "alb"), sizes, strict=True))
    shapes |= {"angle": 3, "sh": 27, "trans": 3}
    for key, size in shapes.items():
        values = np.full((len(rows), size), np.nan, np.float32)
        for index, row in enumerate(rows):
            if key in row:
                values[index] = np.reshape(row[key], -1)
        columns[key] = values
    return columns


def _check_plan(
    items: Sequence[Item], folder: Path, settings: Mapping[str, Any], shard_size: int
) -> None:
    """Write what the shards are of, or see that it is the same."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(asdict(item)).encode())
    plan = {
        "photos": len(items),
        "list": digest.hexdigest(),
        "shard_size": shard_size,
        "settings": {key: None if one is None else str(one) for key, one in settings.items()},
    }
    path = folder / PLAN
    if path.is_file():
        if read_json(path) != plan:
            raise ValueError(
                f"{folder} holds shards of other photos or settings; use another folder"
            )
        return
    if any(folder.glob("part-*.parquet")):
        raise ValueError(f"{folder} holds shards without {PLAN}; use another folder")
    write_text_atomic(path, json.dumps(plan))
