"""MTCNN's cascade of three small networks, each on closer views of what the last one kept.

Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks",
IEEE Signal Processing Letters 2016.

Boxes are [N, 4] left, top, right, bottom in pixels that count from 1, as in the original's Matlab
code; `detection.mtcnn` brings them to the photo's.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from v3recon.detection.sum_table import SumTable

THRESHOLDS = (0.6, 0.7, 0.7)
"""Least score that each of the three networks keeps."""
PYRAMID_STEP = 0.709
"""Size of each copy of the photo over the one before: about half the area."""
_CELL, _STRIDE = 12, 2  # pixels that the first network sees at once, and between its places
_SIZES = (24, 48)  # of the views of the second and the third network
_BATCH = 512  # views together


@dataclass(frozen=True)
class Found:
    """Faces of one picture.

    Attributes:
        boxes: [N, 4].
        scores: [N], 0…1.
        points: [N, 5, 2] eyes, nose, mouth corners, the viewer's left first.
    """

    boxes: Tensor
    scores: Tensor
    points: Tensor


class Stage(nn.Module):
    """One network: layers that all outputs share, then one layer for each output."""

    def __init__(self, trunk: list[nn.Module], heads: list[nn.Module]) -> None:
        """Take the layers.

        Args:
            trunk: shared ones.
            heads: of the two classes, of the box's correction, of points.
        """
        super().__init__()
        self.trunk = nn.Sequential(*trunk)
        self.heads = nn.ModuleList(heads)

    def forward(self, views: Tensor) -> tuple[Tensor, ...]:
        """Score [B, …] of "face", then the other outputs [B, C, …].

        Args:
            views: [B, 3, H, W] RGB, 0…255.
        """
        seen = self.trunk((views - 127.5) / 128)
        classes, *others = (head(seen) for head in self.heads)
        return classes.softmax(1)[:, 1], *others


class PairMax(nn.Module):
    """`nn.MaxPool2d(2, 2, ceil_mode=True)`; of large maps on the CPU nine times as fast."""

    def forward(self, values: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, ceil(H / 2), ceil(W / 2)]."""
        odd = values.shape[2] % 2, values.shape[3] % 2
        if any(odd):
            values = pad(values, (0, odd[1], 0, odd[0]), value=-torch.inf)
        rows = torch.maximum(values[:, :, ::2], values[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


def load_stages(device: torch.device | str = "cpu") -> tuple[Stage, Stage, Stage]:
    """The three networks with the weights in the package (`detection/data/README.md`)."""
    stages = make_stages()
    with (resources.files("v3recon.detection") / "data" / "mtcnn.npz").open("rb") as stream:
        arrays = np.load(stream, allow_pickle=False)
        for number, stage in enumerate(stages):
            start = f"{number}."
            keys = [key for key in arrays.files if key.startswith(start)]
            state = {key.removeprefix(start): torch.from_numpy(arrays[key]) for key in keys}
            stage.load_state_dict(state)
    layout = torch.channels_last
    first, second, third = (
        stage.float().to(device).to(memory_format=layout).eval() for stage in stages
    )
    return first, second, third


def make_stages() -> tuple[Stage, Stage, Stage]:
    """The three networks without weights."""

    def conv(inputs: int, outputs: int, size: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, size), nn.PReLU(outputs)]

    def pool(size: int) -> nn.Module:
        return PairMax() if size == 2 else nn.MaxPool2d(size, 2, ceil_mode=True)

    def dense(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Flatten(), nn.Linear(inputs, outputs), nn.PReLU(outputs)]

    first = [*conv(3, 10, 3), pool(2), *conv(10, 16, 3), *conv(16, 32, 3)]
    second = [*conv(3, 28, 3), pool(3), *conv(28, 48, 3), pool(3), *conv(48, 64, 2)]
    third = [*conv(3, 32, 3), pool(3), *conv(32, 64, 3), pool(3), *conv(64, 64, 3), pool(2)]
    return (
        Stage(first, [nn.Conv2d(32, count, 1) for count in (2, 4)]),
        Stage([*second, *dense(576, 128)], [nn.Linear(128, count) for count in (2, 4)]),
        Stage(
            [*third, *conv(64, 128, 2), *dense(1152, 256)],
            [nn.Linear(256, count) for count in (2, 4, 10)],
        ),
    )


def run_cascade(picture: np.ndarray, stages: tuple[Stage, Stage, Stage], min_size: int) -> Found:
    """Faces of a picture in no particular order.

    Args:
        picture: [H, W, 3] uint8 RGB.
        stages: of `load_stages`.
        min_size: smallest face, pixels, at most the shorter side.
    """
    table = SumTable(picture)
    with torch.no_grad():
        boxes = _propose(table, stages[0], min_size)
        boxes, score, correction = _look_closer(table, boxes, stages[1], 0)
        kept = _best(boxes, score, 0.7)
        boxes = _squared(_corrected(boxes[kept], correction[kept], 1))
        boxes, score, correction, offsets = _look_closer(table, boxes, stages[2], 1)
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        points = offsets.reshape(-1, 2, 5).transpose(1, 2)
        points = points * sides[:, None] + boxes[:, None, :2] - 1
        boxes = _corrected(boxes, correction, 1)
        kept = _best_apart(boxes, score, 0.7)
        return Found(boxes[kept], score[kept], points[kept])


def _propose(table: SumTable, stage: Stage, min_size: int) -> Tensor:
    """Square boxes of places that the first network takes for faces, on all scales."""
    height, width = table.size
    like = next(stage.parameters())
    scale, found = _CELL / min_size, []
    while min(height, width) * scale >= _CELL:
        size = (int(height * scale + 1), int(width * scale + 1))
        score, correction = stage(_views(table.resized(*size)[None], like))
        row, column = (score[0] >= THRESHOLDS[0]).nonzero(as_tuple=True)
        # Whole numbers would divide to the default type, whatever the picture's.
        place = torch.stack([column, row], 1).to(like)
        start = ((_STRIDE * place + 1) / scale).floor()
        end = ((_STRIDE * place + _CELL) / scale).floor()
        boxes, own = torch.cat([start, end], 1), score[0, row, column]
        rows = torch.cat([boxes, own[:, None], correction[0, :, row, column].T], 1)
        found.append(rows[_best(boxes, own, 0.5)])
        scale *= PYRAMID_STEP
    rows = torch.cat(found) if found else like.new_zeros(0, 9)
    rows = rows[_best(rows[:, :4], rows[:, 4], 0.7)]
    return _squared(_corrected(rows[:, :4], rows[:, 5:], 0))


def _look_closer(table: SumTable, boxes: Tensor, stage: Stage, number: int) -> tuple[Tensor, ...]:
    """Boxes that a network keeps, their scores and its other outputs."""
    height, width = table.size
    size = _SIZES[number]
    whole = boxes.trunc().long()
    low = whole[:, :2].clamp(min=1) - 1
    high = torch.minimum(whole[:, 2:], whole.new_tensor([width, height]))
    inside = (high > low).all(1)
    boxes = boxes[inside]
    corners = torch.cat([low, high], 1)[inside].cpu().numpy()
    views = _views(table.views(corners, size), next(stage.parameters()))
    parts = [stage(part) for part in views.split(_BATCH)]
    score, *others = (torch.cat(values) for values in zip(*parts, strict=True))
    sure = score > THRESHOLDS[number + 1]
    return boxes[sure], score[sure], *(values[sure] for values in others)


def _views(pixels: np.ndarray, like: Tensor) -> Tensor:
    """[N, H, W, 3] as [N, 3, H, W] of the same memory, on the device of `like`."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(like)


def _corrected(boxes: Tensor, correction: Tensor, extra: int) -> Tensor:
    """Edges moved by shares of the box's sides, which count `extra` pixels more."""
    sides = boxes[:, 2:] - boxes[:, :2] + extra
    return boxes + correction * sides.repeat(1, 2)


def _squared(boxes: Tensor) -> Tensor:
    """Squares with the boxes' middles and longer sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.amax(1, keepdim=True)
    start = boxes[:, :2] + (sides - longer) / 2
    return torch.cat([start, start + longer], 1)


def _best(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Indices of boxes that share less than `overlap` of the union with a better one."""
    from torchvision.ops import nms  # slow to import

    return nms(boxes, scores.to(boxes.dtype), overlap)


def _best_apart(boxes: Tensor, scores: Tensor, share: float) -> Tensor:
    """Indices of boxes that share at most `share` of the smaller one with a better one."""
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    kept: list[int] = []
    for number in scores.argsort(descending=True).tolist():
        low = torch.maximum(boxes[kept, :2], boxes[number, :2])
        high = torch.minimum(boxes[kept, 2:], boxes[number, 2:])
        common = (high - low + 1).clamp(min=0).prod(1)
        if not (common > share * torch.minimum(area[kept], area[number])).any():
            kept.append(number)
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)
