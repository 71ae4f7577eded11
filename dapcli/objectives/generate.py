"""The papers' objective: the network generates the clean spectrogram out of noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.fit import Network, Objective, Step
from dapcli.objectives import Setup
from dapcli.priors import PRIORS
from dapcli.signal.degradation import Degradation
from dapcli.signal.noise import Noise


def perturbed(z: Tensor, input_noise: float, generator: torch.Generator) -> Tensor:
    """An input of a network with fresh noise of a standard deviation added; without any, the input itself."""
    if not input_noise:
        return z
    return z + input_noise * torch.randn(z.shape, generator=generator, device=z.device)


class Generation(Objective):
    """The output of the network is the estimate, compared with the recording in the STFT.

    Its input is a fixed z ~ N(0, 1), to which every iteration adds noise of standard deviation
    ``settings.input_noise`` (0 in the papers). The loss is the mean squared error on real and imaginary parts,
    equation 1 of the Design paper. ``samples`` is ``[C, N]``; ``noises`` are not used. A network of waveforms generates
    the samples ``[1, C, 1, N]``, whose STFT is the estimate.
    """

    generates: ClassVar[bool] = True
    waveforms: ClassVar[bool] = True

    def __init__(self, samples: Tensor, noises: Sequence[Noise], setup: Setup) -> None:  # noqa: ARG002
        self._stft = setup.stft
        self.initial = setup.stft.forward(samples)[None]
        self._waveform = PRIORS[setup.settings.prior].waveform
        channels, length = samples.shape
        planes, *size = (channels, 1, length) if self._waveform else (2 * channels, *self.initial.shape[-2:])
        self.networks = ((planes, planes),)
        self._input_noise = setup.settings.input_noise
        self._z = setup.randn(1, planes, *size)

    def step(self, network: Network, state: object, generator: torch.Generator) -> Step:  # noqa: ARG002
        """The loss of one forward pass and the estimate ``[1, C, 2, F, T]``."""
        output = network(perturbed(self._z, self._input_noise, generator))
        if self._waveform:
            estimate = self._stft.forward(output[:, :, 0])
        else:
            estimate = self._read(output.reshape(self.initial.shape))
        return Step(self._data_fidelity(estimate), estimate.detach(), self.initial)

    def _read(self, output: Tensor) -> Tensor:
        """The estimate ``[1, C, 2, F, T]`` that an output of the network stands for."""
        return output

    def _data_fidelity(self, estimate: Tensor) -> Tensor:
        """How far an estimate ``[1, C, 2, F, T]`` is from the recording."""
        return (estimate - self.initial).square().mean()


class FrameGeneration(Generation):
    """The output of the network is the estimate, compared with those frames of the recording that lack no sample.

    So the Design paper fills gaps: the mean squared error of equation 1 over the known part of the spectrogram. The
    gaps of ``samples`` ``[C, N]`` may hold anything; the input is that of :class:`Generation`.
    """

    def __init__(self, samples: Samples, degradation: Degradation, setup: Setup) -> None:
        missing = degradation.affected(samples)
        super().__init__(setup.tensor(np.where(missing, 0.0, samples)), [], setup)
        known = ~setup.stft.touched(torch.from_numpy(missing).to(self.initial.device))
        self._known = known[None, :, None, None].expand(self.initial.shape)

    def _data_fidelity(self, estimate: Tensor) -> Tensor:
        error = torch.where(self._known, estimate - self.initial, 0)
        return error.square().sum() / self._known.sum().clamp(min=1)


class ConsistentGeneration(Generation):
    """The output of the network is the estimate, compared with what is still known of the recording in its samples.

    The phases of a sound turn from frame to frame, so that nothing in a plain spectrogram goes on smoothly over a gap.
    The network paints it relative to the phases of a classical restoration (for gaps, linear prediction), where it
    does: after the phase correction of Yatabe & Oikawa, "Phase corrected total variation for audio signals" (2018).
    ``samples`` is ``[C, N]``; the input is that of :class:`Generation`.
    """

    def __init__(self, samples: Samples, degradation: Degradation, setup: Setup) -> None:
        # Levels and cells are told apart in double precision only.
        super().__init__(setup.tensor(degradation.candidates(samples, setup.rate)[-1]), [], setup)
        self._degradation = degradation
        self._samples = setup.tensor(samples)
        size = self.initial.square().sum(dim=2, keepdim=True).sqrt()
        self._phase = self.initial / size.clamp(min=1e-12)

    def _read(self, output: Tensor) -> Tensor:
        real, imaginary = self._phase.unbind(dim=2)
        along, across = output.unbind(dim=2)
        return torch.stack([along * real - across * imaginary, along * imaginary + across * real], dim=2)

    def _data_fidelity(self, estimate: Tensor) -> Tensor:
        samples = self._stft.inverse(estimate[0], self._samples.shape[1])
        return self._degradation.data_fidelity(samples, self._samples)
