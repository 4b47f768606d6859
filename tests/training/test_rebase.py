from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.face_models.load import load_face_model
from v3recon.face_models.photoface import read_photoface
from v3recon.networks.regressor import Regressor
from v3recon.training.rebase import rebase_heads


def turned_basis() -> LinearFaceModel:
    """PhotoFace with its identity modes mixed by a random rotation and a shifted mean."""
    data = read_photoface()
    generator = torch.Generator().manual_seed(1)
    mix = torch.linalg.qr(torch.randn(80, 80, generator=generator)).Q
    mean = data.mean_shape + 0.7 * data.id_basis[..., 3]
    return LinearFaceModel(replace(data, mean_shape=mean, id_basis=data.id_basis @ mix))


def test_the_same_shapes_in_another_basis():
    old, new = load_face_model("photoface"), turned_basis()
    torch.manual_seed(0)
    regressor = Regressor("mbnetv3", old.sizes, 64, rotation="6d").eval()
    features = torch.randn(3, 960, 1, 1, generator=torch.Generator().manual_seed(2))
    regressor.features = lambda image: features  # fresh backbones give the same for all pictures
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
    assert torch.equal(before.trans, after.trans)


def test_models_of_another_mesh_are_refused():
    data = read_photoface()
    smaller = LinearFaceModel(replace(data, id_basis=data.id_basis[..., :40]))
    regressor = Regressor("mbnetv3", (80, 64, 80), 64, rotation="6d")
    with pytest.raises(ValueError, match="one mesh"):
        rebase_heads(regressor, load_face_model("photoface"), smaller)
