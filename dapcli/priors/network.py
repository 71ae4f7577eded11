"""Networks as every prior has one, and several of them in one fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class PriorNetwork(nn.Module, ABC):
    """A network from an input of noise, or of features, to a spectrogram.

    Shape: ``[1, in_channels, F, T] -> [1, out_channels, F, T]`` for any F and T of at least 1.
    """

    in_channels: int

    @abstractmethod
    def zero_output(self) -> None:
        """Set weights so that every output is zero, and the gradient is not."""

    @abstractmethod
    def receptive_field(self) -> int:
        """Extent in bins (or frames) of the input that one output bin can depend on, the network's borders aside."""


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
