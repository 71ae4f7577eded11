"""Metrics that compare samples, magnitudes or envelopes, and the rules that all metrics share."""
# ruff: noqa: ARG001  (every metric takes the rate, so that all can be called alike)

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ParamSpec

import numpy as np
import scipy
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dapcli.errors import InputError
from dapcli.signal.gaps import Gaps, Interval

Signal = NDArray[np.floating[Any]]
#: Samples as float64: ``[C, N]``, or ``[N]`` of one channel.
Array = NDArray[np.float64]
Metric = Callable[[Signal, Signal, int], float]
#: The values by metric, and for each value that is None the reason by metric.
Scores = tuple[dict[str, float | None], dict[str, str]]
_P = ParamSpec("_P")

_LOUDEST = float(np.finfo(np.float32).max)
#: The smallest normal 32-bit float: a signal that does not reach it is silent.
SILENCE = float(np.finfo(np.float32).tiny)
# The part of an energy that rounding in float64 can account for: -250 dB.
_ROUNDING = 1e-25


class MetricUndefined(ValueError):  # noqa: N818 (a result of scoring, not a failure of the program)
    """A metric has no value for this input; the message is the reason."""


def score_with(metrics: Mapping[str, Callable[_P, float]], *args: _P.args, **kwargs: _P.kwargs) -> Scores:
    """Compute some metrics, all of the same arguments.

    Raises:
        InputError: Two signals differ in shape, or are not ``[C, N]``.
    """
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            value = metric(*args, **kwargs)
        except MetricUndefined as error:
            values[name], notes[name] = None, str(error)
            continue
        if math.isfinite(value):
            values[name] = value
        else:
            values[name], notes[name] = None, f"came out as {value}"
    return values, notes


def comparable(reference: Signal, estimate: Signal, *, silence: bool = False) -> tuple[Array, Array]:
    """Both signals ``[C, N]`` as float64, once it is sure that they can be compared.

    Samples within the range of 32-bit floats keep every energy and ratio of energies within that of float64. Only
    with ``silence`` may the reference be silent, for most metrics are relative to it.

    Raises:
        InputError: The two differ in shape, or are not ``[C, N]``.
        MetricUndefined: There are no samples, or samples that are NaN, infinite or beyond 32-bit floats, or the
            reference is silent.
    """
    if reference.ndim != 2 or reference.shape != estimate.shape:
        raise InputError(
            f"the reference is {list(reference.shape)} and the estimate {list(estimate.shape)}; "
            "both need the same channels and samples [C, N]"
        )
    if reference.size == 0:
        raise MetricUndefined("there are no samples")
    for name, signal in (("reference", reference), ("estimate", estimate)):
        if not np.abs(signal).max() <= _LOUDEST:
            raise MetricUndefined(f"the {name} has samples that are NaN, infinite or beyond 32-bit floats")
    s, e = reference.astype(np.float64), estimate.astype(np.float64)
    if not silence and is_silent(s):
        raise MetricUndefined("the reference is silent")
    return s, e


def is_silent(signal: Array) -> bool:
    """Whether no sample reaches the smallest normal 32-bit float."""
    return bool(np.abs(signal).max() < SILENCE)


