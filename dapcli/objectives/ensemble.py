"""The observation of recordings that lost samples: the network mixes classical restorations of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from dapcli.audio import Samples
from dapcli.signal.degradation import Degradation, TrainingPair
from dapcli.signal.stft import STFT

# Keeps the logarithm of an empty bin finite; the mean power is at 1.
_POWER_FLOOR = 1e-5
# Powers of sound span many orders of magnitude.
_FEATURE_SCALE = 0.25
# Below this energy there is no sound to relate an error to.
_SILENCE = 1e-9
# The least share of a candidate before the fit: a network can raise it, which it cannot from zero.
_LEAST_SHARE = 0.0005


class Ensemble:
    """The outputs of the network are the shares of K candidates, and of silence, in every bin of the estimate.

    The candidates restore the recording in classical ways. What the network learns from are ``training_pairs``: the same
    recording, damaged once more where the truth is known and restored in the same ways. The loss is the squared error
    there, relative to the sound's power. Before the fit, the shares are those that are best for all bins alike. The
    channels of a recording are mixed one by one, by the same network.
    """

    #: A network whose outputs are all zero changes nothing: the fit is to begin there.
    starts_from_zero = True

    def __init__(
        self,
        samples: Samples,
        stft: STFT,
        degradation: Degradation,
        rate: int,
        *,
        perturbation: float,  # noqa: ARG002
        generator: torch.Generator,
    ) -> None:
        candidates = degradation.candidates(samples, rate)
        training_pairs = degradation.training_pairs(samples, candidates, rate, generator.initial_seed())
        self.networks = ((len(candidates), len(candidates) + 1),)
        self._stft = stft
        self._device = generator.device
        self._candidates = self._transform(candidates)
        self.spectrogram = self._candidates[0]
        prepared = [
            (self._transform(each.candidates), self._load(each.truth), torch.from_numpy(each.scored).to(self._device))
            for each in training_pairs
        ]
        # One to validate, the others to learn from.
        self._rehearsed = prepared[-1]
        self._learned = cycle(prepared[:-1] or prepared)
        self._rehearsal = torch.zeros(())
        shares = self._load(best_shares(training_pairs))
        shares = torch.cat([shares, 1 - shares.sum(dim=0, keepdim=True)]).clamp(min=_LEAST_SHARE)
        self._start = shares.log()[None, :, None, None]

    def evaluate(self, network: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss of one training_pair and the detached estimate ``[C, 2, F, T]`` of the recording."""
        del generator
        loss = self._error(network, *next(self._learned))
        with torch.no_grad():
            self._rehearsal = self._error(network, *self._rehearsed)
            return loss, self._mix(network, self._candidates)

    def validate(self) -> float:
        """The loss, in the last forward pass, of the training_pair that the network does not learn from."""
        return float(self._rehearsal)

    def _error(self, network: Callable[[Tensor], Tensor], candidates: Tensor, truth: Tensor, scored: Tensor) -> Tensor:
        mixed = self._stft.inverse(self._mix(network, candidates), truth.shape[1])
        return (mixed - truth)[scored].square().sum() / truth[scored].square().sum().clamp(min=_SILENCE)

    def _load(self, array: Samples) -> Tensor:
        return torch.from_numpy(array).float().to(self._device)

    def _transform(self, candidates: Samples) -> Tensor:
        """Spectrograms ``[K, C, 2, F, T]`` of candidates ``[K, C, N]``."""
        return torch.stack([self._stft.forward(candidate) for candidate in self._load(candidates)])

    def _mix(self, network: Callable[[Tensor], Tensor], candidates: Tensor) -> Tensor:
        """The estimate ``[C, 2, F, T]`` of candidates ``[K, C, 2, F, T]``."""
        power = candidates.square().sum(dim=2).transpose(0, 1)
        features = _FEATURE_SCALE * (power / power.mean().clamp(min=_SILENCE) + _POWER_FLOOR).log()
        shares = (network(features) + self._start).softmax(dim=1)[:, :-1]
        return (shares.transpose(0, 1)[:, :, None] * candidates).sum(dim=0)


def best_shares(training_pairs: Sequence[TrainingPair]) -> NDArray[np.float64]:
    """Shares ``[K]`` of the candidates, not negative and no more than 1 together, with the least squared error."""
    columns = np.concatenate(
        [training_pair.candidates[:, training_pair.scored] for training_pair in training_pairs], axis=1
    ).T
    truth = np.concatenate([training_pair.truth[training_pair.scored] for training_pair in training_pairs])
    # A last equation that all but holds the shares' sum, with silence's, at 1.
    firm = 1e3 * max(float(np.linalg.norm(columns)), float(np.linalg.norm(truth)), 1e-9)
    equations = np.vstack([np.hstack([columns, np.zeros((len(truth), 1))]), np.full(columns.shape[1] + 1, firm)])
    return np.asarray(nnls(equations, np.append(truth, firm))[0][:-1])
