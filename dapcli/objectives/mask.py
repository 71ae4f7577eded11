"""The observation that dap adds to the papers: the network masks the recording, fitted to its own estimated error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dapcli.signal.noise import Noise
from dapcli.signal.stft import STFT

# Keeps the logarithm of an empty bin finite; noise alone is at 1.
_POWER_FLOOR = 1e-3


class Mask:
    """The output of the network is a gain in (0, 1) for every bin of the recording.

    The network sees the recording's power over the noise's, in the logarithm. The squared error against the clean
    recording cannot be computed, but it can be estimated without bias where the noise's power is known: add more
    noise n of that power to the recording y, and compare the masked sum with y, correcting for what n carries
    through (Pang et al., "Recorrupted-to-Recorrupted: Unsupervised Deep Learning for Image Denoising", CVPR 2021,
    with its target written out; in the limit of little noise it is Stein's unbiased risk estimate)::

        E |f(y + a n) - s|^2 = E |f(y + a n) - y|^2 + (2 / a) E <f(y + a n), n> + constant

    Fresh noise in every iteration keeps the network from learning any one of them by heart. Bins count by
    noise^(-1/2), halfway between the waveform's error and that relative to the noise.

    ``samples`` is ``[C, N]``, ``noise`` that of the frames of its spectrogram, which every iteration refines where
    there is rumble; ``perturbation`` is a, the size of the added noise relative to the recording's own.
    """

    #: The estimate is the recording with gains, and a network that has learned to mask one stretch masks another.
    masks = True
    starts_from_zero = False

    def __init__(
        self,
        samples: Tensor,
        stft: STFT,
        noise: Noise,
        *,
        perturbation: float,
        generator: torch.Generator,  # noqa: ARG002
    ) -> None:
        self.spectrogram = stft.forward(samples)
        self.networks = ((samples.shape[0], samples.shape[0]),)
        self._stft = stft
        self._shape = samples.shape
        self._perturbation = perturbation
        self._start = noise
        self._noise = noise.power

    def evaluate(self, network: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The estimated squared error of one forward pass and the detached estimate ``[C, 2, F, T]``."""
        y, noise = self.spectrogram, self._noise[:, None]
        n = self._draw_noise(generator)
        noisier = y + self._perturbation * n
        power = noisier.square().sum(dim=1, keepdim=True)
        ratio = (power / noise + _POWER_FLOOR).log()
        # The first gains already let pass what is above the noise. From equal gains, the first steps of a fit to loud
        # sound would let pass everything, and where the sigmoid is flat nothing is learned any more.
        output = network(0.5 * ratio.transpose(0, 1)).transpose(0, 1)
        gain = (ratio - 1 + output).sigmoid()
        masked = gain * noisier
        error = (masked - y).square() + (2 / self._perturbation) * masked * n
        weight = (noise / noise.mean(dim=(2, 3), keepdim=True)).rsqrt()
        gain = gain.detach()
        self._noise = self._start.refine(self._noise, y.square().sum(dim=1), gain[:, 0])
        return (weight * error).mean(), gain * y

    def _draw_noise(self, generator: torch.Generator) -> Tensor:
        """Gaussian noise ``[C, 2, F, T]`` of the power that the recording's has in every bin and frame."""
        white = torch.randn(self._shape, generator=generator, device=generator.device)
        return self._stft.forward(white) * (self._noise / (2 * self._stft.white_gain)).sqrt()[:, None]
