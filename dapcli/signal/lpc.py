"""Missing samples out of the samples around them, by linear prediction.

The sound is taken for an autoregressive process a whose innovation e = a * x has a variance v that changes in time.
Least squares weighted by 1 / v gives the coefficients from what is known, and then, with the coefficients fixed, the
missing samples: their conditional mean (Janssen, Veldhuis & Vries, "Adaptive interpolation of discrete-time signals
that can be modeled as autoregressive processes", 1986, there with one variance and with coefficients found from the
filled signal). A variance of its own for every moment keeps an attack, which no past predicts, from spoiling what the
decaying sounds around it tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import solve_toeplitz, solveh_banded
from scipy.ndimage import label, uniform_filter1d
from scipy.signal import fftconvolve

Signal = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]
Operator: TypeAlias = Callable[[Signal], Signal]

# Ridge on the coefficients relative to the signal's power: without it a pure tone has many solutions.
_RIDGE = 1e-4
# Rounds of estimating the coefficients, each with the variances that the last one left.
_ROUNDS = 3
# Squared errors of prediction, and innovations where samples are missing, that may exceed the least by such a part, and
# the most steps towards them.
_EXCESS = 1e-6
_FILL_EXCESS = 1e-14
_MOST_STEPS = 100
# Innovations that share a variance, s: for the coefficients, and for the missing samples.
_COEFFICIENT_SPAN = 0.004
_FILL_SPAN = 0.008
# Operations with a band in the time of one with a Toeplitz matrix, as measured.
_BAND_SPEED = 10
# Lags of the equations' matrix that are computed together: a matter of memory.
_LAGS_AT_ONCE = 64
# Weight of a missing sample's size beside the innovations.
_LOOSENESS = 1e-6
# Part of the diagonal that is added to it.
_RELATIVE_LOAD = 1e-9
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
    filled = _fill(samples, missing, coefficients, np.ones(len(samples)))
    variance = _innovation_variance(filled, missing, coefficients, span)
    filled = _fill(filled, missing, coefficients, variance)
    drawn = filled if rng is None else _fill(filled, missing, coefficients, variance, rng)
    return filled, drawn - filled


def _coefficients(samples: Signal, missing: Flags, order: int, span: int) -> Signal:
    """The coefficients ``[order + 1]``, the first of which is 1, from samples that are zero where they are missing.

    ``span`` is that of a variance in samples.
    """
    length = len(samples)
    count = np.concatenate([[0], np.cumsum(missing)])
    # The windows of order + 1 samples of which none is missing.
    known = count[order + 1 :] == count[: -order - 1]
    # A matrix of all windows would be large. Products with it are convolutions.
    size, padded = (next_fast_len(least, real=True) for least in (length, length + order))
    spectrum = rfft(samples, size)
    weights = known.astype(np.float64)

    def errors(coefficients: Signal) -> Signal:
        """Errors ``[2, N - order]`` of the predictions of a window from its past and from its future."""
        both = np.stack([coefficients, coefficients[::-1]])
        return np.asarray(irfft(spectrum * rfft(both, size), size)[:, order:length])

    def gram(coefficients: Signal) -> Signal:
        """Half the gradient of the sum of squared errors, each with its weight."""
        weighted = rfft(weights * errors(coefficients), size)
        past, future = irfft(spectrum * weighted.conj(), size)[:, : order + 1]
        return np.asarray(past[::-1] + future)

    earlier = np.zeros(order)
    for _ in range(_ROUNDS):
        # Windows in which all samples had the mean of the weights would make the matrix a Toeplitz one.
        shared = np.maximum(fftconvolve(weights, np.full(order + 1, 1 / (order + 1))), 0.0)
        weighted = np.sqrt(shared) * samples
        toeplitz = 2 * irfft(np.abs(rfft(weighted, padded)) ** 2, padded)[:order]
        ridge = _RIDGE * toeplitz[0]
        if ridge == 0:
            break
        toeplitz[0] += ridge
        total, right = np.split(gram(np.append(1.0, np.zeros(order))), [1])

        def matrix(values: Signal, ridge: float = ridge) -> Signal:
            return gram(np.append(0.0, values))[1:] + ridge * values

        earlier = _least_squares(matrix, _toeplitz_inverse(toeplitz), -right, total.item(), earlier, _EXCESS)
        error = np.square(errors(np.append(1.0, earlier))).sum(axis=0)
        # Both errors of a window have a variance, that neighbours in time share.
        weights[known] = 1 / _floored(_smooth(error[known], span))
    return np.append(1.0, earlier)


def _least_squares(
    matrix: Operator, near: Operator, right: Signal, total: float, start: Signal, least_excess: float
) -> Signal:
    """The values for which ``values @ matrix(values) - 2 * values @ right + total``, a sum of squares, is least.

    It is so but for that part. The method is that of conjugate gradients, from ``start`` on, with an operator that
    is ``near`` to the inverse of the matrix.
    """
    values, residual = start, right - matrix(start)
    step, before = np.zeros_like(start), np.inf
    for _ in range(_MOST_STEPS):
        likely = near(residual)
        excess = float(residual @ likely)
        if not excess > least_excess * max(float(total - values @ (right + residual)), 0.0):
            break
        step = likely + excess / before * step
        before = excess
        product = matrix(step)
        length = excess / (step @ product)
        values, residual = values + length * step, residual - length * product
    return values


def _toeplitz_inverse(column: Signal) -> Operator:
    """The inverse of the symmetric Toeplitz matrix with a first column ``[n]``, as an operator.

    Gohberg & Semencul (1972): it is the difference of two products of triangular Toeplitz matrices.
    """
    n = len(column)
    size = next_fast_len(2 * n, real=True)
    first = solve_toeplitz(column, np.append(1.0, np.zeros(n - 1)))
    factors = rfft([first, np.append(0.0, first[:0:-1])], size) / np.sqrt(first[0])

    def apply(values: Signal) -> Signal:
        upper = irfft(factors * rfft(values[::-1], size), size)[:, n - 1 :: -1]
        one, other = irfft(factors * rfft(upper, size), size)[:, :n]
        return np.asarray(one - other)

    return apply


def _fill(
    samples: Signal,
    missing: Flags,
    coefficients: Signal,
    variance: Signal,
    rng: np.random.Generator | None = None,
) -> Signal:
    """The samples, of which the missing ones make the sum of squared innovations, each over its variance, least.

    With ``rng`` they are a draw from the distribution of which that is the mean.
    """
    order = len(coefficients) - 1
    index = np.flatnonzero(missing)
    filled = np.where(missing, 0.0, samples)
    # Samples that hardly any innovation depends on, near the ends, stay within the signal's power.
    loose = _LOOSENESS / np.mean(filled[~missing] ** 2)
    # Innovations near either end would need samples that are not there: they do not count. Those that no missing sample
    # is in would only bring their rounding errors, large ones in silence.
    count = np.cumsum(missing)
    concerned = count > np.concatenate([np.zeros(order + 1, dtype=count.dtype), count])[: len(count)]
    weight = np.concatenate([np.zeros(order), (concerned / variance)[order:], np.zeros(order)])
    innovation = np.append(fftconvolve(filled, coefficients)[: len(filled)], np.zeros(order))
    total = weight * innovation**2
    known = weight * innovation
    if rng is not None:
        known += np.sqrt(weight) * rng.standard_normal(len(weight))
    right = -fftconvolve(known, coefficients[::-1], "valid")
    # Missing samples further apart than the order do not meet in an innovation.
    for places in np.split(index, np.flatnonzero(np.diff(index) > order) + 1):
        first, last = places[0], places[-1]
        inside = slice(first, last + 1 + order)
        # A band takes n * order**2 operations, a Toeplitz matrix n**2, but slower ones.
        if last - first + 1 == len(places) and _BAND_SPEED * len(places) < order**2:
            filled[places] = _fill_stretch(coefficients, weight[inside], right[places], total[inside].sum(), loose)
        else:
            filled[places] = solveh_banded(_band(places, coefficients, weight[inside], loose), right[places])
    return filled


def _fill_stretch(coefficients: Signal, weight: Signal, right: Signal, total: float, loose: float) -> Signal:
    """Missing samples ``[n]`` that follow each other; ``weight`` is that of the innovations that they are in.

    Would these all have the same, the equations' matrix were a Toeplitz one.
    """
    n = len(right)
    size = next_fast_len(len(weight), real=True)
    spectrum = rfft(coefficients, size)
    diagonal = np.maximum(fftconvolve(weight, coefficients[::-1] ** 2, "valid"), 0.0)
    load = _loading(diagonal, coefficients, weight, loose)
    toeplitz = np.zeros(n)
    padded = next_fast_len(2 * len(coefficients), real=True)
    correlation = irfft(np.abs(rfft(coefficients, padded)) ** 2, padded)[: min(n, len(coefficients))]
    toeplitz[: len(correlation)] = correlation
    toeplitz[0] *= 1 + _RELATIVE_LOAD
    inverse = _toeplitz_inverse(toeplitz)
    scale = np.sqrt((diagonal + load) / toeplitz[0])

    def matrix(values: Signal) -> Signal:
        innovation = irfft(spectrum * rfft(values, size), size)[: len(weight)]
        return np.asarray(irfft(spectrum.conj() * rfft(weight * innovation, size), size)[:n] + load * values)

    return _least_squares(
        matrix, lambda values: inverse(values / scale) / scale, right, total, np.zeros(n), _FILL_EXCESS
    )


def _band(places: Places, coefficients: Signal, weight: Signal, loose: float) -> Signal:
    """The matrix of the equations of missing samples at some places, in LAPACK's storage of a band.

    ``weight`` is that of the innovations that they are in.
    """
    order = len(coefficients) - 1
    first, last = places[0], places[-1]
    rank = np.full(last + 1 - first, -1)
    rank[places - first] = np.arange(len(places))
    width = int((np.searchsorted(places, places + order, "right") - 1 - np.arange(len(places))).max())
    band = np.zeros((width + 1, len(places)))
    lags = np.arange(min(order, last - first) + 1)
    size = next_fast_len(len(weight), real=True)
    spectrum = rfft(weight, size)
    for some in np.array_split(lags, len(lags) // _LAGS_AT_ONCE + 1):
        products = np.zeros((len(some), order + 1))
        for row, lag in zip(products, some, strict=True):
            row[: order + 1 - lag] = coefficients[: order + 1 - lag] * coefficients[lag:]
        correlations = irfft(spectrum * rfft(products, size).conj(), size)
        for lag, correlation in zip(some, correlations, strict=True):
            earlier, later = rank[: len(rank) - lag], rank[lag:]
            both = (earlier >= 0) & (later >= 0)
            band[width - (later - earlier)[both], later[both]] = correlation[lag : len(rank)][both]
    band[width] += _loading(band[width], coefficients, weight, loose)
    return band


def _loading(diagonal: Signal, coefficients: Signal, weight: Signal, loose: float) -> Signal:
    """What is added to the diagonal of the equations of missing samples to have them solved."""
    # Silence beside clicks has weights so far apart that the rounding of the transforms may exceed the rest.
    rounding = 64 * np.finfo(np.float64).eps * weight.max() * np.sum(coefficients**2)
    return np.asarray(loose + _RELATIVE_LOAD * diagonal + 1e-13 * diagonal.max() + rounding)


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
