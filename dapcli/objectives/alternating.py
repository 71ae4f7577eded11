"""Several objectives that one network is fitted to in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dapcli.fit import Network, Objective, Step


class Alternating(Objective):
    """Objectives of the same size, a random one in every iteration; each has its turn before any has a second one.

    ``iterations`` is how many there will be at the most.
    """

    def __init__(self, objectives: Sequence[Objective], iterations: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        rounds = -(-iterations // len(objectives))
        self._turns = np.concatenate([rng.permutation(len(objectives)) for _ in range(rounds)])
        self._objectives = objectives
        self.networks, self.initial = objectives[0].networks, objectives[0].initial

    def begin(self) -> Any:
        """The number of steps done, and the state of every objective."""
        return 0, [each.begin() for each in self._objectives]

    def step(self, network: Network, state: Any, generator: torch.Generator) -> Step:
        """One forward pass for the next objective."""
        done, states = state
        turn = self._turns[done]
        step = self._objectives[turn].step(network, states[turn], generator)
        states = [step.state if index == turn else each for index, each in enumerate(states)]
        return Step(step.loss, step.estimate, step.observed, (done + 1, states), step.validation)
