from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.face_models.photoface import read_photoface
from v3recon.networks.mesh_aligned import set_points
from v3recon.networks.regressor import Regressor
from v3recon.training.rebase import rebase_heads


def turned_basis() -> LinearFaceModel:
    """PhotoFace with its identity modes mixed by a random rotation and a shifted mean."""
    data = read_photoface()
    generator = torch.Generator().manual_seed(1)
    mix = torch.linalg.qr(torch.randn(80, 80, generator=generator)).Q
    mean = data.mean_shape + 0.7 * data.id_basis[..., 3]
    return LinearFaceModel(replace(data, mean_shape=mean, id_basis=data.id_basis @ mix))


@pytest.mark.parametrize(("corrections", "closeups"), [(0, 0), (2, 0), (2, 2)])
def test_the_same_shapes_in_another_basis(corrections, closeups):
    old, new = load_face_model("photoface"), turned_basis()
    torch.manual_seed(0)
    regressor = Regressor(
        "mbnetv3", old.sizes, 64, "6d", corrections=corrections, closeups=closeups
    ).eval()
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(3, 960, 1, 1, generator=generator)
    sizes = [(16, 32)] * bool(closeups) + [(24, 16), (40, 8), (112, 4)]
    maps = [torch.randn(3, width, side, side, generator=generator) for width, side in sizes]
    # Fresh backbones give the same for all pictures.
    regressor._features = lambda image: (features, maps)
    if regressor.aligned is not None:
        set_points(regressor.aligned, old)
        for step in regressor.aligned.steps:
            torch.nn.init.normal_(step[-1].weight, 0, 0.02)
    if regressor.near is not None:
        torch.nn.init.normal_(regressor.near.step[-1].weight, 0, 0.02)
    image = torch.zeros(3, 3, 64, 64)
    with torch.no_grad():
        for head in regressor.final_layers[:2]:
            head.weight.mul_(30)  # fresh heads give nearly the mean face
        before = regressor(image)
        rebase_heads(regressor, old, new)
        after = regressor(image)
        shape = old.vertices(before.id, before.exp)
        spread = (shape - shape.mean(0)).abs().max()
        assert spread > 0.02
        difference = (shape - new.vertices(after.id, after.exp)).abs().max()
    assert difference < 0.05 * spread
    tolerance = 0.02 * float((before.trans - before.trans.mean(0)).abs().max())
    torch.testing.assert_close(after.trans, before.trans, rtol=0, atol=tolerance)


def test_models_of_another_mesh_are_refused():
    data = read_photoface()
    smaller = LinearFaceModel(replace(data, id_basis=data.id_basis[..., :40]))
    regressor = Regressor("mbnetv3", (80, 64, 80), 64, rotation="6d")
    with pytest.raises(ValueError, match="one mesh"):
        rebase_heads(regressor, load_face_model("photoface"), smaller)
