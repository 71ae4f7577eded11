"""Gaps: which samples of a recording are missing, as given by hand, read from a mask, or detected.

Gaps are kept in samples of the recording, one set per channel. Nothing here fills them. Notes are lines for people,
about what was done to what they gave.
"""

from __future__ import annotations

import codecs
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dapcli.audio import Recording, Samples, open_audio
from dapcli.audio.recording import PORTABLE_SUBTYPES, shape_in_words
from dapcli.errors import InputError, SettingsError

#: Start and stop in samples: ``start <= n < stop``.
Interval = tuple[int, int]
Flags = NDArray[np.bool_]

#: The shortest dropout that is detected, s. Lost packets and buffers mostly last longer. Sound without noise rests on
#: one value for some ms at a time: at the peaks of a low tone, and in quiet passages of 16 bits.
DEFAULT_MIN_GAP = 0.005
#: The longest dropout that is detected, s: what is longer was rather switched off.
LONGEST_GAP = 1.0
#: The longest gap that sound beside it says something about, s.
LONGEST_RESTORED = 0.25

# Samples of a recording that are looked at together.
_BLOCK = 1 << 16
# How far beside a run the sound is looked at, s. A dropout cuts sound off; an editor's fade and a noise gate's release
# are all but silent so close to their end.
_BESIDE_S = 0.001
# Sound counts from so many of its smallest steps on, and from so much of the channel's peak: -60 dB.
_STEPS = 4
_AUDIBLE = 1e-3

_IN_SAMPLES = re.compile(r"(\d+)n:(\d+)n")
# How a column's name begins. "nan" is a number, and 0,5 and O.5 are meant to be one.
_NAME = re.compile(r"(?!(?:nan|inf|infinity)$)[^\W\d]", re.IGNORECASE)
_TEXT = (".csv", ".tsv", ".txt")


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
        line = f"{_span((start, stop), rate)} ({length} ms)"
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
            f"{_span((start, stop), rate)} is {(stop - start) / rate:.3f} s long; what fills gaps of more than "
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


# Given


def parse_gap(text: str, rate: int) -> Interval:
    """Interval of ``START:END`` in seconds, to the nearest sample at ``rate`` Hz, or of ``STARTn:ENDn`` in samples.

    Raises:
        SettingsError: The text is not of this form, or a gap cannot be there.
    """
    in_samples = _IN_SAMPLES.fullmatch(text)
    try:
        start, stop = (float(part) for part in (in_samples.groups() if in_samples else text.split(":")))
    except ValueError:
        raise SettingsError(
            f"--gap {text!r}: give START:END in seconds, such as 0.50:0.56, or in samples, such as 8000n:8960n"
        ) from None
    try:
        return _to_samples(start, stop, 1 if in_samples else rate)
    except ValueError as error:
        raise SettingsError(f"--gap {text!r}: {error}") from None


def make_gaps(intervals: Iterable[Interval], recording: Recording, source: str = "") -> tuple[Gaps, list[str]]:
    """Gaps at the same intervals, in any order, in all channels of a recording; and notes.

    ``source`` is what errors begin with, such as ``mask.csv:`` and a space.

    Raises:
        InputError: A gap is not within the recording, or nothing of the recording is left.
    """
    given = list(intervals)
    for interval in given:
        _check_inside(interval, recording, source)
    merged = merge(given)
    notes = []
    if len(merged) < len(given):
        notes.append(f"{source}gaps that overlap or touch are merged: {len(given)} become {len(merged)}")
    return _checked([merged] * recording.channels, recording, source), notes


def _to_samples(start: float, stop: float, rate: int) -> Interval:
    """Interval between two times in s, to the nearest sample. Raises ``ValueError`` that says why it is none."""
    if not (math.isfinite(start * rate) and math.isfinite(stop * rate)):
        raise ValueError("start and end must be finite")
    if min(start, stop) < 0:
        raise ValueError("a time before the recording begins; it begins at 0")
    if stop < start:
        raise ValueError("the gap ends before it starts; give the start first")
    first, last = round(start * rate), round(stop * rate)
    if first == last:
        raise ValueError("a gap needs a length of at least one sample; give an end after the start")
    return first, last


def _span(interval: Interval, rate: int) -> str:
    return f"{interval[0] / rate:.3f}-{interval[1] / rate:.3f} s"


def _stop_of(interval: Interval) -> int:
    return interval[1]


