"""RetinaFace (Deng et al., CVPR 2020): retinaface-pytorch's network with weights by path."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from v3recon.io.tensors import read_tensor_file
from v3recon.types import Detection

WEIGHTS_FILE = "retinaface_resnet50_2020-07-20_old_torch.pth"
"""Name of the weights among 3DDFA_V3's assets."""

INPUT_SIZE = 512
NMS_IOU = 0.4
_STRIDES = (8, 16, 32)
_ANCHOR_SIZES = ((16, 32), (64, 128), (256, 512))
_VARIANCES = (0.1, 0.2)
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255  # of ImageNet
_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


def detect(
    image_np: np.ndarray, weights: str | Path, min_confidence: float = 0.7, device: str = "cpu"
) -> list[Detection]:
    """Faces of a photo; the longest side is brought to 512 pixels, as 3DDFA_V3 does.

    Args:
        image_np: [H, W, 3] uint8 RGB.
        weights: path of `WEIGHTS_FILE`.
        min_confidence: lowest score that is kept.
        device: torch device to run on.

    Raises:
        ValueError: if the weights are missing or not this network's, or retinaface-pytorch is
            not installed.
    """
    from torchvision.ops import nms  # slow to import

    network = load_network(str(weights), device)
    padded, scale, offset = _letterbox(image_np)
    batch = torch.from_numpy(padded).permute(2, 0, 1)[None].to(device)
    with torch.no_grad():
        box_deltas, logits, point_deltas = network(batch)
    scores = logits[0].softmax(-1)[:, 1]
    keep = scores > min_confidence
    anchors = make_anchors(INPUT_SIZE).to(device)[keep]
    boxes = decode_boxes(box_deltas[0][keep], anchors)
    points = decode_points(point_deltas[0][keep], anchors)
    best = nms(boxes, scores[keep], NMS_IOU)
    origin = torch.tensor(offset, device=device)

    def to_photo(values: Tensor) -> Tensor:
        # Anchors count from the corner of the first pixel; our pixels from its centre.
        return ((values.reshape(-1, 2) - origin) / scale - 0.5).double().cpu()

    return [
        Detection(to_photo(boxes[i]).reshape(4), float(scores[keep][i]), to_photo(points[i]))
        for i in best.tolist()
    ]


def make_anchors(size: int) -> Tensor:
    """Anchor boxes of a square input: [A, 4] center x, center y, width, height, pixels.

    Ordered by stride, row, column, anchor size.
    """
    anchors = []
    for stride, sizes in zip(_STRIDES, _ANCHOR_SIZES, strict=True):
        centers = (torch.arange(-(-size // stride)) + 0.5) * stride
        y, x, side = torch.meshgrid(
            centers, centers, torch.tensor(sizes, dtype=torch.float32), indexing="ij"
        )
        anchors.append(torch.stack([x, y, side, side], -1).reshape(-1, 4))
    return torch.cat(anchors)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes [A, 4] left, top, right, bottom of regressed deltas [A, 4] (SSD's coding)."""
    center = anchors[:, :2] + deltas[:, :2] * _VARIANCES[0] * anchors[:, 2:]
    half = anchors[:, 2:] * (deltas[:, 2:] * _VARIANCES[1]).exp() / 2
    return torch.cat([center - half, center + half], 1)


def decode_points(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Five points [A, 5, 2] of regressed deltas [A, 10]."""
    return anchors[:, None, :2] + deltas.reshape(-1, 5, 2) * _VARIANCES[0] * anchors[:, None, 2:]


@lru_cache(maxsize=2)
def load_network(weights: str, device: str = "cpu") -> nn.Module:
    """The network with the state dict at `weights`, loaded strictly (456 tensors)."""
    path = Path(weights)
    if not path.is_file():
        raise ValueError(
            f"RetinaFace weights not found: {path}; put {WEIGHTS_FILE} there or use "
            "detector 'mtcnn'"
        )
    network = make_network()
    try:
        state = read_tensor_file(path)
        network.load_state_dict(state)
    except Exception as error:  # unpickling and strict loading raise many kinds
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: not RetinaFace weights ({reason})") from None
    return network.to(device).eval()


def make_network() -> nn.Module:
    """The network without weights."""
    try:
        # The package's other modules need an image library that is not needed here.
        from retinaface.network import RetinaFace
    except ImportError as error:
        raise ValueError(
            "detector 'retinaface' needs retinaface-pytorch: pip install --no-deps "
            f"retinaface-pytorch; or use detector 'mtcnn' ({error})"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old name of an argument of torchvision's
        return RetinaFace(
            name="Resnet50",
            pretrained=False,
            return_layers={"layer2": 1, "layer3": 2, "layer4": 3},
            in_channels=256,
            out_channels=256,
        )


def _letterbox(image_np: np.ndarray) -> tuple[np.ndarray, float, tuple[int, int]]:
    """The normalised photo in the middle of a square of INPUT_SIZE, its scale, its left and top.

    The padding is zero after the normalisation.
    """
    scale = INPUT_SIZE / max(image_np.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image_np.shape[:2])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image_np, (width, height), interpolation=kind)
    left, top = (INPUT_SIZE - width) // 2, (INPUT_SIZE - height) // 2
    padded = np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.float32)
    padded[top : top + height, left : left + width] = (resized - _MEAN) / _STD
    return padded, scale, (left, top)
