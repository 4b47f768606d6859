"""One photo to its synthetic pictures, with labels and quality; and many photos at once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from v3recon.data.mesh_detection import (
    MeshDetector,
    mediapipe_detector,
    stored_detector,
)
from v3recon.face_models.detector_mesh import load_face_mesh
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.io.celebamask import read_celebamask
from v3recon.io.images import read_image
from v3recon.io.json_file import read_json
from v3recon.io.photo_index import read_points
from v3recon.synthetic_data.expressions import CLOSED, Closing, EditedFace, edit_expression
from v3recon.synthetic_data.interior import paint
from v3recon.synthetic_data.labels import Labels, make_labels, matrix_to_picture, mesh_to_picture
from v3recon.synthetic_data.manifest import REFUSED, SKIPPED, WRITTEN, Job, write_jpg, write_picture
from v3recon.synthetic_data.mask_editing import edit_mask, load_generator, run_generator
from v3recon.synthetic_data.mesh_labels import choose_mesh
from v3recon.synthetic_data.poses import TurnRange, turn_face
from v3recon.synthetic_data.quality import (
    Quality,
    StateReader,
    detector_reader,
    judge,
    measure_states,
    regressor_reader,
)
from v3recon.synthetic_data.source_face import (
    OVERSAMPLING,
    SkippedPhotoError,
    SourceFace,
    make_source_face,
)
from v3recon.synthetic_data.warp import expression_map, remap

POSES = "poses"
FORMAT = 4
"""Of the records; folders of another one are not continued."""


@dataclass(frozen=True)
class RunOptions:
    """Options that both subcommands share, and those of each.

    Attributes:
        photos: folder of the photos.
        out: folder to write.
        kinds: of `KINDS`; empty for poses.
        per_photo: pictures of each kind and photo.
        size: side of the pictures.
        margin: side over the longer side of the 68 points' box.
        seed: of all draws.
        face_model: name or path.
        meshes: stored detections; empty: MediaPipe.
        check: "regressor", "detector" or "none".
        min_response: least share of the intended change that the check must read.
        weights: of the regressor that checks.
        generator: "module:function", or "".
        turns: yaw and pitch ranges of poses.
        shares: of each kind; a photo's `per_photo` kinds are drawn by them. Empty: all kinds.
        closing: how far eyes close.
    """

    photos: Path
    out: Path
    kinds: tuple[str, ...]
    per_photo: int
    size: int
    margin: float
    seed: int
    face_model: str
    meshes: tuple[Path, ...]
    check: str
    min_response: float
    weights: Path | None
    generator: str
    turns: TurnRange
    shares: tuple[float, ...] = ()
    closing: Closing = CLOSED

    def fingerprint(self) -> str:
        """Hash of everything that changes the pictures."""
        content = {**asdict(self), "format": FORMAT}
        del content["photos"], content["out"]
        if self.weights is not None:
            content["weights"] = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Worker:
    """What a process needs, loaded once."""

    options: RunOptions

    @cached_property
    def model(self) -> LinearFaceModel:
        """The face model."""
        return load_face_model(self.options.face_model)

    @cached_property
    def detector(self) -> MeshDetector:
        """Finds meshes in photos."""
        if self.options.meshes:
            return stored_detector(list(self.options.meshes))
        return mediapipe_detector()

    @cached_property
    def reader(self) -> StateReader | None:
        """Reads the finished pictures."""
        if self.options.check == "regressor" and self.options.weights is not None:
            return regressor_reader(self.options.weights, self.model)
        if self.options.check == "detector":
            return detector_reader()
        return None

    def make(self, job: Job) -> list[dict[str, Any]]:
        """All pictures of a photo; one record for each, or one that says why there is none."""
        wanted = self._wanted(job)
        try:
            face = self._source_face(job)
        except (ValueError, OSError, cv2.error) as error:
            kinds = dict.fromkeys(kind for kind, _ in wanted)
            return [self._record(job, kind, SKIPPED, str(error)) for kind in kinds]
        if not self.options.kinds:
            return [self._pose(job, face, n) for _, n in wanted]
        before = shrink(face.canvas)
        points = mesh_to_picture(face.points)
        found = None if self.reader is None else self.reader(before, points)
        states = None if found is None else measure_states(found)
        records = [self._expression(job, face, before, states, kind, n) for kind, n in wanted]
        if any(record["status"] == WRITTEN for record in records):
            write_jpg(self.options.out / _before_file(job), before)
        return records

    def _wanted(self, job: Job) -> list[tuple[str, int]]:
        """Kind and number of a photo's pictures."""
        options = self.options
        kinds = options.kinds or (POSES,)
        if options.shares:
            rng = np.random.default_rng(_seed(options.seed, job.entry.file, "shares", 0))
            chance = np.array(options.shares) / sum(options.shares)
            drawn = rng.choice(len(kinds), options.per_photo, replace=False, p=chance)
            return [(kinds[k], 0) for k in drawn]
        return [(kind, n) for kind in kinds for n in range(options.per_photo)]

    def _source_face(self, job: Job) -> SourceFace:
        folder, entry = self.options.photos, job.entry
        image = read_image(folder / entry.file)
        marked = read_points(folder, entry)
        hand = marked.points_68 if marked is not None and marked.complete else None
        classes = read_classes(folder / entry.mask, image.shape) if entry.mask else None
        meshes = self.detector(folder / entry.file, entry.file, image)
        mask = None if classes is None else (classes > 0).astype(np.uint8)
        mesh = choose_mesh(meshes, hand, mask, image.shape)
        if mesh is None:
            raise SkippedPhotoError("no face found" if not meshes else "no face fits the labels")
        return make_source_face(
            image,
            mesh,
            self.model,
            size=self.options.size,
            margin=self.options.margin,
            landmarks_68=hand,
            classes=classes,
            turned=not self.options.kinds,
        )

    def _expression(
        self,
        job: Job,
        face: SourceFace,
        before: np.ndarray,
        states: np.ndarray | None,
        kind: str,
        number: int,
    ) -> dict[str, Any]:
        name = f"{job.key}_{number}"
        seed = _seed(self.options.seed, job.entry.file, kind, number)
        try:
            edited = edit_expression(
                face, kind, self.model, load_face_mesh().mirror, seed, self.options.closing
            )
            picture, labels = make_expression(face, edited, self.model, seed)
            if self.options.generator:
                picture = self._generate(face, edited, before)
        except SkippedPhotoError as error:
            return self._record(job, kind, SKIPPED, str(error), number)
        quality = judge(
            self.reader,
            face,
            edited,
            before,
            picture,
            points=labels.points,
            states_before=states,
            min_response=self.options.min_response,
        )
        details = {
            "strengths": {key: round(value, 4) for key, value in edited.strengths.items()},
            "closed": list(edited.closed),
            "amounts": [round(amount, 4) for amount in edited.amounts],
            **_figures(quality),
        }
        if quality.reason:
            return self._record(job, kind, REFUSED, quality.reason, number) | details
        paths = write_picture(self.options.out, kind, name, picture, labels)
        origins = {"before": _before_file(job), **self._origins(face)}
        return self._record(job, kind, WRITTEN, "", number) | details | paths | origins | _cut(face)

    def _pose(self, job: Job, face: SourceFace, number: int) -> dict[str, Any]:
        seed = _seed(self.options.seed, job.entry.file, POSES, number)
        try:
            turned = turn_face(face, self.options.turns, self.model, np.random.default_rng(seed))
        except SkippedPhotoError as error:
            return self._record(job, POSES, SKIPPED, str(error), number)
        picture = shrink(remap(face.canvas, turned.source_map))
        labels = make_labels(
            face,
            turned.source_map,
            self.model,
            points=turned.points,
            coeffs=turned.coeffs,
            rotation=turned.rotation,
            decoded=turned.decoded,
        )
        paths = write_picture(self.options.out, POSES, f"{job.key}_{number}", picture, labels)
        angles = {
            "yaw": round(float(np.degrees(turned.yaw)), 2),
            "pitch": round(float(np.degrees(turned.pitch)), 2),
        }
        origins = self._origins(face)
        return self._record(job, POSES, WRITTEN, "", number) | angles | paths | origins | _cut(face)

    def _generate(self, face: SourceFace, edited: EditedFace, before: np.ndarray) -> np.ndarray:
        labels = make_labels(
            face,
            expression_map(face.points, face.points, (), face.canvas.shape[0]),
            self.model,
            points=face.points,
            coeffs=face.coeffs,
            rotation=face.rotation,
            decoded=face.decoded,
        )
        mask = labels.classes
        changed = edit_mask(mask, mesh_to_picture(face.points), mesh_to_picture(edited.points))
        return run_generator(load_generator(self.options.generator), before, mask, changed)

    def _origins(self, face: SourceFace) -> dict[str, str]:
        """What the 68 points and the mask were made from."""
        by_hand = face.landmarks_68 is not None and bool(self.options.kinds)
        return {
            "landmarks_from": "hand" if by_hand else "mesh",
            "mask_from": "polygons" if face.classes is None else "hand",
        }

    def _record(
        self, job: Job, kind: str, status: str, reason: str, number: int = 0
    ) -> dict[str, Any]:
        return {
            "photo": job.entry.file,
            "source": job.entry.source,
            "subject": job.subject,
            "split": job.entry.split,
            "kind": kind,
            "number": number,
            "status": status,
            "reason": reason,
        }


