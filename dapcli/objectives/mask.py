"""The objective that dap adds to the papers: the network masks the recording, fitted to its own estimated error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dapcli.fit import Network, Objective, Step
from dapcli.objectives import Setup
from dapcli.signal.noise import Noise

# Keeps the logarithm of an empty bin finite; noise alone is at 1.
_POWER_FLOOR = 1e-3


class Mask(Objective):
    """The output of the network is a gain in (0, 1) for every bin of the recording.

    The network sees the recording's power over the noise's, in the logarithm. The squared error against the clean
    recording cannot be computed, but it can be estimated without bias where the noise's power is known: recorrupt the
    recording y with more noise n of that power, and compare the masked sum with y, correcting for what n carries
    through (Pang et al., "Recorrupted-to-Recorrupted: Unsupervised Deep Learning for Image Denoising", CVPR 2021,
    with its target written out; in the limit of little noise it is Stein's unbiased risk estimate)::

        E |f(y + a n) - s|^2 = E |f(y + a n) - y|^2 + (2 / a) E <f(y + a n), n> + constant

    Fresh noise in every iteration keeps the network from learning any one of them by heart. Bins count by
    noise^(-1/2), halfway between the waveform's error and that relative to the noise.

    ``samples`` is ``[B * C, N]``, the channels of B segments, for which networks are fitted side by side; ``noises``
    are those of the frames of their spectrograms, and a is ``settings.recorruption_scale``. The state is the noise's
    power ``[B * C, F, T]``, which every step refines where there is rumble.
    """

    def __init__(self, samples: Tensor, noises: Sequence[Noise], setup: Setup) -> None:
        channels = len(samples) // len(noises)
        self.initial = setup.stft.forward(samples)[None]
        self.networks = ((channels, channels),)
        self._stft = setup.stft
        self._shape = (channels, samples.shape[1])
        self._scale = setup.settings.recorruption_scale
        self._noises = noises

    def begin(self) -> Tensor:
        """The noise's power as it was estimated."""
        return torch.cat([noise.power for noise in self._noises])

    def step(self, network: Network, state: Tensor, generator: torch.Generator) -> Step:
        """The estimated squared errors ``[B]`` of one forward pass, the estimate ``[1, B * C, 2, F, T]``, the noise."""
        members = len(self._noises)
        y, noise = self.initial[0], state[:, None]
        # The same for all segments, so that a fit does not depend on those beside it.
        white = torch.randn(self._shape, generator=generator, device=generator.device)
        n = self._stft.forward(white).repeat(members, 1, 1, 1)
        n = n * (state / (2 * self._stft.white_gain)).sqrt()[:, None]
        noisier = y + self._scale * n
        power = noisier.square().sum(dim=1, keepdim=True)
        ratio = (power / noise + _POWER_FLOOR).log()
        # The first gains already let pass what is above the noise. From equal gains, the first steps of a fit to loud
        # sound would let pass everything, and where the sigmoid is flat nothing is learned any more.
        output = network(0.5 * ratio.transpose(0, 1)).transpose(0, 1)
        gain = (ratio - 1 + output).sigmoid()
        masked = gain * noisier
        error = (masked - y).square() + (2 / self._scale) * masked * n
        weight = (noise / noise.mean(dim=(2, 3), keepdim=True)).rsqrt()
        gain = gain.detach()
        seen = (each.chunk(members) for each in (state, y.square().sum(dim=1), gain[:, 0]))
        refined = torch.cat([each.refine(*parts) for each, *parts in zip(self._noises, *seen, strict=True)])
        losses = (weight * error).view(members, -1).mean(dim=1)
        return Step(losses, (gain * y)[None], self.initial, refined)
