"""Recordings, in memory or elsewhere, and conversion of their rates."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dapcli.errors import InputError, SettingsError

Samples = NDArray[np.float64]

#: Subtypes that mean the same samples in every container; the others pad, or differ in quality.
PORTABLE_SUBTYPES = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")
#: Samples that are looked at together, and handed to or by libsndfile at once: its Vorbis encoder overflows the stack
#: when given minutes, and what it chooses depends on the division.
BLOCK = 65_536

_RESAMPLER_WIDTH = 64
# A polyphase resampler keeps one filter per output phase: this many coefficients are 200 MB.
_MAX_RESAMPLER_COEFFICIENTS = 50_000_000
# How integers become samples with full scale at 1.
_TO_FULL_SCALE = {"int8": "/ 128", "uint8": "/ 128 - 1", "int32": "/ 2147483648"}
# More channels than this are no recording if they are longer than it is: samples and channels have changed places.
_USUAL_CHANNELS = 8


@runtime_checkable
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
        """Samples ``[C, stop - start]``, not to be written into; raises ``ValueError`` if there are none such."""


@dataclass(frozen=True)
class Audio:
    """A :class:`Recording` in memory: ``samples`` is ``[C, N]`` with full scale at 1, ``rate`` is in Hz.

    Anything that numpy takes for floats will do; ``[N]`` is one channel. Raises ``InputError`` where samples are
    missing, integers, not finite or not ``[C, N]``, or the rate is no whole number.
    """

    samples: Samples
    rate: int
    subtype: str = "FLOAT"
    format: str = "WAV"

    def __post_init__(self) -> None:
        # Arrays that are reversed or read-only would trouble torch.
        samples = np.require(as_signal(self.samples), np.float64, ["C", "W"])
        if not samples.size:
            raise InputError("there are no samples")
        if not np.isfinite(samples).all():
            raise InputError("some samples are NaN or infinite; repair them first")
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "rate", as_rate(self.rate))

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


def as_signal(given: ArrayLike) -> NDArray[np.floating[Any]]:
    """Samples ``[C, N]`` of floats that people have, ``[N]`` too; raises ``InputError`` where these are none."""
    try:
        samples = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's are the first and the last
        raise InputError(f"the samples are no array ({str(error).splitlines()[0]}); give floats [C, N]") from None
    if samples.dtype.kind in "iu":
        how = _TO_FULL_SCALE.get(str(samples.dtype), "/ 32768 for those of 16 bits")
        raise InputError(f"the samples are {samples.dtype}, full scale must be at 1; give samples {how}")
    if samples.dtype.kind != "f":
        name = type(given).__name__ if samples.dtype == object else samples.dtype
        raise InputError(f"the samples are {name}; give an array of floats [C, N] with full scale at 1")
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2:
        raise InputError(f"the samples are {list(samples.shape)}; give [C, N], channels first")
    channels, length = samples.shape
    if channels > max(length, _USUAL_CHANNELS):
        advice = "give [C, N], channels first: did you mean samples.T?"
        raise InputError(f"the samples are {channels} channels of {length}; {advice}")
    return samples


def as_rate(given: object) -> int:
    """A rate, Hz; raises ``InputError`` unless it is a whole number above 0."""
    rate = operator.index(given) if isinstance(given, Integral) else 0
    if rate < 1:
        raise InputError(f"the rate is {given!r}; give a whole number of Hz, such as 16000")
    return rate


def check_recording(given: object, name: str = "the recording") -> None:
    """Raise ``InputError`` unless something is a :class:`Recording`."""
    if not isinstance(given, Recording):
        raise InputError(f"{name} is of type {type(given).__name__}; give Audio(samples, rate) or read_audio(path)")


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

    Raises ``SettingsError`` where the two have so little in common that the filter would not fit in memory.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    if (new_rate // divisor) * (rate // divisor + 2 * _RESAMPLER_WIDTH) > _MAX_RESAMPLER_COEFFICIENTS:
        raise SettingsError(f"cannot resample {rate} to {new_rate} Hz; choose rates with a larger common divisor")
    import torch  # deferred: reading and checking files must not wait for it
    from torchaudio.functional import resample as polyphase

    window = {"rolloff": 0.9475937167399596, "beta": 14.769656459379492, "resampling_method": "sinc_interp_kaiser"}
    resampled = polyphase(torch.from_numpy(samples), rate, new_rate, lowpass_filter_width=_RESAMPLER_WIDTH, **window)
    return np.asarray(resampled.numpy(), dtype=np.float64)
