"""Degradation that leaves two bounds for every sample: between them lies whatever would have been damaged into it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Samples
from dapcli.signal.degradation import Degradation
from dapcli.signal.spade import refine_sparse, restore_sparse

#: The most by which writing in 16 bits changes a sample: libsndfile rounds to the nearest in FLAC, but down in WAV.
ROUNDING = 2.0**-15


class Bounded(Degradation, ABC):
    """Degradation by which every sample lies between two bounds of its own. It is the same in all parts of a recording."""

    initial_estimate: ClassVar[str] = "sparsest consistent signal (A-SPADE)"

    @property
    def gaps(self) -> None:
        """None: something is known of every sample."""
        return None

    @abstractmethod
    def bounds(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest values ``[C, N]`` that are damaged into samples ``[C, N]``; they may be infinite.

        Both are the sample itself where it is reliable. Nothing here waits for a device.
        """

    def part(self, start: int, stop: int) -> Degradation:  # noqa: ARG002
        """The degradation itself."""
        return self

    def data_fidelity(self, estimate: Tensor, samples: Tensor) -> Tensor:
        """Mean squared distance of an estimate from the bounds of samples, both ``[C, N]``; 0 between them."""
        low, high = self.bounds(samples)
        return (estimate - estimate.clamp(low, high)).square().mean()

    def add_texture(self, estimate: Samples, samples: Samples, rate: int, seed: int) -> Samples:  # noqa: ARG002
        """The estimate itself: sound is there in all of it."""
        return estimate

    def project(self, estimate: Samples, samples: Samples) -> Samples:
        """The nearest estimate between the bounds of samples, all ``[C, N]``."""
        return np.clip(estimate, *self._bounds(samples))

    def sparsest(self, samples: Samples, rate: int) -> Samples:
        """The sparsest signals between the bounds of samples, both ``[C, N]``; channel by channel."""
        channels = zip(samples, *self._bounds(samples), strict=True)
        return np.stack([restore_sparse(*channel, rate) for channel in channels])

    def refined(self, estimate: Samples, samples: Samples, rate: int) -> Samples:
        """An estimate between the bounds of samples, both ``[C, N]``, refined by its own power; channel by channel."""
        channels = zip(estimate, *self._bounds(samples), strict=True)
        return np.stack([refine_sparse(*channel, rate) for channel in channels])

    def _bounds(self, samples: Samples) -> tuple[Samples, Samples]:
        low, high = self.bounds(torch.tensor(samples))
        return low.numpy(), high.numpy()
