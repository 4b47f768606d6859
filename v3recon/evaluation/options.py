"""Options of `v3recon evaluate`; light to import, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What all benchmarks share."""

    weights: Path | None = None
    """Checkpoint. Default: that of the assets, or the weights in the package."""
    face_model: str | None = None
    """photohead, bfm, or a file. Default: that of the assets, or PhotoHead."""
    assets: Path | None = None
    """Folder of official 3DDFA_V3 assets."""
    device: str | None = None
    """cpu, cuda, … Default: cuda where there is one, else cpu."""
    crop: Literal["ground-truth", "detector"] = "ground-truth"
    """Where the face is taken from: the annotation, or a detector that may not find it."""
    detector: Literal["mtcnn", "retinaface"] = "mtcnn"
    """Finds the faces with --crop detector; retinaface needs its weights among the assets."""
    batch_size: int = 32
    """Faces that go through the network together."""
    passes: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Looks at each face; from the second on it is cropped around its own landmarks of the
    previous one. 0: as the checkpoint says with --crop detector, else 1."""
    fit: bool = False
    """Fit each face to its photo's pixels before it is scored (`v3recon fit`)."""
    json: Path | None = None
    """File for all figures."""
    worst: Path | None = None
    """PNG file for a picture of the worst cases."""
    worst_count: int = 24
    """Faces in that picture."""
    limit: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Only the first N photos in name order (0: all)."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers out of range."""
        if self.batch_size < 1 or self.worst_count < 1:
            raise ValueError("--batch-size and --worst-count must be at least 1")
        if self.limit < 0 or not 0 <= self.passes <= 10:
            raise ValueError("--limit must be at least 0 and --passes in 0…10")


@dataclass(frozen=True, kw_only=True)
class LandmarkOptions(EvaluateOptions):
    """Photos with hand-made iBUG 68 points: normalised mean error by box and by eye distance."""

    root: Path
    """Folder of photos, with .pts files beside them or an index.csv (file, split, landmarks)."""
    index: Path | None = None
    """CSV with columns file, split, landmarks. Default: index.csv in --root if there is one."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Rows of the index that are evaluated."""
    predictions: Path | None = None
    """Score these points, .npy (N, 2, 68) in name order, pixels of the .pts files (first pixel
    1), NaN where no face was found, instead of running a network."""


@dataclass(frozen=True, kw_only=True)
class AflwOptions(EvaluateOptions):
    """AFLW2000-3D: normalised mean error of 68 points in three yaw bins, and pose errors."""

    root: Path
    """Folder with .jpg and .mat files (pt3d_68, Pose_Para)."""
    points: Path | None = None
    """Other ground-truth points, e.g. the re-annotated ones: .npy (N, 2, 68) in name order of the
    photos. Default: pt3d_68 of each .mat."""
    predictions: Path | None = None
    """Score these points, .npy (N, 2, 68) in name order, in the annotation's pixels, NaN where
    no face was found, instead of running a network."""
    first_pixel: Literal[0, 1] = 1
    """Coordinate of the first pixel's centre in the annotations (Matlab's: 1)."""


@dataclass(frozen=True, kw_only=True)
class PartOptions(EvaluateOptions):
    """CelebAMask-HQ label masks: intersection over union of the visible parts."""

    images: Path
    """Folder of photos."""
    masks: Path
    """Folder of palette or single-channel PNGs with classes 0 to 18, named as the photos are."""
    index: Path | None = None
    """CSV with columns file, split: only photos with the name of a row of --split are taken."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Rows of the index that are evaluated."""
    sides: Literal["repair", "as-labelled"] = "repair"
    """Some masks have left and right of eyes and brows exchanged: put right, or taken as is."""


@dataclass(frozen=True, kw_only=True)
class ExpressionOptions(EvaluateOptions):
    """Closed eyes and open mouths: opening errors, share of synthetic changes that is read."""

    photos: Path | None = None
    """Folder of photos with hand-made 68 points or CelebAMask-HQ masks, as its index says."""
    index: Path | None = None
    """CSV with columns file, split, landmarks, mask. Default: index.csv in --photos."""
    meshes: tuple[Path, ...] = ()
    """Stored detections (.npz with names and pts): the truth of photos with neither points nor
    mask."""
    synthetic: Path | None = None
    """Folder that v3recon synthesize expressions has written."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Which photos and pictures are evaluated."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers out of range or without pictures."""
        super().__post_init__()
        if self.photos is None and self.synthetic is None:
            raise ValueError("give --photos, --synthetic or both")


