"""Prepared photos on disk: folders of plain `.npy` arrays that are memory-mapped, never unpickled.

Layout: `OUT/<split>/<number>/` with one `.npy` for each of `ARRAYS` and `meta.json`; `fit.npz` once
coefficients were fitted. A shard is written under a temporary name and renamed when complete.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v3recon.data.samples import LABELS_HAND, LABELS_NONE, FaceRecord
from v3recon.face_models.detector_mesh import POINT_COUNT
from v3recon.face_models.landmarks import NOSE_TIP_68
from v3recon.io.arrays import map_npy, read_npz

FORMAT = 1
ARRAYS = {
    "image": (np.uint8, (None, None, 3)),
    "points": (np.float32, (POINT_COUNT, 3)),
    "landmarks_68": (np.float32, (68, 3)),
    "labels": (np.uint8, (None, None)),
    "labels_source": (np.uint8, ()),
    "pose": (np.float32, (3,)),
    "matrix": (np.float32, (2, 3)),
    "source": (np.uint8, ()),
}
"""dtype and trailing shape of each array; None = the region's size."""


@dataclass(frozen=True)
class PreparedFace:
    """One face as `prepare` found it.

    Attributes:
        record: image, points, labels.
        matrix: [2, 3] photo pixels to pixels of `record.image`.
    """

    record: FaceRecord
    matrix: np.ndarray


class BrokenShardError(ValueError):
    """A shard whose files are missing or disagree."""