def frames(samples: Array, rate: int) -> tuple[Array, Array]:
    """Whole frames ``[T, L]`` of ``[N]``: 30 ms, 75 % overlapped; and a Hann window ``[L]`` without its end zeros.

    Raises:
        MetricUndefined: There are fewer samples than one frame has.
    """
    length = round(0.03 * rate)
    if len(samples) < length:
        raise MetricUndefined("shorter than one frame of 30 ms")
    return sliding_window_view(samples, length)[:: length // 4], np.hanning(length + 2)[1:-1]


def _decibels(signal: float, error: float, exact: str = "the estimate equals the reference") -> float:
    """Ratio of the energy of a signal, above 0, to that of an error, in dB; undefined, as ``exact``, without error."""
    if error == 0.0:
        raise MetricUndefined(exact)
    return float(10.0 * (np.log10(signal) - np.log10(error)))


def snr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Signal-to-noise ratio in dB: ``10 log10(sum s^2 / sum (s - e)^2)`` over all channels and samples.

    The tables of Narayanaswamy et al., "On the Design of Deep Priors for Unsupervised Audio Restoration" (2021),
    call this ratio PSNR.

    Raises:
        MetricUndefined: The reference is silent, or the estimate equals it.
    """
    s, e = comparable(reference, estimate)
    return _decibels(np.sum(s**2), np.sum((s - e) ** 2))


def psnr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Peak signal-to-noise ratio in dB: ``10 log10(peak^2 / mean (s - e)^2)`` over all channels and samples.

    The peak is the largest magnitude in the reference, ``max |s|``, and not full scale: a quiet recording is not
    rewarded for being quiet.

    Raises:
        MetricUndefined: The reference is silent, or the estimate equals it.
    """
    s, e = comparable(reference, estimate)
    return _decibels(np.abs(s).max() ** 2, float(np.mean((s - e) ** 2)))


def si_sdr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB: ``10 log10(|a s|^2 / |a s - e|^2)``.

    The gain ``a = <e, s> / |s|^2`` serves all channels, and no mean is removed. Le Roux, Wisdom, Erdogan and Hershey,
    "SDR - half-baked or well done?" (ICASSP 2019).

    Raises:
        MetricUndefined: The reference or the estimate is silent, the estimate equals the reference up to a gain,
            or it is orthogonal to the reference.
    """
    s, e = comparable(reference, estimate)
    if is_silent(e):
        raise MetricUndefined("the estimate is silent")
    target = np.sum(e * s) / np.sum(s**2) * s
    energy, signal, error = np.sum(e**2), np.sum(target**2), np.sum((target - e) ** 2)
    if error <= _ROUNDING * energy:
        raise MetricUndefined("the estimate equals the reference up to a gain")
    if signal <= _ROUNDING * energy:
        raise MetricUndefined("the estimate is orthogonal to the reference")
    return _decibels(signal, error)


def segmental_snr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Mean over short frames of the SNR in dB, each frame limited to -10 to 35 dB.

    Frames are 30 ms under a Hann window, 75 % overlapped, and take in all channels; samples past the last whole
    frame are left out. A frame without error counts as 35 dB, so an exact estimate scores 35. A frame in which the
    reference alone is silent counts as -10 dB; one in which both are has no ratio and does not count. Hansen and
    Pellom, "An effective quality evaluation protocol for speech enhancement algorithms" (ICSLP 1998), with the
    frames of Hu and Loizou, "Evaluation of objective quality measures for speech enhancement" (2008).

    Raises:
        MetricUndefined: The reference is silent, the signals are shorter than one frame, or they are silent in
            every frame.
    """
    s, e = comparable(reference, estimate)
    (signal_frames, window), (error_frames, _) = (frames(np.sum(x**2, axis=0), rate) for x in (s, s - e))
    signal, error = signal_frames @ window**2, error_frames @ window**2
    counted = (signal > 0.0) | (error > 0.0)
    if not counted.any():
        raise MetricUndefined("silent in every frame of 30 ms")
    with np.errstate(divide="ignore"):  # an infinite ratio is limited like any other
        ratios = 10.0 * (np.log10(signal[counted]) - np.log10(error[counted]))
    return float(np.mean(np.clip(ratios, -10.0, 35.0)))


def spectral_snr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Signal-to-noise ratio of STFT magnitudes in dB: ``10 log10(sum |S|^2 / sum (|S| - |E|)^2)``.

    The window is a Hann of 256 samples with hop 128 at any rate, zeros beyond the ends; the sums take in all
    channels. Narayanaswamy et al., "On the Design of Deep Priors for Unsupervised Audio Restoration" (2021).

    Raises:
        MetricUndefined: The reference is silent, the signals are shorter than one window, or all magnitudes are
            equal.
    """
    s, e = comparable(reference, estimate)
    if s.shape[1] < 256:
        raise MetricUndefined("shorter than one window of 256 samples")
    S, E = (np.abs(scipy.signal.stft(x, window="hann", nperseg=256, noverlap=128)[2]) for x in (s, e))
    exact = "the magnitudes of the estimate equal those of the reference"
    return _decibels(np.sum(S**2), np.sum((S - E) ** 2), exact)


def envelope_distance(reference: Signal, estimate: Signal, rate: int) -> float:
    """Root mean square difference of the envelopes, in units of the samples: 0 is best.

    ``sqrt(mean (|hilbert(s)| - |hilbert(e)|)^2)`` over all channels and samples. Morgado et al., "Self-supervised
    generation of spatial audio for 360 video" (NeurIPS 2018).

    Raises:
        MetricUndefined: There is nothing to compare (see ``comparable``).
    """
    s, e = comparable(reference, estimate, silence=True)
    return float(np.sqrt(np.mean((np.abs(scipy.signal.hilbert(s)) - np.abs(scipy.signal.hilbert(e))) ** 2)))


# In gaps: over the whole recording, the samples that were known hide what a restoration has put there.


def gaps_snr_db(reference: Signal, estimate: Signal, rate: int, gaps: Gaps) -> float:
    """Signal-to-noise ratio in dB over the missing samples alone: ``10 log10(sum s^2 / sum (s - e)^2)``.

    The sums take in all gaps of all channels; silence in them has 0 dB.

    Raises:
        MetricUndefined: Nothing is missing, the reference is silent there, or the estimate equals it.
    """
    s, e = comparable(reference, estimate, silence=True)
    return _snr_db_of_missing(s, e, gaps, (0, s.shape[1]))


def gaps_snr_db_mean(reference: Signal, estimate: Signal, rate: int, gaps: Gaps) -> float:
    """Mean over the gaps of the signal-to-noise ratio in each, dB; gaps of several channels that overlap are one.

    Gaps in which the reference is silent, or which the estimate fills exactly, do not count.

    Raises:
        MetricUndefined: There are no others.
    """
    s, e = comparable(reference, estimate, silence=True)
    values = []
    for stretch in gaps.merged():
        with suppress(MetricUndefined):
            values.append(_snr_db_of_missing(s, e, gaps, stretch))
    if not values:
        raise MetricUndefined("the reference is silent, or equalled, in every gap")
    return float(np.mean(values))


def _snr_db_of_missing(s: Array, e: Array, gaps: Gaps, stretch: Interval) -> float:
    """SNR in dB of the samples that are missing in a stretch."""
    start, stop = stretch
    missing = gaps.mask(start, stop)
    truth, filled = s[:, start:stop][missing], e[:, start:stop][missing]
    if not truth.size:
        raise MetricUndefined("nothing is missing")
    if is_silent(truth):
        raise MetricUndefined("the reference is silent in the gaps")
    return _decibels(np.sum(truth**2), np.sum((truth - filled) ** 2))
