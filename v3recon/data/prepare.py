"""`v3recon prepare`: photographs to crops and targets that training streams."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import tyro
from tqdm import tqdm

from v3recon.data.fit_coefficients import fit_shard
from v3recon.data.mesh_detection import (
    MeshDetector,
    command_detector,
    mediapipe_detector,
    stored_detector,
)
from v3recon.data.part_parser import load_parser, parse_record
from v3recon.data.regions import prepare_face
from v3recon.data.samples import LABELS_HAND, LABELS_PARSED, LABELS_PSEUDO
from v3recon.data.shards import BrokenShardError, PreparedSet, Shard, open_shard, write_shard
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.load import load_face_model
from v3recon.face_models.parts import LABEL_COLORS
from v3recon.fitting.fit_landmarks import fit_landmarks
from v3recon.io.photo_index import PhotoEntry, read_photo_index


@dataclass(frozen=True)
class PrepareConfig:
    """Find the faces of a folder of photographs and store what training needs.

    Run it again after a stop: finished shards are kept.
    """

    photos: Path
    """Folder of photographs (subfolders included)."""
    out: Path
    """Folder to write."""
    index: Path | None = None
    """CSV with columns file, source, split, landmarks, mask, mask_from (default: index.csv in
    --photos)."""
    meshes: tuple[Path, ...] = ()
    """Stored detections (.npz with names and pts) instead of MediaPipe."""
    landmarks_command: str | None = None
    """Program that writes points: COMMAND with {photo} and {points}."""
    size: int = 256
    """Side of the stored region (2.4 times the face's box), pixels."""
    shard_size: int = 256
    """Photos in one shard."""
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    """Processes."""
    pseudo_labels: bool = True
    """Draw part labels from the detected contours where there is no hand-made mask."""
    part_parser: Path | None = None
    """Weights of the part parser (python -m v3recon.data.part_parser): labels instead of polygons
    where there is no hand-made mask."""
    face_model: str = "photoface"
    """Face model to fit to every face: photoface, a path, or none to fit nothing."""
    limit: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Only the first N photos (0: all)."""

    def __post_init__(self) -> None:
        """Check numbers."""
        if self.size < 64 or self.shard_size < 1 or self.workers < 1 or self.limit < 0:
            raise ValueError("--size must be >= 64, --shard-size and --workers >= 1, --limit >= 0")


@dataclass(frozen=True)
class _Job:
    """One shard to write."""

    folder: Path
    entries: list[PhotoEntry]
    sources: list[str]
    config: PrepareConfig


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 done, 1 nothing usable, 2 wrong usage."""
    try:
        config = tyro.cli(PrepareConfig, args=argv, prog="v3recon prepare")
        entries = read_photo_index(config.photos, config.index)
        _make_detector(config)
        if config.part_parser is not None:
            load_parser(config.part_parser)
    except SystemExit as stop:  # tyro ends the program after --help or wrong usage
        return int(stop.code or 0)
    except ValueError as error:
        print(f"v3recon prepare: {error}", file=sys.stderr)
        return 2
    try:
        return prepare(config, entries)
    except (ValueError, OSError, BrokenProcessPool) as error:
        reason = str(error) or type(error).__name__
        print(
            f"v3recon prepare: {reason}\nfinished shards are kept; run the same command again",
            file=sys.stderr,
        )
        return 1


def prepare(config: PrepareConfig, entries: list[PhotoEntry]) -> int:
    """Write every missing shard, then the report and the contact sheet.

    Args:
        config: options.
        entries: the photos.

    Returns:
        0, or 1 if no photo gave a face.
    """
    entries = entries[: config.limit or None]
    sources = sorted({entry.source for entry in entries})
    jobs = _plan(config, entries, sources)
    _check_plan(config, entries)
    waiting = [job for job in jobs if not _is_complete(job)]
    done = sum(len(job.entries) for job in jobs) - sum(len(job.entries) for job in waiting)
    with tqdm(total=len(entries), initial=done, unit="photo", desc="prepare") as progress:
        for job in _run(waiting, config.workers):
            progress.update(len(job.entries))
    fitted = _fit_all(config, [job.folder for job in jobs])
    report = _report(
        [(job.folder.parent.name, open_shard(job.folder)) for job in jobs], len(entries)
    )
    report["fitted_with"] = fitted
    _write_text(config.out / "report.json", json.dumps(report, indent=1))
    print(f"{report['faces']} faces of {report['photos']} photos; report: {config.out}/report.json")
    for reason, count in report["reasons"].items():
        print(f"  skipped {count}: {reason}")
    for split in ("train", "val"):
        if report["faces_by_split"].get(split):
            sheet = contact_sheet(PreparedSet(config.out, split))
            coded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
            _write_bytes(config.out / f"contact_sheet_{split}.jpg", coded.tobytes())
    if not report["faces"]:
        print("no photo has a usable face", file=sys.stderr)
        return 1
    return 0


def _plan(config: PrepareConfig, entries: list[PhotoEntry], sources: list[str]) -> list[_Job]:
    jobs = []
    for split in ("train", "val"):
        chosen = [entry for entry in entries if entry.split == split]
        # Spread sources over shards, always in the same way.
        order = np.random.default_rng(0).permutation(len(chosen))
        for number, first in enumerate(range(0, len(chosen), config.shard_size)):
            part = [chosen[i] for i in order[first : first + config.shard_size]]
            jobs.append(_Job(config.out / split / f"{number:05d}", part, sources, config))
    return jobs


def _check_plan(config: PrepareConfig, entries: list[PhotoEntry]) -> None:
    """Refuse to mix two runs with different photos or options in one folder."""
    options = [config.size, config.shard_size, config.pseudo_labels]
    if config.part_parser is not None:
        options.append(hashlib.sha256(config.part_parser.read_bytes()).hexdigest())
    content = json.dumps([options, [_entry_plan(entry) for entry in entries]])
    plan = {"plan": hashlib.sha256(content.encode()).hexdigest(), "photos": len(entries)}
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "plan.json"
    if path.exists():
        if json.loads(path.read_text()).get("plan") != plan["plan"]:
            raise ValueError(
                f"{config.out} was begun with other photos or options; choose another --out or"
                " delete it"
            )
    else:
        _write_text(path, json.dumps(plan))


def _entry_plan(entry: PhotoEntry) -> dict[str, str]:
    """An entry without what is the default, so that older folders stay valid."""
    plan = asdict(entry)
    del plan["subject"]
    if entry.mask_from == "hand":
        del plan["mask_from"]
    return plan


def _is_complete(job: _Job) -> bool:
    try:
        open_shard(job.folder)
    except BrokenShardError:
        return False
    return True


def _run(jobs: list[_Job], workers: int) -> Iterator[_Job]:
    """Yield jobs as they finish."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            _prepare_shard(job)
            yield job
        return
    # Spawned, not forked: detectors hold threads, which a fork would copy in a locked state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures = {pool.submit(_prepare_shard, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare_shard(job: _Job) -> None:
    """Worker: one shard, from photos to a finished folder."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    detector = _make_detector(job.config)
    parser = None if job.config.part_parser is None else load_parser(job.config.part_parser)
    faces, skipped = [], []
    for entry in job.entries:
        try:
            face = prepare_face(
                job.config.photos,
                entry,
                detector,
                region_size=job.config.size,
                source=job.sources.index(entry.source),
                pseudo_labels=job.config.pseudo_labels,
            )
            drawn = face.record.labels_source == LABELS_PSEUDO and not entry.mask
            if parser is not None and drawn:
                labels = parse_record(parser, face.record)
                record = replace(face.record, labels=labels, labels_source=LABELS_PARSED)
                face = replace(face, record=record)
            faces.append(face)
        except ValueError as error:
            skipped.append({"file": entry.file, "reason": str(error)})
    write_shard(job.folder, faces, job.sources, skipped)


def _fit_all(config: PrepareConfig, folders: list[Path]) -> str | None:
    """Fit the face model to every shard that was not fitted with it yet; its hash."""
    if config.face_model == "none":
        return None
    try:
        model = load_face_model(config.face_model)
    except ValueError as error:
        print(f"coefficients are not fitted: {error}", file=sys.stderr)
        return None
    # PhotoFace keeps the detector's points as its first vertices; others share the 68 landmarks.
    shared = model.name != "photoface"
    chosen = torch.from_numpy(load_face_mesh().landmarks_68) if shared else slice(None)
    index = model.landmarks_68 if shared else None

    def fit_points(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fit = fit_landmarks(points[:, chosen], model, index=index)
        return torch.cat([fit.coeffs.id, fit.coeffs.exp], 1), fit.rotation

    for folder in tqdm(folders, unit="shard", desc="fit"):
        fit_shard(folder, fit_points, sum(model.sizes[:2]), model.content_hash)
    return model.content_hash


def _make_detector(config: PrepareConfig) -> MeshDetector:
    if config.meshes:
        return stored_detector(list(config.meshes))
    if config.landmarks_command:
        return command_detector(config.landmarks_command)
    return mediapipe_detector()


def _report(shards: list[tuple[str, Shard]], photos: int) -> dict[str, Any]:
    skipped = [item for _, shard in shards for item in shard.skipped]
    by_split: Counter[str] = Counter()
    hand = pseudo = parsed = points = meshes = 0
    for split, shard in shards:
        by_split[split] += len(shard.names)
        hand += int((shard.arrays["labels_source"] == LABELS_HAND).sum())
        pseudo += int((shard.arrays["labels_source"] == LABELS_PSEUDO).sum())
        parsed += int((shard.arrays["labels_source"] == LABELS_PARSED).sum())
        if shard.names:
            points += int(np.isfinite(shard.arrays["landmarks_68"][:, 30, 0]).sum())
            meshes += int(np.isfinite(shard.arrays["points"][:, 0, 0]).sum())
    return {
        "photos": photos,
        "faces": sum(by_split.values()),
        "faces_by_split": dict(by_split),
        "with_mesh": meshes,
        "with_hand_made_points": points,
        "with_hand_made_mask": hand,
        "with_polygon_labels": pseudo,
        "with_parsed_labels": parsed,
        "reasons": dict(Counter(item["reason"] for item in skipped).most_common()),
        "skipped": skipped,
    }


def contact_sheet(records: PreparedSet, columns: int = 12, rows: int = 6) -> np.ndarray:
    """Evenly spaced records with their points and labels, [rows * 160, columns * 160, 3] RGB."""
    count = min(columns * rows, len(records))
    chosen = np.linspace(0, len(records) - 1, count).astype(int)
    sheet = np.full((-(-count // columns) * 160, columns * 160, 3), 255, np.uint8)
    tints = np.array(LABEL_COLORS, np.uint8)
    for place, index in enumerate(chosen):
        record = records.record(int(index))
        picture = record.image.copy()
        if record.labels is not None:
            tint = tints[record.labels]
            mixed = (0.6 * picture + 0.4 * tint).astype(np.uint8)
            picture = np.where(record.labels[..., None] > 0, mixed, picture)
        for points, color in ((record.points, (0, 255, 0)), (record.landmarks_68, (255, 0, 0))):
            for x, y, _ in points[np.isfinite(points[:, 0])]:
                cv2.circle(picture, (round(float(x)), round(float(y))), 1, color, -1)
        row, column = divmod(place, columns)
        cell = cv2.resize(picture, (160, 160), interpolation=cv2.INTER_AREA)
        sheet[row * 160 : row * 160 + 160, column * 160 : column * 160 + 160] = cell
    return sheet


def _write_text(path: Path, text: str) -> None:
    _write_bytes(path, text.encode())


def _write_bytes(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
