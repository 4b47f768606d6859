"""`v3recon synthesize expressions | poses | published`: new pictures from photographs."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from v3recon.data.mesh_detection import NoMeshDetectorError, mediapipe_detector, stored_detector
from v3recon.face_models.load import DEFAULT_FACE_MODEL, load_face_model
from v3recon.io.atomic import write_text_atomic
from v3recon.io.json_file import read_json
from v3recon.reconstruct.assets import package_weights
from v3recon.synthetic_data.contact_sheet import write_contact_sheet
from v3recon.synthetic_data.expressions import KINDS, Closing
from v3recon.synthetic_data.generate import RunOptions, run_jobs
from v3recon.synthetic_data.manifest import Job, finish, plan_jobs, read_published, write_index
from v3recon.synthetic_data.mask_editing import load_generator
from v3recon.synthetic_data.poses import TurnRange
from v3recon.synthetic_data.quality import MIN_RESPONSE, detector_reader, regressor_reader

USAGE = """usage: v3recon synthesize {expressions,poses,published} [options]

  expressions  close eyes, open mouths, frown, raise brows, pucker: pictures and exact labels
  poses        turn faces further to the side (face profiling): pictures and labels
  published    index of an unpacked archive of published synthetic pictures (images only)
"""


@dataclass(frozen=True)
class CommonConfig:
    """Options of both generators. Run again after a stop: finished photos are kept."""

    photos: Path
    """Folder of photographs (subfolders included)."""
    out: Path
    """Folder to write."""
    index: Path | None = None
    """CSV with columns file, source, subject, split, landmarks, mask (default: index.csv in
    --photos)."""
    per_photo: int = 1
    """Pictures of each kind and photo."""
    size: int = 224
    """Side of the pictures, pixels."""
    margin: float = 2.0
    """Side of a picture over the longer side of the face's box (less where the photo ends)."""
    seed: int = 0
    """Of all draws; the same seed gives the same pictures."""
    face_model: str = DEFAULT_FACE_MODEL
    """photohead, or the path of a file of it."""
    meshes: tuple[Path, ...] = ()
    """Stored detections (.npz with names and pts) instead of MediaPipe."""
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    """Processes."""
    limit: int = 0
    """Only the first N photos (0: all)."""

    def __post_init__(self) -> None:
        """Check numbers."""
        if self.size < 64 or self.per_photo < 1 or self.workers < 1 or self.limit < 0:
            raise ValueError("--size must be >= 64, --per-photo, --workers >= 1, --limit >= 0")
        if not 1.6 <= self.margin <= 4:
            raise ValueError(f"--margin must be 1.6 to 4, got {self.margin}")


@dataclass(frozen=True)
class ExpressionsConfig(CommonConfig):
    """Change the expression of every face: picture, labels, quality filter, contact sheet."""

    kinds: tuple[str, ...] = tuple(KINDS)
    """Kinds of edits."""
    shares: tuple[float, ...] = ()
    """A number for each kind: every photo's --per-photo kinds are drawn by these shares. Default:
    --per-photo pictures of each kind."""
    amount: tuple[float, float] = (1.0, 1.0)
    """How far closing eyes close, drawn from this range: 0.5 is half, 1 closed."""
    partial: float = 1.0
    """Share of the pictures with closing eyes whose amount is drawn; the others are closed."""
    check: Literal["auto", "regressor", "detector", "none"] = "auto"
    """Who must read the intended expression in the picture (auto: the mesh detector; without it the
    regressor)."""
    weights: Path | None = None
    """Weights of the regressor that checks (default: the shipped ones)."""
    min_response: float = MIN_RESPONSE
    """Least share of the intended change that must be read; lower it for weights that were never
    shown closed eyes."""
    generator: str = ""
    """module:function(image, mask, edited_mask) -> image that draws the pictures instead."""

    def __post_init__(self) -> None:
        """Check kinds."""
        super().__post_init__()
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"unknown --kinds {' '.join(unknown)}; known: {' '.join(KINDS)}")
        Closing(self.amount, self.partial)
        if self.shares:
            kinds = dict.fromkeys(self.kinds)
            if len(self.shares) != len(kinds) or min(self.shares) <= 0:
                raise ValueError(f"--shares needs {len(kinds)} numbers above 0, one for each kind")
            if self.per_photo > len(kinds):
                raise ValueError(f"--per-photo is at most {len(kinds)} with --shares")


@dataclass(frozen=True)
class PosesConfig(CommonConfig):
    """Turn every face further to the side."""

    yaw: tuple[float, float] = (20.0, 80.0)
    """Range of |yaw| after the turn, degrees; a face only turns away from the front."""
    pitch: tuple[float, float] = (-12.0, 12.0)
    """Range of the change of pitch, degrees."""


