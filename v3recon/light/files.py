"""The one file that knows onnxruntime, an optional library: a folder of exported networks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from v3recon.io.arrays import read_npz
from v3recon.io.json_file import read_json
from v3recon.io.messages import one_line

FORMAT_VERSION = 1
ABOUT, MODEL = "about.json", "face_model.npz"
NETWORK, DECODER = "network.onnx", "decode.onnx"
DETECTOR = ("detector_1.onnx", "detector_2.onnx", "detector_3.onnx")
COEFFICIENTS = ("id", "exp", "alb", "angle", "sh", "trans")
LANDMARKS = ("landmarks_68", "landmarks_106", "landmarks_134")


class Network:
    """An ONNX file as a function of arrays."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load a file.

        Args:
            path: the .onnx file.
            threads: of the processor.

        Raises:
            ValueError: if onnxruntime is missing, or the file is not one that it can run.
        """
        runtime = _library()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own kinds, which have no common base
            raise ValueError(f"{path} is no network ({one_line(error)})") from None
        self._names = [one.name for one in self._session.get_outputs()]

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name."""
        values = self._session.run(self._names, inputs)
        return dict(zip(self._names, values, strict=True))


@dataclass(frozen=True)
class ExportedModel:
    """What a folder holds.

    Attributes:
        about: sizes, camera, crop rule and thresholds, JSON values.
        network: crops to coefficients and landmarks.
        decoder: coefficients to the dense mesh.
        detector: the three networks that find faces.
        arrays: the face model's triangles, texture coordinates and names.
    """

    about: dict[str, Any]
    network: Network
    decoder: Network
    detector: tuple[Network, ...]
    arrays: dict[str, np.ndarray]


def load_exported(folder: str | Path, threads: int | None = None) -> ExportedModel:
    """Read a folder that `v3recon export onnx` wrote.

    Args:
        folder: the folder.
        threads: of the processor; default all.

    Raises:
        ValueError: if a file is missing or damaged, or onnxruntime is missing.
    """
    folder = Path(folder)
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict) or about.get("format") != "v3recon-onnx":
        raise ValueError(f"{folder / ABOUT} is not of a folder that `v3recon export onnx` wrote")
    if about.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{folder}: of another version of v3recon; export it again")
    count = threads or os.cpu_count() or 1
    return ExportedModel(
        about=about,
        network=Network(folder / NETWORK, count),
        decoder=Network(folder / DECODER, count),
        detector=tuple(Network(folder / name, count) for name in DETECTOR),
        arrays=read_npz(folder / MODEL),
    )


def files_of(folder: Path) -> Sequence[Path]:
    """All files of an exported folder."""
    return [folder / name for name in (ABOUT, MODEL, NETWORK, DECODER, *DETECTOR)]


def _library() -> ModuleType:
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(
            "exported networks need onnxruntime: pip install 'v3recon[onnx]'; "
            "or use FaceReconstructor, which runs by torch"
        ) from None
    return onnxruntime
