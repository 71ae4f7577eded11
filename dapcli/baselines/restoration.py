"""Classical restorations of what has gaps, is clipped or quantized."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_toeplitz
from scipy.signal import fftconvolve

from dapcli.audio import Samples
from dapcli.baselines.denoising import wiener
from dapcli.signal.clipping import Clipping
from dapcli.signal.degradation import Bounded
from dapcli.signal.missing import Missing, fill_gaps
from dapcli.signal.quantization import Quantization
from dapcli.tasks.problem import Problem

# Janssen's order, the sound on either side that he may learn from, and his rounds; the best of 64 to 1000, 1024 to
# 4096 and 1 to 5 at 16 kHz on piano.
_ORDER_S, _CONTEXT_S, _ROUNDS = 0.0375, 0.25, 3
# What is added to the power of the signal, and of the equations, relative to it.
_RIDGE, _FILL_RIDGE = 1e-9, 1e-10


def untouched(problem: Problem[Any]) -> Samples:
    """The recording as it is."""
    return np.array(problem.samples)


def silence(problem: Problem[Missing]) -> Samples:
    """Silence in the gaps, whatever was there."""
    return np.asarray(np.where(problem.degradation.affected(problem.samples), 0.0, problem.samples))


def janssen(problem: Problem[Missing]) -> Samples:
    """Every gap as the linear prediction of its surroundings continues them.

    Coefficients by autocorrelation and the missing samples by least squares, in turns: Janssen, Veldhuis & Vries,
    "Adaptive interpolation of discrete-time signals that can be modeled as autoregressive processes" (IEEE TASSP
    1986, https://doi.org/10.1109/TASSP.1986.1164824). All gaps within reach of one another are unknown at once.
    """
    order, context = (round(seconds * problem.rate) for seconds in (_ORDER_S, _CONTEXT_S))
    degradation, samples = problem.degradation, problem.samples
    missing = degradation.affected(samples)
    return fill_gaps(samples, degradation.gaps, missing, context, partial(_fill, order=order))


def a_spade(problem: Problem[Bounded]) -> Samples:
    """The sparsest recording that would have been degraded into this one.

    Kitic, Bertin & Gribonval, "Sparsity and cosparsity for audio declipping: a flexible non-convex approach" (2015,
    https://arxiv.org/abs/1506.01830).
    """
    return problem.degradation.sparsest(problem.samples, problem.rate)


def cubic_spline(problem: Problem[Clipping]) -> Samples:
    """A cubic spline through the reliable samples in place of the clipped ones, and never below the level."""
    clipping, samples = problem.degradation, problem.samples
    positions = np.arange(samples.shape[1])
    restored = samples.copy()
    for channel, clipped in zip(restored, clipping.affected(samples), strict=True):
        # The ends count as reliable: beyond the last sample a cubic leads anywhere.
        knots = np.flatnonzero(~clipped | np.isin(positions, positions[[0, -1]]))
        if clipped.any() and len(knots) > 1:
            channel[clipped] = CubicSpline(knots, channel[knots])(positions[clipped])
    return clipping.project(restored, samples)


def dequantizing_wiener(problem: Problem[Quantization]) -> Samples:
    """The Wiener filter for noise that is white and uniform in the quantizer's cells, and back into the cells.

    Widrow, "Statistical analysis of amplitude-quantized sampled-data systems" (1961): a variance of step^2 / 12.
    """
    quantization, samples = problem.degradation, problem.samples
    power = np.array(quantization.step**2 / 12)  # in every bin
    filtered = np.stack([wiener(channel, problem.rate, power) for channel in samples])
    return quantization.project(filtered, samples)


def _fill(samples: Samples, missing: NDArray[np.bool_], order: int) -> Samples:
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
