"""Compiled loops where no cache can be written, as in a read-only install."""

from __future__ import annotations

from pathlib import Path

import numba

import v3recon
from v3recon._fast.compiled import compiled


def test_without_a_place_for_the_cache_it_compiles_in_memory(monkeypatch):
    plain = numba.njit

    def refusing(*args, cache=False, **kwargs):
        if cache:  # what numba does when no folder can be written
            raise RuntimeError("cannot cache function: no locator available")
        return plain(*args, **kwargs)

    monkeypatch.setattr(numba, "njit", refusing)

    @compiled(fastmath=True)
    def double(x):
        return 2 * x

    assert double(21) == 42


def test_the_package_compiles_in_one_way():
    users = [
        path.name
        for path in Path(v3recon.__file__).parent.rglob("*.py")
        if "import numba" in path.read_text() or "from numba" in path.read_text()
    ]
    assert users == ["compiled.py"]
