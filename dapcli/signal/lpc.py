"""Missing samples out of the samples around them, by linear prediction.

The sound is taken for an autoregressive process a whose innovation e = a * x has a variance v that changes in time.
Least squares weighted by 1 / v gives the coefficients from what is known, and then, with the coefficients fixed, the
missing samples: their conditional mean (Janssen, Veldhuis & Vries, "Adaptive interpolation of discrete-time signals
that can be modeled as autoregressive processes", 1986, there with one variance and with coefficients found from the
filled signal). A variance of its own for every moment keeps an attack, which no past predicts, from spoiling what the
decaying sounds around it tell.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import LinAlgError, cho_solve_banded, cholesky_banded, solve, solve_banded
from scipy.ndimage import label, uniform_filter1d
from scipy.signal import fftconvolve

Signal = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Ridge on the coefficients relative to the signal's power: without it a pure tone has many solutions.
_RIDGE = 1e-4
# For the rare matrices that rounding leaves indefinite all the same.
_FIRM_RIDGE = 1e-2
# Rounds of estimating the coefficients, each with the variances that the last one left.
_ROUNDS = 3
# Innovations that share a variance, s: for the coefficients, and for the missing samples.
_COEFFICIENT_SPAN = 0.004
_FILL_SPAN = 0.008
# Lags of the equations' matrix that are computed together: a matter of memory.
_LAGS_AT_ONCE = 64
# Weight of a missing sample's size beside the innovations.
_LOOSENESS = 1e-6
# Variances below this part of the median are noise of the estimate.
_LEAST_VARIANCE = 1e-3
# Digital silence has no more than rounding errors; over it, weights in single precision would overflow.
_ROUNDING = 1e-12


def predict(samples: Signal, missing: Flags, order: int, rate: int) -> Signal:
    """The samples ``[N]`` with the missing ones, at which they may be anything, replaced by what the others predict.

    ``order`` is that of the prediction, in samples; ``rate`` is in Hz. Where too little is known for a prediction of
    this order, the order is lowered; where nothing is known, the missing samples are zero.
    """
    return _estimate(samples, missing, order, rate, None)[0]


def draw_deviation(samples: Signal, missing: Flags, order: int, rate: int, rng: np.random.Generator) -> Signal:
    """A likely deviation of the missing samples ``[N]`` from the predicted ones; zero at the others.

    Prediction and deviation together are a draw from the distribution that the process has, given the known samples.
    The prediction alone, which is its mean, fades out where nothing tells the phase. Arguments as for :func:`predict`.
    """
    return _estimate(samples, missing, order, rate, rng)[1]


def _estimate(
    samples: Signal, missing: Flags, order: int, rate: int, rng: np.random.Generator | None
) -> tuple[Signal, Signal]:
    """The prediction and, with ``rng``, a deviation from it, both ``[N]``."""
    filled = np.where(missing, 0.0, samples)
    # The root mean square as the unit makes all that follows the same for any level.
    unit = float(np.sqrt(np.square(filled).sum() / max(np.count_nonzero(~missing), 1)))
    # Three equations for every coefficient: a third of the longest stretch of known samples.
    order = min(order, int(np.bincount(label(~missing)[0])[1:].max(initial=0)) // 3)
    if unit == 0 or order < 1 or not missing.any():
        return filled, np.zeros(len(samples))
    signal = filled / unit
    coefficient_span, span = (max(round(seconds * rate), 1) for seconds in (_COEFFICIENT_SPAN, _FILL_SPAN))
    coefficients = _coefficients(signal, missing, order, coefficient_span)
    mean, deviation = _interpolate(signal, missing, coefficients, span, rng)
    # Of the gaps, numbered in order, those that begin so early.
    gaps = label(missing)[0]
    early = missing & (gaps <= gaps[:order].max())
    if early.any():
        # With too little of a past, what runs backwards out of an innovation forwards in time grows without bounds.
        # The coefficients are those of both directions.
        backwards = _interpolate(signal[::-1], missing[::-1], coefficients, span, rng)
        for one, other in zip((mean, deviation), backwards, strict=True):
            one[early] = other[::-1][early]
    filled[missing] = unit * mean[missing]
    return filled, unit * deviation


def _interpolate(
    samples: Signal, missing: Flags, coefficients: Signal, span: int, rng: np.random.Generator | None
) -> tuple[Signal, Signal]:
    """The prediction and a deviation by given coefficients; ``span`` is that of a variance in samples."""
    filled, _ = _fill(samples, missing, coefficients, np.ones(len(samples)))
    variance = _innovation_variance(filled, missing, coefficients, span)
    filled, factor = _fill(filled, missing, coefficients, variance)
    deviation = np.zeros(len(samples))
    if rng is not None:
        white = rng.standard_normal(factor.shape[1])
        deviation[missing] = solve_banded((0, len(factor) - 1), factor, white)
    return filled, deviation


def _coefficients(samples: Signal, missing: Flags, order: int, span: int) -> Signal:
    """The coefficients ``[order + 1]``, the first of which is 1; ``span`` is that of a variance in samples."""
    count = np.concatenate([[0], np.cumsum(missing)])
    # The windows of order + 1 samples of which none is missing.
    known = np.flatnonzero(count[order + 1 :] == count[: -order - 1])
    windows = sliding_window_view(samples.astype(np.float32), order + 1)[known]
    weights = np.ones(len(windows), dtype=np.float32)
    for _ in range(_ROUNDS):
        coefficients = _least_squares(windows, weights)
        # Both predictions of a window, from its past and from its future, that neighbours in time share.
        error = (windows @ coefficients[::-1].astype(np.float32)) ** 2
        error += (windows @ coefficients.astype(np.float32)) ** 2
        weights = (1 / _floored(_smooth(error.astype(np.float64), span))).astype(np.float32)
    return coefficients


def _least_squares(windows: NDArray[np.float32], weights: NDArray[np.float32]) -> Signal:
    """The coefficients with the least squared errors of prediction in windows, forwards and backwards in time."""
    gram = (windows.T @ (weights[:, None] * windows)).astype(np.float64)
    gram += gram[::-1, ::-1]
    p = windows.shape[1] - 1
    power = np.trace(gram[:p, :p]) / p
    for ridge in (_RIDGE, _FIRM_RIDGE):
        try:
            ahead = solve(gram[:p, :p] + ridge * power * np.eye(p), gram[:p, p], assume_a="pos")
        except LinAlgError:
            continue
        return np.concatenate([[1.0], -ahead[::-1]])
    return np.concatenate([[1.0], np.zeros(p)])


def _fill(samples: Signal, missing: Flags, coefficients: Signal, variance: Signal) -> tuple[Signal, Signal]:
    """The samples, of which the missing ones make the sum of squared innovations, each over its variance, least.

    The second value is the factor U of the equations' matrix U'U, which is a band, in LAPACK's storage of one.
    """
    order = len(coefficients) - 1
    index = np.flatnonzero(missing)
    first, last = index[0], index[-1]
    known = np.where(missing, 0.0, samples)
    # Innovations near either end would need samples that are not there: they do not count. Those that no missing sample
    # is in would only bring their rounding errors, large ones in silence.
    count = np.cumsum(missing)
    concerned = count > np.concatenate([np.zeros(order + 1, dtype=count.dtype), count])[: len(count)]
    weight = np.concatenate([np.zeros(order), (concerned / variance)[order:], np.zeros(order)])
    innovation = weight[: len(known)] * fftconvolve(known, coefficients)[: len(known)]
    right = -fftconvolve(np.append(innovation, np.zeros(order)), coefficients[::-1], "valid")[index]
    # The equations' matrix is a band: missing samples further apart than the order do not meet in an innovation.
    rank = np.cumsum(missing) - 1
    width = int((rank[np.minimum(index + order, last)] - rank[index]).max())
    band = np.zeros((width + 1, len(index)))
    weight = weight[first : last + 1 + order]
    lags = np.arange(min(order, last - first) + 1)
    size = next_fast_len(len(weight), real=True)
    spectrum = rfft(weight, size)
    for some in np.array_split(lags, len(lags) // _LAGS_AT_ONCE + 1):
        products = np.zeros((len(some), order + 1))
        for row, lag in zip(products, some, strict=True):
            row[: order + 1 - lag] = coefficients[: order + 1 - lag] * coefficients[lag:]
        correlations = irfft(spectrum * rfft(products, size).conj(), size)
        for lag, correlation in zip(some, correlations, strict=True):
            later = index[(index >= lag) & missing[index - lag]]
            band[width - (rank[later] - rank[later - lag]), rank[later]] = correlation[later - first]
    # Samples that hardly any innovation depends on, near the ends, stay within the signal's power.
    power = np.mean(known[~missing] ** 2)
    band[width] += _LOOSENESS / power + 1e-9 * band[width] + 1e-13 * band[width].max()
    factor = cholesky_banded(band)
    known[index] = cho_solve_banded((factor, False), right)
    return known, factor


def _innovation_variance(filled: Signal, missing: Flags, coefficients: Signal, span: int) -> Signal:
    """Variance ``[N]`` of the innovation, from one side of what is missing to the other in the logarithm.

    Where samples are filled in, the innovation is less than it was.
    """
    innovation = fftconvolve(filled, coefficients)[: len(filled)]
    order = len(coefficients) - 1
    innovation[:order] = 0.0
    variance = _floored(_smooth(innovation**2, span))
    reliable = np.flatnonzero(_smooth(missing.astype(float), span + span // 2) < 0.5 / (2 * span))
    reliable = reliable[reliable >= order + span // 2]
    if reliable.size == 0:
        return np.ones(len(filled))
    return np.asarray(np.exp(np.interp(np.arange(len(filled)), reliable, np.log(variance[reliable]))))


def _smooth(values: Signal, span: int) -> Signal:
    """Mean over ``span`` values around each."""
    # A running sum that has seen an attack may fall below zero by its rounding error.
    return np.asarray(np.maximum(uniform_filter1d(values, span, mode="nearest"), 0.0))


def _floored(variance: Signal) -> Signal:
    present = variance[variance > 0]
    return variance + (_LEAST_VARIANCE * np.median(present) + _ROUNDING if present.size else 1.0)
