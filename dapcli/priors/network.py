"""What every prior's network has."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class PriorNetwork(nn.Module, ABC):
    """A network from an input of noise, or of features, to a spectrogram.

    Shape: ``[1, in_channels, F, T] -> [1, out_channels, F, T]`` for any F and T of at least 1.
    """

    in_channels: int

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Map ``[1, in_channels, F, T]`` to ``[1, out_channels, F, T]``."""

    @abstractmethod
    def zero_output(self) -> None:
        """Set weights so that every output is zero, and the gradient is not."""

    @abstractmethod
    def receptive_field(self) -> int:
        """Extent in bins (or frames) of the input that one output bin can depend on, the network's borders aside."""
