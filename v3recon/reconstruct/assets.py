"""Which files a reconstruction needs: the package's own or official 3DDFA_V3 assets."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from v3recon.detection.retinaface import WEIGHTS_FILE as RETINAFACE_FILE

OFFICIAL_NETWORKS = {"resnet50": "net_recon.pth", "mbnetv3": "net_recon_mbnet.pth"}
OFFICIAL_FACE_MODEL = "face_model.npy"
OFFICIAL_POINTS = "similarity_Lm3D_all.mat"
PACKAGE_WEIGHTS = "photoface_mbnetv3.pth"
PACKAGE_BACKBONE = "mbnetv3"


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
        source: folder of official assets, or a checkpoint; None = what is in the package.
        face_model: "photoface", "bfm" or a file, instead of the folder's.
        weights: checkpoint, instead of the folder's or the package's.
        backbone: "resnet50" (default with a folder) or "mbnetv3" (default without one).

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
    model = str(face_model) if face_model is not None else "bfm" if folder else "photoface"
    if model == "bfm":
        if folder is None:
            raise ValueError(
                f"face_model: 'bfm' needs a folder of assets with {OFFICIAL_FACE_MODEL}; "
                "or give that file's path"
            )
        model = str(_existing(folder / OFFICIAL_FACE_MODEL, "the official face model"))
    return Assets(
        face_model=model,
        weights=_weights(folder, weights, backbone),
        points_3d=_optional(folder, OFFICIAL_POINTS),
        retinaface=_optional(folder, RETINAFACE_FILE),
    )


def package_weights() -> Path | None:
    """The checkpoint in the package; None if this build has none."""
    path = Path(str(resources.files("v3recon.networks"))) / "data" / PACKAGE_WEIGHTS
    return path if path.is_file() else None


def _weights(folder: Path | None, weights: str | Path | None, backbone: str | None) -> Path:
    if weights is not None:
        return _existing(Path(weights), "the network's weights")
    if folder is not None:
        name = backbone or "resnet50"
        if name not in OFFICIAL_NETWORKS:
            known = ", ".join(OFFICIAL_NETWORKS)
            raise ValueError(f"backbone: official networks are {known}, not {name}; give weights")
        return _existing(folder / OFFICIAL_NETWORKS[name], f"the official {name} network")
    if backbone not in (None, PACKAGE_BACKBONE):
        raise ValueError(
            f"backbone: the weights in the package are of {PACKAGE_BACKBONE}, not {backbone}; "
            "give assets or weights of another"
        )
    path = package_weights()
    if path is None:
        raise ValueError(
            "weights: this build of the package has none of its own; give a folder of official "
            "assets, or a checkpoint of v3recon train"
        )
    return path


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected {what} there")
    return path


def _optional(folder: Path | None, name: str) -> Path | None:
    return folder / name if folder is not None and (folder / name).is_file() else None