def _check_inside(interval: Interval, recording: Recording, source: str) -> None:
    if interval[1] > recording.length:
        # In samples too, for the two may be the same to the millisecond.
        raise InputError(
            f"{source}the gap {_span(interval, recording.rate)} (samples {interval[0]} to {interval[1]}) is outside "
            f"the recording, which ends at {recording.length / recording.rate:.3f} s ({recording.length} samples)"
        )


def _checked(channels: Iterable[Iterable[Interval]], recording: Recording, source: str) -> Gaps:
    gaps = Gaps(tuple(merge(channel) for channel in channels))
    for number, channel in enumerate(gaps.channels, 1):
        if channel == ((0, recording.length),):
            raise InputError(f"{source}all samples of channel {number} are missing; nothing is left to restore it from")
    return gaps


# Masks


def read_mask(path: Path, recording: Recording) -> tuple[Gaps, list[str]]:
    """Gaps of a recording out of a file, and notes.

    ``.csv``, ``.tsv`` and ``.txt`` hold a gap of all channels per line, start and end in seconds, with commas or tabs
    between them: tables, and the labels that Audacity exports. Lines that are blank or begin with ``#``, a header,
    further columns, and Audacity's lines of frequencies, which begin with a backslash, are ignored. Any other file is
    audio that is zero where samples are missing: with the recording's rate and length, and one channel for all or as
    many as the recording.

    Raises:
        InputError: The file cannot be read or does not go with the recording, or nothing of a channel is left.
    """
    if path.suffix.lower() in _TEXT:
        return make_gaps(_read_lines(path, recording), recording, f"{path}: ")
    return _read_audio_mask(path, recording), []


def _read_lines(path: Path, recording: Recording) -> Iterator[Interval]:
    """Interval of every line of a table or of labels."""
    first = True
    for number, line in enumerate(_decode(path).split("\n"), 1):
        if not line.strip() or line.startswith(("#", "\\")):
            continue
        separator = "\t" if "\t" in line else ","
        fields = [field.strip().strip('"') for field in line.split(separator)]
        is_header = first and len(fields) > 1 and all(_NAME.match(field) for field in fields[:2])
        first = False
        if is_header:
            continue
        source = f"{path}, line {number}: "
        if separator == "," and len(fields) > 2 and all(field.isdigit() for field in fields[:3]):
            # 0,5,0,56 may be 0.5 to 0.56 or 0 to 5 s. Gaps of whole seconds are rare, and replacing sound does harm.
            raise InputError(f"{source}looks like decimal commas; write decimal points, and START,END alone")
        try:
            start, stop = (float(field) for field in fields[:2])
        except ValueError:
            raise InputError(
                f"{source}{line[:40]!r} is no gap; write START,END in seconds with decimal points, such as 0.50,0.56"
            ) from None
        try:
            interval = _to_samples(start, stop, recording.rate)
        except ValueError as error:
            raise InputError(f"{source}{error}") from None
        _check_inside(interval, recording, source)
        yield interval


