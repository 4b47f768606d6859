"""Which files a reconstruction needs: the package's own, or official ones of 3DDFA_V3 or Deep3D."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from v3recon.detection.retinaface import WEIGHTS_FILE as RETINAFACE_FILE
from v3recon.face_models.load import DEFAULT_FACE_MODEL
from v3recon.networks.checkpoints import named_face_model

OFFICIAL_NETWORKS = {"resnet50": "net_recon.pth", "mbnetv3": "net_recon_mbnet.pth"}
OFFICIAL_FACE_MODEL = "face_model.npy"
OFFICIAL_POINTS = "similarity_Lm3D_all.mat"
DEEP3D_FACE_MODEL = "BFM_model_front.mat"
DEEP3D_NETWORK = "epoch_20.pth"
DEEP3D_FOLDERS = (".", "BFM", "checkpoints", "checkpoints/*")
"""Where Deep3D's PyTorch release keeps its files, below its own folder."""
PACKAGE_WEIGHTS = {
    "photohead": ("lite0", "photohead_lite0.pth"),
}
"""Backbone and file of the weights in the package for each face model in it."""


@dataclass(frozen=True)
class Assets:
    """Files of a reconstruction.

    Attributes:
        face_model: a name or a path for `face_models.load.load_face_model`.
        weights: the network's checkpoint.
        points_3d: file of the five-point crop's 3D points; None = the face model's own.
        retinaface: weights of that detector; None = not there.
    """

    face_model: str
    weights: Path
    points_3d: Path | None
    retinaface: Path | None


def find_assets(
    source: str | Path | None = None,
    *,
    face_model: str | Path | None = None,
    weights: str | Path | None = None,
    backbone: str | None = None,
) -> Assets:
    """Find the files by the official layout of a folder, or the package's own without one.

    Args:
        source: folder of official assets of 3DDFA_V3 or Deep3D, or a checkpoint; None = what is in
            the package.
        face_model: "photohead", "bfm" or a file. Default: the folder's; that which
            the weights name; PhotoHead.
        weights: checkpoint, instead of the folder's or the package's.
        backbone: "resnet50" (default with a folder) or "mbnetv3"; without a folder that of the
            weights in the package.

    Raises:
        ValueError: naming the first file that is missing, and what to do.
    """
    folder = None if source is None else Path(source)
    if folder is not None and folder.is_file():
        if weights is not None:
            raise ValueError(f"weights: {folder} is a checkpoint already; give one of the two")
        folder, weights = None, folder
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of assets or checkpoint")
    model = "bfm" if folder else _default_model(weights)
    if face_model is not None:
        model = str(face_model)
    if model == "bfm":
        if folder is None:
            raise ValueError(
                f"face_model: 'bfm' needs a folder of assets with {OFFICIAL_FACE_MODEL}; "
                "or give that file's path"
            )
        deep3d = _of_deep3d(folder, DEEP3D_FACE_MODEL)
        path = folder / OFFICIAL_FACE_MODEL
        if path.is_file() or deep3d is None:
            model = str(_existing(path, "the official face model"))
        else:
            model = str(deep3d)
    return Assets(
        face_model=model,
        weights=_weights(folder, weights, backbone, model),
        points_3d=None if folder is None else _of_deep3d(folder, OFFICIAL_POINTS),
        retinaface=_optional(folder, RETINAFACE_FILE),
    )


def package_weights(face_model: str = DEFAULT_FACE_MODEL) -> Path | None:
    """The checkpoint in the package for one of its face models; None if there is none."""
    if face_model not in PACKAGE_WEIGHTS:
        return None
    name = PACKAGE_WEIGHTS[face_model][1]
    path = Path(str(resources.files("v3recon.networks"))) / "data" / name
    return path if path.is_file() else None


def _weights(
    folder: Path | None, weights: str | Path | None, backbone: str | None, face_model: str
) -> Path:
    if weights is not None:
        return _existing(Path(weights), "the network's weights")
    if folder is not None:
        name = backbone or "resnet50"
        if name not in OFFICIAL_NETWORKS:
            known = ", ".join(OFFICIAL_NETWORKS)
            raise ValueError(f"backbone: official networks are {known}, not {name}; give weights")
        path = folder / OFFICIAL_NETWORKS[name]
        deep3d = _of_deep3d(folder, DEEP3D_NETWORK) if name == "resnet50" else None
        if deep3d is not None and not path.is_file():
            return deep3d
        return _existing(path, f"the official {name} network")
    path = package_weights(face_model)
    if path is None:
        known = " and ".join(PACKAGE_WEIGHTS)
        raise ValueError(
            f"weights: the package has weights for {known}, none for {face_model}; give a folder "
            "of official assets, or a checkpoint of v3recon train"
        )
    own = PACKAGE_WEIGHTS[face_model][0]
    if backbone not in (None, own):
        raise ValueError(
            f"backbone: the weights in the package are of {own}, not {backbone}; "
            "give assets or weights of another"
        )
    return path


def _default_model(weights: str | Path | None) -> str:
    """The package's face model that weights of the user's name, or the default one."""
    named = named_face_model(weights) if weights is not None and Path(weights).is_file() else None
    return named if named in PACKAGE_WEIGHTS else DEFAULT_FACE_MODEL


def _of_deep3d(folder: Path, name: str) -> Path | None:
    """A file in a folder of assets, or where Deep3D's release keeps it."""
    for place in DEEP3D_FOLDERS:
        found = sorted(path for path in folder.glob(f"{place}/{name}") if path.is_file())
        if found:
            return found[0]
    return None


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected {what} there")
    return path


def _optional(folder: Path | None, name: str) -> Path | None:
    return folder / name if folder is not None and (folder / name).is_file() else None
