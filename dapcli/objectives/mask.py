"""The objective that dap adds to the papers: the network masks the recording, fitted to its own estimated error."""

from __future__ import annotations

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

    ``samples`` is ``[C, N]``, ``noise`` that of the frames of its spectrogram; a is ``settings.recorruption_scale``.
    The state is the noise's power ``[C, F, T]``, which every step refines where there is rumble.
    """

    def __init__(self, samples: Tensor, noise: Noise, setup: Setup) -> None:
        self.initial = setup.stft.forward(samples)[None]
        self.networks = ((samples.shape[0], samples.shape[0]),)
        self._stft = setup.stft
        self._shape = samples.shape
        self._scale = setup.settings.recorruption_scale
        self._noise = noise

    def begin(self) -> Tensor:
        """The noise's power as it was estimated."""
        return self._noise.power

    def step(self, network: Network, state: Tensor, generator: torch.Generator) -> Step:
        """The estimated squared error of one forward pass, the estimate ``[1, C, 2, F, T]``, and the refined noise."""
        y, noise = self.initial[0], state[:, None]
        white = torch.randn(self._shape, generator=generator, device=generator.device)
        n = self._stft.forward(white) * (state / (2 * self._stft.white_gain)).sqrt()[:, None]
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
        refined = self._noise.refine(state, y.square().sum(dim=1), gain[:, 0])
        return Step((weight * error).mean(), (gain * y)[None], self.initial, refined)
