"""The site that browsers are given, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from v3recon.cli.export import main


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder of `v3recon export web`."""
    folder = tmp_path_factory.mktemp("site")
    assert main(["web", str(folder)]) == 0
    return folder
