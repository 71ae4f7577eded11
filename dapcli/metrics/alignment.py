"""Whether an estimate is shifted or inverted against its reference; by the metrics alone it would be a bad one."""

from __future__ import annotations

import math

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from dapcli.metrics.waveform import Signal

# A correlation below this may be that of two sounds that have nothing to do with each other.
_COHERENT = 0.5
# The correlation at a lag exceeds by this much those at all others, or the lag may be another: sound is periodic.
_CLEARLY = 0.07
# SI-SDR that the lag gains over none, dB.
_GAIN_DB = 3.0
# The loudest stretch of so many samples at the most is looked at; at 16 kHz it is a minute.
_LONGEST = 2**20


def describe_alignment(reference: Signal, estimate: Signal, rate: int) -> str | None:
    """How an estimate is shifted or inverted against its reference, both ``[C, N]`` at ``rate`` Hz, in words.

    None if it is neither, or where nobody can tell: in noise, in silence, in a steady tone. Channels are looked at one
    by one, and named where they differ.
    """
    found = {number: _find(s, e) for number, (s, e) in enumerate(zip(reference, estimate, strict=True), 1)}
    known = {number: each for number, each in found.items() if each}
    if not any(lag or inverted for lag, inverted in known.values()):
        return None
    words = {number: _in_words(*each, rate) for number, each in known.items()}
    text = next(iter(words.values()))
    if len(set(words.values())) > 1:
        text = ", ".join(f"channel {number} {each}" for number, each in words.items() if each)
    return f"{text} against the reference; align them first, for most metrics compare sample by sample"


def _in_words(lag: int, inverted: bool, rate: int) -> str:
    shift = (
        f"{abs(lag)} sample{'s' * (abs(lag) != 1)} ({1000 * abs(lag) / rate:.4g} ms) {'late' if lag > 0 else 'early'}"
    )
    what = [shift] * (lag != 0) + ["inverted"] * inverted
    return f"looks {' and '.join(what)}" if what else ""


def _find(reference: Signal, estimate: Signal) -> tuple[int, bool] | None:
    """By how many samples ``[N]`` of an estimate are late, and whether they are inverted; None if nobody can tell."""
    start = _loudest(reference)
    s, e = (each[start : start + _LONGEST].astype(np.float64) for each in (reference, estimate))
    s, e = s - s.mean(), e - e.mean()
    energies = float(np.sum(s**2)) * float(np.sum(e**2))
    if not 0 < energies < math.inf:
        return None
    size, most = next_fast_len(2 * len(s), real=True), len(s) - 1
    correlations = np.roll(irfft(rfft(e, size) * rfft(s, size).conj(), size), most)[: 2 * most + 1] / energies**0.5
    best = int(np.abs(correlations).argmax())
    top, at_zero = float(correlations[best]), float(correlations[most])
    if abs(top) < _COHERENT:
        return None
    if _si_sdr_db(top) < _si_sdr_db(at_zero) + _GAIN_DB:
        return (0, top < 0) if top * at_zero > 0 else None
    # Between the crossings of zero on either side of it, all is one maximum.
    crossings = np.concatenate([[-1], np.flatnonzero(correlations * top <= 0), [len(correlations)]])
    after = int(np.searchsorted(crossings, best))
    others = np.abs(correlations)
    others[crossings[after - 1] + 1 : crossings[after]] = 0
    return (best - most, top < 0) if others.max() < abs(top) - _CLEARLY else None


def _loudest(samples: Signal) -> int:
    """The start of the loudest stretch of ``_LONGEST`` samples ``[N]``, to half of its length."""
    step = _LONGEST // 2
    powers = [float(np.sum(np.square(samples[start : start + _LONGEST]))) for start in range(0, len(samples), step)]
    return step * int(np.argmax(powers))


def _si_sdr_db(correlation: float) -> float:
    """SI-SDR of an estimate with a correlation to its reference, limited to rounding errors."""
    explained = min(max(correlation**2, 1e-12), 1 - 1e-12)
    return 10 * math.log10(explained / (1 - explained))
