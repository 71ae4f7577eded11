"""What gaps can be filled with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_toeplitz
from scipy.signal import fftconvolve

from dapcli.baselines.baseline import Array, Observed
from dapcli.errors import SettingsError
from dapcli.signal.missing import Missing

# Janssen's order, the sound on either side that he may learn from, and his rounds; the best of 64 to 1000, 1024 to
# 4096 and 1 to 5 at 16 kHz on piano.
_ORDER_S, _CONTEXT_S, _ROUNDS = 0.0375, 0.25, 3
# What is added to the power of the signal, and of the equations, relative to it.
_RIDGE, _FILL_RIDGE = 1e-9, 1e-10


def silence(observed: Observed) -> Array:
    """Silence in the gaps, whatever was there."""
    missing = _gaps_of(observed).gaps.mask(0, observed.samples.shape[1])
    return np.asarray(np.where(missing, 0.0, observed.samples))


def janssen(observed: Observed) -> Array:
    """Every gap as the linear prediction of its surroundings continues them.

    Coefficients by autocorrelation and the missing samples by least squares, in turns: Janssen, Veldhuis & Vries,
    "Adaptive interpolation of discrete-time signals that can be modeled as autoregressive processes" (IEEE TASSP
    1986, https://doi.org/10.1109/TASSP.1986.1164824). All gaps within reach of one another are unknown at once.
    """
    order, context = (round(seconds * observed.rate) for seconds in (_ORDER_S, _CONTEXT_S))
    gaps = _gaps_of(observed).gaps
    silent = silence(observed)
    filled = np.array(silent)
    for c, (channel, missing) in enumerate(zip(silent, gaps.mask(0, silent.shape[1]), strict=True)):
        for start, stop in gaps.channels[c]:
            around = slice(max(0, start - context), stop + context)
            piece = _fill(channel[around], missing[around], order)
            filled[c, start:stop] = piece[start - around.start : stop - around.start]
    return filled


def _fill(samples: Array, missing: NDArray[np.bool_], order: int) -> Array:
    """Samples ``[N]``, 0 where they are missing, with those predicted; as they are where too little is known."""
    signal = np.array(samples)
    index = np.flatnonzero(missing)
    order = min(order, (signal.size - index.size) // 2)
    if order < 1 or not samples.any():
        return signal
    for _ in range(_ROUNDS):
        correlation = fftconvolve(signal, signal[::-1])[signal.size - 1 :][: order + 1]
        correlation[0] *= 1 + _RIDGE
        coefficients = np.append(1.0, solve_toeplitz(correlation[:-1], -correlation[1:]))
        lags = np.zeros(signal.size)
        lags[: order + 1] = fftconvolve(coefficients, coefficients[::-1])[order:]
        right = fftconvolve(fftconvolve(samples, coefficients), coefficients[::-1])[order : order + signal.size]
        matrix = lags[np.abs(np.subtract.outer(index, index))] + _FILL_RIDGE * lags[0] * np.eye(index.size)
        try:
            signal[index] = cho_solve(cho_factor(matrix), -right[index])
        except LinAlgError:  # rounding has left the matrix indefinite: the round before is as good as it gets
            break
    return signal


def _gaps_of(observed: Observed) -> Missing:
    if not isinstance(observed.degradation, Missing):
        raise SettingsError("this baseline fills gaps, and needs to be told where they are")
    return observed.degradation
