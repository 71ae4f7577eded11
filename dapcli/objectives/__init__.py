"""Observations: how a network's output explains a recording, and what that costs.

An observation draws the network's input, turns its output into an estimate of the clean spectrogram, and holds the
loss that ties the estimate to the recording. The fitting loop knows nothing else. To add one, write a class with the
members of :class:`Objective`, and give it a line in the registry of its task below and in ``dapcli/engine/rules.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dapcli.objectives.double_dip import DoubleDIP
from dapcli.objectives.ensemble import Ensemble
from dapcli.objectives.generate import ConsistentGeneration, Generation
from dapcli.objectives.mask import Mask
from dapcli.objectives.ratio_mask import RatioMask

Network = Callable[[Tensor], Tensor]


class Objective(Protocol):
    """What the fitting loop needs of an observation of a recording of C channels."""

    starts_from_zero: bool
    """Whether the networks' outputs are to be zero before the fit."""
    spectrogram: Tensor
    """What the estimate is compared with: the recording, ``[C, 2, F, T]``, or K sources that a mixture begins as,
    ``[K * C, 2, F, T]``."""

    @property
    def networks(self) -> tuple[tuple[int, int], ...]:
        """The channels that each of its networks takes in and puts out.

        Several are handed to it as one, which has the channels of all, one after the other.
        """
        ...

    def evaluate(self, network: Network, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One forward pass: the loss, to be differentiated, and the detached estimate, of the spectrogram's shape."""
        ...


class Alternating:
    """Several observations of the same size that the same networks explain, a random one in every iteration.

    Each has its turn before any has a second one.
    """

    def __init__(self, observations: Sequence[Objective], seed: int) -> None:
        self.networks = observations[0].networks
        self.starts_from_zero = observations[0].starts_from_zero
        self.spectrogram = observations[0].spectrogram
        self._turns = _shuffled(observations, np.random.default_rng(seed))

    def evaluate(self, network: Network, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One forward pass for the next observation, whose spectrogram is then ``spectrogram``."""
        observation = next(self._turns)
        self.spectrogram = observation.spectrogram
        return observation.evaluate(network, generator)


def _shuffled(observations: Sequence[Objective], rng: np.random.Generator) -> Iterator[Objective]:
    while True:
        for index in rng.permutation(len(observations)):
            yield observations[index]


#: For recordings with noise.
ESTIMATORS: dict[str, type[Generation] | type[Mask]] = {
    "mask": Mask,
    "generate": Generation,
}
#: For recordings with a :class:`~dapcli.degradation.Degradation`.
REPAIR_ESTIMATORS: dict[str, type[ConsistentGeneration] | type[Ensemble]] = {
    "mix": Ensemble,
    "generate": ConsistentGeneration,
}
#: For mixtures.
SEPARATION_ESTIMATORS: dict[str, type[RatioMask] | type[DoubleDIP]] = {
    "share": RatioMask,
    "paper": DoubleDIP,
}
