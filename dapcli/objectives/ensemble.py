"""The objective of recordings that lost samples: the network weighs classical restorations of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from dapcli.audio import Samples
from dapcli.fit import Network, Objective, Step
from dapcli.objectives import Setup
from dapcli.signal.degradation import Degradation, TrainingPair

# Keeps the logarithm of an empty bin finite; the mean power is at 1.
_POWER_FLOOR = 1e-5
# Powers of sound span many orders of magnitude.
_FEATURE_SCALE = 0.25
# Below this energy there is no sound to relate an error to.
_SILENCE = 1e-9
# The least weight of a candidate before the fit: a network can raise it, which it cannot from zero.
_LEAST_WEIGHT = 0.0005


class Ensemble(Objective):
    """The outputs of the network are the mixing weights of M candidates, and of silence, in every bin of the estimate.

    The candidates restore the recording in classical ways. The network learns from training pairs: the recording,
    degraded once more where the truth is known, and restored in the same ways. The loss is the squared error there,
    relative to the sound's power; the validation error is that on a pair that it does not learn from, unless there is
    only one. Before the fit, the weights are those that are best for all bins alike: stacking, after Breiman, "Stacked
    regressions" (1996). The channels of a recording are restored one by one, by the same network.

    ``samples`` is ``[C, N]``.
    """

    validates: ClassVar[bool] = True
    #: A network whose outputs are all zero changes nothing: the fit is to begin there.
    starts_from_zero: ClassVar[bool] = True

    def __init__(self, samples: Samples, degradation: Degradation, setup: Setup) -> None:
        candidates = degradation.candidates(samples, setup.rate)
        pairs = degradation.training_pairs(samples, candidates, setup.rate, setup.generator.initial_seed())
        self.networks = ((len(candidates), len(candidates) + 1),)
        self._stft = setup.stft
        self._features, self._candidates = self._prepare(setup.tensor(candidates))
        prepared = [
            (
                *self._prepare(setup.tensor(pair.candidates)),
                setup.tensor(pair.truth),
                torch.from_numpy(pair.scored).to(setup.generator.device),
            )
            for pair in pairs
        ]
        self._validation = prepared[-1]
        self._training = prepared[:-1] or prepared
        weights = setup.tensor(stack(pairs))
        weights = torch.cat([weights, 1 - weights.sum(dim=0, keepdim=True)]).clamp(min=_LEAST_WEIGHT)
        self._start = weights.log()[None, :, None, None]
        # The network puts out zeros before the fit.
        zeros = torch.zeros((), device=setup.generator.device)
        self.initial = self._mix(zeros, self._candidates)
        self._initial_error = self._error(zeros, *self._validation[1:]).clamp(min=_SILENCE)

    def step(self, network: Network, state: int, generator: torch.Generator) -> Step:  # noqa: ARG002
        """The loss of one training pair and the estimate ``[1, C, 2, F, T]`` of the recording."""
        features, *pair = self._training[state % len(self._training)]
        loss = self._error(network(features), *pair)
        with torch.no_grad():
            features, *pair = self._validation
            validation = self._error(network(features), *pair) / self._initial_error
            estimate = self._mix(network(self._features), self._candidates)
        return Step(loss, estimate, self._candidates[:1], state + 1, validation)

    def _prepare(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The network's input ``[C, M, F, T]`` and the spectrograms ``[M, C, 2, F, T]`` of candidates ``[M, C, N]``."""
        spectrograms = self._stft.forward(candidates)
        power = spectrograms.square().sum(dim=2).transpose(0, 1)
        return _FEATURE_SCALE * (power / power.mean().clamp(min=_SILENCE) + _POWER_FLOOR).log(), spectrograms

    def _error(self, output: Tensor, candidates: Tensor, truth: Tensor, scored: Tensor) -> Tensor:
        mixed = self._stft.inverse(self._mix(output, candidates)[0], truth.shape[1])
        return (mixed - truth)[scored].square().sum() / truth[scored].square().sum().clamp(min=_SILENCE)

    def _mix(self, output: Tensor, candidates: Tensor) -> Tensor:
        """The estimate ``[1, C, 2, F, T]`` of candidates ``[M, C, 2, F, T]`` by an output of the network."""
        weights = (output + self._start).softmax(dim=1)[:, :-1]
        return (weights.transpose(0, 1)[:, :, None] * candidates).sum(dim=0, keepdim=True)


def stack(pairs: Sequence[TrainingPair]) -> NDArray[np.float64]:
    """Weights ``[M]`` of the candidates, not negative and no more than 1 together, with the least squared error."""
    columns = np.concatenate([pair.candidates[:, pair.scored] for pair in pairs], axis=1).T
    truth = np.concatenate([pair.truth[pair.scored] for pair in pairs])
    # A last equation that all but holds the weights' sum, with silence's, at 1.
    firm = 1e3 * max(float(np.linalg.norm(columns)), float(np.linalg.norm(truth)), 1e-9)
    equations = np.vstack([np.hstack([columns, np.zeros((len(truth), 1))]), np.full(columns.shape[1] + 1, firm)])
    return np.asarray(nnls(equations, np.append(truth, firm))[0][:-1])