def _decode(path: Path) -> str:
    """A text file with any line ends as one string. What is not UTF-8 can only be in what people wrote beside times."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    # Spreadsheets write byte-order marks, and some of them UTF-16.
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_audio_mask(path: Path, recording: Recording) -> Gaps:
    with open_audio(path) as mask:
        fits = (mask.rate, mask.length) == (recording.rate, recording.length)
        if not fits or mask.channels not in (1, recording.channels):
            raise InputError(
                f"{path}: has {shape_in_words(mask)}, the recording {shape_in_words(recording)}; "
                "a mask has the same rate and length, and one channel or as many"
            )
        if not mask.subtype.startswith(PORTABLE_SUBTYPES):
            raise InputError(f"{path}: {mask.subtype} may not keep zeros; save the mask as WAV or FLAC")
        channels = _stretches((block == 0 for block in blocks(mask)), mask.channels, 1)
    return _checked(channels * (recording.channels // mask.channels), recording, f"{path}: ")


# Detection


def detect_gaps(recording: Recording, min_gap: float = DEFAULT_MIN_GAP) -> tuple[Gaps, list[str]]:
    """Dropouts of a recording, channel by channel; and notes on runs that were not taken for any.

    A dropout is a run of one and the same value, exactly: zeros, or the last good sample repeated, which itself is
    not missing. It lasts at least ``min_gap`` seconds, and two samples. Of such runs, these are left out:

    - runs that reach the beginning or the end of the recording: silence, mostly, and there is sound on one side only;
    - runs of more than ``LONGEST_GAP``: silence between sounds;
    - runs, not of zeros, at the highest or lowest value of the channel: clipping;
    - runs with near silence on one side: a fade, a noise gate, or rounding in a quiet passage. Within 1 ms on both
      sides a sample must differ from the run's value by 60 dB below the channel's peak or more, and by four of the
      smallest steps between two samples of the channel, which in integer formats is the quantization step.

    Sound that is switched on and off without a fade, such as generated Morse code, cannot be told from dropouts.

    Raises:
        SettingsError: ``min_gap`` is not between 0 and ``LONGEST_GAP``.
    """
    if not 0 < min_gap <= LONGEST_GAP:
        raise SettingsError(f"--min-gap {min_gap:g}: must be above 0 and at most {LONGEST_GAP:g} s")
    shortest = max(2, round(min_gap * recording.rate))
    runs, levels = _find_runs(recording, shortest)
    found: list[list[Interval]] = [[] for _ in range(recording.channels)]
    left_out: dict[str, list[Interval]] = {}
    for run, channel in runs:
        gap, reason = _judge(recording, channel, run, levels)
        if gap[1] - gap[0] < shortest:
            continue
        if reason:
            left_out.setdefault(reason, []).append(gap)
        else:
            found[channel].append(gap)
    notes = [
        f"not taken for gaps: {len(gaps)} run{'s' * (len(gaps) > 1)} of one value {reason}, "
        f"the first at {_span(gaps[0], recording.rate)}"
        for reason, gaps in left_out.items()
    ]
    return _checked(found, recording, ""), notes


@dataclass(frozen=True)
class _Levels:
    """Highest and lowest sample, and the smallest step between two neighbours that differ, of every channel ``[C]``."""

    highest: Samples
    lowest: Samples
    step: Samples

    def add(self, block: Samples, change: Samples) -> None:
        """Take in more samples ``[C, n]`` and how far each is from the one before."""
        np.maximum(self.highest, block.max(axis=1), out=self.highest)
        np.minimum(self.lowest, block.min(axis=1), out=self.lowest)
        np.minimum(self.step, np.where(change > 0, change, np.inf).min(axis=1), out=self.step)


def _find_runs(recording: Recording, shortest: int) -> tuple[list[tuple[Interval, int]], _Levels]:
    """Runs of at least ``shortest >= 2`` equal samples, each with its channel, in order; and the channels' levels."""
    channels = recording.channels
    levels = _Levels(np.full(channels, -np.inf), np.full(channels, np.inf), np.full(channels, np.inf))

    def held() -> Iterator[Flags]:
        before = np.full((channels, 1), np.nan)  # equal to no sample
        for block in blocks(recording):
            change = np.abs(np.diff(block, axis=1, prepend=before))
            levels.add(block, change)
            before = block[:, -1:]
            yield change == 0

    # A run's first sample differs from the one before.
    stretches = _stretches(held(), channels, shortest - 1)
    runs = [((start - 1, stop), number) for number, channel in enumerate(stretches) for start, stop in channel]
    return sorted(runs), levels


def _judge(recording: Recording, channel: int, run: Interval, levels: _Levels) -> tuple[Interval, str]:
    """What would be missing if a run of equal samples were a dropout, and why it is none; empty where it is one."""
    first, stop = run
    reach = max(1, round(_BESIDE_S * recording.rate))
    left = recording.read(max(0, first - reach), first + 1)[channel]
    value = left[-1]
    gap = (first if value == 0 else first + 1, stop)
    if first == 0 or stop == recording.length:
        return gap, "at the beginning or the end"
    if stop - gap[0] > LONGEST_GAP * recording.rate:
        return gap, f"longer than {LONGEST_GAP:g} s"
    highest, lowest = levels.highest[channel], levels.lowest[channel]
    if value != 0 and value in (highest, lowest):
        return gap, "at the channel's peak, as clipping makes"
    right = recording.read(stop, min(stop + reach, recording.length))[channel]
    # Half the range, for a constant offset is not heard.
    audible = max(_STEPS * levels.step[channel], _AUDIBLE * (highest - lowest) / 2)
    if min(np.abs(side - value).max() for side in (left, right)) < audible:
        return gap, "beside near silence"
    return gap, ""


def blocks(recording: Recording) -> Iterator[Samples]:
    """All samples, in blocks ``[C, n]``."""
    for start in range(0, recording.length, _BLOCK):
        yield recording.read(start, min(start + _BLOCK, recording.length))


def _stretches(blocks: Iterable[Flags], channels: int, shortest: int) -> list[list[Interval]]:
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
