"""The page's server: what it gives, and what it keeps."""

from __future__ import annotations

import http.client
import threading
from pathlib import Path

import pytest

from v3recon.cli.view import files_of, main
from v3recon.view.server import address_of, make_server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ask(tmp_path):
    """A running server of two heads; returns (status, type, body) of a path."""
    files = [tmp_path / "one.glb", tmp_path / "<two>&.glb"]
    files[0].write_bytes(b"glTF one")
    files[1].write_bytes(b"glTF two")
    (tmp_path / "secret.txt").write_text("secret")
    server = make_server(files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def get(path: str, host: str | None = None) -> tuple[int, str | None, bytes]:
        port = server.server_address[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read()

    assert address_of(server).startswith("http://127.0.0.1:")
    yield get
    server.shutdown()
    server.server_close()


def test_page_program_and_heads(ask):
    status, kind, page = ask("/")
    assert status == 200 and kind == "text/html; charset=utf-8"
    assert b'<option value="head/0.glb">one.glb</option>' in page
    assert b"&lt;two&gt;&amp;.glb" in page and b"<two>" not in page
    status, kind, program = ask("/viewer.min.js?x=1")
    assert status == 200 and kind is not None and kind.startswith("text/javascript")
    assert b"three.js" in program.lower() or b"Three.js Authors" in program
    assert ask("/head/1.glb") == (200, "model/gltf-binary", b"glTF two")


@pytest.mark.parametrize(
    "path", ["/head/2.glb", "/secret.txt", "/../secret.txt", "/head/../../secret.txt", "/head/0"]
)
def test_nothing_else_is_given(ask, path):
    status, _, body = ask(path)
    assert status == 404 and b"secret" not in body.replace(path.encode(), b"")


def test_pages_of_other_names_are_refused(ask):
    assert ask("/", "example.org:80")[0] == 403
    assert ask("/head/0.glb", "example.org")[0] == 403
    assert ask("/", "localhost:1")[0] == 200


def test_what_can_be_viewed(tmp_path, capsys):
    with pytest.raises(ValueError, match="no such file"):
        files_of(tmp_path / "none", tmp_path)
    with pytest.raises(ValueError, match="--glb 1"):
        files_of(tmp_path, tmp_path)
    (tmp_path / "text.txt").write_text("words")
    with pytest.raises(ValueError, match=r"neither a \.glb file nor a photo"):
        files_of(tmp_path / "text.txt", tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.glb").write_bytes(b"glTF")
    assert files_of(tmp_path, tmp_path) == [tmp_path / "deep" / "a.glb"]
    assert files_of(tmp_path / "deep" / "a.glb", tmp_path) == [tmp_path / "deep" / "a.glb"]
    server = make_server([])
    port = server.server_address[1]
    assert main([str(tmp_path), "--no-browser", "--port", str(port)]) == 2
    assert f"port {port} cannot be used" in capsys.readouterr().err
    server.server_close()


def test_a_photo_becomes_heads(tmp_path):
    files = files_of(ROOT / "examples" / "astronaut.jpg", tmp_path)
    assert [path.name for path in files] == ["face1.glb"]
    assert files[0].read_bytes()[:4] == b"glTF"
