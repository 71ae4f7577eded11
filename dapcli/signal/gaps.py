"""Intervals of samples, and the gaps of a recording as one set of them per channel."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from dapcli.audio import Recording
from dapcli.errors import InputError

#: Start and stop in samples: ``start <= n < stop``.
Interval = tuple[int, int]
Flags = NDArray[np.bool_]

#: The longest gap that sound beside it says something about, s.
LONGEST_RESTORED = 0.25


@dataclass(frozen=True)
class Gaps:
    """The missing samples of a recording: ``channels`` holds the intervals of every channel.

    They are in order, and between any two of a channel is a sample that is there; ``ValueError`` is raised otherwise.
    True where anything is missing.
    """

    channels: tuple[tuple[Interval, ...], ...]

    def __post_init__(self) -> None:
        for channel in self.channels:
            if channel != merge(channel) or not all(0 <= start < stop for start, stop in channel):
                raise ValueError(f"intervals are empty, negative, not in order, or touch: {channel}")

    def __bool__(self) -> bool:
        return any(self.channels)

    @property
    def count(self) -> int:
        """Number of stretches in which a channel or several miss samples: a dropout of all channels counts once."""
        return len(self.merged())

    @property
    def missing(self) -> int:
        """Number of missing samples, summed over the channels."""
        return sum(stop - start for start, stop in chain(*self.channels))

    @property
    def longest(self) -> int:
        """Samples of the longest interval of any one channel; 0 where nothing is missing."""
        return max((stop - start for start, stop in chain(*self.channels)), default=0)

    def merged(self) -> tuple[Interval, ...]:
        """The intervals in which any channel misses samples, as one channel's."""
        return merge(chain(*self.channels))

    def part(self, start: int, stop: int) -> Gaps:
        """The gaps within the samples ``start`` to ``stop``, counted from there."""
        return Gaps(
            tuple(
                tuple(
                    (max(begin, start) - start, min(end, stop) - start)
                    for begin, end in channel[bisect_right(channel, start, key=_stop_of) :]
                    if begin < stop
                )
                for channel in self.channels
            )
        )

    def mask(self, start: int, stop: int) -> Flags:
        """Whether the samples ``start`` to ``stop`` are missing, ``[C, stop - start]``."""
        mask = np.zeros((len(self.channels), stop - start), dtype=np.bool_)
        for row, channel in zip(mask, self.channels, strict=True):
            for begin, end in channel[bisect_right(channel, start, key=_stop_of) :]:
                if begin >= stop:
                    break
                row[max(begin - start, 0) : end - start] = True
        return mask


def merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Intervals in any order as the fewest that cover the same samples, in order."""
    merged: list[Interval] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def checked_gaps(channels: Iterable[Iterable[Interval]], recording: Recording, source: str) -> Gaps:
    """Gaps at these intervals of every channel; ``InputError``, with ``source`` first, where a channel is all gap."""
    gaps = Gaps(tuple(merge(channel) for channel in channels))
    for number, channel in enumerate(gaps.channels, 1):
        if channel == ((0, recording.length),):
            raise InputError(f"{source}all samples of channel {number} are missing; nothing is left to restore it from")
    return gaps


def find_stretches(blocks: Iterable[Flags], channels: int, shortest: int) -> list[list[Interval]]:
    """For every channel the intervals of at least ``shortest`` samples in which flags ``[C, n]`` are true.

    The flags come in blocks that follow each other; an interval may go on over several.
    """
    found: list[list[Interval]] = [[] for _ in range(channels)]
    # Where a stretch began that is not over: one number or none per channel.
    begun = [np.zeros(0, dtype=np.int64)] * channels
    before = np.zeros((channels, 1), dtype=np.bool_)
    offset = 0
    for flags in chain(blocks, [np.zeros((channels, 1), dtype=np.bool_)]):  # the last one ends what is not over
        turns = flags != np.concatenate([before, flags[:, :-1]], axis=1)
        for channel in range(channels):
            bounds = np.concatenate([begun[channel], offset + np.flatnonzero(turns[channel])])
            whole = len(bounds) // 2 * 2
            pairs = bounds[:whole].reshape(-1, 2)
            found[channel] += map(tuple, pairs[pairs[:, 1] - pairs[:, 0] >= shortest].tolist())
            begun[channel] = bounds[whole:]
        before = flags[:, -1:]
        offset += flags.shape[1]
    return found


def list_intervals(gaps: Gaps) -> list[list[int | list[int]]]:
    """Every interval as start, stop and, unless it is missing in all of them, the channels, counted from 1.

    All of it can be written as JSON.
    """
    total = len(gaps.channels)
    return [
        [start, stop] if len(numbers) == total else [start, stop, numbers]
        for (start, stop), numbers in _by_interval(gaps)
    ]


def describe(gaps: Gaps, rate: int) -> list[str]:
    """One line for people per gap, such as ``0.500-0.560 s (60 ms), both channels``; ``rate`` is in Hz."""
    lines = []
    for (start, stop), numbers in _by_interval(gaps):
        length = f"{1000 * (stop - start) / rate:.2f}".rstrip("0").rstrip(".")
        line = f"{span_in_words((start, stop), rate)} ({length} ms)"
        if len(numbers) < len(gaps.channels):
            line += f", channel{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        elif len(numbers) > 1:
            line += ", both channels" if len(numbers) == 2 else ", all channels"
        lines.append(line)
    return lines


def warn_of_long(gaps: Gaps, recording: Recording) -> list[str]:
    """Notes on gaps that are too long for anybody to know what was in them."""
    rate = recording.rate
    notes = []
    long = [(start, stop) for start, stop in chain(*gaps.channels) if stop - start > LONGEST_RESTORED * rate]
    if long:
        start, stop = max(long, key=lambda interval: interval[1] - interval[0])
        notes.append(
            f"{span_in_words((start, stop), rate)} is {(stop - start) / rate:.3f} s long; what fills gaps of more than "
            f"{LONGEST_RESTORED:g} s is a guess, for sound cannot be predicted so far"
        )
    for number, channel in enumerate(gaps.channels, 1):
        longest = max((stop - start for start, stop in channel), default=0)
        known = recording.length - sum(stop - start for start, stop in channel)
        if longest > known:
            notes.append(
                f"a gap of {longest / rate:.3f} s is longer than all that is known of channel {number}, "
                f"{known / rate:.3f} s; what fills it is a guess"
            )
    return notes


def _by_interval(gaps: Gaps) -> list[tuple[Interval, list[int]]]:
    """Every interval in order, with the channels that it is missing in, counted from 1."""
    where: dict[Interval, list[int]] = {}
    for number, channel in enumerate(gaps.channels, 1):
        for interval in channel:
            where.setdefault(interval, []).append(number)
    return sorted(where.items())


def span_in_words(interval: Interval, rate: int) -> str:
    """Start and end in seconds; ``rate`` is in Hz."""
    return f"{interval[0] / rate:.3f}-{interval[1] / rate:.3f} s"


def _stop_of(interval: Interval) -> int:
    return interval[1]