def make_expression(
    face: SourceFace, edited: EditedFace, model: LinearFaceModel, seed: list[int]
) -> tuple[np.ndarray, Labels]:
    """Picture [S, S, 3] uint8 and labels of an edited face."""
    size = face.canvas.shape[0]
    source_map = expression_map(face.points, edited.points, edited.closed, size, edited.gaze)
    canvas = remap(face.canvas, source_map)
    canvas = paint(canvas, face, edited, np.random.default_rng([*seed, 1]))
    labels = make_labels(
        face,
        source_map,
        model,
        points=edited.points,
        coeffs=edited.coeffs,
        rotation=face.rotation,
        decoded=edited.decoded,
        edited=edited,
    )
    return shrink(canvas), labels


def shrink(canvas: np.ndarray) -> np.ndarray:
    """The picture of a canvas: averages of 2 x 2 pixels."""
    side = canvas.shape[0] // OVERSAMPLING
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)


def read_classes(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """CelebAMask-HQ classes of a mask, enlarged to the photo.

    Raises:
        ValueError: if it cannot be read or holds no part.
    """
    classes = read_celebamask(path, repair=False).classes
    if classes.shape != shape[:2]:
        classes = cv2.resize(classes, shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return classes


def run_jobs(options: RunOptions, jobs: list[Job], workers: int) -> Iterator[list[dict[str, Any]]]:
    """Make all pictures; photos that an earlier run has finished are read from their records."""
    records = options.out / "records"
    records.mkdir(parents=True, exist_ok=True)
    waiting = []
    for job in jobs:
        path = records / f"{job.key}.json"
        if path.is_file():
            yield read_json(path)
        else:
            waiting.append(job)
    if workers == 1 or len(waiting) < 2:
        worker = Worker(options)
        for job in waiting:
            yield _finish_job(worker, job)
        return
    # Spawned, not forked: detectors hold threads, which a fork would copy in a locked state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(waiting)), context, initializer=_start_worker, initargs=(options,)
    ) as pool:
        futures = [pool.submit(_work, job) for job in waiting]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_WORKERS: list[Worker] = []


def _start_worker(options: RunOptions) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _WORKERS.append(Worker(options))


def _work(job: Job) -> list[dict[str, Any]]:
    return _finish_job(_WORKERS[0], job)


def _finish_job(worker: Worker, job: Job) -> list[dict[str, Any]]:
    made = worker.make(job)
    path = worker.options.out / "records" / f"{job.key}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(made))
    temporary.replace(path)
    return made


def _seed(seed: int, photo: str, kind: str, number: int) -> list[int]:
    return [seed, zlib.crc32(photo.encode()), zlib.crc32(kind.encode()), number]


def _figures(quality: Quality) -> dict[str, float | None]:
    share = None if np.isnan(quality.response) else round(quality.response, 3)
    return {"response": share, "seam": round(quality.seam, 3), "fold": round(quality.fold, 4)}


def _before_file(job: Job) -> str:
    """Where the unedited picture of a photo goes."""
    return f"before/{job.key}.jpg"


def _cut(face: SourceFace) -> dict[str, list[list[float]]]:
    """Where the picture was cut from its photo."""
    matrix = matrix_to_picture(face.to_canvas)
    return {"photo_to_picture": [[round(float(v), 6) for v in row] for row in matrix]}
