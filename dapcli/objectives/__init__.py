"""Objectives: how a network's output explains a recording, and what that costs; the papers' and dap's own.

To add one, write a class with the members of :class:`~dapcli.fit.Objective`, and give it a line in the ``estimators``
of its task in :data:`dapcli.tasks.TASKS`. All are constructed with samples, what the task knows of them (their noise,
degradation or source types), and a :class:`Setup`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.settings import Settings
from dapcli.signal.stft import STFT


@dataclass(frozen=True)
class Setup:
    """The surroundings of a fit: settings, transform, and the rate of the samples in Hz.

    All random numbers come from ``generator``, whose device is that of the fit.
    """

    settings: Settings
    stft: STFT
    rate: int
    generator: torch.Generator

    def tensor(self, samples: Samples) -> Tensor:
        """Samples as fits take them: in single precision, on the device."""
        return torch.from_numpy(samples).float().to(self.generator.device)

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers, on the device."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)
