"""The observation of mixtures: the network shares them out among their sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.signal.separation import separate_types
from dapcli.signal.stft import STFT

# Keeps the logarithm of an empty bin finite; the mean power is at 1.
_POWER_FLOOR = 1e-5
# Below this power there is no sound to share out.
_SILENCE = 1e-12
# Keeps the logarithm of a share finite.
_LEAST_SHARE = 1e-3
# What is withheld from the network to test it on: a part of the mixture, in patches of so many bins and frames.
_WITHHELD_PART, _PATCH = 0.05, (16, 4)


class RatioMask:
    """The outputs of the network are the shares of K sources in every bin of the mixture.

    It learns the shares of the classical separation from the mixture's power, and is believed where that is sure: a
    bin counts by its amplitude, and by how far its shares are from equal. Like noise in a recording, the errors of the
    classical separation have less structure than what is right about it, and a network learns them later: after few
    iterations it knows better. The estimate is the mixture by the geometric mean of both shares, where the classical
    ones are equal, and by the classical ones alone where they are sure; so the sources always sum to it. The channels
    are separated one by one, by the same network.

    Patches of the mixture are withheld from it. A network that does not know them better than the mean shares of their
    frequencies has found no structure, and the classical separation is the better one: see :meth:`has_learned`.

    ``samples`` is ``[C, N]``, with sources of these ``kinds``, see :mod:`dapcli.kinds`; ``perturbation`` is the
    standard deviation of the noise that is added to the network's input in every iteration.
    """

    starts_from_zero = False
    #: The sources are of their kinds, and sum to the mixture.
    generates = False

    def __init__(
        self,
        samples: Samples,
        stft: STFT,
        kinds: Sequence[str],
        rate: int,
        *,
        iterations: int,  # noqa: ARG002
        perturbation: float,
        generator: torch.Generator,
    ) -> None:
        start = separate_types(samples, rate, kinds, generator.initial_seed())
        self.networks = ((1, len(kinds)),)
        self._mixture = stft.forward(torch.from_numpy(samples).float().to(generator.device))
        power = self._mixture.square().sum(dim=1, keepdim=True)
        features = (power / power.mean().clamp(min=_SILENCE) + _POWER_FLOOR).log()
        self._features = (features - features.mean()) / features.std().clamp(min=_LEAST_SHARE)
        powers = torch.stack(
            [stft.forward(part).square().sum(dim=1) for part in torch.from_numpy(start).float()], dim=1
        )
        powers = powers.to(generator.device) + _SILENCE
        self._shares = powers / powers.sum(dim=1, keepdim=True)
        certainty = (len(kinds) * self._shares.square().sum(dim=1, keepdim=True) - 1) / (len(kinds) - 1)
        trust = certainty.square() * power.sqrt()
        trust = trust / trust.mean().clamp(min=_SILENCE)
        withheld = _draw_patches(trust.shape, generator)
        self._trust, self._test = trust.masked_fill(withheld, 0.0), trust.masked_fill(~withheld, 0.0)
        total = (self._trust * self._shares).sum(dim=-1, keepdim=True)
        guess = (total + _SILENCE) / (total + _SILENCE).sum(dim=1, keepdim=True)
        self._guessed = self._surprise(guess.log(), self._test)
        self._tested = self._guessed
        self._start = self._shares.clamp(min=_LEAST_SHARE).log()
        self._influence = 0.5 * (1 - certainty)
        self._perturbation = perturbation
        self.spectrogram = self._share_out(self._shares)

    def evaluate(self, network: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The cross-entropy of one forward pass and the detached estimate ``[K * C, 2, F, T]``."""
        noise = torch.randn(self._features.shape, generator=generator, device=generator.device)
        inputs = self._features + self._perturbation * noise
        output = torch.cat([network(channel) for channel in torch.split(inputs, 1)])
        predicted = output.log_softmax(dim=1)
        self._tested = self._surprise(predicted.detach(), self._test)
        mean = torch.lerp(self._start, predicted.detach(), self._influence)
        return self._surprise(predicted, self._trust), self._share_out(mean.softmax(dim=1))

    def has_learned(self) -> bool:
        """Whether, in the last forward pass, the network knew what was withheld from it better than a guess does."""
        return bool(self._tested < self._guessed)

    def _surprise(self, predicted: Tensor, trust: Tensor) -> Tensor:
        """Cross-entropy of logarithms of shares ``[C, K, F, T or 1]``, by how much each bin is trusted."""
        return -(trust * (self._shares * predicted).sum(dim=1, keepdim=True)).mean()

    def _share_out(self, shares: Tensor) -> Tensor:
        """Sources ``[K * C, 2, F, T]`` by their shares ``[C, K, F, T]``."""
        return (shares.transpose(0, 1)[:, :, None] * self._mixture).flatten(0, 1)


def _draw_patches(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Flags ``[C, 1, F, T]``, the same for all channels."""
    *_, bins, frames = shape
    height, width = _PATCH
    grid = (-(-bins // height), -(-frames // width))
    drawn = torch.rand(grid, generator=generator, device=generator.device) < _WITHHELD_PART
    return drawn.repeat_interleave(height, 0).repeat_interleave(width, 1)[:bins, :frames].expand(shape)
