"""A checkpoint with random weights for PhotoHead, and small benchmarks around one photo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera, project
from v3recon.networks.face_regressor import (
    FaceRegressor,
    FaceRegressorConfig,
    save_face_regressor,
)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"


def _centered(model: LinearFaceModel) -> torch.Tensor:
    """Translation [3] that puts the mean face where the crop rule puts a photo's face."""
    camera = Camera()
    id_size, exp_size, _ = model.sizes
    mean = model.vertices(torch.zeros(1, id_size), torch.zeros(1, exp_size))[0]
    points = mean[model.landmarks_68]
    trans = torch.zeros(3)
    for _ in range(20):
        drawn = project(points + trans, camera)
        low, high = drawn.amin(0), drawn.amax(0)
        depth = camera.distance - trans[2]
        away = (camera.image_size - 1) / 2 - (low + high) / 2
        trans[:2] += away * torch.tensor([1, -1]) * depth / camera.focal
        trans[2] += depth * (1 - (high - low).max() * 1.414 / camera.image_size)
    return trans


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = load_face_model("photohead")
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    config = FaceRegressorConfig(
        input_size=64, pyramid_width=16, map_width=8, cells=4, hidden=32, points=70,
        refiner_hidden=16, refinements=1,
    )  # fmt: skip
    regressor = FaceRegressor(config)
    regressor.set_face_model(model)
    start = sum(model.sizes[:2]) + 6
    regressor.first[-1].bias.data[start : start + 3] = _centered(model)
    save_face_regressor(
        path, regressor, face_model=model, crop_rule={"name": "box", "scale": 1.414}
    )
    return path


@pytest.fixture(scope="session")
def example_photo() -> Path:
    """A portrait that may be redistributed; the face is at about (224, 110), 130 pixels wide."""
    return EXAMPLE