@dataclass(frozen=True, kw_only=True)
class GeometryOptions(EvaluateOptions):
    """Head scans or drawn heads: millimeters to reconstruction, best fit and mean face."""

    scans: Path | None = None
    """A scan or a folder of scans: .obj, .ply, .stl, .glb, or .npz with vertices and faces; 7 or 68
    points beside each in .txt, .csv or .npy of the same name. Without points a scan must look
    along +z, y up. Default: heads drawn from the face model."""
    unit: Literal["mm", "cm", "dm", "m"] | None = None
    """Unit of the scans. Default: told from the distance of the eye corners, or from the size."""
    photos: Path | None = None
    """Photos of the scanned people, named NAME.jpg, NAME_*.jpg or NAME/*.jpg after the scan."""
    meshes: Path | None = None
    """Reconstructions of other programs, NAME.obj or NAME_*.obj with 7 or 68 points beside."""
    drawn: Annotated[int, tyro.conf.arg(metavar="N")] = 10
    """Without --scans: so many random heads."""
    views: int = 3
    """Pictures of each drawn head."""
    seed: int = 1
    """Of the drawn heads."""
    radius: float | None = None
    """Points within so many millimeters of the nose count. Default: NoW's ball, about 95."""
    samples: int = 10000
    """At most so many points of a scan are measured."""
    curve: Path | None = None
    """PNG file for the cumulative errors."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers out of range."""
        super().__post_init__()
        if self.samples < 1000 or self.drawn < 1:
            raise ValueError("--samples must be at least 1000, --drawn at least 1")
        if self.radius is not None and not 20 <= self.radius <= 200:
            raise ValueError("--radius must be in 20…200 millimeters")
        if self.scans is None and (self.photos or self.meshes or self.unit):
            raise ValueError("--photos, --meshes and --unit need --scans")
        for path in (self.scans, self.photos, self.meshes):
            if path is not None and not path.exists():
                raise ValueError(f"{path}: no such file or folder")


@dataclass(frozen=True, kw_only=True)
class IndexOptions(EvaluateOptions):
    """What benchmarks on an index of photos share."""

    photos: Path
    """Folder of photos with an index.csv (file, source, subject, split, landmarks)."""
    index: Path | None = None
    """Another index of these photos. Default: index.csv in --photos."""
    split: Literal["all", "train", "val", "test"] = "val"
    """Rows that are evaluated; `test` once a release."""


@dataclass(frozen=True, kw_only=True)
class AflwFacesOptions(IndexOptions):
    """AFLW: 21 points and visible inner points by yaw, closed eyes, open mouths."""


@dataclass(frozen=True, kw_only=True)
class CfpOptions(IndexOptions):
    """CFP: 21 fixed points of real profiles, in percent of the face's height."""


@dataclass(frozen=True, kw_only=True)
class VisibilityOptions(IndexOptions):
    """AFLW's flags: turned away and covered landmarks told from visible ones."""


@dataclass(frozen=True, kw_only=True)
class IdentityOptions(IndexOptions):
    """Same person or another, by the shape's identity part, on pairs of photos."""

    source: str = "lfw"
    """Source of the index whose people have two photos; faces are found by the detector."""
    pairs: Annotated[int, tyro.conf.arg(metavar="N")] = 300
    """At most so many people (0: all)."""


@dataclass(frozen=True, kw_only=True)
class SkinOptions(IndexOptions):
    """FairFace: color of the skin and faces not found, by annotated group."""


@dataclass(frozen=True, kw_only=True)
class CardOptions(IndexOptions):
    """The model card: every benchmark for which there are photos, as one short page."""

    out: Path | None = None
    """Markdown file to write."""
    scans: Path | None = None
    """Head scans, as of `geometry`. Default: heads drawn from the face model."""
    scan_photos: Path | None = None
    """Photos of the scanned people."""
    drawn: int = 20
    """Drawn heads without --scans; 0 leaves geometry out."""
    aflw2000: Path | None = None
    """Folder of AFLW2000-3D; left out without it."""
    aflw2000_points: Path | None = None
    """Its re-annotated points, .npy."""
