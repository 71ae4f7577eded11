"""Noise that moves: how far its floor moves, and its power in every bin and frame.

All functions take the power ``[F, T]`` of one channel, or its ratio to a steady spectrum, in which steady noise has
mean 1. Frames are ``hop_s`` seconds apart, bins ``bin_hz`` Hz.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

Power = NDArray[np.float64]

# The floor is looked at in blocks of this length, s, that overlap by half, and in these bands, Hz.
_BLOCK_S = 0.192
_BANDS_HZ = (200.0, 500.0, 1000.0, 2000.0, 4000.0, 7600.0)
_FLOOR_QUANTILES = np.array([0.1, 0.2, 0.3])
# Quantiles over blocks: what separates them is how far the floor sinks below where it mostly is. Sound only lifts it.
_SUNK, _USUAL = 0.05, 0.25

# The tracker's constants for frames 8 ms apart: memory of the noise and of the presence, and SNR of sound.
_TRACKED_S = 0.008
_MEMORY, _PRESENCE_MEMORY = 0.8, 0.9
_PRESENT_SNR = 10 ** (15 / 10)
_SURE = 0.99
_START_S = 0.04

# Sound lasts where a median over this time, s, keeps it, and one over this range, Hz, does not. Frames so far apart, s,
# are enough to tell, and nine times faster.
_LASTING_S, _LINE_HZ, _FRAME_S = 0.5, 480.0, 0.024
_LASTING_HZ = (200.0, 7600.0)
_LOUDEST = 0.2
_TINY = 1e-12


def floor_movement_db(ratio: Power, hop_s: float, bin_hz: float) -> float:
    """Movement of the floor of a recording, dB: 0.2 to 0.9 of steady noise, 1 to 8 of street, cafe or babble noise.

    Low quantiles in blocks of time and frequency see between the sound. Steady noise leaves all of them at one level,
    or above it where sound fills a block; a floor that sinks lower at times belongs to noise that moves. 0 where the
    recording is too short to tell.
    """
    size = max(1, round(_BLOCK_S / hop_s))
    starts = range(0, ratio.shape[1] - size + 1, max(1, size // 2))
    edges = [round(hz / bin_hz) for hz in _BANDS_HZ]
    bands = [ratio[low:high] for low, high in pairwise(edges) if low < min(high, len(ratio))]
    if len(starts) < 2 or not bands:
        return 0.0
    sunk = []
    for band in bands:
        quantiles = np.stack([np.quantile(band[:, start : start + size], _FLOOR_QUANTILES) for start in starts])
        levels = np.median(quantiles / -np.log1p(-_FLOOR_QUANTILES), axis=1)
        low, usual = np.quantile(10 * np.log10(levels + _TINY), [_SUNK, _USUAL])
        sunk.append(usual - low)
    return float(np.mean(sunk))


def tonality(power: Power, hop_s: float, bin_hz: float) -> float:
    """Fraction of the loudest fifth's energy that lasts as lines do: about 0.9 of piano, 0.2 to 0.65 of speech.

    The fraction is that under a soft mask of two median filters, over time and over frequency: Fitzgerald,
    "Harmonic/percussive separation using median filtering" (DAFx 2010).
    """
    low, high = (round(hz / bin_hz) for hz in _LASTING_HZ)
    stride = max(1, round(_FRAME_S / hop_s))
    power, hop_s = power[low:high, ::stride], stride * hop_s
    amplitude = np.sqrt(power)
    if not amplitude.any():
        return 0.0
    lasting, brief = (
        median_filter(amplitude, size) ** 2
        for size in ((1, 2 * round(_LASTING_S / hop_s / 2) + 1), (2 * round(_LINE_HZ / bin_hz / 2) + 1, 1))
    )
    mask = lasting / (lasting + brief + _TINY * power.max())
    loud = power >= np.quantile(power, 1 - _LOUDEST)
    energy = power[loud]
    return float((mask[loud] * energy).sum() / energy.sum())


def track(power: Power, hop_s: float) -> Power:
    """Noise power ``[F, T]`` by the probability that sound is present, tracked forwards and backwards.

    Gerkmann & Hendriks, "Unbiased MMSE-Based Noise Power Estimation with Low Complexity and Low Tracking Delay" (IEEE
    TASLP 2012). Forwards alone it lags behind; the two directions' geometric mean does not.
    """
    return np.sqrt(track_forwards(power, hop_s) * track_forwards(power[:, ::-1], hop_s)[:, ::-1])


def track_forwards(power: Power, hop_s: float, least: float = _TINY) -> Power:
    """Noise power ``[F, T]`` tracked in one direction: it knows nothing of what follows, and lags behind.

    It is not below ``least``, relative to the greatest power.
    """
    memory, presence_memory = (each ** (hop_s / _TRACKED_S) for each in (_MEMORY, _PRESENCE_MEMORY))
    least = least * power.max() + np.finfo(np.float64).tiny
    noise = power[:, : max(1, round(_START_S / hop_s))].mean(axis=1)
    mean_presence = np.full_like(noise, 0.5)
    tracked = np.empty_like(power)
    for frame, observed in enumerate(power.T):
        likelihood = np.exp(-observed / np.maximum(noise, least) * _PRESENT_SNR / (1 + _PRESENT_SNR))
        presence = 1 / (1 + (1 + _PRESENT_SNR) * likelihood)
        mean_presence = presence_memory * mean_presence + (1 - presence_memory) * presence
        # A bin that seems to hold sound for good would never be updated again.
        presence = np.where(mean_presence > _SURE, np.minimum(presence, _SURE), presence)
        noise = memory * noise + (1 - memory) * (presence * noise + (1 - presence) * observed)
        tracked[:, frame] = noise
    return np.asarray(np.maximum(tracked, least))
