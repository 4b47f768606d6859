"""The compiled rasteriser where no cache can be written, as in a read-only install."""

from __future__ import annotations

import numba

from v3recon.render import _cpu


def test_without_a_place_for_the_cache_it_compiles_in_memory(monkeypatch):
    plain = numba.njit

    def refusing(*args, cache=False, **kwargs):
        if cache:  # what numba does when no folder can be written
            raise RuntimeError("cannot cache function: no locator available")
        return plain(*args, **kwargs)

    monkeypatch.setattr(numba, "njit", refusing)

    def double(x):
        return 2 * x

    assert _cpu._compile(double)(21) == 42
