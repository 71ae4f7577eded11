"""Several networks in one fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dapcli.priors.network import PriorNetwork


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
