"""`v3recon view [PATH]`: heads of files, or photos to faces, in the browser of this machine."""

from __future__ import annotations

import argparse
import sys
import tempfile
import webbrowser
from http.server import ThreadingHTTPServer
from pathlib import Path

from v3recon.io.json_file import read_json
from v3recon.io.messages import say_anything
from v3recon.io.photo_files import is_photo
from v3recon.view.server import address_of, make_server, make_site_server


def main(argv: list[str] | None = None) -> int:
    """Run the program until it is interrupted; returns its exit status."""
    say_anything()
    parser = argparse.ArgumentParser(
        prog="v3recon view",
        description="Show heads in the browser: turn them, move their shapes, play animations. "
        "Without a path, the page that reconstructs photos in the browser. "
        "Nothing leaves this machine.",
    )
    paths = ".glb file, folder of results, photo, or folder of `v3recon export web`"
    parser.add_argument("path", type=Path, nargs="?", help=paths)
    parser.add_argument("--port", type=int, default=0, help="of this machine (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="only say the address")
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            with server_of(options.path, options.port, Path(folder)) as server:
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


def server_of(path: Path | None, port: int, folder: Path) -> ThreadingHTTPServer:
    """The server of what a command line asks for.

    Args:
        path: see `files_of`; or a folder of `v3recon export web`; None = that page, made anew.
        port: of this machine; 0 takes a free one.
        folder: for files that are made.

    Raises:
        ValueError: if there is nothing to serve, or the port is taken.
    """
    if path is None:
        # Slow to import, and not needed for files that exist.
        from v3recon.cli.export import write_site

        print("Making the page …", flush=True)
        return make_site_server(write_site(folder), port)
    site = _site_of(path)
    return make_site_server(site, port) if site else make_server(files_of(path, folder), port)


def _site_of(folder: Path) -> list[Path]:
    """The files of a folder of `v3recon export web`; none of another one."""
    if not (folder / "about.json").is_file():
        return []
    about = read_json(folder / "about.json")
    if not isinstance(about, dict) or about.get("format") != "v3recon-web":
        return []
    return [folder / Path(name).name for name in (*about.get("files", ()), "about.json")]


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
