"""Mains hum: lines at the multiples of 50 or 60 Hz that go on through a whole recording, and the recording without it.

A spectrum of noise is too coarse for lines. They are sinusoids of a known frequency, whose amplitudes and phases change
slowly: these are fitted by least squares, and what they make is subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dapcli.audio import Recording, Samples
from dapcli.audio.recording import check_range

# What mains have, Hz, how far a comb may be off that, for tapes run fast or slow, and how close candidates are, Hz.
_MAINS_HZ, _TOLERANCE, _STEP_HZ = (50.0, 60.0), 0.01, 0.02
# Lines up to this, Hz, are lowered. Among the lowest lines of the comb so many must be found: a bass note may agree
# with one or two. If all of these are multiples of one, it is rather a tone an octave or more above.
_HIGHEST_HZ, _LOWEST_LINES, _FEWEST = 1200.0, 8, 3
# Blocks, s, their least distance, and how many are looked at, at the most; and so many bins for each of their own.
_BLOCK_S, _HOP_S, _BLOCKS, _FINE = 1.0, 0.25, 240, 4
# In most of the blocks a line is so many times stronger than the bins on both sides, and never much weaker than usual.
# Notes and voices come and go.
_QUANTILE, _CLEAR, _STEADY = 0.1, 10 ** (8 / 20), 10 ** (-8 / 20)
# Bins, Hz from a line, of which it must be about the highest, and those that it is compared with.
_PEAK_HZ, _PEAK, _BESIDE_HZ = 3.0, 0.8, (4.0, 20.0)
# Where other sound has the same frequency, no more is taken than so many times a line's usual amplitude.
_MOST = 1.5


@dataclass(frozen=True)
class Comb:
    """The lines of one channel: the first one's frequency, Hz, and the usual amplitudes of all up to the last found."""

    frequency: float
    levels: tuple[float, ...]

    @property
    def highest(self) -> float:
        """Frequency of the last line, Hz."""
        return len(self.levels) * self.frequency


