"""The program: photos in, every output out (`demo.py`, `v3recon reconstruct`)."""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from v3recon._fast.memory import keep_freed_memory
from v3recon._fast.threads import let_helpers_sleep
from v3recon.io.given_faces import open_given_faces
from v3recon.io.images import read_image
from v3recon.io.messages import one_line, say_anything
from v3recon.io.photo_files import find_photos

TRUE_WORDS = ("1", "true", "yes")
FALSE_WORDS = ("0", "false", "no")
MAX_PENDING_PIXELS = 8_000_000
"""Photos wait for their batch only as long as they have no more pixels than this together."""

INTERRUPTED = 130
EXIT_STATUSES = """Exit status: 0 every photo was processed (some may show no face), 1 some failed,
2 wrong usage or missing assets."""

REFERENCE_FLAGS = ("ldm106_2d", "seg_visible")
"""Flags of 3DDFA_V3's program that are spelled with an underscore."""

ALSO = (
    *("ply", "sampled", "landmarks", "vertices", "camera", "depth", "pncc", "paf", "pose"),
    "deep3d",
)
"""Names of `reconstruct.file_kinds.FILE_KINDS`, which is slow to import."""

ANCESTOR_FLAGS = {
    **{f"--dump_{kind}": ("--also", kind) for kind in ("ply", "depth", "pncc", "paf", "pose")},
    "--dump_pts": ("--also", "landmarks"),
    "--dump_vertex": ("--also", "vertices"),
    "--dump_obj": ("--also", "sampled"),
    "--is3d": ("--also", "sampled"),
    "--isKpt": ("--also", "landmarks"),
    "--isMat": ("--also", "vertices"),
    "--isPose": ("--also", "pose"),
    "--isDepth": ("--also", "depth"),
    "--isFront": ("--front",),
    "--isMask": ("--mask",),
    "--isTexture": ("--extractTex",),
}
"""Switches of 3DDFA (`dump_`) and PRNet (`is`), and what is said here."""


def parse_bool(text: str) -> bool:
    """A flag's value, in any case.

    Raises:
        argparse.ArgumentTypeError: if it is none of TRUE_WORDS and FALSE_WORDS.
    """
    word = text.lower()
    if word not in TRUE_WORDS + FALSE_WORDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of 0, 1, true, false, yes, no")
    return word in TRUE_WORDS


def _cli(text: str, *short: str, **how: Any) -> dict[str, Any]:
    """How the command line reads a field: help, short flags, arguments of `add_argument`."""
    return {"help": text, "short": short, "how": how}


def _switch(text: str) -> dict[str, Any]:
    return _cli(text, type=parse_bool, metavar="0|1")


