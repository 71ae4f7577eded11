"""Recordings, in memory or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

#: Subtypes that mean the same samples in every container; the others pad, or differ in quality.
PORTABLE_SUBTYPES = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")
#: Samples that are looked at together, and handed to or by libsndfile at once: its Vorbis encoder overflows the stack
#: when given minutes.
BLOCK = 65_536


class Recording(Protocol):
    """What can be restored and written: samples ``[C, N]``, full scale at 1, that are read in parts.

    ``rate`` is in Hz; ``subtype`` and ``format`` are libsndfile's names for the sample encoding and the container.
    """

    @property
    def rate(self) -> int:
        """Samples per second and channel."""

    @property
    def subtype(self) -> str:
        """Sample encoding."""

    @property
    def format(self) -> str:
        """Container."""

    @property
    def channels(self) -> int:
        """Number of channels C."""

    @property
    def length(self) -> int:
        """Number of samples N per channel."""

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``, not to be written into.

        Raises:
            ValueError: The recording has no such samples.
        """


@dataclass(frozen=True)
class Audio:
    """A recording in memory.

    ``samples`` is ``[C, N]`` with full scale at 1, ``rate`` is in Hz; ``subtype`` and ``format`` are
    libsndfile's names for the sample encoding and the container.
    """

    samples: Samples
    rate: int
    subtype: str = "FLOAT"
    format: str = "WAV"

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.samples.shape[0])

    @property
    def length(self) -> int:
        """Number of samples N per channel."""
        return int(self.samples.shape[1])

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``, a view.

        Raises:
            ValueError: The recording has no such samples.
        """
        check_range(self, start, stop)
        return self.samples[:, start:stop]

    def with_samples(self, samples: Samples) -> Audio:
        """The same recording with other samples ``[C, N]``."""
        return replace(self, samples=samples)

    def as_file(self, container: str, subtype: str) -> Audio:
        """The same recording in another format and subtype."""
        return replace(self, format=container, subtype=subtype)


def check_range(recording: Recording, start: int, stop: int) -> None:
    """Raise ``ValueError`` unless a recording has the samples ``start`` to ``stop``."""
    if not 0 <= start <= stop <= recording.length:
        raise ValueError(f"no samples {start} to {stop} in a recording of {recording.length}")


def blocks(recording: Recording) -> Iterator[Samples]:
    """All samples of a recording, in blocks ``[C, n]``."""
    for start in range(0, recording.length, BLOCK):
        yield recording.read(start, min(start + BLOCK, recording.length))


def count_channels(number: int) -> str:
    """A number of channels in words."""
    return "1 channel" if number == 1 else f"{number} channels"


def shape_in_words(recording: Recording) -> str:
    """How many channels and samples a recording has, and at which rate."""
    return f"{count_channels(recording.channels)} of {recording.length} samples at {recording.rate} Hz"
