"""The papers' objective of mixtures: networks generate the sources, and the masks that lay them over each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dapcli.audio import Samples
from dapcli.fit import Network, Objective, Step
from dapcli.objectives import Setup
from dapcli.objectives.generate import perturbed
from dapcli.signal.sources import levels

# Scales of the exclusion, each of half the resolution of the one before.
_SCALES = 3
# Distance of Tian's frames, s, of which the change counts.
_FRAME_S = 172 / 11_000
# Weights of the loss's terms, beside the reconstruction's 1.
_EXCLUSION, _ROUGHNESS, _INDECISION, _IMBALANCE = 1 / 9, 0.3, 0.01, 0.1
# Share of the iterations after which the masks are to become binary.
_LATE = 0.9
# Most bins are far below the mean: sources that begin near it are pushed down first, and one does not come back.
_QUIET = -1.0
# Below this there is no sound; keeps what is divided by above 0.
_SILENCE = 1e-6
# Keeps the slope of a root finite.
_FLAT = 1e-12


class DoubleDIP(Objective):
    """The outputs of K networks are the magnitudes of sources, those of K - 1 more the masks that are laid over them.

    So the Design paper separates (Narayanaswamy et al. 2021), with the losses of Tian et al., "Deep Audio Prior"
    (2019), after Gandelsman et al., "Double-DIP" (CVPR 2019). With masks m_k = softmax(o)_k, where o_K = 0, the loss
    has their four terms: the mean absolute difference between the mixture's magnitudes and the sum of the masked
    sources m_k s_k; the :func:`exclusion` of these; the :func:`roughness` of the s_k; and in the last tenth of the
    iterations 0.01 / mean |m - 1/2|, for binary masks. One source that paints all costs least by each of these; so the
    :func:`imbalance` of the m_k s_k is added. For two sources the mixture is m s_1 + (1 - m) s_2 with m = sigmoid(o_1).
    The estimate has the mixture's phases.

    ``samples`` is ``[C, N]``; channels are separated jointly. Of ``types`` only the number K counts. The networks'
    input is a fixed z ~ N(0, 1), to which every iteration adds noise of standard deviation ``settings.input_noise``.
    The sources come in any order, and need not sum to the mixture.
    """

    generates: ClassVar[bool] = True

    def __init__(self, samples: Samples, types: Sequence[str], setup: Setup) -> None:
        mixture = setup.stft.forward(setup.tensor(samples))
        magnitudes = mixture.square().sum(dim=1).sqrt()
        # The terms of the loss have the same weights at every level.
        self._level = magnitudes.mean().clamp(min=_SILENCE)
        self._magnitudes = magnitudes / self._level
        self._phases = mixture / magnitudes.clamp(min=_SILENCE * self._level)[:, None]
        self._sources = len(types)
        channels, bins, frames = magnitudes.shape
        self.networks = ((channels, channels),) * (2 * self._sources - 1)
        self.initial = (mixture / self._sources).expand(self._sources, *mixture.shape)
        self._z = setup.randn(1, len(self.networks) * channels, bins, frames)
        self._input_noise = setup.settings.input_noise
        self._hop = setup.stft.hop / setup.rate
        self._late = round(_LATE * setup.settings.iterations)

    def step(self, network: Network, state: int, generator: torch.Generator) -> Step:
        """The loss of one forward pass and the estimate ``[K, C, 2, F, T]``."""
        z = perturbed(self._z, self._input_noise, generator)
        outputs = network(z).reshape(len(self.networks), *self._magnitudes.shape)
        # A source that is 0 somewhere would get no gradient there with a ReLU, and those that are 0 everywhere do not
        # come back.
        sources = F.softplus(outputs[: self._sources] + _QUIET)
        masks = F.pad(outputs[self._sources :], (0,) * 7 + (1,)).softmax(dim=0)
        masked = masks * sources
        reconstruction = (masked.sum(dim=0) - self._magnitudes).abs().mean()
        loss = reconstruction + _EXCLUSION * exclusion(masked) + _IMBALANCE * imbalance(masked)
        loss = loss + _ROUGHNESS * roughness(sources, self._hop)
        if state >= self._late:
            loss = loss + _INDECISION / ((masks - 0.5).abs().mean() + _SILENCE)
        estimate = self._level * masked.detach()[:, :, None] * self._phases
        return Step(loss, estimate, self.initial, state + 1)


def exclusion(sources: Tensor) -> Tensor:
    """How much the edges of sources, magnitudes ``[K, C, F, T]``, meet, along time and along frequency: 0 to 1.

    The mean over pairs of sources, both directions and three scales of (mean phi(d s_j)^2 phi(d s_k)^2)^(1/4), with
    phi(d) = 2 sigmoid(d) - 1: equation 5 of Tian et al., after Zhang et al., "Single Image Reflection Separation with
    Perceptual Losses" (CVPR 2018).
    """
    terms = []
    for _ in range(_SCALES):
        for axis in (-2, -1):
            edges = (sources.diff(dim=axis) / 2).tanh().square()
            terms += [(_mean(one * other) + _FLAT) ** 0.25 for one, other in combinations(edges, 2)]
        sources = F.avg_pool2d(sources, 2, ceil_mode=True)
    return torch.stack(terms).mean()


def roughness(sources: Tensor, hop: float) -> Tensor:
    """How much sources, magnitudes ``[K, C, F, T]`` with a frame every ``hop`` s, change over time.

    The sum over sources of mean |d s / d t|, per 15.6 ms: from frame to frame of Tian et al.
    """
    return len(sources) * _mean(sources.diff(dim=-1).abs()) * _FRAME_S / hop


def imbalance(sources: Tensor) -> Tensor:
    """How unequal the energies of sources ``[K, ...]`` are: 0 where all are equal, more and more as one falls silent.

    The mean of log(1 / (K p_k)), where p_k is a source's share of the energy: the divergence of these from equal ones,
    or the negative logarithm of a symmetric Dirichlet prior on them.
    """
    return -(len(sources) * (levels(sources) + _SILENCE)).log().mean()


def _mean(values: Tensor) -> Tensor:
    """The mean, 0 of nothing: one frame has no neighbour."""
    return values.sum() / max(values.numel(), 1)
