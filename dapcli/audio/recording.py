"""Recordings, in memory or elsewhere, and conversion of their rates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dapcli.errors import SettingsError

Samples = NDArray[np.float64]

#: Subtypes that mean the same samples in every container; the others pad, or differ in quality.
PORTABLE_SUBTYPES = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")
#: Samples that are looked at together, and handed to or by libsndfile at once: its Vorbis encoder overflows the stack
#: when given minutes, and what it chooses depends on the division.
BLOCK = 65_536

_RESAMPLER_WIDTH = 64
# A polyphase resampler keeps one filter per output phase: this many coefficients are 200 MB.
_MAX_RESAMPLER_COEFFICIENTS = 50_000_000


class Recording(Protocol):
    """What can be restored and written: samples ``[C, N]``, full scale at 1, that are read in parts."""

    @property
    def rate(self) -> int:
        """Samples per second and channel."""

    @property
    def subtype(self) -> str:
        """Sample encoding, by libsndfile's name."""

    @property
    def format(self) -> str:
        """Container, by libsndfile's name."""

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
    """A :class:`Recording` in memory: ``samples`` is ``[C, N]`` with full scale at 1, ``rate`` is in Hz."""

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
        """Samples ``[C, stop - start]``, a view; raises ``ValueError`` if there are none such."""
        check_range(self, start, stop)
        return self.samples[:, start:stop]

    def with_samples(self, samples: Samples) -> Audio:
        """The same recording with other samples ``[C, N]``."""
        return replace(self, samples=samples)


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


def resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Resample ``[C, N]`` from ``rate`` to ``new_rate`` Hz, giving ``ceil(N * new_rate / rate)`` samples.

    Raises:
        SettingsError: The two rates have so little in common that the filter would not fit in memory.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    if (new_rate // divisor) * (rate // divisor + 2 * _RESAMPLER_WIDTH) > _MAX_RESAMPLER_COEFFICIENTS:
        raise SettingsError(f"cannot resample {rate} to {new_rate} Hz; choose rates with a larger common divisor")
    import torch  # deferred: reading and checking files must not wait for it
    from torchaudio.functional import resample as polyphase

    resampled = polyphase(
        torch.from_numpy(samples),
        rate,
        new_rate,
        lowpass_filter_width=_RESAMPLER_WIDTH,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    return np.asarray(resampled.numpy(), dtype=np.float64)
