"""The objective of mixtures: the network masks them, one ratio mask for each of their sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.fit import Network, Objective, Step
from dapcli.objectives import Setup
from dapcli.objectives.generate import perturbed
from dapcli.signal.separation import separate_types

# Keeps the logarithm of an empty bin finite; the mean power is at 1.
_POWER_FLOOR = 1e-5
# Below this power there is no sound to separate.
_SILENCE = 1e-12
# Keeps the logarithm of a mask finite.
_LEAST_MASK = 1e-3
# Weight of the network's masks where the classical ones are equal: it does not know better by much.
_INFLUENCE = 0.25
# What is withheld from the network to validate it on: a part of the mixture, in patches of so many bins and frames.
_WITHHELD_PART, _PATCH = 0.05, (16, 4)


class RatioMask(Objective):
    """The outputs of the network are the ratio masks of K sources, which sum to 1 in every bin of the mixture.

    It learns the masks of the classical separation from the mixture's power, and is believed where that is sure: a
    bin counts by its amplitude, and by how far its masks are from equal. Like noise in a recording, the errors of the
    classical separation have less structure than what is right about it, and a network learns them later: after few
    iterations it knows better. The estimate is the mixture by a geometric mean of both masks, where the classical
    ones are equal, and by the classical ones alone where they are sure; so the sources always sum to it. The channels
    are separated one by one, by the same network.

    Patches of the mixture are withheld from it. A network that does not know them better than the mean masks of their
    frequencies (a validation error of 1 or more) has found no structure, and the classical separation is the better
    one.

    ``samples`` is ``[C, N]``, with sources of these ``types``, see :mod:`dapcli.signal.separation`;
    ``settings.input_noise`` is the standard deviation of the noise that is added to the network's input.
    """

    validates: ClassVar[bool] = True

    def __init__(self, samples: Samples, types: Sequence[str], setup: Setup) -> None:
        start = separate_types(samples, setup.rate, types, setup.generator.initial_seed())
        self.networks = ((1, len(types)),)
        self._mixture = setup.stft.forward(setup.tensor(samples))
        power = self._mixture.square().sum(dim=1, keepdim=True)
        features = (power / power.mean().clamp(min=_SILENCE) + _POWER_FLOOR).log()
        self._features = (features - features.mean()) / features.std().clamp(min=_LEAST_MASK)
        powers = setup.stft.forward(setup.tensor(start)).square().sum(dim=2).transpose(0, 1) + _SILENCE
        self._masks = powers / powers.sum(dim=1, keepdim=True)
        certainty = (len(types) * self._masks.square().sum(dim=1, keepdim=True) - 1) / (len(types) - 1)
        trust = certainty.square() * power.sqrt()
        trust = trust / trust.mean().clamp(min=_SILENCE)
        withheld = _draw_patches(trust.shape, setup.generator)
        self._trust, self._withheld = trust.masked_fill(withheld, 0.0), trust.masked_fill(~withheld, 0.0)
        total = (self._trust * self._masks).sum(dim=-1, keepdim=True)
        guess = (total + _SILENCE) / (total + _SILENCE).sum(dim=1, keepdim=True)
        self._guess_error = self._cross_entropy(guess.log(), self._withheld)
        self._start = self._masks.clamp(min=_LEAST_MASK).log()
        self._influence = _INFLUENCE * (1 - certainty)
        self._input_noise = setup.settings.input_noise
        self.initial = self._apply(self._masks)

    def step(self, network: Network, state: object, generator: torch.Generator) -> Step:  # noqa: ARG002
        """The cross-entropy of one forward pass and the estimate ``[K, C, 2, F, T]``."""
        inputs = perturbed(self._features, self._input_noise, generator)
        output = torch.cat([network(channel) for channel in torch.split(inputs, 1)])
        predicted = output.log_softmax(dim=1)
        loss = self._cross_entropy(predicted, self._trust)
        predicted = predicted.detach()
        validation = self._cross_entropy(predicted, self._withheld) / self._guess_error
        mean = torch.lerp(self._start, predicted, self._influence)
        return Step(loss, self._apply(mean.softmax(dim=1)), self.initial, None, validation)

    def _cross_entropy(self, predicted: Tensor, trust: Tensor) -> Tensor:
        """Cross-entropy of logarithms of masks ``[C, K, F, T or 1]``, by how much each bin is trusted."""
        return -(trust * (self._masks * predicted).sum(dim=1, keepdim=True)).mean()

    def _apply(self, masks: Tensor) -> Tensor:
        """Sources ``[K, C, 2, F, T]`` by their masks ``[C, K, F, T]``."""
        return masks.transpose(0, 1)[:, :, None] * self._mixture


def _draw_patches(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Flags ``[C, 1, F, T]``, the same for all channels."""
    *_, bins, frames = shape
    height, width = _PATCH
    grid = (-(-bins // height), -(-frames // width))
    drawn = torch.rand(grid, generator=generator, device=generator.device) < _WITHHELD_PART
    return drawn.repeat_interleave(height, 0).repeat_interleave(width, 1)[:bins, :frames].expand(shape)
