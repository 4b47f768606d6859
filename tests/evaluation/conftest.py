"""A checkpoint with random weights for PhotoFace, and small benchmarks around one photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from v3recon.face_models.load import load_face_model
from v3recon.networks.checkpoints import save_checkpoint
from v3recon.networks.regressor import Regressor

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = load_face_model("photoface")
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    save_checkpoint(
        path,
        Regressor("mbnetv3", model.sizes, 64, "6d"),
        face_model=model,
        crop_rule={"name": "box", "scale": 1.414},
    )
    return path


@pytest.fixture(scope="session")
def example_photo() -> Path:
    """A portrait that may be redistributed; the face is at about (224, 110), 130 pixels wide."""
    return EXAMPLE


def write_pts(path: Path, points: np.ndarray) -> None:
    """Points [N, 2] with the first pixel at 0 as a 300-W file, whose first pixel is 1."""
    rows = "\n".join(f"{x:.6f} {y:.6f}" for x, y in points + 1)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n")
