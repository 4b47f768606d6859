"""The fine map and its close-ups: shape, place, what they change and learn, their file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from v3recon._fast.packed_convolutions import pack_convolutions
from v3recon.face_models.load import load_face_model
from v3recon.networks.checkpoints import load_checkpoint, save_checkpoint
from v3recon.networks.fine_map import CLASSES, FEATURES, FineMap
from v3recon.networks.mesh_aligned import CLOSEUP_POINTS, POINTS, CloseUps, set_points
from v3recon.networks.regressor import Regressor, fuse_for_inference

WIDTHS = (2, 3, 4, 5, 6)


@pytest.fixture(scope="module")
def model():
    return load_face_model("photoface")


def regressor_of(model, fine_closeups: int, seed: int = 0) -> Regressor:
    """A random network whose every correction is not 0."""
    torch.manual_seed(seed)
    regressor = Regressor("mbnetv3", model.sizes, 64, "6d", "spatial", 1, 2, fine_closeups).eval()
    set_points(regressor.aligned, model)
    closeups = [part.step for part in (regressor.near, regressor.nearest) if part is not None]
    for step in (*regressor.aligned.steps, *closeups):
        nn.init.normal_(step[-1].weight, 0, 2e-2)
    return regressor


def picture_and_maps(size: int, batch: int = 1) -> tuple[torch.Tensor, list[torch.Tensor]]:
    maps = [torch.rand(batch, w, size // 2 >> i, size // 2 >> i) for i, w in enumerate(WIDTHS)]
    return torch.rand(batch, 3, size, size), maps


def test_every_cell_has_features_and_classes():
    assert FineMap(WIDTHS).eval()(*picture_and_maps(64, 3)).shape == (
        3,
        FEATURES + CLASSES,
        32,
        32,
    )


def test_picture_and_finest_map_are_seen_where_they_are():
    """A change of four pixels, or of the cell there, changes the map around them only."""
    torch.manual_seed(0)
    fine = FineMap(WIDTHS).eval()
    image, maps = picture_and_maps(64)
    with torch.no_grad():
        before = fine(image, maps)
        changed = image.clone()
        changed[..., 40:42, 20:22] += 1
        by_picture = (fine(changed, maps) - before).abs().sum(1)[0]
        maps[0] = maps[0].clone()
        maps[0][..., 20, 10] += 1
        by_map = (fine(image, maps) - before).abs().sum(1)[0]
    for moved in (by_picture, by_map):
        assert moved[20, 10] > 0
        moved[18:24, 8:14] = 0  # the folded cell of 2 x 2 and its eight neighbours
        assert moved.max() == 0


def test_a_fresh_fine_map_changes_nothing_and_learns(model):
    old, new = regressor_of(model, 0), regressor_of(model, 2)
    nn.init.zeros_(new.nearest.step[-1].weight)
    new.load_state_dict(old.state_dict(), strict=False)
    image = torch.rand(2, 3, 64, 64)
    coeffs = new(image)
    assert torch.equal(coeffs.to_tensor(), old(image).to_tensor())
    coeffs.exp.sum().backward()
    assert new.nearest.step[-1].weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="need close-ups before them"):
        Regressor("mbnetv3", model.sizes, 64, "6d", corrections=1, fine_closeups=1)


def test_what_the_map_shows_reaches_the_estimate_and_back(model):
    regressor = regressor_of(model, 1)
    image = torch.rand(1, 3, 64, 64)
    before = regressor(image).to_tensor().detach()
    with torch.no_grad():
        bias = regressor.fine_map.head.bias
        bias += torch.linspace(-3, 3, len(bias))
    after = regressor(image).to_tensor()
    assert (after - before).abs().max() > 1e-4
    after.sum().backward()
    assert regressor.fine_map.head.weight.grad.abs().max() > 0
    assert regressor.fine_map.pyramid.laterals[-1].weight.grad.abs().max() > 0


def test_named_close_ups_know_whose_they_are():
    """The same picture everywhere: without names every point reads the same, with them not."""
    torch.manual_seed(0)
    near = CloseUps(2, 144, 6, 1, named=True)

    class Middle:
        def places(self, shape, pose, trans):
            return torch.zeros(1, POINTS, 2)

    seen = []
    near.read[-1].register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    nothing = torch.zeros(1, 144), torch.zeros(1, 6), torch.zeros(1, 3)
    near(torch.rand(1, 2, 20, 20), Middle(), *nothing)
    assert (seen[0] == seen[0][0]).all()
    with torch.no_grad():
        near.names[3] += 1
    near(torch.rand(1, 2, 20, 20), Middle(), *nothing)
    differs = (seen[1] != seen[1][0]).any(1)
    assert differs.nonzero()[:, 0].tolist() == [3]
    assert len(near.names) == len(range(POINTS)[CLOSEUP_POINTS])


def test_the_file_and_the_fast_copy_keep_the_map(model, tmp_path):
    regressor = regressor_of(model, 2)
    path = tmp_path / "weights.pth"
    save_checkpoint(path, regressor, face_model=model, crop_rule={"name": "box", "scale": 1.4})
    loaded = load_checkpoint(path, model)
    assert loaded.description.fine_closeups == 2
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        coeffs = regressor(image)
        assert torch.equal(loaded.regressor(image).to_tensor(), coeffs.to_tensor())
        fast = fuse_for_inference(regressor)
        pack_convolutions(fast)
        torch.testing.assert_close(
            fast(image).to_tensor(), coeffs.to_tensor(), atol=2e-3, rtol=2e-3
        )
