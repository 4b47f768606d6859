"""Compiled loops where no cache can be written, as in a read-only install or on a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import v3recon
from v3recon._fast import compiled as module
from v3recon._fast.compiled import compiled


def double(x):
    return 2 * x


def test_without_a_place_for_the_cache_it_compiles_in_memory(monkeypatch):
    def refuse(self, function):  # what numba does when no folder can be written
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(module._OptionalCache, "__init__", refuse)
    assert compiled(fastmath=True)(double)(21) == 42


def test_a_full_disk_is_no_reason_to_stop(monkeypatch):
    tried = []

    def fill(self, sig, data):
        tried.append(sig)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.FunctionCache, "_save_overload", fill)
    assert compiled()(double)(21.5) == 43
    assert tried


def test_a_damaged_cache_is_no_reason_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    assert compiled()(double)(1) == 2
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written, "the cache is used at all"
    for path in written:
        path.write_bytes(path.read_bytes()[:50])
    assert compiled()(double)(2) == 4


def test_no_home_no_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert compiled()(double)(3) == 6
    assert not list(tmp_path.iterdir())


def test_the_package_compiles_in_one_way():
    users = [
        path.name
        for path in Path(v3recon.__file__).parent.rglob("*.py")
        if "import numba" in path.read_text() or "from numba" in path.read_text()
    ]
    assert users == ["compiled.py"]
