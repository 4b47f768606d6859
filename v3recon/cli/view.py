"""`v3recon view PATH`: heads of GLB files, results or photos in the browser of this machine."""

from __future__ import annotations

import argparse
import sys
import tempfile
import webbrowser
from pathlib import Path

from v3recon.io.messages import say_anything
from v3recon.io.photo_files import is_photo
from v3recon.view.server import address_of, make_server


def main(argv: list[str] | None = None) -> int:
    """Run the program until it is interrupted; returns its exit status."""
    say_anything()
    parser = argparse.ArgumentParser(
        prog="v3recon view",
        description="Show heads in the browser: turn them, move their shapes, play animations. "
        "Nothing leaves this machine.",
    )
    parser.add_argument("path", type=Path, help=".glb file, folder of results, or photo")
    parser.add_argument("--port", type=int, default=0, help="of this machine (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="only say the address")
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            with make_server(files_of(options.path, Path(folder)), options.port) as server:
                address = address_of(server)
                print(f"{address}  (Ctrl-C ends it)", flush=True)
                if not options.no_browser:
                    webbrowser.open(address)
                server.serve_forever()
        except ValueError as error:
            print(f"v3recon view: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            pass
    return 0


def files_of(path: Path, folder: Path) -> list[Path]:
    """The heads of a path; those of a photo are made.

    Args:
        path: a .glb file, a folder that is searched for them, or a photo.
        folder: where a photo's are written.

    Raises:
        ValueError: if there is none.
    """
    if path.is_dir():
        files = sorted(path.rglob("*.glb"))
        if not files:
            raise ValueError(f"{path} holds no .glb file; make some with reconstruct --glb 1")
        return files
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".glb":
        return [path]
    if not is_photo(path):
        raise ValueError(f"{path} is neither a .glb file nor a photo")
    # Slow to import, and not needed for files that exist.
    from v3recon.reconstruct.glb import write_face_glb
    from v3recon.reconstruct.reconstructor import FaceReconstructor

    faces = FaceReconstructor.from_pretrained()(path)
    if not len(faces):
        raise ValueError(f"{path} shows no face")
    files = [folder / f"face{number}.glb" for number in range(1, len(faces) + 1)]
    for file, face in zip(files, faces, strict=True):
        write_face_glb(file, face)
    return files


if __name__ == "__main__":
    sys.exit(main())
