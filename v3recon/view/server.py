"""A small server for this machine only: one page, its program, and the files that it was given."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

HOST = "127.0.0.1"
_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:"
)
_SITE_POLICY = f"{_POLICY}; script-src 'self' 'wasm-unsafe-eval'; media-src 'self' blob:"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".glb": "model/gltf-binary",
}
_OTHER_TYPE = "application/octet-stream"


def make_server(files: Sequence[Path], port: int = 0) -> ThreadingHTTPServer:
    """A server of heads; `serve_forever` runs it.

    Args:
        files: .glb files. No other file of the machine can be asked for.
        port: of this machine; 0 takes a free one.

    Raises:
        ValueError: if the port is taken.
    """
    pages = {"/": (_page(files), "text/html; charset=utf-8")}
    program = resources.files("v3recon.view") / "data" / "viewer.min.js"
    pages["/viewer.min.js"] = (program.read_bytes(), "text/javascript; charset=utf-8")
    heads = {f"/head/{number}.glb": path for number, path in enumerate(files)}
    return _listen(partial(_Handler, pages, heads, _POLICY), port)


def make_site_server(files: Sequence[Path], port: int = 0) -> ThreadingHTTPServer:
    """A server of the page that `v3recon export web` writes.

    Args:
        files: of the site. They are asked for by their names, `index.html` also by "/".
        port: of this machine; 0 takes a free one.

    Raises:
        ValueError: if the port is taken, or a file is missing.
    """
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ValueError(f"{files[0].parent} lacks {', '.join(missing)}; export it again")
    named = {f"/{path.name}": path for path in files}
    return _listen(partial(_Handler, {}, named | {"/": named["/index.html"]}, _SITE_POLICY), port)


def address_of(server: ThreadingHTTPServer) -> str:
    """Where a browser of this machine finds the page."""
    return f"http://{HOST}:{server.server_address[1]}/"


def _listen(handler: partial[_Handler], port: int) -> ThreadingHTTPServer:
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise ValueError(f"port {port} cannot be used ({error.strerror})") from None


def _page(files: Sequence[Path]) -> bytes:
    text = (resources.files("v3recon.view") / "data" / "index.html").read_text(encoding="utf-8")
    options = [
        f'<option value="head/{number}.glb">{html.escape(path.name)}</option>'
        for number, path in enumerate(files)
    ]
    return text.replace("<!--FILES-->", "".join(options)).encode("utf-8", "replace")


class _Handler(BaseHTTPRequestHandler):
    def __init__(
        self,
        pages: dict[str, tuple[bytes, str]],
        files: dict[str, Path],
        policy: str,
        *arguments: object,
    ) -> None:
        self._pages = pages
        self._files = files
        self._policy = policy
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer with a page or a file that was given."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        path = self.path.partition("?")[0]
        if host not in (HOST, "localhost"):  # a page elsewhere that has made its name ours
            self.send_error(HTTPStatus.FORBIDDEN)
        elif path in self._pages:
            self._send(*self._pages[path])
        elif path in self._files:
            file = self._files[path]
            try:
                self._send(file.read_bytes(), _TYPES.get(file.suffix.lower(), _OTHER_TYPE))
            except OSError:
                self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *values: object) -> None:
        """Nothing is printed."""

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", self._policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)
