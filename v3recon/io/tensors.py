"""Files of torch: tensors, numbers and text, and nothing that runs."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from v3recon.io.atomic import replace_on_success

_OVERHEAD = 1 << 20  # names and padding of an archive


def read_tensor_file(path: str | Path) -> dict[str, Any]:
    """A dict saved by torch, read without running anything the file asks for.

    Args:
        path: the file.

    Returns:
        The dict; its tensors are on the CPU and hold no more values than the file does.

    Raises:
        ValueError: naming the file, if it is missing, damaged, or holds more than tensors,
            numbers and text.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        _check_archive(path)
        with warnings.catch_warnings():  # about pickle protocols of foreign files
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
        sizes = [_bytes_of(tensor) for tensor in _tensors(content)]
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: not a checkpoint, damaged, or it holds more than tensors (refused)"
        ) from None
    except Exception as error:  # the reader trips over damaged files in many ways
        raise ValueError(f"{path}: cannot be read ({type(error).__name__}); damaged?") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {type(content).__name__}, not a checkpoint")
    # Tensors may share memory, so the sum is only a bound on a hostile file's promises.
    if sum(sizes) > 16 * path.stat().st_size + _OVERHEAD:
        raise ValueError(f"{path}: promises {sum(sizes) / 1e6:.0f} MB of tensors; refused")
    return content


def write_tensor_file(path: str | Path, content: Mapping[str, Any]) -> None:
    """Save a dict whole or not at all; the same contents give the same bytes.

    Raises:
        OSError: if the file cannot be written; an old file stays untouched.
    """
    with replace_on_success(path) as temporary, temporary.open("wb") as stream:
        torch.save(dict(content), stream)  # given a name, torch writes it into the file


class _RefusedError(ValueError):
    """One line without the file's name."""


def _check_archive(path: Path) -> None:
    """Torch stores without compression: an archive that inflates was made to fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        total = sum(info.file_size for info in archive.infolist())
    if total > path.stat().st_size + _OVERHEAD:
        raise _RefusedError(f"inflates to {total / 1e6:.0f} MB; refused")


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors below a value."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, list | tuple | set):
        for value in content:
            yield from _tensors(value)


def _bytes_of(tensor: Tensor) -> int:
    """Bytes a copy of a tensor would take; a few stored values may stand for any number."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise _RefusedError(f"holds a tensor of layout {tensor.layout}; refused")
    size = tensor.numel() * tensor.element_size()
    if size > tensor.untyped_storage().nbytes():
        raise _RefusedError(f"promises a tensor {tuple(tensor.shape)} that is not there")
    return size