def find_hum(recording: Recording) -> tuple[Comb | None, ...]:
    """The comb of every channel of a recording ``[C, N]``, None where there is none or it is too short to tell."""
    rate = recording.rate
    size, hop = round(_BLOCK_S * rate), round(_HOP_S * rate)
    count = min((recording.length - size) // hop + 1, _BLOCKS)
    bins = round(_FINE * _BLOCK_S * min(_HIGHEST_HZ + 2 * _BESIDE_HZ[1], rate / 2))
    blocks = []
    for start in np.linspace(0, recording.length - size, max(count, 0)).astype(int).tolist():
        block = _window(size) * recording.read(start, start + size)
        blocks.append(2 / _window(size).sum() * np.abs(np.fft.rfft(block, _FINE * size)[:, :bins]))
    # Silence that an editor has put in has no hum.
    channels = [[block[c] for block in blocks if block[c].any()] for c in range(recording.channels)]
    return tuple(_find_comb(spectra) if len(spectra) >= _FEWEST else None for spectra in channels)


def _find_comb(spectra: Sequence[Samples]) -> Comb | None:
    """The comb in amplitudes ``[F]`` of blocks."""
    per_hz = _FINE * _BLOCK_S
    low, median = np.quantile(spectra, (_QUANTILE, 0.5), axis=0)
    hertz = np.arange(len(low)) / per_hz
    beside = np.arange(_BESIDE_HZ[0], _BESIDE_HZ[1], 1 / per_hz)
    around = np.arange(-_PEAK_HZ, _PEAK_HZ + 1 / per_hz, 1 / per_hz)
    combs: list[tuple[int, Comb]] = []
    for mains in _MAINS_HZ:
        most = (1 + _TOLERANCE) * mains
        candidates = np.arange((1 - _TOLERANCE) * mains, most, _STEP_HZ)
        numbers = found = np.arange(1, int((hertz[-1] - _BESIDE_HZ[1]) / most) + 1)
        lines = mains * numbers[:, None]
        background = np.median(np.interp(np.hstack([lines - beside, lines + beside]), hertz, low), axis=1)
        background += np.finfo(np.float64).tiny
        # The frequency by all lines, and then by those that are found.
        for _ in range(2):
            clear = np.interp(np.outer(candidates, found), hertz, median) / background[found - 1]
            frequency = float(candidates[np.argmax(np.log(np.maximum(clear, 1)).sum(axis=1))])
            level, usual = (np.interp(frequency * numbers, hertz, each) for each in (low, median))
            highest = np.interp(frequency * numbers[:, None] + around, hertz, low).max(axis=1)
            is_line = (level > _CLEAR * background) & (level > _STEADY * usual) & (level > _PEAK * highest)
            # Up to the last one to which at least every second is found: higher ones are chance.
            dense = is_line & (2 * np.cumsum(is_line) >= numbers)
            found = numbers[is_line & (numbers <= max(numbers[dense], default=0))]
            if not len(found):
                break
        lowest = found[found <= _LOWEST_LINES]
        if len(lowest) >= _FEWEST and np.gcd.reduce(lowest) == 1:
            combs.append((len(lowest), Comb(frequency, tuple(level[: found[-1]].tolist()))))
    return max(combs, key=lambda each: each[0])[1] if combs else None


class Hum:
    """A recording of the same shape as another one: the ``sound`` and the ``hum`` in it, each with such a gain.

    The hum are the lines of ``combs``, of each channel. A block more on both sides is read to find them.
    """

    def __init__(self, recording: Recording, combs: Sequence[Comb | None], sound: float, hum: float) -> None:
        self.rate, self.channels, self.length = recording.rate, recording.channels, recording.length
        self.subtype, self.format = recording.subtype, recording.format
        self._recording, self._sound, self._hum = recording, sound, hum
        self._fits = [None if comb is None else _Fit(comb, recording.rate) for comb in combs]

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``."""
        check_range(self, start, stop)
        size = round(_BLOCK_S * self.rate)
        hop, last = size // 2, self.length - size
        # Blocks overlap by half; the last one ends with the recording.
        starts = [min(n * hop, last) for n in range(max(0, (start - size) // hop), -(-stop // hop) + 1)]
        starts = sorted({each for each in starts if each < stop and each + size > start})
        first = min([start, *starts])
        samples = self._recording.read(first, max([stop, *(each + size for each in starts)]))
        hum, weights = np.zeros(samples.shape), np.full(samples.shape[1], np.finfo(np.float64).tiny)
        for each in starts:
            part = slice(each - first, each - first + size)
            weights[part] += _window(size)
            for row, channel, fit in zip(hum, samples, self._fits, strict=True):
                if fit is not None:
                    row[part] += _window(size) * fit.lines(np.ascontiguousarray(channel[part]))
        hum /= weights
        return np.asarray(self._sound * (samples - hum) + self._hum * hum)[:, start - first : stop - first]


class _Fit:
    """The least-squares fit of the lines of a comb to a block of samples ``[N]``."""

    def __init__(self, comb: Comb, rate: int) -> None:
        size = round(_BLOCK_S * rate)
        phases = 2 * np.pi * comb.frequency / rate * np.outer(np.arange(1, len(comb.levels) + 1), np.arange(size))
        self._waves = np.concatenate([np.cos(phases), np.sin(phases)])
        weighted = _window(size) * self._waves
        self._solution = np.linalg.solve(weighted @ self._waves.T, weighted)
        self._most = _MOST * np.array(comb.levels)

    def lines(self, samples: Samples) -> Samples:
        """What the lines make of samples ``[N]``."""
        waves = (self._solution @ samples).reshape(2, -1)
        amplitudes = np.hypot(*waves)
        kept = np.minimum(1.0, self._most / np.maximum(amplitudes, np.finfo(np.float64).tiny))
        return np.asarray((kept * waves).reshape(-1) @ self._waves)


def _window(size: int) -> Samples:
    """A Hann window that is nowhere zero."""
    return np.hanning(size + 2)[1:-1]
