"""Networks as every prior has one, and several of them in one fit."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# In bfloat16 every convolution reads a multiple of so many channels, filled up with zeros, which changes nothing.
# Hardware multiplies blocks of them, and oneDNN's gradient for other numbers writes past its buffers on processors
# that have AVX-512's bfloat16 but no AMX (torch 2.11): the process crashes.
_ALIGNMENT = 16
# A kernel's weights are [out, in, k, k].
_KERNEL_AXES = 4


class PriorNetwork(nn.Module, ABC):
    """A network from an input of noise, or of features, to a spectrogram.

    Shape: ``[1, in_channels, F, T] -> [1, out_channels, F, T]`` for any F and T of at least 1. All its convolutions go
    through :func:`convolve`, without which some processors crash in bfloat16.
    """

    in_channels: int

    @abstractmethod
    def zero_output(self) -> None:
        """Set weights so that every output is zero, and the gradient is not."""

    @abstractmethod
    def receptive_field(self) -> tuple[float, float]:
        """Extent in bins and frames of the input that one output bin can depend on, the network's borders aside."""


def convolve(convolution: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """A convolution of the concatenation of ``parts`` ``[1, C_i, F, T]``, as the sum of convolutions of each.

    The sum saves the copies that a concatenation takes, in time and in memory. The convolutions of B copies of a
    network (see :func:`side_by_side`) are grouped; a GPU would wait for more kernels with the sum.
    """
    assert isinstance(convolution, nn.Conv2d)  # module lists do not know what they hold
    copies = len(convolution.weight) if convolution.weight.ndim > _KERNEL_AXES else 1
    if copies > 1:
        x = torch.cat([part.view(copies, -1, *part.shape[2:]) for part in parts], dim=1).flatten(0, 1)[None]
        return F.conv2d(
            x,
            convolution.weight.flatten(0, -_KERNEL_AXES),
            convolution.bias,
            padding=convolution.padding,
            dilation=convolution.dilation,
            groups=copies,
        )
    # Shapes alone are asked for on the meta device, which knows no types to cast to.
    aligned = not parts[0].is_meta and torch.is_autocast_enabled(parts[0].device.type)
    outputs = []
    weights = torch.split(convolution.weight, [part.shape[1] for part in parts], dim=1)
    for index, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        surplus = -part.shape[1] % _ALIGNMENT if aligned else 0
        outputs.append(
            F.conv2d(
                # Permuted to channels last, because torch takes few channels for the other memory format, and copies.
                F.pad(part.permute(0, 2, 3, 1), (0, surplus)).permute(0, 3, 1, 2) if surplus else part,
                F.pad(weight, (0, 0, 0, 0, 0, surplus)),
                None if index else convolution.bias,
                padding=convolution.padding,
                dilation=convolution.dilation,
            )
        )
    return sum(outputs[1:], outputs[0])


def side_by_side(network: PriorNetwork, copies: int) -> nn.Module:
    """B copies of a network as one, ``[1, B * in_channels, F, T] -> [1, B * out_channels, F, T]``.

    The weights of its convolutions become ``[B, out, in, k, k]``. A GPU computes all copies in little more time than
    one. Networks with other weights run one after the other.
    """
    if copies == 1:
        return network
    if any([*module.parameters(recurse=False)] and not isinstance(module, nn.Conv2d) for module in network.modules()):
        return IndependentNetworks([copy.deepcopy(network) for _ in range(copies)])
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            module.weight = nn.Parameter(module.weight.detach().expand(copies, *module.weight.shape).clone())
            module.bias = nn.Parameter(module.bias.detach().repeat(copies))
    return network


class IndependentNetworks(nn.Module):
    """Several networks as one: each has its own channels of the input and of the output.

    Shape: ``[1, A + B + ..., F, T] -> [1, a + b + ..., F, T]`` for networks from A to a, B to b, ... channels.

    They run one after the other. What one computes on its way is dropped, and computed again where its gradient needs
    it (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016), so that all of them take little more memory
    than one, and a third more time.
    """

    def __init__(self, networks: Sequence[PriorNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._in_channels = [network.in_channels for network in networks]

    def forward(self, z: Tensor) -> Tensor:
        """Run every network on its part of the channels."""
        outputs = []
        for network, part in zip(self.networks, torch.split(z, self._in_channels, dim=1), strict=True):
            part = part.contiguous(memory_format=torch.channels_last)
            # The networks draw no random numbers, whose state would have to be kept.
            outputs.append(checkpoint(network, part, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(outputs, dim=1)
