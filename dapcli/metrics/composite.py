"""Composite measures of enhanced speech: what listeners would say of its signal, of its background, and of both.

Hu and Loizou, "Evaluation of objective quality measures for speech enhancement" (IEEE TASLP 2008), fitted ratings by
ITU-T P.835 with sums of simpler measures. Constants and details here are those of their program, so that values
compare with published ones.

All work at 8 and 16 kHz; other rates are resampled to 16 kHz. PESQ is, as in their program, the raw score of P.862
at 8 kHz and the wide-band MOS-LQO of P.862.2 at 16 kHz. Channels are scored one by one and averaged.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dapcli.metrics.perceptual import at_rate_of_pesq, mean_over_channels, pesq_nb, pesq_wb
from dapcli.metrics.waveform import Signal, comparable, require_sound, segmental_snr_db

_Array = NDArray[np.float64]

_NARROW_BAND_RATE, _WIDE_BAND_RATE = 8_000, 16_000
_LOWEST, _HIGHEST = 1.0, 5.0

_FRAME_S = 0.03
_FRAME_OVERLAP = 4
# The worst frames are left out.
_KEPT_FRAMES = 0.95
# Keeps silent frames from having no spectrum. Relative to the reference's peak.
_DITHER = float(np.finfo(np.float64).eps)

_NARROW_BAND_ORDER, _WIDE_BAND_ORDER = 10, 16
# Relative to a frame's power: far below what a prediction leaves, far above rounding.
_RIDGE = 1e-12

# Critical bands: centre and width, Hz.
_CENTRES, _WIDTHS = np.array(
    [
        *((50, 70), (120, 70), (190, 70), (260, 70), (330, 70), (400, 70), (470, 70), (540, 77.3724)),
        *((617.372, 86.0056), (703.378, 95.3398), (798.717, 105.411), (904.128, 116.256), (1020.38, 127.914)),
        *((1148.30, 140.423), (1288.72, 153.823), (1442.54, 168.154), (1610.70, 183.457), (1794.16, 199.776)),
        *((1993.93, 217.153), (2211.08, 235.631), (2446.71, 255.255), (2701.97, 276.072), (2978.04, 298.126)),
        *((3276.17, 321.465), (3597.63, 346.136)),
    ]
).T
# Where a band's filter ends, -30 dB as Loizou counts it, and the least level of a band, dB.
_BAND_EDGE = np.exp(-30.0 / (2.0 * 2.303))
_BAND_FLOOR_DB = -100.0
# Klatt's weights of the distance to the highest level of the frame and to the nearest peak, dB.
_GLOBAL_PEAK, _LOCAL_PEAK = 20.0, 1.0


def csig(reference: Signal, estimate: Signal, rate: int) -> float:
    """Predicted rating of the speech's distortion, 1 (very distorted) to 5.

    ``CSIG = 3.093 - 1.029 LLR + 0.603 PESQ - 0.009 WSS``, limited to 1 to 5.

    Raises:
        MetricUndefined: As in ``pesq_wb``.
    """

    def rating(pesq: float, s: _Array, e: _Array, rate: int) -> float:
        return 3.093 - 1.029 * _llr(s, e, rate) + 0.603 * pesq - 0.009 * _wss(s, e, rate)

    return _composite(reference, estimate, rate, rating)


def cbak(reference: Signal, estimate: Signal, rate: int) -> float:
    """Predicted rating of the background's intrusiveness, 1 (very intrusive) to 5.

    ``CBAK = 1.634 + 0.478 PESQ - 0.007 WSS + 0.063 SSNR``, limited to 1 to 5; SSNR is ``segmental_snr_db``.

    Raises:
        MetricUndefined: As in ``pesq_wb``.
    """

    def rating(pesq: float, s: _Array, e: _Array, rate: int) -> float:
        segmental_snr = segmental_snr_db(s[None], e[None], rate)
        return 1.634 + 0.478 * pesq - 0.007 * _wss(s, e, rate) + 0.063 * segmental_snr

    return _composite(reference, estimate, rate, rating)


def covl(reference: Signal, estimate: Signal, rate: int) -> float:
    """Predicted rating of the overall quality, 1 (bad) to 5 (excellent).

    ``COVL = 1.594 + 0.805 PESQ - 0.512 LLR - 0.007 WSS``, limited to 1 to 5.

    Raises:
        MetricUndefined: As in ``pesq_wb``.
    """

    def rating(pesq: float, s: _Array, e: _Array, rate: int) -> float:
        return 1.594 + 0.805 * pesq - 0.512 * _llr(s, e, rate) - 0.007 * _wss(s, e, rate)

    return _composite(reference, estimate, rate, rating)


def _composite(
    reference: Signal, estimate: Signal, rate: int, rating: Callable[[float, _Array, _Array, int], float]
) -> float:
    """Mean over channels of a rating, by PESQ and both channels ``[N]`` at 8 or 16 kHz.

    Both are scaled to where the reference has a peak of 1, so that a common gain has no effect.
    """
    s, e = comparable(reference, estimate)
    require_sound(s)
    s, e, rate = at_rate_of_pesq(s, e, rate, (_NARROW_BAND_RATE, _WIDE_BAND_RATE))

    def channel_value(s: _Array, e: _Array) -> float:
        # Before all others, as it says what is silent or too short.
        pesq = _pesq(s, e, rate)
        peak = np.abs(s).max()
        return float(np.clip(rating(pesq, s / peak, e / peak, rate), _LOWEST, _HIGHEST))

    return mean_over_channels(channel_value, s, e)


def _pesq(s: _Array, e: _Array, rate: int) -> float:
    """PESQ of channels ``[N]`` on the scale that the measures were fitted with."""
    if rate == _WIDE_BAND_RATE:
        return pesq_wb(s[None], e[None], rate)
    # P.862.1, solved for the raw score that it maps.
    mapped = pesq_nb(s[None], e[None], rate)
    return float((4.6607 - np.log(4.0 / (mapped - 0.999) - 1.0)) / 1.4945)


def _frames(x: _Array, rate: int) -> _Array:
    """Whole frames ``[T, L]`` of a channel ``[N]`` under a Hann window without its zeros at both ends."""
    length = round(_FRAME_S * rate)
    window = np.hanning(length + 2)[1:-1]
    return np.asarray(sliding_window_view(x + _DITHER, length)[:: length // _FRAME_OVERLAP] * window)


def _mean_of_best(distortions: _Array) -> float:
    """Mean of the distortions ``[T]`` of frames without those of the worst."""
    return float(np.mean(np.sort(distortions)[: round(_KEPT_FRAMES * len(distortions))]))


def _llr(s: _Array, e: _Array, rate: int) -> float:
    """Log-likelihood ratio of channels ``[N]``, at least 0.

    The logarithm of how much better the reference's frames are predicted by their own linear prediction than by the
    estimate's.
    """
    order = _WIDE_BAND_ORDER if rate == _WIDE_BAND_RATE else _NARROW_BAND_ORDER
    lags = np.abs(np.subtract.outer(np.arange(order + 1), np.arange(order + 1)))
    correlations = []
    for x in (s, e):
        frames = _frames(x, rate)
        power = np.abs(np.fft.rfft(frames, 2 * frames.shape[1])) ** 2
        correlation = np.fft.irfft(power)[:, : order + 1]
        matrix = (correlation / correlation[:, :1])[:, lags]
        correlations.append(matrix + _RIDGE * np.eye(order + 1))
    errors = []
    for matrix in correlations:
        ahead = np.linalg.solve(matrix[:, 1:, 1:], -matrix[:, 1:, :1])
        filters = np.concatenate([np.ones_like(ahead[:, :1]), ahead], axis=1)
        errors.append(np.sum(filters * (correlations[0] @ filters), axis=(1, 2)))
    own, other = errors
    return _mean_of_best(np.log(np.maximum(other / own, 1.0)))


def _wss(s: _Array, e: _Array, rate: int) -> float:
    """Weighted spectral slope distance of channels ``[N]``, at least 0, in 25 critical bands.

    Klatt, "Prediction of perceived phonetic distance from critical-band spectra: a first step" (ICASSP 1982).
    """
    (slopes_s, weights_s), (slopes_e, weights_e) = (_slopes(_band_levels(x, rate)) for x in (s, e))
    weights = weights_s + weights_e
    return _mean_of_best(np.sum(weights * (slopes_s - slopes_e) ** 2, axis=1) / np.sum(weights, axis=1))


def _band_levels(x: _Array, rate: int) -> _Array:
    """Levels in dB ``[T, 25]`` of the critical bands of a channel ``[N]``."""
    frames = _frames(x, rate)
    n_fft = 2 ** int(np.ceil(np.log2(2 * frames.shape[1])))
    power = np.abs(np.fft.rfft(frames, n_fft)[:, :-1]) ** 2
    centres, widths = (np.array(hertz)[:, None] * n_fft / rate for hertz in (_CENTRES, _WIDTHS))
    filters = np.exp(-11.0 * ((np.arange(n_fft // 2) - np.floor(centres)) / widths) ** 2) * widths[0] / widths
    filters[filters <= _BAND_EDGE] = 0.0
    return np.asarray(np.maximum(10.0 * np.log10(power @ filters.T + np.finfo(np.float64).tiny), _BAND_FLOOR_DB))


def _slopes(levels: _Array) -> tuple[_Array, _Array]:
    """Slopes of levels ``[T, 25]`` from band to band, and their weights, both ``[T, 24]``.

    A slope weighs more the nearer its band is to the highest level of the frame, and to the peak that it leads to.
    """
    slopes = np.diff(levels, axis=1)
    below = levels[:, :-1]
    rises = slopes > 0
    # Of a rise, Loizou's program takes the last level below the peak, and so do published values.
    upwards, downwards = below.copy(), below.copy()
    for band in range(slopes.shape[1] - 2, -1, -1):
        upwards[:, band] = np.where(rises[:, band + 1], upwards[:, band + 1], below[:, band])
    for band in range(1, slopes.shape[1]):
        downwards[:, band] = np.where(rises[:, band - 1], below[:, band], downwards[:, band - 1])
    peaks = np.where(rises, upwards, downwards)
    highest = levels.max(axis=1, keepdims=True)
    weights = _GLOBAL_PEAK / (_GLOBAL_PEAK + highest - below) * _LOCAL_PEAK / (_LOCAL_PEAK + peaks - below)
    return slopes, weights