def write_shard(
    folder: Path, faces: list[PreparedFace], sources: list[str], skipped: list[dict[str, str]]
) -> None:
    """Write one shard atomically; an existing shard of that name is replaced.

    Args:
        folder: the shard's folder.
        faces: its faces (may be empty).
        sources: names of the sources that `record.source` counts.
        skipped: one {"file", "reason"} for each photo that gave no face.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir()
    try:
        for key, (dtype, shape) in ARRAYS.items():
            values = [_value(face, key) for face in faces]
            empty = np.zeros((0, *(0 if side is None else side for side in shape)), dtype)
            array = np.stack(values).astype(dtype) if values else empty
            np.save(temporary / f"{key}.npy", array, allow_pickle=False)
        meta = {
            "format": FORMAT,
            "names": [face.record.name for face in faces],
            "sources": sources,
            "skipped": skipped,
        }
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _value(face: PreparedFace, key: str) -> np.ndarray:
    if key == "matrix":
        return face.matrix
    if key == "labels" and face.record.labels is None:
        return np.zeros(face.record.image.shape[:2], np.uint8)
    return np.asarray(getattr(face.record, key))


@dataclass(frozen=True)
class ShapeFit:
    """Coefficients of the faces of one shard.

    Attributes:
        model_hash: `LinearFaceModel.content_hash` of the face model.
        codes: [N, 2, K] identity and expression of each photo and of its mirror image; NaN where
            there is no mesh.
        rotation: [N, 3, 3] of the photo, world frame, acts on row vectors.
    """

    model_hash: str
    codes: np.ndarray
    rotation: np.ndarray


def write_fit(folder: Path, fit: ShapeFit) -> None:
    """Add fitted coefficients to a finished shard, atomically."""
    temporary = folder / f".fit-{uuid.uuid4().hex[:8]}.npz"
    try:
        np.savez(
            temporary,
            model_hash=np.array(fit.model_hash),
            codes=fit.codes.astype(np.float32),
            rotation=fit.rotation.astype(np.float32),
        )
        os.replace(temporary, folder / "fit.npz")
    finally:
        temporary.unlink(missing_ok=True)


def _open_fit(folder: Path, count: int, advice: str) -> ShapeFit | None:
    path = folder / "fit.npz"
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, ("model_hash", "codes", "rotation"))
        fit = ShapeFit(str(arrays["model_hash"]), arrays["codes"], arrays["rotation"])
    except ValueError as error:
        raise BrokenShardError(f"{path} is broken ({error}); {advice}") from error
    if fit.codes.shape[:2] != (count, 2) or fit.rotation.shape != (count, 3, 3):
        raise BrokenShardError(f"{path} is not of this shard's {count} faces; {advice}")
    return fit


@dataclass(frozen=True)
class Shard:
    """Memory-mapped arrays of one shard, its `meta.json` and coefficients, if fitted."""

    arrays: dict[str, np.ndarray]
    names: list[str]
    sources: list[str]
    skipped: list[dict[str, str]]
    fit: ShapeFit | None

    def record(self, row: int, with_fit: bool = False) -> FaceRecord:
        """The face of a row; its image and labels are views of the mapped file."""
        arrays, fit = self.arrays, self.fit if with_fit else None
        labels_source = int(arrays["labels_source"][row])
        return FaceRecord(
            image=np.asarray(arrays["image"][row]),
            points=np.asarray(arrays["points"][row]),
            landmarks_68=np.asarray(arrays["landmarks_68"][row]),
            labels=None if labels_source == LABELS_NONE else np.asarray(arrays["labels"][row]),
            labels_source=labels_source,
            pose=np.asarray(arrays["pose"][row]),
            source=int(arrays["source"][row]),
            name=self.names[row],
            shape_codes=None if fit is None else fit.codes[row],
            rotation=None if fit is None else fit.rotation[row],
        )


def hand_marked(labels_source: np.ndarray, landmarks_68: np.ndarray) -> np.ndarray:
    """Which of N faces, [N] bool, have a mask or 68 points made by people."""
    return (labels_source == LABELS_HAND) | np.isfinite(landmarks_68[:, NOSE_TIP_68, 0])


def shard_folders(folder: Path, split: str) -> list[Path]:
    """Folders of the shards of a split, in order.

    Raises:
        ValueError: if there is none.
    """
    root = folder / split
    shards = sorted(p for p in root.glob("[0-9]*") if p.is_dir()) if root.is_dir() else []
    if not shards:
        raise ValueError(
            f"no prepared {split!r} photos in {folder}; run:"
            f" v3recon prepare --photos PHOTOS --out {folder}"
        )
    return shards


def open_shard(folder: Path) -> Shard:
    """Map a shard.

    Raises:
        BrokenShardError: says which file is wrong and what to do.
    """
    advice = f"delete {folder} and run prepare again"
    try:
        meta = json.loads((folder / "meta.json").read_text())
        names, sources, skipped = meta["names"], meta["sources"], meta["skipped"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenShardError(f"{folder}/meta.json cannot be read ({error}); {advice}") from error
    if meta.get("format") != FORMAT:
        raise BrokenShardError(f"{folder} has format {meta.get('format')}, not {FORMAT}; {advice}")
    arrays = {}
    for key, (dtype, shape) in ARRAYS.items():
        try:
            array = map_npy(folder / f"{key}.npy")
        except ValueError as error:
            raise BrokenShardError(f"{folder}/{key}.npy is broken ({error}); {advice}") from error
        fits = len(array.shape) == len(shape) + 1 and all(
            want in (None, have) for have, want in zip(array.shape[1:], shape, strict=True)
        )
        if array.dtype != dtype or len(array) != len(names) or not fits:
            raise BrokenShardError(
                f"{folder}/{key}.npy is {array.dtype} {array.shape}, expected"
                f" {np.dtype(dtype).name} ({len(names)}, ...); {advice}"
            )
        arrays[key] = array
    fit = _open_fit(folder, len(names), advice)
    return Shard(arrays, names, sources, skipped, fit)


class PreparedSet:
    """All prepared faces of one split; arrays stay on disk and are shared by worker processes."""

    def __init__(self, folder: Path | str, split: str = "train") -> None:
        """Map every shard of a split.

        Args:
            folder: what `v3recon prepare --out` wrote.
            split: "train" or "val".

        Raises:
            ValueError: if there is nothing, or a shard is broken.
        """
        self.folder = Path(folder)
        self.shards = [open_shard(path) for path in shard_folders(self.folder, split)]
        self.sources = self.shards[0].sources
        sizes = [len(shard.names) for shard in self.shards]
        self.starts = [0, *np.cumsum(sizes).tolist()]
        hashes = {None if s.fit is None else s.fit.model_hash for s in self.shards if s.names}
        # Coefficients count only if one face model fitted them all.
        self.fit_model_hash = hashes.pop() if len(hashes) == 1 else None
        if not self.starts[-1]:
            raise ValueError(
                f"no photo in {self.folder / split} has a face; see {folder}/report.json"
            )

    def __len__(self) -> int:
        return self.starts[-1]

    def record(self, index: int) -> FaceRecord:
        """The face of an index; its image and labels are views of the mapped file."""
        shard, row = self._locate(index)
        return shard.record(row, with_fit=self.fit_model_hash is not None)

    def matrix(self, index: int) -> np.ndarray:
        """[2, 3] map from pixels of the photo to pixels of the record's image."""
        shard, row = self._locate(index)
        return np.asarray(shard.arrays["matrix"][row])

    def column(self, key: str) -> np.ndarray:
        """One small array of all faces, e.g. "source", "labels_source", "pose"."""
        return np.concatenate([shard.arrays[key] for shard in self.shards])

    def names(self) -> list[str]:
        """File name of each face's photo."""
        return [name for shard in self.shards for name in shard.names]

    def _locate(self, index: int) -> tuple[Shard, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect_right(self.starts, index) - 1
        return self.shards[number], index - self.starts[number]


class JoinedSets:
    """Two prepared sets as one: the records of the first, then those of the second."""

    def __init__(self, first: PreparedSet, second: PreparedSet) -> None:
        """Join; nothing is read.

        Raises:
            ValueError: if their regions have different sizes or other face models fitted them.
        """
        if first.fit_model_hash != second.fit_model_hash:
            raise ValueError(
                f"{first.folder} and {second.folder} were fitted with different face models"
                f" ({first.fit_model_hash}, {second.fit_model_hash}); prepare one of them again"
            )
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def record(self, index: int) -> FaceRecord:
        """The face of an index."""
        if index < len(self.first):
            return self.first.record(index)
        return self.second.record(index - len(self.first))