@dataclass(frozen=True)
class ReconstructConfig:
    """Reconstruct the faces of photos in 3D.

    Writes, for each photo with a face, a folder SAVEPATH/NAME with NAME.npy (3DDFA_V3's values),
    NAME.npz and NAME.json (all values), NAME.png (contact sheet) and OBJ meshes. Switches 0|1 are
    on by default but for --glb, --usd, --front and --mask, and also take true, false, yes and no.
    Flags may be shortened.
    """

    inputpath: tuple[Path, ...] = field(
        default=(Path("examples"),),
        metadata=_cli(
            "photos and folders of photos, searched recursively (default: examples)",
            *("-i", "-f", "--files", "--inputDir"),
            nargs="+",
            type=Path,
            metavar="PATH",
        ),
    )
    savepath: Path = field(
        default=Path("results"),
        metadata=_cli(
            "for the results (default: results)",
            *("-s", "-o", "--outputDir"),
            type=Path,
            metavar="FOLDER",
        ),
    )
    device: str | None = field(
        default=None,
        metadata=_cli("cpu, cuda, cuda:1, … (default: cuda if there is one)", metavar="NAME"),
    )
    iscrop: bool = field(
        default=True, metadata=_switch("crop the faces; 0 = photos are 224 x 224 crops already")
    )
    detector: str = field(
        default="mtcnn",
        metadata=_cli(
            "finds the faces; retinaface needs weights among the assets (default: mtcnn)",
            choices=("mtcnn", "retinaface"),
        ),
    )
    ldm68: bool = field(default=True, metadata=_switch("68 landmarks"))
    ldm106: bool = field(default=True, metadata=_switch("106 landmarks"))
    ldm106_2d: bool = field(
        default=True, metadata=_switch("106 landmarks, the contour on the visible outline")
    )
    ldm134: bool = field(default=True, metadata=_switch("134 landmarks"))
    seg: bool = field(default=True, metadata=_switch("eight part masks"))
    seg_visible: bool = field(default=True, metadata=_switch("label map of the visible parts"))
    seg_seen: bool = field(
        default=True, metadata=_switch("what the photo shows: parts, hair, glasses, other things")
    )
    useTex: bool = field(default=True, metadata=_switch("OBJ with the face model's own colours"))
    extractTex: bool = field(
        default=True,
        metadata=_switch("the photo's texture: OBJ with vertex colours, OBJ with uv and PNG"),
    )
    backbone: str | None = field(
        default=None,
        metadata=_cli(
            "network (default: resnet50 with --assets, else that of the weights)",
            choices=("resnet50", "mbnetv3"),
        ),
    )
    assets: Path | None = field(
        default=None,
        metadata=_cli(
            "official 3DDFA_V3 assets (default: PhotoHead and the weights in the package)",
            type=Path,
            metavar="FOLDER",
        ),
    )
    face_model: str | None = field(
        default=None,
        metadata=_cli("photohead, bfm, or a file, instead of the assets'", metavar="NAME"),
    )
    weights: Path | None = field(
        default=None,
        metadata=_cli("a checkpoint, instead of the assets'", type=Path, metavar="FILE"),
    )
    rasterizer: str = field(
        default="auto",
        metadata=_cli(
            "draws the meshes (default: auto)", choices=("auto", "cpu", "torch", "nvdiffrast")
        ),
    )
    boxes: str | None = field(
        default=None,
        metadata=_cli(
            "boxes or landmarks, not the detector's: 'beside' the photos, a folder, or a file",
            metavar="PATH",
        ),
    )
    max_faces: int | None = field(
        default=None,
        metadata=_cli("only so many of a photo's largest faces", type=int, metavar="N"),
    )
    min_confidence: float | None = field(
        default=None,
        metadata=_cli("lowest detection score, 0 to 1", type=float, metavar="SCORE"),
    )
    min_quality: float = field(
        default=0.0,
        metadata=_cli(
            "leave out faces of a lower quality, 0 to 1; doubtful ones are below 0.5 (default: 0)",
            type=float,
            metavar="QUALITY",
        ),
    )
    batch_size: int = field(
        default=16,
        metadata=_cli("faces in the network together (default: 16)", type=int, metavar="N"),
    )
    glb: bool = field(
        default=False,
        metadata=_switch("NAME.glb: textured head with expressions as morph targets (default: 0)"),
    )
    usd: bool = field(
        default=False,
        metadata=_switch("NAME.usdz: textured head with expressions as blend shapes (default: 0)"),
    )
    texture_size: int = field(
        default=1024,
        metadata=_cli("side of the texture picture (default: 1024)", type=int, metavar="PIXELS"),
    )

    front: bool = field(
        default=False, metadata=_switch("OBJ and PLY meshes of the unposed head (default: 0)")
    )
    mask: bool = field(
        default=False,
        metadata=_switch("texels that the photo does not show are black (default: 0)"),
    )
    also: tuple[str, ...] = field(
        default=(),
        metadata=_cli(
            f"files as Deep3D, PRNet and 3DDFA write them: all, {', '.join(ALSO)}",
            nargs="+",
            action="extend",
            default=[],
            choices=("all", *ALSO),
            metavar="KIND",
        ),
    )

    def __post_init__(self) -> None:
        """Raise ValueError for numbers out of range."""
        if self.max_faces is not None and self.max_faces < 1:
            raise ValueError(f"--max-faces must be at least 1, got {self.max_faces}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"--min-confidence must be in 0…1, got {self.min_confidence}")
        if not 0 <= self.min_quality <= 1:
            raise ValueError(f"--min-quality must be in 0…1, got {self.min_quality}")
        if self.boxes is not None and not self.iscrop:
            raise ValueError("--boxes says where faces are; --iscrop 0 says photos are crops")
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")
        if not 16 <= self.texture_size <= 8192:
            raise ValueError(f"--texture-size must be in 16…8192, got {self.texture_size}")


@dataclass
class Summary:
    """What became of the photos.

    Attributes:
        faces: number of faces written, by photo.
        doubtful: photos of faces that are more probably wrong than right, with their quality.
        without_face: photos in which none was found.
        failed: photo and reason.
    """

    faces: dict[Path, int] = field(default_factory=dict)
    doubtful: list[tuple[Path, float]] = field(default_factory=list)
    without_face: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def photo_count(self) -> int:
        """Photos that are done with."""
        return len(self.faces) + len(self.without_face) + len(self.failed)


def parse_arguments(argv: list[str] | None = None) -> ReconstructConfig:
    """The configuration of a command line.

    Raises:
        ValueError: for numbers out of range.
        SystemExit: after --help, or with status 2 for flags that cannot be understood.
    """
    parser = argparse.ArgumentParser(
        prog="v3recon reconstruct",
        usage="v3recon reconstruct [-i PATH …] [-s FOLDER] [options]",
        description=inspect.getdoc(ReconstructConfig),
        epilog=EXIT_STATUSES,
        allow_abbrev=False,
    )
    for one in fields(ReconstructConfig):
        how = {"dest": one.name, "default": one.default, "help": one.metadata["help"]}
        how |= one.metadata["how"]
        parser.add_argument(*one.metadata["short"], _flag(one.name), **how)
    argv = _without_ancestor_flags(sys.argv[1:] if argv is None else argv, parser)
    values = vars(parser.parse_args([_whole_flag(word) for word in argv]))
    return ReconstructConfig(**{**values, "also": tuple(values["also"])})


def _without_ancestor_flags(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Switches of `ANCESTOR_FLAGS` in this program's words."""
    words: list[str] = []
    given = list(argv)
    while given:
        flag, equals, value = given.pop(0).partition("=")
        said = ANCESTOR_FLAGS.get(flag)
        if said is None:
            words.append(flag + equals + value)
            continue
        if not equals and not given:
            parser.error(f"argument {flag}: expected one argument")
        try:
            wanted = parse_bool(value if equals else given.pop(0))
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument {flag}: {error}")
        if said[0] != "--also":
            words += [said[0], str(wanted)]
        elif wanted:
            words += said
    return words


def _flag(name: str) -> str:
    """How a field is shown: 3DDFA_V3's own flags have underscores, ours have hyphens."""
    return f"--{name if name in REFERENCE_FLAGS else name.replace('_', '-')}"


def _whole_flag(word: str) -> str:
    """A flag that is shortened, or spelled with the other dash, in full; other words as they are.

    argparse does the former only if it knows the latter's spellings as one flag, which it does not.
    """
    start, equals, value = word.partition("=")
    if not start.startswith("--") or start == "--":
        return word
    wanted = start[2:].replace("-", "_")
    names = [one.name for one in fields(ReconstructConfig)]
    found = [name for name in names if name.startswith(wanted)]
    if wanted not in names and len(found) != 1:
        return word
    return _flag(wanted if wanted in names else found[0]) + equals + value


def main(argv: list[str] | None = None) -> int:
    """Run the program.

    Returns:
        0 when every photo was processed (also those without a face), 1 when some failed, 2 for
        wrong usage or missing assets, 130 when interrupted.
    """
    started = time.perf_counter()
    say_anything()
    keep_freed_memory(one_pool=True)
    let_helpers_sleep()
    summary = Summary()
    try:
        config = parse_arguments(argv)
        found = find_photos(config.inputpath)
        photos = found.photos
        make_folder(config.savepath)
        process = _load_processor(config, photos)
    except ValueError as error:
        print(f"v3recon reconstruct: {error}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # --help, or flags that cannot be understood
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        return INTERRUPTED
    loaded = time.perf_counter()
    status = 0
    try:
        with tqdm(total=len(photos), unit="photo", file=sys.stderr, disable=None) as progress:
            for batch in read_batches(photos, config.batch_size, summary):
                process(batch, summary)
                progress.update(summary.photo_count - progress.n)
            progress.update(summary.photo_count - progress.n)
        status = 1 if summary.failed else 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    seconds = time.perf_counter() - loaded
    if found.results:
        print(f"left out: {len(found.results)} pictures of earlier results")
    print_summary(summary, config.savepath, seconds, loaded - started)
    return status


Batch = list[tuple[Path, np.ndarray]]


def make_folder(folder: Path) -> None:
    """Make a folder for results and see that it can be written to.

    Raises:
        ValueError: if it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"--savepath {folder}: cannot write there ({reason})") from None


def read_batches(photos: Sequence[Path], batch_size: int, summary: Summary) -> Iterator[Batch]:
    """Photos in groups that are small enough to be held together; unreadable ones are noted."""
    batch: Batch = []
    for path in photos:
        try:
            image = read_image(path)
        except ValueError as error:
            summary.failed.append((path, str(error)))
            continue
        pixels = sum(one.shape[0] * one.shape[1] for _, one in [*batch, (path, image)])
        if batch and (len(batch) == batch_size or pixels > MAX_PENDING_PIXELS):
            yield batch
            batch = []
        batch.append((path, image))
    if batch:
        yield batch


def print_lists(*lists: tuple[str, Sequence[str]]) -> None:
    """Print titles and, indented, the lines of each; nothing of a list without lines."""
    for title, lines in lists:
        if lines:
            print(f"{title}:")
            print("\n".join(f"  {line}" for line in lines))


def print_summary(summary: Summary, savepath: Path, seconds: float, load_seconds: float) -> None:
    """Say what became of the photos, on standard output."""
    print_lists(
        ("doubtful faces in", [f"{path}: quality {one:.2f}" for path, one in summary.doubtful]),
        ("no face found in", [str(path) for path in summary.without_face]),
        ("failed", [f"{path}: {reason}" for path, reason in summary.failed]),
    )
    print(
        f"{summary.photo_count} photos: {sum(summary.faces.values())} faces in "
        f"{len(summary.faces)}, no face in {len(summary.without_face)}, "
        f"{len(summary.failed)} failed; {seconds:.1f} s (loading {load_seconds:.1f} s); "
        f"results in {savepath}"
    )


def _load_processor(
    config: ReconstructConfig, photos: Sequence[Path]
) -> Callable[[Batch, Summary], None]:
    """What reconstructs a batch of photos and writes the results."""
    # Slow to import, and not needed to explain the flags.
    from v3recon.io.usd import load_usd
    from v3recon.reconstruct.faces import LANDMARK_SETS
    from v3recon.reconstruct.file_kinds import known_kinds
    from v3recon.reconstruct.quality import DOUBTFUL
    from v3recon.reconstruct.reconstructor import FaceReconstructor
    from v3recon.reconstruct.save import OutputChoice, output_names, save_faces

    if config.usd:
        load_usd()  # a missing library is said before any photo is read
    reconstructor = FaceReconstructor.from_pretrained(
        config.assets,
        face_model=config.face_model,
        weights=config.weights,
        backbone=config.backbone,
        detector=config.detector if config.iscrop else None,
        device=config.device,
        rasterizer=config.rasterizer,
        max_faces=config.max_faces,
        min_confidence=config.min_confidence,
        min_quality=config.min_quality,
        batch_size=config.batch_size,
    )
    choice = OutputChoice(
        landmarks=tuple(key for key in LANDMARK_SETS if getattr(config, key)),
        seg=config.seg,
        seg_visible=config.seg_visible,
        seg_seen=config.seg_seen,
        model_texture=config.useTex,
        extracted_texture=config.extractTex,
        texture_size=config.texture_size,
        glb=config.glb,
        usd=config.usd,
        front=config.front,
        mask=config.mask,
        also=known_kinds(config.also),
    )
    settings = {
        key: value
        for key, value in vars(config).items()
        if key not in ("inputpath", "savepath", "batch_size")
    }
    names = dict(zip(photos, output_names(photos), strict=True))
    boxes = None if config.boxes is None else open_given_faces(config.boxes)

    def process(batch: Batch, summary: Summary) -> None:
        """Reconstruct photos together; where that fails, one by one, to name the one at fault."""
        try:
            given = None if boxes is None else [boxes.of(path) for path, _ in batch]
            found = reconstructor.reconstruct_photos([image for _, image in batch], given)
        except Exception as error:  # one photo must not end the others
            if len(batch) > 1:
                for one in batch:
                    process([one], summary)
            else:
                summary.failed.append((batch[0][0], one_line(error)))
            return
        for (path, _), faces in zip(batch, found, strict=True):
            try:
                folder, about = config.savepath / names[path], {"photo": path, "settings": settings}
                if len(faces) or folder.is_dir():
                    save_faces(faces, folder, names[path], choice=choice, **about)
            except Exception as error:
                summary.failed.append((path, one_line(error)))
                continue
            qualities = [float(face.quality) for face in faces]
            summary.doubtful += [(path, one) for one in qualities if one < DOUBTFUL]
            if faces:
                summary.faces[path] = len(faces)
            else:
                summary.without_face.append(path)

    return process


if __name__ == "__main__":
    sys.exit(main())
