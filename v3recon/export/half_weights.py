"""ONNX files with their large weights stored in 16 bits; the arithmetic stays in 32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from v3recon.io.atomic import replace_on_success

LARGE = 1 << 15
"""Weights with at least so many numbers are stored in 16 bits; the others cost little."""


def store_in_half(path: str | Path, large: int = LARGE) -> None:
    """Rewrite an ONNX file: large weights as float16, each followed by a cast to float32.

    Runtimes do the casts once, when they load the file.

    Args:
        path: the file, replaced.
        large: least count of numbers of a weight that is stored in 16 bits.

    Raises:
        ValueError: if a weight is beyond the range of 16 bits, or the library onnx is missing.
    """
    onnx = _library()
    network = onnx.load(str(path))
    casts = []
    for weight in network.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < large:
            continue
        values = onnx.numpy_helper.to_array(weight)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ValueError(f"{weight.name} of {path} is beyond the range of 16 bits")
        name = weight.name
        half = onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half")
        weight.CopyFrom(half)
        casts.append(onnx.helper.make_node("Cast", [half.name], [name], to=1))
    for place, cast in enumerate(casts):
        network.graph.node.insert(place, cast)
    with replace_on_success(path) as temporary:
        onnx.save(network, str(temporary))


def _library() -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise ValueError("exporting needs the library onnx: pip install 'v3recon[onnx]'") from None
    return onnx
