"""Networks for inference on a CPU: convolutions with weights laid out for the processor.

PyTorch lays a convolution's weights out anew at every call (100 MB of them in a ResNet-50). The
operators that its compiler emits for oneDNN keep them so and apply an activation on the way out;
here they are called as they are, without a compiler and without tracing.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

_ACTIVATIONS = {nn.ReLU: "relu", nn.Hardswish: "hardswish"}  # oneDNN's names


def can_pack() -> bool:
    """Whether this build of PyTorch has the operators."""
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_convolution_pointwise"
    )


def pack_convolutions(network: nn.Module) -> None:
    """Make a network for inference on the CPU faster, in place; results differ by rounding only.

    Every plain convolution among the children becomes a `PackedConv`. In an `nn.Sequential` it
    takes the activation behind it along; elsewhere the order of children says nothing. Without
    oneDNN nothing changes.

    Args:
        network: on the CPU, in evaluation mode, batch norms folded (they stand between convolution
            and activation otherwise); it cannot be trained or saved afterwards.
    """
    if not can_pack():
        return
    for module in [module for module in network.modules() if any(True for _ in module.children())]:
        _pack_children(module)


class PackedConv(nn.Module):
    """A convolution with its weight in oneDNN's layout, and an activation.

    The layout is chosen for the first input; other batches and sizes are right too.
    """

    def __init__(self, conv: nn.Conv2d, activation: str = "none") -> None:
        """Take over a convolution's weight.

        Args:
            conv: see `pack_convolutions`.
            activation: "none", "relu" or "hardswish".
        """
        super().__init__()
        assert isinstance(conv.padding, tuple), conv.padding
        self._rule = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self._bias = None if conv.bias is None else conv.bias.detach()
        self._weight = conv.weight.detach(), False  # one object: threads see weight and flag agree
        self._activation = activation

    def __getstate__(self) -> dict[str, Any]:
        """State for pickles and copies: the weight as it was, its layout is this processor's."""
        weight, packed = self._weight
        return {**self.__dict__, "_weight": (weight.to_dense() if packed else weight, False)}

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] float32 to [B, C', H', W'], channels last in memory; no gradient."""
        weight, packed = self._weight
        if not packed:
            pack = torch.ops.mkldnn._reorder_convolution_weight
            weight = pack(weight, *self._rule, list(x.shape))
            self._weight = weight, True
        run = torch.ops.mkldnn._convolution_pointwise
        return run(x, weight, self._bias, *self._rule, self._activation, [], "")


def _pack_children(module: nn.Module) -> None:
    children = [
        (name, child)
        for name, child in module.named_children()
        if not isinstance(child, nn.Identity)  # what a folded batch norm leaves
    ]
    for (name, child), (next_name, follower) in itertools.pairwise([*children, ("", None)]):
        if not _is_plain(child):
            continue
        activation = "none"
        if isinstance(module, nn.Sequential) and type(follower) in _ACTIVATIONS:
            activation = _ACTIVATIONS[type(follower)]
            setattr(module, next_name, nn.Identity())
        setattr(module, name, PackedConv(child, activation))


def _is_plain(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """A float32 convolution that pads with zeros and does nothing of its own beside."""
    return (
        type(module) is nn.Conv2d
        and module.weight.dtype == torch.float32
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
