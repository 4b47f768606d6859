from __future__ import annotations

import numpy as np
import pytest
import torch
from retinaface.box_utils import decode, decode_landm
from retinaface.prior_box import priorbox

from v3recon.detection import retinaface
from v3recon.detection.retinaface import (
    decode_boxes,
    decode_points,
    detect,
    load_network,
    make_anchors,
    make_network,
)


def package_anchors(size: int) -> torch.Tensor:
    sizes = [[16, 32], [64, 128], [256, 512]]
    return priorbox(sizes, [8, 16, 32], clip=False, image_size=(size, size))


@pytest.mark.parametrize("size", [64, 512])
def test_anchors_equal_the_package(size):
    torch.testing.assert_close(make_anchors(size) / size, package_anchors(size))


def test_decoding_equals_the_package(generator):
    anchors = make_anchors(64)
    boxes = torch.randn(len(anchors), 4, generator=generator)
    points = torch.randn(len(anchors), 10, generator=generator)
    variances = [0.1, 0.2]
    torch.testing.assert_close(
        decode_boxes(boxes, anchors) / 64, decode(boxes, package_anchors(64), variances)
    )
    torch.testing.assert_close(
        decode_points(points, anchors).flatten(1) / 64,
        decode_landm(points, package_anchors(64), variances),
    )


class Planted(torch.nn.Module):
    """Instead of the network: three faces, two of which overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors = make_anchors(retinaface.INPUT_SIZE)
        self.seen: torch.Tensor | None = None

    def forward(self, batch):
        self.seen = batch
        count = len(self.anchors)
        logits = torch.zeros(1, count, 2)
        logits[..., 0] = 20
        for index, score in ((9000, 9.0), (9002, 8.0), (4000, 7.0)):
            logits[0, index] = torch.tensor([0.0, score])
        return torch.zeros(1, count, 4), logits, torch.zeros(1, count, 10)


@pytest.mark.parametrize("shape", [(512, 512), (1024, 512), (256, 512), (300, 200)])
def test_boxes_come_back_to_the_photo(monkeypatch, shape):
    network = Planted()
    monkeypatch.setattr(retinaface, "load_network", lambda weights, device: network)
    image = np.full((*shape, 3), 255, np.uint8)
    faces = detect(image, "unused.pth")
    assert [round(face.score, 3) for face in faces] == sorted(
        (round(face.score, 3) for face in faces), reverse=True
    )
    scale = 512 / max(shape)
    height, width = (round(side * scale) for side in shape)
    left, top = (512 - width) // 2, (512 - height) // 2
    expected = [9000, 4000] if len(faces) == 2 else [9000, 9002, 4000]
    for face, index in zip(faces, expected, strict=True):
        x, y, w, h = network.anchors[index].tolist()
        center = (torch.tensor([x - left, y - top]).double() / scale) - 0.5
        assert face.points is not None
        torch.testing.assert_close(face.points, center.expand(5, 2), atol=1e-3, rtol=0)
        size = face.box[2:] - face.box[:2]
        torch.testing.assert_close(size, torch.tensor([w, h]).double() / scale, atol=1e-3, rtol=0)
    # The padding is zero after normalisation, the photo is not.
    assert network.seen is not None
    inside = torch.zeros(512, 512, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    assert network.seen[0][:, inside].min() > 2
    assert (network.seen[0][:, ~inside] == 0).all()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("retinaface") / retinaface.WEIGHTS_FILE
    network = make_network()
    torch.nn.init.constant_(network.ClassHead[2].conv1x1.bias, 0.0)
    torch.save(network.state_dict(), path)
    return path


def test_random_weights_of_456_tensors_load_strictly_and_run(weights):
    state = torch.load(weights, weights_only=True)
    assert len(state) == 456
    network = load_network(str(weights))
    assert not network.training
    faces = detect(np.zeros((90, 120, 3), np.uint8), weights, min_confidence=0.999999)
    assert all(face.score > 0.999999 for face in faces)


@pytest.mark.parametrize("change", ["missing key", "wrong shape", "no checkpoint", "no file"])
def test_malformed_weights(tmp_path, weights, change):
    path = tmp_path / "w.pth"
    state = torch.load(weights, weights_only=True)
    if change == "missing key":
        del state["fpn.output1.0.weight"]
    if change == "wrong shape":
        state["fpn.output1.1.bias"] = torch.zeros(3)
    if change == "no checkpoint":
        path.write_bytes(b"no checkpoint")
    elif change != "no file":
        torch.save(state, path)
    expected = {"no file": "not found", "no checkpoint": "not a checkpoint"}
    with pytest.raises(ValueError, match=expected.get(change, "not RetinaFace weights")) as caught:
        load_network(str(path))
    assert "\n" not in str(caught.value)
