"""Metrics of what a restoration has put into gaps; over the whole recording, the samples that were known hide it."""
# ruff: noqa: ARG001  (every metric takes the rate, so that all can be called alike)

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from dapcli.metrics.waveform import MetricUndefined, Signal, comparable, decibels, is_silent
from dapcli.signal.gaps import Gaps, Interval


def gaps_snr_db(reference: Signal, estimate: Signal, rate: int, gaps: Gaps) -> float:
    """Signal-to-noise ratio in dB over the missing samples alone: ``10 log10(sum s^2 / sum (s - e)^2)``.

    The sums take in all gaps of all channels; silence in them has 0 dB.

    Raises:
        MetricUndefined: Nothing is missing, the reference is silent there, or the estimate equals it.
    """
    s, e = comparable(reference, estimate)
    return _snr_db(s, e, gaps, (0, s.shape[1]))


def gaps_snr_db_mean(reference: Signal, estimate: Signal, rate: int, gaps: Gaps) -> float:
    """Mean over the gaps of the signal-to-noise ratio in each, dB; gaps of several channels that overlap are one.

    Gaps in which the reference is silent, or which the estimate fills exactly, do not count.

    Raises:
        MetricUndefined: There are no others.
    """
    s, e = comparable(reference, estimate)
    values = []
    for stretch in gaps.merged():
        with suppress(MetricUndefined):
            values.append(_snr_db(s, e, gaps, stretch))
    if not values:
        raise MetricUndefined("the reference is silent, or equalled, in every gap")
    return float(np.mean(values))


def _snr_db(s: NDArray[np.float64], e: NDArray[np.float64], gaps: Gaps, stretch: Interval) -> float:
    """SNR in dB of the samples that are missing in a stretch."""
    start, stop = stretch
    missing = gaps.mask(start, stop)
    truth, filled = s[:, start:stop][missing], e[:, start:stop][missing]
    if not truth.size:
        raise MetricUndefined("nothing is missing")
    if is_silent(truth):
        raise MetricUndefined("the reference is silent in the gaps")
    return decibels(float(np.sum(truth**2)), float(np.sum((truth - filled) ** 2)))
