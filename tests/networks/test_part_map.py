"""The part map: its shape and place, what it changes, what it learns, its file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from v3recon.face_models.load import load_face_model
from v3recon.networks.checkpoints import load_checkpoint, save_checkpoint
from v3recon.networks.frozen import pack_convolutions
from v3recon.networks.mesh_aligned import CLOSEUP_POINTS, POINTS, CloseUps, set_points
from v3recon.networks.part_map import CLASSES, FeaturePyramid, PartMap
from v3recon.networks.regressor import Regressor, fuse_for_inference, start_from

WIDTHS = (2, 3, 4, 5, 6)


@pytest.fixture(scope="module")
def model():
    return load_face_model("photoface")


def mapped(model, seed: int = 0) -> Regressor:
    """A random network whose close-ups depend on the part map."""
    torch.manual_seed(seed)
    regressor = Regressor("mbnetv3", model.sizes, 64, "6d", "spatial", 1, 2, True).eval()
    set_points(regressor.aligned, model)
    for step in (*regressor.aligned.steps, regressor.near.step, regressor.near.read_parts):
        nn.init.normal_(step[-1].weight, 0, 2e-2)
    return regressor


def pyramid_of(size: int, batch: int = 1) -> list[torch.Tensor]:
    return [torch.rand(batch, w, size >> i, size >> i) for i, w in enumerate(WIDTHS)]


def test_every_pixel_of_the_finest_map_has_classes():
    logits = PartMap(WIDTHS).eval()(pyramid_of(32, 3))
    assert logits.shape == (3, CLASSES, 32, 32)


@pytest.mark.parametrize("separable", [True, False])
def test_the_pyramid_sees_every_level_at_its_place(separable):
    """A change in one corner of any level changes that corner of the result most."""
    torch.manual_seed(0)
    pyramid = FeaturePyramid(WIDTHS, 8, separable=separable).eval()
    maps = pyramid_of(64)
    with torch.no_grad():
        before = pyramid(maps)
        for level in range(len(maps)):
            changed = [m.clone() for m in maps]
            changed[level][..., -1, -1] += 5
            moved = (pyramid(changed) - before).abs().sum(1)[0]
            assert moved[-4:, -4:].mean() > 0, level
            if level < 2:  # the coarse ones see everything
                assert moved[:16, :16].max() == 0, level


def test_a_fresh_part_map_changes_nothing_and_learns(model):
    torch.manual_seed(0)
    old = Regressor("mbnetv3", model.sizes, 64, "6d", "spatial", 1, 2).eval()
    set_points(old.aligned, model)
    for step in (*old.aligned.steps, old.near.step):
        nn.init.normal_(step[-1].weight, 0, 2e-2)
    new = Regressor("mbnetv3", model.sizes, 64, "6d", "spatial", 1, 2, True).eval()
    start_from(new, old)
    image = torch.rand(2, 3, 64, 64)
    coeffs, rotation, logits = new.predict_with_parts(image)
    assert torch.equal(coeffs.to_tensor(), old(image).to_tensor())
    assert logits.shape == (2, CLASSES, 32, 32) and rotation.shape == (2, 3, 3)
    assert old.predict_with_parts(image)[2] is None
    coeffs.exp.sum().backward()
    assert new.near.read_parts[-1].weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="--part-map"):
        start_from(old, new)
    with pytest.raises(ValueError, match="--closeups N"):
        Regressor("mbnetv3", model.sizes, 64, "6d", corrections=1, part_map=True)


def test_what_the_map_shows_reaches_the_estimate_and_back(model):
    regressor = mapped(model)
    image = torch.rand(1, 3, 64, 64)
    before = regressor(image).to_tensor().detach()
    with torch.no_grad():
        regressor.part_map.head.bias += torch.linspace(-3, 3, len(regressor.part_map.head.bias))
    after = regressor(image).to_tensor()
    assert (after - before).abs().max() > 1e-4
    after.sum().backward()
    assert regressor.part_map.head.weight.grad.abs().max() > 0


def test_close_ups_of_the_map_lie_around_their_points():
    """Twin: patches of a map that numbers its cells, one class."""
    torch.manual_seed(0)
    near = CloseUps(1, 144, 6, 1, classes=1)
    side = 40
    numbered = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    cells = torch.randint(3, side - 3, (1, POINTS, 2))

    class At:
        def places(self, shape, pose, trans):
            return (2 * cells + 1) / side - 1

    seen = []
    near.read_parts.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    blank = torch.zeros_like(numbered)
    near(blank, At(), torch.zeros(1, 144), torch.zeros(1, 6), torch.zeros(1, 3), numbered)
    for point, (column, row) in enumerate(cells[0, CLOSEUP_POINTS].tolist()):
        patch = numbered[0, 0, row - 2 : row + 3, column - 2 : column + 3]
        assert torch.allclose(seen[0][0, point], patch.flatten(), atol=2e-2)


def test_the_file_and_the_fast_copy_keep_the_map(model, tmp_path):
    regressor = mapped(model)
    path = tmp_path / "weights.pth"
    save_checkpoint(path, regressor, face_model=model, crop_rule={"name": "box", "scale": 1.4})
    loaded = load_checkpoint(path, model)
    assert loaded.description.part_map
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        coeffs, _, logits = regressor.predict_with_parts(image)
        found, _, found_logits = loaded.regressor.predict_with_parts(image)
        assert torch.equal(found.to_tensor(), coeffs.to_tensor())
        assert torch.equal(found_logits, logits)
        fast = fuse_for_inference(regressor)
        pack_convolutions(fast)
        torch.testing.assert_close(
            fast(image).to_tensor(), coeffs.to_tensor(), atol=2e-3, rtol=2e-3
        )
