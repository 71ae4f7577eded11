"""Metrics that compare samples, and what all metrics ask of their input."""
# ruff: noqa: ARG001  (every metric takes the rate, so that all can be called alike)

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dapcli.errors import InputError

Signal = NDArray[np.floating[Any]]

_FLOAT32 = np.finfo(np.float32)
# The part of an energy that rounding in float64 can account for: -250 dB.
_ROUNDING = 1e-25

_FRAME_S = 0.03
_FRAME_OVERLAP = 4
_FRAME_MIN_DB, _FRAME_MAX_DB = -10.0, 35.0


class MetricUndefined(ValueError):  # noqa: N818 (a result of scoring, not a failure of the program)
    """A metric has no value for this input; the message is the reason."""


def comparable(reference: Signal, estimate: Signal) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both signals ``[C, N]`` as float64, once it is sure that they can be compared.

    Samples within the range of 32-bit floats keep every energy and ratio of energies within that of float64.

    Raises:
        InputError: The two differ in shape, or are not ``[C, N]``.
        MetricUndefined: There are no samples, or samples that are NaN, infinite or beyond 32-bit floats.
    """
    if reference.ndim != 2 or reference.shape != estimate.shape:
        raise InputError(
            f"the reference is {list(reference.shape)} and the estimate {list(estimate.shape)}; "
            "both need the same channels and samples [C, N]"
        )
    if reference.size == 0:
        raise MetricUndefined("there are no samples")
    for name, signal in (("reference", reference), ("estimate", estimate)):
        if not np.abs(signal).max() <= _FLOAT32.max:
            raise MetricUndefined(f"the {name} has samples that are NaN, infinite or beyond 32-bit floats")
    return reference.astype(np.float64), estimate.astype(np.float64)


def is_silent(signal: NDArray[np.float64]) -> bool:
    """Whether no sample reaches the smallest normal 32-bit float."""
    return bool(np.abs(signal).max() < _FLOAT32.tiny)


def require_sound(reference: NDArray[np.float64]) -> None:
    """Raise ``MetricUndefined`` if the reference is silent: nothing is relative to it."""
    if is_silent(reference):
        raise MetricUndefined("the reference is silent")


def decibels(signal: float, error: float) -> float:
    """Ratio of the energy of a signal, above 0, to that of an error, in dB.

    Raises:
        MetricUndefined: The error is 0, which makes the ratio infinite.
    """
    if error == 0.0:
        raise MetricUndefined("the estimate equals the reference")
    return float(10.0 * (np.log10(signal) - np.log10(error)))


def snr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Signal-to-noise ratio in dB: ``10 log10(sum s^2 / sum (s - e)^2)`` over all channels and samples.

    The tables of Narayanaswamy et al., "On the Design of Deep Priors for Unsupervised Audio Restoration" (2021),
    call this ratio PSNR.

    Raises:
        MetricUndefined: The reference is silent, or the estimate equals it.
    """
    s, e = comparable(reference, estimate)
    require_sound(s)
    return decibels(np.sum(s**2), np.sum((s - e) ** 2))


def psnr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Peak signal-to-noise ratio in dB: ``10 log10(peak^2 / mean (s - e)^2)`` over all channels and samples.

    The peak is the largest magnitude in the reference, ``max |s|``, and not full scale: a quiet recording is not
    rewarded for being quiet.

    Raises:
        MetricUndefined: The reference is silent, or the estimate equals it.
    """
    s, e = comparable(reference, estimate)
    require_sound(s)
    return decibels(float(np.abs(s).max()) ** 2, float(np.mean((s - e) ** 2)))


def si_sdr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB: ``10 log10(|a s|^2 / |a s - e|^2)``.

    The gain ``a = <e, s> / |s|^2`` serves all channels, and no mean is removed. Le Roux, Wisdom, Erdogan and Hershey,
    "SDR - half-baked or well done?" (ICASSP 2019).

    Raises:
        MetricUndefined: The reference or the estimate is silent, the estimate equals the reference up to a gain,
            or it is orthogonal to the reference.
    """
    s, e = comparable(reference, estimate)
    require_sound(s)
    if is_silent(e):
        raise MetricUndefined("the estimate is silent")
    target = np.sum(e * s) / np.sum(s**2) * s
    energy, signal, error = np.sum(e**2), np.sum(target**2), np.sum((target - e) ** 2)
    if error <= _ROUNDING * energy:
        raise MetricUndefined("the estimate equals the reference up to a gain")
    if signal <= _ROUNDING * energy:
        raise MetricUndefined("the estimate is orthogonal to the reference")
    return decibels(signal, error)


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
    require_sound(s)
    length = round(_FRAME_S * rate)
    if s.shape[1] < length:
        raise MetricUndefined("shorter than one frame of 30 ms")
    # The window without its zeros at both ends, squared because it weighs energies.
    weights = np.hanning(length + 2)[1:-1] ** 2
    signal, error = (
        sliding_window_view(np.sum(x**2, axis=0), length)[:: length // _FRAME_OVERLAP] @ weights for x in (s, s - e)
    )
    counted = (signal > 0.0) | (error > 0.0)
    if not counted.any():
        raise MetricUndefined("silent in every frame of 30 ms")
    with np.errstate(divide="ignore"):  # an infinite ratio is limited like any other
        ratios = 10.0 * (np.log10(signal[counted]) - np.log10(error[counted]))
    return float(np.mean(np.clip(ratios, _FRAME_MIN_DB, _FRAME_MAX_DB)))
