"""MobileNetV3-large (Howard et al., ICCV 2019) in the variant of 3DDFA_V3's `mbnetv3` weights.

It differs from torchvision's: batch-norm eps 1e-5, squeeze-excite of two Linear layers placed
before the activation, and no squeeze-excite bias-free convolutions. The names of the parameters
are those of the official checkpoint.
"""

from __future__ import annotations

from torch import Tensor, nn

STEM_CHANNELS = 16
HEAD_CHANNELS = 960

# kernel, expansion, channels, squeeze-excite, hard-swish (else ReLU), stride
ROWS = (
    (3, 1, 16, False, False, 1),
    (3, 4, 24, False, False, 2),
    (3, 3, 24, False, False, 1),
    (5, 3, 40, True, False, 2),
    (5, 3, 40, True, False, 1),
    (5, 3, 40, True, False, 1),
    (3, 6, 80, False, True, 2),
    (3, 2.5, 80, False, True, 1),
    (3, 2.3, 80, False, True, 1),
    (3, 2.3, 80, False, True, 1),
    (3, 6, 112, True, True, 1),
    (3, 6, 112, True, True, 1),
    (5, 6, 160, True, True, 2),
    (5, 6, 160, True, True, 1),
    (5, 6, 160, True, True, 1),
)


class MobileNetV3Large(nn.Module):
    """Image [B, 3, H, W] to pooled features [B, 960]."""

    num_features = HEAD_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv_bn(3, STEM_CHANNELS, kernel=3, stride=2)]
        channels = STEM_CHANNELS
        for kernel, expansion, out_channels, excite, hard_swish, stride in ROWS:
            hidden = make_divisible(channels * expansion)
            blocks.append(
                InvertedResidual(channels, hidden, out_channels, kernel, stride, excite, hard_swish)
            )
            channels = out_channels
        self.features = nn.Sequential(*blocks)
        self.conv = _conv_bn(channels, HEAD_CHANNELS, kernel=1, stride=1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features [B, 960] of an image [B, 3, H, W]."""
        return self.conv(self.features(image)).mean((2, 3))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, excite, project; added to the input where shapes allow."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel: int,
        stride: int,
        excite: bool,
        hard_swish: bool,
    ) -> None:
        super().__init__()
        self.identity = stride == 1 and in_channels == out_channels
        depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False
        )
        squeeze = SqueezeExcite(hidden) if excite else nn.Identity()
        project = [nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        if in_channels == hidden:  # nothing to expand; here the excitation follows the activation
            middle = [depthwise, nn.BatchNorm2d(hidden), _activation(hard_swish), squeeze]
        else:
            middle = [
                nn.Conv2d(in_channels, hidden, 1, bias=False),
                nn.BatchNorm2d(hidden),
                _activation(hard_swish),
                depthwise,
                nn.BatchNorm2d(hidden),
                squeeze,
                _activation(hard_swish),
            ]
        self.conv = nn.Sequential(*middle, *project)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] to [B, C', H', W']."""
        return x + self.conv(x) if self.identity else self.conv(x)


class SqueezeExcite(nn.Module):
    """Channel weights from the pooled features (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = make_divisible(channels // 4)
        self.fc = nn.Sequential(
            nn.Linear(channels, middle), nn.ReLU(), nn.Linear(middle, channels), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W], each channel scaled by 0…1."""
        return x * self.fc(x.mean((2, 3)))[..., None, None]


def make_divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of the divisor that is not more than 10 % below the value."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _activation(hard_swish: bool) -> nn.Module:
    return nn.Hardswish() if hard_swish else nn.ReLU()


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.Hardswish())


def _initialise(module: nn.Module) -> None:
    """He initialisation by fan-out; small Linear weights keep the first excitation near 1/2."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)
