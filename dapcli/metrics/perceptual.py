"""Metrics that predict what listeners would say of speech; channels are scored one by one and averaged.

PESQ and STOI come from libraries; that of PESQ needs a C compiler, and may be missing. The composite measures are
those of Hu and Loizou, "Evaluation of objective quality measures for speech enhancement" (IEEE TASLP 2008), who fitted
ratings by ITU-T P.835 with sums of simpler measures. Constants and details are those of their program, so that values
compare with published ones.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import scipy

from dapcli.metrics import waveform
from dapcli.metrics.waveform import Array, Metric, MetricUndefined, Signal, comparable, is_silent

_WIDE_BAND_RATE = 16_000
_RATES = (8_000, _WIDE_BAND_RATE)
_PESQ_MIN_S = 0.25
# The ITU's code has room for 50 utterances and writes past it without a check, which ends the process. An utterance
# and the pause before the next take at least 0.4 s, so that this length cannot hold 50.
_PESQ_MAX_S = 15.0
# STOI compares stretches of 30 frames of 128 samples at 10 kHz.
_STOI_MIN_S = 0.384

# Of the composite measures' frames, the worst are left out.
_KEPT_FRAMES = 0.95
# Keeps silent frames from having no spectrum. Relative to the reference's peak.
_DITHER = float(np.finfo(np.float64).eps)
# Relative to a frame's power: far below what a linear prediction leaves, far above rounding.
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


def pesq_nb(reference: Signal, estimate: Signal, rate: int) -> float:
    """Narrow-band PESQ as MOS-LQO, 1.0 to 4.55: ITU-T P.862 (2001) with the mapping of P.862.1.

    Works at 8 and 16 kHz; other rates are resampled to 16 kHz. Recordings longer than 15 s are scored in equal
    pieces of at most 15 s and averaged; pieces without speech in the reference do not count.

    Raises:
        MetricUndefined: In some channel the reference has no speech, the estimate no sound, or both are shorter
            than 0.25 s; or the package ``pesq`` is not installed.
    """
    return _pesq(reference, estimate, rate, "nb", _RATES)


def pesq_wb(reference: Signal, estimate: Signal, rate: int) -> float:
    """Wide-band PESQ as MOS-LQO, 1.0 to 4.64: ITU-T P.862.2 (2007).

    Works at 16 kHz; other rates are resampled to it. Pieces and channels as in ``pesq_nb``.

    Raises:
        MetricUndefined: As in ``pesq_nb``.
    """
    return _pesq(reference, estimate, rate, "wb", (_WIDE_BAND_RATE,))


def stoi(reference: Signal, estimate: Signal, rate: int) -> float:
    """Short-time objective intelligibility, at most 1: Taal, Hendriks, Heusdens and Jensen (IEEE TASLP 2011).

    Any rate; the method itself resamples to 10 kHz.

    Raises:
        MetricUndefined: In some channel the reference is silent, or has less than about 0.4 s of sound within
            40 dB of its loudest frame.
    """
    s, e = comparable(reference, estimate, silence=True)
    if s.shape[1] < _STOI_MIN_S * rate:
        raise MetricUndefined(f"shorter than the {_STOI_MIN_S} s that STOI compares")
    import pystoi  # deferred: takes half a second, and most runs have no reference

    def channel_value(s: Array, e: Array) -> float:
        if is_silent(s):
            raise MetricUndefined("the reference is silent")
        # pystoi only warns when there is too little sound, and returns 1e-5, which would pass for a measurement.
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
            try:
                peak = np.abs(s).max()  # pystoi has absolute limits
                return float(pystoi.stoi(s / peak, e / peak, rate))
            except RuntimeWarning as warning:
                raise MetricUndefined(f"less than the {_STOI_MIN_S} s of sound that STOI compares") from warning

    return _mean_over_channels(channel_value, s, e)


def _composite(constant: float, **weights: float) -> Metric:
    """A rating from 1 to 5: a constant and a weighted sum of measures, added in the order given.

    It works at 8 and 16 kHz; other rates are resampled to 16 kHz. PESQ is, as in Hu and Loizou's program, the raw
    score of P.862 at 8 kHz and the wide-band MOS-LQO of P.862.2 at 16 kHz. It raises ``MetricUndefined`` as in
    ``pesq_wb``.
    """

    def metric(reference: Signal, estimate: Signal, rate: int) -> float:
        s, e, rate = _at_rate(*comparable(reference, estimate), rate, _RATES)

        def channel_value(s: Array, e: Array) -> float:
            # PESQ before all others, as it says what is silent or too short. A common gain has no effect on the others.
            values = {"pesq": _fitted_pesq(s, e, rate)}
            peak = np.abs(s).max()
            values |= {name: _MEASURES[name](s / peak, e / peak, rate) for name in weights if name != "pesq"}
            rating = sum((weight * values[name] for name, weight in weights.items()), constant)
            return float(np.clip(rating, 1.0, 5.0))

        return _mean_over_channels(channel_value, s, e)

    return metric


#: Predicted rating of the speech's distortion, 1 (very distorted) to 5.
csig = _composite(3.093, llr=-1.029, pesq=0.603, wss=-0.009)
#: Predicted rating of the background's intrusiveness, 1 (very intrusive) to 5.
cbak = _composite(1.634, pesq=0.478, wss=-0.007, ssnr=0.063)
#: Predicted rating of the overall quality, 1 (bad) to 5 (excellent).
covl = _composite(1.594, pesq=0.805, llr=-0.512, wss=-0.007)


def _mean_over_channels(metric: Callable[[Array, Array], float], reference: Array, estimate: Array) -> float:
    """Mean of a metric of single channels ``[N]`` over signals ``[C, N]``; undefined where it is for any channel."""
    total = 0.0
    try:
        for channel in range(len(reference)):
            total += metric(reference[channel], estimate[channel])
    except MetricUndefined as error:
        if len(reference) == 1:
            raise
        raise MetricUndefined(f"channel {channel + 1}: {error}") from error
    return total / len(reference)


def _at_rate(reference: Array, estimate: Array, rate: int, rates: tuple[int, ...]) -> tuple[Array, Array, int]:
    """Signals ``[C, N]`` and their rate in Hz, if it is one of ``rates``; resampled to 16 kHz and that otherwise."""
    if rate in rates:
        return reference, estimate, rate
    divisor = math.gcd(rate, _WIDE_BAND_RATE)
    s, e = (
        scipy.signal.resample_poly(x, _WIDE_BAND_RATE // divisor, rate // divisor, axis=1)
        for x in (reference, estimate)
    )
    return s, e, _WIDE_BAND_RATE


def _pesq(reference: Signal, estimate: Signal, rate: int, mode: str, rates: tuple[int, ...]) -> float:
    try:
        from pesq import PesqError
    except ImportError as error:
        raise MetricUndefined("the package pesq is not installed (it needs a C compiler); pip install pesq") from error
    s, e, rate = _at_rate(*comparable(reference, estimate), rate, rates)
    if s.shape[1] < _PESQ_MIN_S * rate:
        raise MetricUndefined(f"shorter than the {_PESQ_MIN_S} s that PESQ needs")
    pieces = math.ceil(s.shape[1] / (_PESQ_MAX_S * rate))

    def channel_value(s: Array, e: Array) -> float:
        values = []
        for s_piece, e_piece in zip(np.array_split(s, pieces), np.array_split(e, pieces), strict=True):
            if is_silent(s_piece):
                continue
            value = _pesq_of_piece(rate, s_piece.tobytes(), e_piece.tobytes(), mode)
            if value >= 0.0:
                values.append(value)
            elif value != PesqError.NO_UTTERANCES_DETECTED:
                raise MetricUndefined(
                    "PESQ finds no sound in the estimate" if math.isnan(value) else f"PESQ error {value}"
                )
        if not values:
            raise MetricUndefined("PESQ finds no speech in the reference")
        return float(np.mean(values))

    return _mean_over_channels(channel_value, s, e)


@lru_cache(maxsize=8)  # it is slow, and the composite measures ask for the same again
def _pesq_of_piece(rate: int, reference: bytes, estimate: bytes, mode: str) -> float:
    """PESQ of float64 samples, or the number of an error."""
    from pesq import PesqError, pesq

    s, e = np.frombuffer(reference), np.frombuffer(estimate)
    # By value, because the exceptions fail themselves on a result that is NaN.
    value: float = pesq(rate, s, e, mode, on_error=PesqError.RETURN_VALUES)
    return value


def _fitted_pesq(s: Array, e: Array, rate: int) -> float:
    """PESQ of channels ``[N]`` on the scale that the composite measures were fitted with."""
    if rate == _WIDE_BAND_RATE:
        return pesq_wb(s[None], e[None], rate)
    # P.862.1, solved for the raw score that it maps.
    mapped = pesq_nb(s[None], e[None], rate)
    return float((4.6607 - np.log(4.0 / (mapped - 0.999) - 1.0)) / 1.4945)


def _llr(s: Array, e: Array, rate: int) -> float:
    """Log-likelihood ratio of channels ``[N]``, at least 0.

    The logarithm of how much better the reference's frames are predicted by their own linear prediction than by the
    estimate's.
    """
    order = 16 if rate == _WIDE_BAND_RATE else 10
    lags = np.abs(np.subtract.outer(np.arange(order + 1), np.arange(order + 1)))
    matrices, errors = [], []
    for x in (s, e):
        windowed = _windowed_frames(x, rate)
        power = np.abs(np.fft.rfft(windowed, 2 * windowed.shape[1])) ** 2
        correlation = np.fft.irfft(power)[:, : order + 1]
        matrix = (correlation / correlation[:, :1])[:, lags] + _RIDGE * np.eye(order + 1)
        matrices.append(matrix)
        ahead = np.linalg.solve(matrix[:, 1:, 1:], -matrix[:, 1:, :1])
        filters = np.concatenate([np.ones_like(ahead[:, :1]), ahead], axis=1)
        errors.append(np.sum(filters * (matrices[0] @ filters), axis=(1, 2)))
    own, other = errors
    return _mean_of_best(np.log(np.maximum(other / own, 1.0)))


def _wss(s: Array, e: Array, rate: int) -> float:
    """Weighted spectral slope distance of channels ``[N]``, at least 0, in 25 critical bands.

    Klatt, "Prediction of perceived phonetic distance from critical-band spectra: a first step" (ICASSP 1982).
    """
    (slopes_s, weights_s), (slopes_e, weights_e) = (_slopes(_band_levels(x, rate)) for x in (s, e))
    weights = weights_s + weights_e
    return _mean_of_best(np.sum(weights * (slopes_s - slopes_e) ** 2, axis=1) / np.sum(weights, axis=1))


_MEASURES: dict[str, Callable[[Array, Array, int], float]] = {
    "llr": _llr,
    "wss": _wss,
    "ssnr": lambda s, e, rate: waveform.segmental_snr_db(s[None], e[None], rate),
}


def _windowed_frames(x: Array, rate: int) -> Array:
    """Whole frames ``[T, L]`` of a channel ``[N]`` under their window."""
    whole, window = waveform.frames(x + _DITHER, rate)
    return whole * window


def _mean_of_best(distortions: Array) -> float:
    """Mean of the distortions ``[T]`` of frames without those of the worst."""
    return float(np.mean(np.sort(distortions)[: round(_KEPT_FRAMES * len(distortions))]))


def _band_levels(x: Array, rate: int) -> Array:
    """Levels in dB ``[T, 25]`` of the critical bands of a channel ``[N]``."""
    windowed = _windowed_frames(x, rate)
    n_fft = 2 ** int(np.ceil(np.log2(2 * windowed.shape[1])))
    power = np.abs(np.fft.rfft(windowed, n_fft)[:, :-1]) ** 2
    centres, widths = (np.array(hertz)[:, None] * n_fft / rate for hertz in (_CENTRES, _WIDTHS))
    filters = np.exp(-11.0 * ((np.arange(n_fft // 2) - np.floor(centres)) / widths) ** 2) * widths[0] / widths
    filters[filters <= _BAND_EDGE] = 0.0
    return np.asarray(np.maximum(10.0 * np.log10(power @ filters.T + np.finfo(np.float64).tiny), _BAND_FLOOR_DB))


def _slopes(levels: Array) -> tuple[Array, Array]:
    """Slopes of levels ``[T, 25]`` from band to band, and their weights, both ``[T, 24]``.

    A slope weighs more the nearer its band is to the highest level of the frame, and to the peak that it leads to.
    """
    slopes, below = np.diff(levels, axis=1), levels[:, :-1]
    rises, bands = slopes > 0, np.arange(slopes.shape[1])
    # Of a rise, Loizou's program takes the last level below the peak, and so do published values.
    last_of_rise = np.minimum.accumulate(np.where(rises, len(bands), bands)[:, ::-1], axis=1)[:, ::-1] - 1
    first_of_fall = np.maximum.accumulate(np.where(rises, bands, -1), axis=1) + 1
    peaks = np.take_along_axis(below, np.where(rises, last_of_rise, first_of_fall), axis=1)
    highest = levels.max(axis=1, keepdims=True)
    weights = _GLOBAL_PEAK / (_GLOBAL_PEAK + highest - below) * _LOCAL_PEAK / (_LOCAL_PEAK + peaks - below)
    return slopes, weights
