"""Metrics that predict what listeners would say of speech; channels are scored one by one and averaged."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pystoi
from numpy.typing import NDArray
from pesq import PesqError, pesq
from scipy.signal import resample_poly

from dapcli.metrics.waveform import MetricUndefined, Signal, comparable, is_silent, require_sound

_PESQ_RATE = 16_000
_PESQ_MIN_S = 0.25
# The ITU's code has room for 50 utterances and writes past it without a check, which ends the process. An utterance
# and the pause before the next take at least 0.4 s, so that this length cannot hold 50.
_PESQ_MAX_S = 15.0

# STOI compares stretches of 30 frames of 128 samples at 10 kHz.
_STOI_MIN_S = 0.384

_Channel = NDArray[np.float64]


def mean_over_channels(metric: Callable[[_Channel, _Channel], float], reference: _Channel, estimate: _Channel) -> float:
    """Mean of a metric of single channels ``[N]`` over signals ``[C, N]``; undefined where it is for any channel."""
    total = 0.0
    try:
        for channel in range(len(reference)):
            total += metric(reference[channel], estimate[channel])
    except MetricUndefined as error:
        if len(reference) == 1:
            raise
        raise MetricUndefined(f"channel {channel + 1}: {error}") from error
    return total / len(reference)


def at_rate_of_pesq(
    reference: _Channel, estimate: _Channel, rate: int, rates: tuple[int, ...]
) -> tuple[_Channel, _Channel, int]:
    """Signals ``[C, N]`` and their rate in Hz, if it is one of ``rates``; resampled to 16 kHz and that otherwise."""
    if rate in rates:
        return reference, estimate, rate
    divisor = math.gcd(rate, _PESQ_RATE)
    s, e = (resample_poly(x, _PESQ_RATE // divisor, rate // divisor, axis=1) for x in (reference, estimate))
    return s, e, _PESQ_RATE


def _pesq_piece(reference: _Channel, estimate: _Channel, rate: int, mode: str) -> float | None:
    """PESQ of at most ``_PESQ_MAX_S`` seconds of one channel ``[N]``; None if the reference has no speech there."""
    if is_silent(reference):
        return None
    # By value, because the exceptions fail themselves on a result that is NaN.
    value = pesq(rate, reference, estimate, mode, on_error=PesqError.RETURN_VALUES)
    if value == PesqError.NO_UTTERANCES_DETECTED:
        return None
    if not value >= 0.0:
        raise MetricUndefined("PESQ finds no sound in the estimate" if math.isnan(value) else f"PESQ error {value}")
    return float(value)


def _pesq(reference: Signal, estimate: Signal, rate: int, mode: str, rates: tuple[int, ...]) -> float:
    s, e = comparable(reference, estimate)
    require_sound(s)
    s, e, rate = at_rate_of_pesq(s, e, rate, rates)
    if s.shape[1] < _PESQ_MIN_S * rate:
        raise MetricUndefined(f"shorter than the {_PESQ_MIN_S} s that PESQ needs")
    pieces = math.ceil(s.shape[1] / (_PESQ_MAX_S * rate))

    def channel_value(s: _Channel, e: _Channel) -> float:
        pairs = zip(np.array_split(s, pieces), np.array_split(e, pieces), strict=True)
        values = [value for pair in pairs if (value := _pesq_piece(*pair, rate, mode)) is not None]
        if not values:
            raise MetricUndefined("PESQ finds no speech in the reference")
        return float(np.mean(values))

    return mean_over_channels(channel_value, s, e)


def pesq_nb(reference: Signal, estimate: Signal, rate: int) -> float:
    """Narrow-band PESQ as MOS-LQO, 1.0 to 4.55: ITU-T P.862 (2001) with the mapping of P.862.1.

    Works at 8 and 16 kHz; other rates are resampled to 16 kHz. Recordings longer than 15 s are scored in equal
    pieces of at most 15 s and averaged; pieces without speech in the reference do not count.

    Raises:
        MetricUndefined: In some channel the reference has no speech, the estimate no sound, or both are shorter
            than 0.25 s.
    """
    return _pesq(reference, estimate, rate, "nb", (8_000, 16_000))


def pesq_wb(reference: Signal, estimate: Signal, rate: int) -> float:
    """Wide-band PESQ as MOS-LQO, 1.0 to 4.64: ITU-T P.862.2 (2007).

    Works at 16 kHz; other rates are resampled to it. Pieces and channels as in ``pesq_nb``.

    Raises:
        MetricUndefined: As in ``pesq_nb``.
    """
    return _pesq(reference, estimate, rate, "wb", (16_000,))


def stoi(reference: Signal, estimate: Signal, rate: int) -> float:
    """Short-time objective intelligibility, at most 1: Taal, Hendriks, Heusdens and Jensen (IEEE TASLP 2011).

    Any rate; the method itself resamples to 10 kHz.

    Raises:
        MetricUndefined: In some channel the reference is silent, or has less than about 0.4 s of sound within
            40 dB of its loudest frame.
    """
    s, e = comparable(reference, estimate)
    if s.shape[1] < _STOI_MIN_S * rate:
        raise MetricUndefined(f"shorter than the {_STOI_MIN_S} s that STOI compares")

    def channel_value(s: _Channel, e: _Channel) -> float:
        require_sound(s)
        # pystoi only warns when there is too little sound, and returns 1e-5, which would pass for a measurement.
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
            try:
                return float(pystoi.stoi(s, e, rate))
            except RuntimeWarning as warning:
                raise MetricUndefined(f"less than the {_STOI_MIN_S} s of sound that STOI compares") from warning

    return mean_over_channels(channel_value, s, e)
