"""`v3recon fit`: faces of photos, fitted to their pixels, into the files of a reconstruction."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from v3recon.cli.program import add_network, reconstructor_of, run_program
from v3recon.cli.reconstruct import EXIT_STATUSES, make_folder, print_lists
from v3recon.io.images import read_image
from v3recon.io.messages import one_line
from v3recon.io.photo_files import find_photos


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line.

    Raises:
        SystemExit: after --help, or with status 2 for flags that cannot be understood.
    """
    parser = argparse.ArgumentParser(
        prog="v3recon fit",
        description="Reconstruct the faces of photos and fit them: each face is drawn again and "
        "again while its coefficients move until picture, parts and landmarks agree with the "
        "photo. Writes the files that `v3recon reconstruct` writes.",
        epilog=EXIT_STATUSES,
    )
    add = parser.add_argument
    add("-i", "--inputpath", type=Path, nargs="+", default=[Path("examples")], metavar="PATH",
        help="photos and folders of photos (default: examples)")  # fmt: skip
    add("-s", "--savepath", type=Path, default=Path("results"), help="folder (default: results)")
    add("--one-person", action="store_true", help="the largest faces of all photos are of one "
        "person, who has one identity and one albedo")  # fmt: skip
    add("--steps", type=int, default=60, help="of the optimizer (default: 60)")
    add("--recognition", type=Path, help="ArcFace weights for the perceptual term")
    add_network(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    return run_program("fit", parse_arguments, _fit, argv)


def _fit(options: argparse.Namespace) -> int:
    # Slow to import, and not needed to explain the flags.
    from v3recon.fitting.fit_photo import FitOptions, fit
    from v3recon.networks.recognition import load_recognition
    from v3recon.reconstruct.faces import Face
    from v3recon.reconstruct.save import output_names, save_faces

    chosen = FitOptions(steps=options.steps)
    photos = find_photos(options.inputpath).photos
    make_folder(options.savepath)
    model = reconstructor_of(options)
    recognition = load_recognition(options.recognition) if options.recognition else None
    names = dict(zip(photos, output_names(photos), strict=True))
    settings = {"fit": options.steps, "one_person": options.one_person}
    failed: list[str] = []
    faceless: list[str] = []
    found: dict[Path, list[Face]] = {}
    for path in tqdm(photos, unit="photo", disable=None):
        try:
            faces = list(model(read_image(path)))
            if faces and not options.one_person:
                result = fit(faces, recognition=recognition, options=chosen)
                _say(path.name, result.before, result.after)
                faces = result.faces
                where = options.savepath / names[path]
                save_faces(faces, where, names[path], photo=path, settings=settings)
        except Exception as error:  # one photo must not end the others
            failed.append(f"{path}: {one_line(error)}")
            continue
        if not faces:
            faceless.append(str(path))
        found[path] = faces[:1] if options.one_person else faces
    if options.one_person and any(found.values()):
        shown = {path: faces[0] for path, faces in found.items() if faces}
        result = fit(
            list(shown.values()), one_person=True, recognition=recognition, options=chosen,
            progress=True,
        )  # fmt: skip
        _say(f"{len(shown)} photos of one person", result.before, result.after)
        for path, face in zip(shown, result.faces, strict=True):
            where = options.savepath / names[path]
            save_faces([face], where, names[path], photo=path, settings=settings)
    print_lists(("no face found in", faceless), ("failed", failed))
    count = sum(len(faces) for faces in found.values())
    print(f"{len(photos)} photos: {count} faces fitted, results in {options.savepath}")
    return 1 if failed else 0


def _say(what: str, before: dict[str, float], after: dict[str, float]) -> None:
    """One line with the terms that were lowered."""
    shown = ("photometric", "part", "perceptual")
    terms = [f"{name} {before[name]:.3g} to {after[name]:.3g}" for name in shown if name in before]
    tqdm.write(f"{what}: {', '.join(terms)}")


if __name__ == "__main__":
    sys.exit(main())
