"""The observation that dap adds to the papers: the network masks the recording, fitted to its own estimated error."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dapcli.spectral import STFT

# Keeps the logarithm of an empty bin finite; noise alone is at 1.
_POWER_FLOOR = 1e-3


class MaskedObservation:
    """The output of the network is a gain in (0, 1) for every bin of the recording.

    The network sees the recording's power over the noise's, in the logarithm. The squared error against the clean
    recording cannot be computed, but it can be estimated without bias where the noise spectrum is known: add more
    noise n of that spectrum to the recording y, and compare the masked sum with y, correcting for what n carries
    through (Pang et al., "Recorrupted-to-Recorrupted: Unsupervised Deep Learning for Image Denoising", CVPR 2021,
    with its target written out; in the limit of little noise it is Stein's unbiased risk estimate)::

        E |f(y + a n) - s|^2 = E |f(y + a n) - y|^2 + (2 / a) E <f(y + a n), n> + constant

    Fresh noise in every iteration keeps the network from learning any one of them by heart. Bins count by
    noise^(-1/2), halfway between the waveform's error and that relative to the noise.

    ``samples`` is ``[C, N]``, ``noise_spectrum`` ``[C, F]``; ``perturbation`` is a, the size of the added noise
    relative to the recording's own.
    """

    #: A network that has learned to mask one stretch of a recording masks another.
    transfers = True
    starts_from_zero = False

    def __init__(
        self,
        samples: Tensor,
        stft: STFT,
        noise_spectrum: Tensor,
        *,
        perturbation: float,
        generator: torch.Generator,  # noqa: ARG002
    ) -> None:
        self.spectrogram = stft.forward(samples)
        self.networks = ((samples.shape[0], samples.shape[0]),)
        self._stft = stft
        self._length = samples.shape[1]
        self._perturbation = perturbation
        self._noise = noise_spectrum[:, None, :, None]
        self._weight = (noise_spectrum / noise_spectrum.mean()).rsqrt()[:, None, :, None]
        # White noise is shaped on a grid twice as long as the recording, so that it does not wrap around.
        self._grid = 2 * (self._length + stft.n_fft)
        self._shape = F.interpolate(
            (noise_spectrum / (2 * stft.white_gain)).sqrt()[:, None],
            size=self._grid // 2 + 1,
            mode="linear",
            align_corners=True,
        )[:, 0]

    def evaluate(self, network: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The estimated squared error of one forward pass and the detached estimate ``[C, 2, F, T]``."""
        y = self.spectrogram
        n = self._stft.forward(self._draw_noise(generator))
        noisier = y + self._perturbation * n
        power = noisier.square().sum(dim=1, keepdim=True)
        features = 0.5 * (power / self._noise + _POWER_FLOOR).log()
        gain = network(features.transpose(0, 1)).transpose(0, 1).sigmoid()
        masked = gain * noisier
        error = (masked - y).square() + (2 / self._perturbation) * masked * n
        return (self._weight * error).mean(), gain.detach() * y

    def _draw_noise(self, generator: torch.Generator) -> Tensor:
        """Gaussian noise ``[C, N]`` with the recording's noise spectrum."""
        device = self.spectrogram.device
        white = torch.randn(self._shape.shape[0], self._grid, generator=generator, device=device)
        coloured: Tensor = torch.fft.irfft(torch.fft.rfft(white) * self._shape, self._grid)
        return coloured[:, : self._length]
