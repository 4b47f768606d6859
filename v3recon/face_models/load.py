"""Face models by name or by file."""

from __future__ import annotations

from pathlib import Path

from v3recon.face_models.bfm import load_bfm
from v3recon.face_models.deep3d import load_deep3d
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.photohead import load_photohead

FACE_MODELS = {"bfm": load_bfm, "photohead": load_photohead}
"""Loader of each model, `load(path) -> LinearFaceModel`."""

DEFAULT_FACE_MODEL = "photohead"
_SUFFIXES = (".npy", ".npz", ".mat")


def load_face_model(
    name_or_path: str | Path = DEFAULT_FACE_MODEL, path: str | Path | None = None
) -> LinearFaceModel:
    """Load a face model.

    Args:
        name_or_path: "photohead" (in the package), "bfm" (the official model, not in the
            package), or a file: `.npy` in the official layout, `.npz` of PhotoHead, `.mat` of
            Deep3D.
        path: the file of a model given by name; needed for "bfm".

    Returns:
        The model, on the CPU.

    Raises:
        ValueError: if the name is not known, or the file is missing or malformed.
    """
    model = _load(str(name_or_path), path)
    model.source = str(name_or_path), None if path is None else str(path)
    return model


def _load(name: str, path: str | Path | None) -> LinearFaceModel:
    if name not in FACE_MODELS:
        suffix = Path(name).suffix.lower()
        if suffix not in _SUFFIXES:
            known = ", ".join(FACE_MODELS)
            raise ValueError(
                f"face model {name!r} is not known; use {known}, or a .npy, .npz or .mat file"
            )
        if path is not None:
            raise ValueError(f"give either a name with a path or one file, not {name} and {path}")
        if not Path(name).is_file():
            raise ValueError(f"{name}: no such file")
        return _load_file(Path(name), suffix)
    if path is not None and name == "bfm":
        return _load_file(Path(path), Path(path).suffix.lower())
    if path is not None:
        return FACE_MODELS[name](Path(path))
    if name == "bfm":
        raise ValueError(
            "the official model is not in the package for its licence; give the path of its "
            "face_model.npy, or use 'photohead'"
        )
    return FACE_MODELS[name]()


def _load_file(path: Path, suffix: str) -> LinearFaceModel:
    """The model of a file: `.npz` of ours, `.mat` of Deep3D, any other of 3DDFA_V3."""
    if suffix == ".npz":
        return load_photohead(path)
    return load_deep3d(path) if suffix == ".mat" else load_bfm(path)
