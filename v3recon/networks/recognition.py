"""A frozen face-recognition network for the perceptual loss (ArcFace; Deng et al., CVPR 2019)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from v3recon.io.tensors import read_tensor_file

INPUT_SIZE = 112
FEATURES = 512
_STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels and blocks of the 50-layer network


class RecognitionNet(nn.Module):
    """Improved ResNet-50: face [B, 3, S, S] in 0…1 to features [B, 512], not normalised.

    The parameter names are those of the public ArcFace weights. The face should fill the picture
    as in ArcFace's 112-pixel alignment; `losses.perceptual.align_faces` warps to it.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = _STAGES[0][0]
        self.conv1 = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        for stage, (width, blocks) in enumerate(_STAGES, start=1):
            layers = [_Block(channels, width, stride=2)]
            layers += [_Block(width, width, stride=1) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
            channels = width
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels * (INPUT_SIZE // 16) ** 2, FEATURES)
        self.features = nn.BatchNorm1d(FEATURES)

    def forward(self, image: Tensor) -> Tensor:
        """Features [B, 512] of faces [B, 3, S, S], RGB in 0…1, resized where S is not 112."""
        if image.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
            size = (INPUT_SIZE, INPUT_SIZE)
            image = nn.functional.interpolate(image, size, mode="bilinear", antialias=True)
        x = self.prelu(self.bn1(self.conv1(2 * image - 1)))
        for stage in range(1, len(_STAGES) + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


def load_recognition(path: str | Path) -> RecognitionNet:
    """The network with public ArcFace weights (`ms1mv3_arcface_r50_fp16/backbone.pth`), frozen.

    Args:
        path: state dict, as a file that holds tensors only.

    Returns:
        The network in evaluation mode; gradients flow to its input only.

    Raises:
        ValueError: if the file is missing, damaged, or of another network.
    """
    weights = read_tensor_file(Path(path))
    network = RecognitionNet()
    try:
        network.load_state_dict({key: value.float() for key, value in weights.items()})
    except (RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path}: not the weights of ArcFace's ResNet-50 ({reason})") from None
    return network.eval().requires_grad_(False)
