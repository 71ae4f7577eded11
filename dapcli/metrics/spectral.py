"""Metrics that compare magnitudes or envelopes and so forgive differences of phase."""
# ruff: noqa: ARG001  (every metric takes the rate, so that all can be called alike)

from __future__ import annotations

import numpy as np
from scipy.signal import hilbert, stft

from dapcli.metrics.waveform import MetricUndefined, Signal, comparable, decibels, require_sound

_WINDOW, _HOP = 256, 128


def spectral_snr_db(reference: Signal, estimate: Signal, rate: int) -> float:
    """Signal-to-noise ratio of STFT magnitudes in dB: ``10 log10(sum |S|^2 / sum (|S| - |E|)^2)``.

    The window is a Hann of 256 samples with hop 128 at any rate, zeros beyond the ends; the sums take in all
    channels. Narayanaswamy et al., "On the Design of Deep Priors for Unsupervised Audio Restoration" (2021).

    Raises:
        MetricUndefined: The reference is silent, the signals are shorter than one window, or all magnitudes are
            equal.
    """
    s, e = comparable(reference, estimate)
    require_sound(s)
    if s.shape[1] < _WINDOW:
        raise MetricUndefined(f"shorter than one window of {_WINDOW} samples")
    magnitude_s, magnitude_e = (
        np.abs(stft(x, window="hann", nperseg=_WINDOW, noverlap=_WINDOW - _HOP)[2]) for x in (s, e)
    )
    error = np.sum((magnitude_s - magnitude_e) ** 2)
    if error == 0.0:
        raise MetricUndefined("the magnitudes of the estimate equal those of the reference")
    return decibels(np.sum(magnitude_s**2), error)


def envelope_distance(reference: Signal, estimate: Signal, rate: int) -> float:
    """Root mean square difference of the envelopes, in units of the samples: 0 is best.

    ``sqrt(mean (|hilbert(s)| - |hilbert(e)|)^2)`` over all channels and samples. Morgado et al., "Self-supervised
    generation of spatial audio for 360 video" (NeurIPS 2018).

    Raises:
        MetricUndefined: There is nothing to compare (see ``comparable``).
    """
    s, e = comparable(reference, estimate)
    return float(np.sqrt(np.mean((np.abs(hilbert(s)) - np.abs(hilbert(e))) ** 2)))
