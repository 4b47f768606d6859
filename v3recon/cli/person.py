"""`v3recon person FOLDER …`: the photos of a folder show one person, who has one identity."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from v3recon.cli.program import add_network, reconstructor_of, run_program
from v3recon.cli.reconstruct import make_folder
from v3recon.io.images import read_image
from v3recon.io.messages import one_line
from v3recon.io.names import file_name_of
from v3recon.io.photo_files import find_photos, is_photo

EPILOG = """Exit status: 0 every person was reconstructed, 1 some were not, or photos of theirs
could not be read, 2 wrong usage or missing assets."""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line.

    Raises:
        SystemExit: after --help, or with status 2 for flags that cannot be understood.
    """
    parser = argparse.ArgumentParser(
        prog="v3recon person",
        description="Reconstruct people from several photos: identity and albedo of the largest "
        "faces of a folder are taken together, weighted by confidence; expression, pose and light "
        "are of each photo. Writes SAVEPATH/PERSON/PHOTO with the files of v3recon reconstruct, "
        "and SAVEPATH/PERSON/PERSON.obj, the head without expression.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="FOLDER",
        help="of one person's photos, or of such folders")  # fmt: skip
    add("-s", "--savepath", type=Path, default=Path("results"), metavar="FOLDER",
        help="for the results (default: results)")  # fmt: skip
    add("--fit", action="store_true", help="refine all photos of a person together (v3recon fit)")
    add_network(parser)
    return parser.parse_args(argv)


def people_of(folders: list[Path]) -> dict[str, list[Path]]:
    """Photos by person: folders that hold photos, and the subfolders of folders that hold none.

    Raises:
        ValueError: for what is no folder, or holds no photo.
    """
    people: dict[str, list[Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give a folder of a person's photos")
        entries = sorted(folder.iterdir())
        own = any(path.is_file() and is_photo(path) for path in entries)
        for one in [folder] if own else [path for path in entries if path.is_dir()]:
            name = file_name_of(one.resolve().name)
            number, unique = 2, name
            while unique in people:
                unique, number = f"{name}_{number}", number + 1
            with suppress(ValueError):  # a subfolder without photos is nobody
                people[unique] = find_photos([one]).photos
    if not people:
        raise ValueError(f"{folders[0]} holds no photos and no folders of photos")
    return people


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    return run_program("person", parse_arguments, _run, argv)


def _run(options: argparse.Namespace) -> int:
    # Slow to import, and not needed to explain the flags.
    from v3recon.fitting.fit_photo import fit
    from v3recon.reconstruct.faces import Face
    from v3recon.reconstruct.one_person import one_person
    from v3recon.reconstruct.save import output_names, save_faces, write_neutral_obj

    people = people_of(options.folders)
    make_folder(options.savepath)
    reconstructor = reconstructor_of(options)
    failed: list[str] = []
    for person, photos in people.items():
        found: dict[Path, Face] = {}
        for photo in photos:
            try:
                faces = reconstructor(read_image(photo))
                if not len(faces):
                    raise ValueError("no face found")
                found[photo] = faces[0]
            except ValueError as error:  # one photo must not end the others
                failed.append(f"  {photo}: {one_line(error)}")
        if not found:
            failed.append(f"  {person}: no face in {len(photos)} photos")
            continue
        looks = one_person(list(found.values()))
        if options.fit:
            looks = fit(looks, one_person=True).faces
        folder = options.savepath / person
        names = dict(zip(photos, output_names(photos), strict=True))
        settings = {"person": person, "photos": len(looks), "fit": options.fit}
        for photo, face in zip(found, looks, strict=True):
            save_faces([face], folder / names[photo], names[photo], photo=photo, settings=settings)
        write_neutral_obj(folder / f"{person}.obj", looks[0])
        print(f"{person}: {len(looks)} of {len(photos)} photos")
    if failed:
        print("failed:\n" + "\n".join(failed))
    print(f"{len(people)} people; results in {options.savepath}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
