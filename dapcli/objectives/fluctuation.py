"""Deep Network Prior: the recording is filtered by what a network cannot settle on while it is fitted.

Michelashvili & Wolf, "Speech Denoising by Accumulating Per-Frequency Modeling Fluctuations" (2019, arXiv:1904.07612),
with the constants of their released code. It is an estimator, and not a baseline, for it is a fit: thousands of
iterations, on any device, of any prior.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dapcli.fit import Network, Step
from dapcli.objectives.generate import Generation
from dapcli.signal.log_spectral import log_spectral_gain

# The first iterations, in which everything changes, do not count.
_UNCOUNTED = 48
# Shares of the bins at whose sums all lower, or higher, ones are put in every iteration.
_LOW, _HIGH = 0.1, 0.9
# The least certainty, and the least prior SNR.
_LEAST = 1e-3
# Keeps what is divided by above 0.
_TINY = 1e-10


class Fluctuation(Generation):
    """The recording under a gain by how little the network's output changes in every bin from iteration to iteration.

    The network generates the recording; noise is harder to settle on than sound. With A_i the magnitudes of its output
    after iteration i, the fluctuation of a bin is the sum over i of abs(A_i - A_(i-1)) / A_i. Its certainty c, from
    0 to 1, falls linearly from the least fluctuation to the greatest.

    ``samples`` is ``[C, N]``; channels share the scale of c. The state is the number of steps done, the magnitudes
    ``[1, C, F, T]`` of the last one, and the fluctuations. What the authors cut off, below 94 Hz, is kept.
    """

    def begin(self) -> Any:
        """No step, no magnitudes and no fluctuations."""
        nothing = torch.zeros_like(self.initial[:, :, 0])
        return 0, nothing, nothing

    def step(self, network: Network, state: Any, generator: torch.Generator) -> Step:
        """The loss of one forward pass, and the estimate ``[1, C, 2, F, T]`` by all there were."""
        done, before, total = state
        step = super().step(network, None, generator)
        magnitudes = step.estimate.square().sum(dim=2).sqrt()
        if done >= _UNCOUNTED:
            total = total + (magnitudes - before).abs() / magnitudes.clamp(min=_TINY)
            low, high = total.quantile(torch.tensor([_LOW, _HIGH], device=total.device))
            total = total.clamp(low, high)
        least, greatest = total.aminmax()
        certainty = ((greatest - total) / (greatest - least)).clamp(min=_LEAST) if least < greatest else 1 + 0 * total
        estimate = self._gain(certainty)[:, :, None] * self.initial
        return replace(step, estimate=estimate, state=(done + 1, magnitudes, total))

    @abstractmethod
    def _gain(self, certainty: Tensor) -> Tensor:
        """The gain of bins by their certainty."""


class WienerFluctuation(Fluctuation):
    """The certainty is the gain: the paper's Wiener filter."""

    def _gain(self, certainty: Tensor) -> Tensor:
        return certainty


class LogSpectralFluctuation(Fluctuation):
    """The certainty c makes a posterior SNR of 1 / (1 - c)^2, and that a gain: the paper's LSA."""

    def _gain(self, certainty: Tensor) -> Tensor:
        posterior = 1 / (1 - certainty).square().double().clamp(min=_TINY)
        prior = (posterior - 1).clamp(min=_LEAST)
        gain = log_spectral_gain(prior.cpu().numpy(), posterior.cpu().numpy())
        return torch.from_numpy(gain).to(certainty)
