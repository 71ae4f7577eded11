"""The papers' observation: the network generates the clean spectrogram out of noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.signal.degradation import Degradation
from dapcli.signal.noise import Noise
from dapcli.signal.stft import STFT


class Generation:
    """The output of the network is the estimate, compared with the recording in the STFT.

    Its input is a fixed z ~ N(0, 1), to which every iteration adds noise of standard deviation ``perturbation``
    (0 in the papers). The loss is the mean squared error on real and imaginary parts, equation 1 of the Design
    paper. ``samples`` is ``[C, N]``; ``noise`` is not used.
    """

    #: A network that generates one stretch of a recording has nothing to offer to another.
    masks = False
    starts_from_zero = False

    def __init__(
        self,
        samples: Tensor,
        stft: STFT,
        noise: Noise | None,  # noqa: ARG002
        *,
        perturbation: float,
        generator: torch.Generator,
    ) -> None:
        self.spectrogram = stft.forward(samples)
        channels, _, bins, frames = self.spectrogram.shape
        self.networks = ((2 * channels, 2 * channels),)
        self._perturbation = perturbation
        self._z = torch.randn(1, 2 * channels, bins, frames, generator=generator, device=samples.device)

    def evaluate(self, network: Callable[[Tensor], Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss of one forward pass and the detached estimate ``[C, 2, F, T]``."""
        z = self._z
        if self._perturbation:
            z = z + self._perturbation * torch.randn(z.shape, generator=generator, device=z.device)
        estimate = self._read(network(z).reshape(self.spectrogram.shape))
        return self._data_fidelity(estimate), estimate.detach()

    def _read(self, output: Tensor) -> Tensor:
        """The estimate ``[C, 2, F, T]`` that an output of the network stands for."""
        return output

    def _data_fidelity(self, estimate: Tensor) -> Tensor:
        """How far an estimate ``[C, 2, F, T]`` is from the recording."""
        return (estimate - self.spectrogram).square().mean()


class ConsistentGeneration(Generation):
    """The output of the network is the estimate, compared with what is still known of the recording in its samples.

    The phases of a sound turn from frame to frame, so that nothing in a plain spectrogram goes on smoothly over a gap.
    The network paints it relative to the phases of a classical restoration (for gaps, linear prediction), where it
    does: after the phase correction of Yatabe & Oikawa, "Phase corrected total variation for audio signals" (2018).
    ``samples`` is ``[C, N]``; the input is that of :class:`Generation`.
    """

    def __init__(
        self,
        samples: Samples,
        stft: STFT,
        degradation: Degradation,
        rate: int,
        *,
        perturbation: float,
        generator: torch.Generator,
    ) -> None:
        # Levels and cells are told apart in double precision only.
        restored = torch.from_numpy(degradation.candidates(samples, rate)[-1]).float().to(generator.device)
        super().__init__(restored, stft, None, perturbation=perturbation, generator=generator)
        self._stft = stft
        self._damage = degradation
        self._samples = torch.from_numpy(samples).float().to(generator.device)
        size = self.spectrogram.square().sum(dim=1, keepdim=True).sqrt()
        self._phase = self.spectrogram / size.clamp(min=1e-12)

    def _read(self, output: Tensor) -> Tensor:
        real, imaginary = self._phase.unbind(dim=1)
        along, across = output.unbind(dim=1)
        return torch.stack([along * real - across * imaginary, along * imaginary + across * real], dim=1)

    def _data_fidelity(self, estimate: Tensor) -> Tensor:
        return self._damage.data_fidelity(self._stft.inverse(estimate, self._samples.shape[1]), self._samples)
