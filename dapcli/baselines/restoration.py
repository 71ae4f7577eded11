"""Classical restorations of clipped and of quantized recordings, each consistent with what is known of them."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from dapcli.baselines.baseline import Array, Observed
from dapcli.baselines.denoising import white_noise_power, wiener
from dapcli.errors import SettingsError
from dapcli.signal.degradation import Bounded
from dapcli.signal.clipping import Clipping
from dapcli.signal.quantization import Quantization


def a_spade(observed: Observed) -> Array:
    """The sparsest recording that would have been damaged into this one.

    Kitic, Bertin & Gribonval, "Sparsity and cosparsity for audio declipping: a flexible non-convex approach" (2015,
    https://arxiv.org/abs/1506.01830).
    """
    if not isinstance(observed.degradation, Bounded):
        raise SettingsError("A-SPADE needs the levels at which the recording was clipped, or its quantizer")
    return observed.degradation.sparsest(observed.samples, observed.rate)


def cubic_spline(observed: Observed) -> Array:
    """A cubic spline through the reliable samples in place of the clipped ones, and never below the level."""
    clipping = observed.degradation
    if not isinstance(clipping, Clipping):
        raise SettingsError("a spline needs the levels at which the recording was clipped")
    positions = np.arange(observed.samples.shape[1])
    restored = observed.samples.copy()
    for channel, clipped in zip(restored, clipping.clipped(observed.samples), strict=True):
        # The ends count as reliable: beyond the last sample a cubic leads anywhere.
        knots = np.flatnonzero(~clipped | np.isin(positions, positions[[0, -1]]))
        if clipped.any() and len(knots) > 1:
            channel[clipped] = CubicSpline(knots, channel[knots])(positions[clipped])
    return clipping.project(restored, observed.samples)


def dequantizing_wiener(observed: Observed) -> Array:
    """The Wiener filter told that the noise is white and uniform in the quantizer's cells, and back into the cells.

    Widrow, "Statistical analysis of amplitude-quantized sampled-data systems" (1961): a variance of step^2 / 12.
    """
    quantization = observed.degradation
    if not isinstance(quantization, Quantization):
        raise SettingsError("this filter needs the quantizer of the recording")
    power = white_noise_power(quantization.step**2 / 12, observed.rate)
    filtered = np.stack([wiener(channel, observed.rate, power) for channel in observed.samples])
    return quantization.project(filtered, observed.samples)
