"""The exported network with 8-bit convolutions, calibrated on photos."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v3recon.io.atomic import replace_on_success, write_text_atomic
from v3recon.io.images import read_image
from v3recon.io.json_file import read_json
from v3recon.light.files import ABOUT, NETWORK
from v3recon.light.reconstructor import OnnxReconstructor

MOST_FACES = 100
"""Faces of the calibration: more change nothing."""
FINE = 8
"""Convolutions whose map is finer than this part of the input keep their precision: places of
landmarks are read there, and eight bits cost 0.6 pixels of a face of 100."""


def quantize_exported(folder: str | Path, photos: Sequence[Path]) -> Path:
    """Replace a folder's network by one with 8-bit convolutions.

    Activations are 8 bits unsigned, weights 8 bits signed with one scale a channel, both by the
    least and greatest values on the calibration's faces.

    Args:
        folder: that `export_onnx` wrote.
        photos: with faces like those to come; the first hundred faces are taken.

    Returns:
        The file; `about.json` then says "precision": "int8".

    Raises:
        ValueError: if a library is missing, or no photo shows a face.
    """
    quantization, preprocess = _library()
    folder = Path(folder)
    light = OnnxReconstructor.from_folder(folder)
    crops: list[np.ndarray] = []
    for path in photos:
        crops += [crop[None] for crop in light.crops(read_image(path))]
        if len(crops) >= MOST_FACES:
            break
    if not crops:
        raise ValueError(f"no face in the {len(photos)} photos of the calibration")
    with tempfile.TemporaryDirectory() as place, replace_on_success(folder / NETWORK) as result:
        plain, quantized = Path(place) / "plain.onnx", Path(place) / "int8.onnx"
        quiet = logging.getLogger()
        level = quiet.level
        quiet.setLevel(logging.ERROR)
        try:
            preprocess(str(folder / NETWORK), str(plain), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(plain),
                str(quantized),
                _reader(quantization, crops),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=fine_convolutions(plain, crops[0]),
            )
        finally:
            quiet.setLevel(level)
        shutil.copyfile(quantized, result)
    about: dict[str, Any] = read_json(folder / ABOUT) | {"precision": "int8"}
    write_text_atomic(folder / ABOUT, json.dumps(about))
    return folder / NETWORK


def fine_convolutions(path: Path, crop: np.ndarray) -> list[str]:
    """Names of convolutions whose map is finer than 1 / `FINE` of the input's side.

    Sides are those of a run: a backbone that pads by its input's size has no shapes in its graph.

    Args:
        path: the network.
        crop: [1, 3, S, S] an input.
    """
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    outputs = {node.output[0]: node.name for node in model.graph.node if node.op_type == "Conv"}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    run = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    maps = map(np.asarray, run.run(list(outputs), {"image": crop}))
    least = crop.shape[-1] // FINE
    return [
        name for name, found in zip(outputs.values(), maps, strict=True) if found.shape[-1] > least
    ]


def _reader(quantization: Any, crops: Sequence[np.ndarray]) -> Any:
    class Reader(quantization.CalibrationDataReader):
        """Crops one by one, as the calibration asks for them."""

        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(crops)

        def get_next(self) -> dict[str, np.ndarray] | None:
            crop = next(self.left, None)
            return None if crop is None else {"image": crop}

    return Reader()


def _library() -> tuple[Any, Any]:
    try:
        import onnxruntime.quantization as quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        raise ValueError(
            "8-bit files need onnx and onnxruntime: pip install 'v3recon[onnx]'"
        ) from None
    return quantization, quant_pre_process
