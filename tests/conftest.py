"""Fixtures shared by all tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of photographs and golden values beside the checkout; skips where absent."""
    path = ROOT.parent / "shared"
    if not (path / "photos" / "index.csv").is_file():
        pytest.skip("../shared with the photographs is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """Values computed by the reference implementation on a mesh of 195 vertices."""
    with np.load(ROOT / "tests" / "golden" / "3ddfa_v3_geometry.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness on the CPU."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def official_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up assets in the official format: 1,496 vertices, a random mbnetv3."""
    from synthetic_assets import write_official_assets

    return write_official_assets(tmp_path_factory.mktemp("assets"), networks=("mbnetv3",))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud how many tests were skipped and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason}", yellow=True)
