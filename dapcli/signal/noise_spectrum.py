"""The spectrum of noise that is steady: estimated from the recording itself, or from a stretch of noise.

A noise spectrum is the expected power ``|STFT|^2`` of the noise in every bin, ``[C, F]``, in the scaling of the
:class:`~dapcli.signal.stft.STFT` that it was measured with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from torch import Tensor

from dapcli.signal.stft import STFT

Spectrum = NDArray[np.float64]

# Quantiles of the power over time and neighbouring bins that the estimate rests on. Sound adds power, so low
# quantiles see mostly noise; several are compared because which of them is cleanest depends on the recording.
_QUANTILES = np.array([0.1, 0.2, 0.3])
_TILT_QUANTILE = 0.3
# Half widths of the running median and the pooling over bins, relative to the bin's own frequency.
_MEDIAN_REACH = 0.10
_POOL_REACH = 0.12
_MIN_REACH_HZ = 48.0
# Pools in the half width of one.
_POOL_STEPS = 8
# Below this a narrow line is taken for hum or rumble, above for a tone: hardly a voice or an instrument has
# its power there, and mains hum has.
_HUM_HZ = 120.0
# Spectra flatter than this, in dB over bins, cannot be told from white noise on a clip of seconds.
_WHITE_DB = 1.0
# A level 5 % too low costs 0.7 dB of SNR on a very noisy recording, one 5 % too high 0.1 dB.
_WHITE_MARGIN = 1.03
# White noise has so many of its bins within so many dB, chords and all.
_MOST_BINS, _BAND_DB = 0.9, 10.0
_TINY = 1e-12
# Frames with less than this fraction of the loudest frame's power, 90 dB, are digital silence.
_SILENCE = 1e-9


def power_spectrogram(stft: STFT, samples: Tensor) -> NDArray[np.float64]:
    """``|STFT|^2`` of samples, ``[C, N] -> [C, F, T]``."""
    return np.asarray(stft.forward(samples.double()).square().sum(dim=1).numpy(), dtype=np.float64)


def profile_spectrum(stft: STFT, noise: Tensor) -> Spectrum:
    """Noise spectrum ``[C, F]`` of samples ``[C, N]`` that hold nothing but noise: the mean over whole frames."""
    return np.asarray(np.maximum(inner_frames(power_spectrogram(stft, noise), stft).mean(axis=2), _TINY))


def estimate_spectrum(power: NDArray[np.float64], bin_hz: float) -> Spectrum:
    """Blind estimate of the noise spectrum ``[C, F]`` of a noisy recording's power ``[C, F, T]``.

    The power of Gaussian noise in one bin is exponentially distributed, so that any quantile q tells its mean,
    ``Q(q) / -ln(1 - q)``, and low quantiles see little of the sound. First the tilt: one quantile per bin over time,
    with a running median over bins that passes slopes and removes tones. Then, flattened by the tilt, quantiles
    over time and neighbouring bins together, of which the lowest counts. A spectrum that is flat within what a short
    clip can tell is taken for white, which is what it usually is.
    """
    return np.stack([_estimate_channel(channel, bin_hz) for channel in power])


def noise_std(spectrum: Spectrum, stft: STFT) -> float:
    """Standard deviation of the noise samples with a spectrum ``[C, F]``, by Parseval's theorem."""
    weights = np.full(spectrum.shape[1], 2.0)
    weights[0] = weights[-1] = 1.0
    variance = (spectrum * weights).sum(axis=1) / (2 * stft.white_gain * stft.n_fft)
    return float(np.sqrt(variance.mean()))


def snr_db(power: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """SNR of a recording's power ``[..., T]`` with steady noise ``[..., 1]``, dB; no sound at all counts as -30 dB."""
    return 10 * float(np.log10(max(power.mean(axis=-1).sum() / noise.sum() - 1, 1e-3)))


def is_white(spectrum: Spectrum) -> bool:
    """Whether a spectrum ``[C, F]`` is flat in every channel, within what a clip of seconds can tell."""
    decibels = 10 * np.log10(np.maximum(spectrum, _TINY))
    return bool((decibels.std(axis=1) < _WHITE_DB).all())


def inner_frames(power: NDArray[np.float64], stft: STFT) -> NDArray[np.float64]:
    """The frames of a power ``[..., T]`` whose window lies within the recording, or all where there are none."""
    edge = -(-stft.n_fft // (2 * stft.hop))
    return power[..., edge:-edge] if power.shape[-1] > 2 * edge else power


def _estimate_channel(power: NDArray[np.float64], bin_hz: float) -> Spectrum:
    """:func:`estimate_spectrum` of one channel's power ``[F, T]``."""
    bins = len(power)
    # Digital silence, as editors pad with, is no noise, and would pass for a very quiet one.
    loudness = power.sum(axis=0)
    power = power[:, loudness >= _SILENCE * loudness.max()]
    power = power + _TINY * max(float(power.max()), _TINY)
    lowest = max(3, round(_MIN_REACH_HZ / bin_hz))
    hum = int(_HUM_HZ / bin_hz)

    tilt = np.quantile(power, _TILT_QUANTILE, axis=1)
    smooth = np.empty(bins)
    for k in range(bins):
        # The window shrinks evenly towards the ends, for a lopsided one would bias a slope.
        reach = min(max(lowest, int(k * _MEDIAN_REACH)), k, bins - 1 - k)
        smooth[k] = np.median(tilt[k - reach : k + reach + 1])
    tilt[hum:] = smooth[hum:]

    flat = power / tilt[:, None]
    # Neighbours' pools are nearly the same, and sorting them is what takes time: levels between a few are interpolated.
    centres, levels = [], []
    k = 0
    while k < bins:
        reach = max(lowest, int(k * _POOL_REACH))
        pool = flat[max(0, k - reach) : k + reach + 1]
        centres.append(k)
        levels.append(np.min(np.quantile(pool, _QUANTILES) / -np.log1p(-_QUANTILES)))
        k += max(1, reach // _POOL_STEPS)
    spectrum = np.exp(np.interp(np.arange(bins), centres, np.log(levels))) * tilt

    decibels = 10 * np.log10(spectrum)
    broad = uniform_filter1d(decibels[hum:], max(1, bins // 8), mode="nearest")
    # A median of deviations, because a chord held throughout lifts a few bins even of white noise. Of a recording that
    # was made at a lower rate most bins are alike, and all that matters is in the others.
    away = np.abs(broad - np.median(broad))
    if 1.5 * np.median(away) < _WHITE_DB and np.quantile(away, _MOST_BINS) < _BAND_DB:
        return np.full(bins, _WHITE_MARGIN * 10 ** (np.median(decibels) / 10))
    return spectrum
