"""The papers' observation: the network generates the clean spectrogram out of noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dapcli.spectral import STFT


class GeneratedObservation:
    """The output of the network is the estimate, compared with the recording in the STFT.

    Its input is a fixed z ~ N(0, 1), to which every iteration adds noise of standard deviation ``perturbation``
    (0 in the papers). The loss is the mean squared error on real and imaginary parts, equation 1 of the Design
    paper. ``samples`` is ``[C, N]``; ``noise_spectrum`` ``[C, F]`` is not used.
    """

    #: A network that generates one stretch of a recording has nothing to offer to another.
    transfers = False

    def __init__(
        self,
        samples: Tensor,
        stft: STFT,
        noise_spectrum: Tensor,  # noqa: ARG002
        *,
        perturbation: float,
        generator: torch.Generator,
    ) -> None:
        self.spectrogram = stft.forward(samples)
        channels, _, bins, frames = self.spectrogram.shape
        self.in_channels = self.out_channels = 2 * channels
        self._perturbation = perturbation
        self._z = torch.randn(1, self.in_channels, bins, frames, generator=generator, device=samples.device)

    def evaluate(self, network: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss of one forward pass and the detached estimate ``[C, 2, F, T]``."""
        z = self._z
        if self._perturbation:
            z = z + self._perturbation * torch.randn(z.shape, generator=generator, device=z.device)
        estimate = network(z).reshape(self.spectrogram.shape)
        return (estimate - self.spectrogram).square().mean(), estimate.detach()