@dataclass(frozen=True)
class PublishedConfig:
    """Write an index of a folder of published synthetic pictures for `v3recon train`."""

    photos: Path
    """Unpacked archive; the folder above a picture names its kind."""
    out: Path
    """CSV to write."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand: 0 done, 1 nothing usable or failed, 2 wrong usage or missing assets."""
    argv = sys.argv[1:] if argv is None else argv
    programs = {
        "expressions": ExpressionsConfig,
        "poses": PosesConfig,
        "published": PublishedConfig,
    }
    if not argv or argv[0] not in programs:
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        config = tyro.cli(programs[argv[0]], args=argv[1:], prog=f"v3recon synthesize {argv[0]}")
        if isinstance(config, PublishedConfig):
            rows = read_published(config.photos)
            write_index(config.out, rows)
            print(f"{len(rows)} pictures: {config.out}")
            return 0
        options = make_options(config)
        jobs = plan_jobs(config.photos, config.index, config.limit)
        check_plan(options, jobs)
    except SystemExit as stop:  # tyro ends the program after --help or wrong usage
        return int(stop.code or 0)
    except (ValueError, OSError) as error:
        print(f"v3recon synthesize: {error}", file=sys.stderr)
        return 2
    try:
        return synthesize(options, jobs, config.workers)
    except (ValueError, OSError, BrokenProcessPool) as error:
        reason = str(error) or type(error).__name__
        print(
            f"v3recon synthesize: {reason}\nfinished photos are kept; run the command again",
            file=sys.stderr,
        )
        return 1


def make_options(config: CommonConfig) -> RunOptions:
    """Options of a run, with everything they name checked.

    Raises:
        ValueError: if an asset is missing; says which.
    """
    model = load_face_model(config.face_model)
    model.known_detector_points()  # pictures are moved by them
    if config.meshes:
        stored_detector(list(config.meshes))
    else:
        mediapipe_detector()
    kinds: tuple[str, ...] = ()
    check, weights, generator, turns = "none", None, "", TurnRange()
    min_response = MIN_RESPONSE
    shares, closing = (), Closing()
    if isinstance(config, ExpressionsConfig):
        kinds, generator = tuple(dict.fromkeys(config.kinds)), config.generator
        check, weights = choose_check(config)
        min_response = config.min_response
        shares, closing = config.shares, Closing(config.amount, config.partial)
        if weights is not None:
            regressor_reader(weights, model)
        if generator:
            load_generator(generator)
    if isinstance(config, PosesConfig):
        turns = TurnRange(config.yaw, config.pitch)
    return RunOptions(
        photos=config.photos,
        out=config.out,
        kinds=kinds,
        per_photo=config.per_photo,
        size=config.size,
        margin=config.margin,
        seed=config.seed,
        face_model=config.face_model,
        meshes=config.meshes,
        check=check,
        min_response=min_response,
        weights=weights,
        generator=generator,
        turns=turns,
        shares=shares,
        closing=closing,
    )


def choose_check(config: ExpressionsConfig) -> tuple[str, Path | None]:
    """Who reads the finished pictures, and with which weights.

    Weights that the user names are read; otherwise the detector, which shares nothing with what is
    trained, is preferred.

    Raises:
        ValueError: if the one that was asked for is not there.
    """
    if config.check == "none":
        return "none", None
    if config.check != "regressor" and config.weights is None:
        try:
            detector_reader()
            return "detector", None
        except NoMeshDetectorError:
            if config.check == "detector":
                raise
    return "regressor", config.weights or package_weights()


def check_plan(options: RunOptions, jobs: list[Job]) -> None:
    """Refuse to mix two runs with other photos or options in one folder."""
    files = json.dumps([job.entry.file for job in jobs])
    plan = {
        "options": options.fingerprint(),
        "photos": hashlib.sha256(files.encode()).hexdigest(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "plan.json"
    if path.is_file():
        if read_json(path) != plan:
            raise ValueError(
                f"{options.out} was begun with other photos or options; choose another --out or"
                " delete it"
            )
    else:
        write_text_atomic(path, json.dumps(plan))


def synthesize(options: RunOptions, jobs: list[Job], workers: int) -> int:
    """Make all pictures, then manifest, index, meshes, report and contact sheet.

    Returns:
        0, or 1 if no picture was written.
    """
    records: list[dict[str, Any]] = []
    with tqdm(total=len(jobs), unit="photo", desc="synthesize") as progress:
        for made in run_jobs(options, jobs, workers):
            records += made
            progress.update()
    records.sort(key=lambda record: (record["photo"], record["kind"], record["number"]))
    report = finish(options.out, records)
    report_lines(report)
    if not report["written"]:
        print("no picture was written", file=sys.stderr)
        return 1
    write_contact_sheet(options, records)
    print(f"manifest, index, meshes, contact sheet: {options.out}")
    return 0


def report_lines(report: dict[str, Any]) -> None:
    """Print the counts of a run."""
    print(
        f"{report['written']} pictures of {report['photos']} photos;"
        f" {100 * report['pass_share']:.1f} % pass the filter"
    )
    for name in ("refused", "skipped"):
        for reason, count in report[f"{name}_reasons"].items():
            print(f"  {name} {count}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
