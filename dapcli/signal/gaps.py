"""Gaps: the samples that a recording misses, as intervals of every channel; given by hand or read from a file.

Notes are lines for people about what was done to what they gave.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dapcli.audio import Recording, open_audio
from dapcli.audio.recording import PORTABLE_SUBTYPES, blocks, count_channels, shape_in_words
from dapcli.errors import InputError, SettingsError

#: Start and stop in samples: ``start <= n < stop``.
Interval = tuple[int, int]
Flags = NDArray[np.bool_]

#: The longest gap that the sound beside it tells anything about, s.
LONGEST_RESTORED = 0.25

_IN_SAMPLES = re.compile(r"(\d+)n:(\d+)n")
# Lines of a mask that count, and how a column's name begins. "nan" is a number, and 0,5 and O.5 are meant to be one.
_NO_REMARK = re.compile(r"(?![#\\])\s*\S")
_NAME = re.compile(r"(?!(?:nan|inf|infinity)$)[^\W\d]", re.IGNORECASE)


@dataclass(frozen=True)
class Gaps:
    """The missing samples of a recording: ``channels`` holds the intervals of every channel.

    They are in order, and between any two of a channel is a sample that is there. True where anything is missing.

    Raises:
        InputError: They are not so, or no whole numbers of samples.
    """

    channels: tuple[tuple[Interval, ...], ...]

    def __post_init__(self) -> None:
        for channel in self.channels:
            if not isinstance(channel, tuple) or not all(map(_is_interval, channel)):
                raise InputError(f"gaps are (start, stop) in whole samples, for every channel, not {channel}")
            if channel != merge(channel) or not all(0 <= start < stop for start, stop in channel):
                raise InputError(f"intervals are empty, negative, not in order, or touch: {channel}")

    def __bool__(self) -> bool:
        return any(self.channels)

    @property
    def count(self) -> int:
        """Number of stretches in which any channel misses samples: a dropout of all channels counts once."""
        return len(self.merged())

    @property
    def missing(self) -> int:
        """Number of missing samples, summed over the channels."""
        return sum(map(_length, chain(*self.channels)))

    @property
    def longest(self) -> int:
        """Samples of the longest interval of any one channel; 0 where nothing is missing."""
        return max(map(_length, chain(*self.channels)), default=0)

    def merged(self) -> tuple[Interval, ...]:
        """The intervals in which any channel misses samples, as one channel's."""
        return merge(chain(*self.channels))

    def check(self, recording: Recording, source: str = "") -> None:
        """Raise ``InputError``, with ``source`` first, unless these are within a recording, and of its channels."""
        if len(self.channels) != recording.channels:
            raise InputError(
                f"{source}the gaps are of {count_channels(len(self.channels))}, the recording has {recording.channels}"
            )
        for interval in chain(*self.channels):
            _check_inside(interval, recording, source)

    def part(self, start: int, stop: int) -> Gaps:
        """The gaps within the samples ``start`` to ``stop``, counted from there."""
        return Gaps(
            tuple(
                tuple(
                    (max(begin, start) - start, min(end, stop) - start)
                    for begin, end in channel
                    if max(begin, start) < min(end, stop)
                )
                for channel in self.channels
            )
        )

    def mask(self, start: int, stop: int) -> Flags:
        """True where the samples ``start`` to ``stop`` are missing, ``[C, stop - start]``."""
        mask = np.zeros((len(self.channels), stop - start), dtype=np.bool_)
        for row, channel in zip(mask, self.part(start, stop).channels, strict=True):
            for begin, end in channel:
                row[begin:end] = True
        return mask


def merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """The fewest intervals, in order, that cover the same samples as these, which may be in any order."""
    merged: list[Interval] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


# Given by hand


def parse_gap(text: str, rate: int) -> Interval:
    """Interval of ``START:END`` in seconds, to the nearest sample at ``rate`` Hz, or of ``STARTn:ENDn`` in samples.

    Raises:
        SettingsError: The text is not of this form, or a gap cannot be there.
    """
    in_samples = _IN_SAMPLES.fullmatch(text)
    times, unit = (in_samples.groups(), 1) if in_samples else (text.split(":"), rate)
    try:
        return _to_samples(
            times, unit, "give START:END in seconds, such as 0.50:0.56, or in samples, such as 8000n:8960n"
        )
    except ValueError as error:
        raise SettingsError(f"--gap {text!r}: {error}") from None


def make_gaps(intervals: Iterable[Interval], recording: Recording, source: str = "") -> tuple[Gaps, list[str]]:
    """Gaps at the same intervals, in any order, in all channels of a recording; and notes.

    Errors begin with ``source``, such as ``mask.csv:`` and a space.

    Raises:
        InputError: A gap is not within the recording, or nothing of the recording is left.
    """
    given = [(start, stop) for start, stop in intervals]
    merged = merge(given)
    notes = []
    if len(merged) < len(given):
        notes.append(f"{source}gaps that overlap or touch are merged: {len(given)} become {len(merged)}")
    return checked_gaps([merged] * recording.channels, recording, source), notes


def checked_gaps(channels: Iterable[Iterable[Interval]], recording: Recording, source: str) -> Gaps:
    """Gaps at these intervals of every channel; ``InputError``, with ``source`` first, where a channel is all gap."""
    gaps = Gaps(tuple(merge(channel) for channel in channels))
    gaps.check(recording, source)
    for number, channel in enumerate(gaps.channels, 1):
        if channel == ((0, recording.length),):
            raise InputError(f"{source}all samples of channel {number} are missing; nothing is left to restore it from")
    return gaps


def _to_samples(times: Sequence[str], rate: int, form: str) -> Interval:
    """Interval between two times in s, to the nearest sample.

    Raises ``ValueError`` that says why it is none: with ``form`` where these are not two numbers.
    """
    try:
        start, stop = map(float, times)
    except ValueError:
        raise ValueError(form) from None
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


def _check_inside(interval: Interval, recording: Recording, source: str) -> None:
    """Raise ``InputError``, beginning with ``source``, unless an interval is within a recording."""
    if interval[1] > recording.length:
        # In samples too, for the two may be the same to the millisecond.
        raise InputError(
            f"{source}the gap {span_in_words(interval, recording.rate)} (samples {interval[0]} to {interval[1]}) is "
            f"outside the recording, which ends at {recording.length / recording.rate:.3f} s "
            f"({recording.length} samples)"
        )


# Read from a file


def read_mask(path: Path, recording: Recording) -> tuple[Gaps, list[str]]:
    """Gaps of a recording out of a file, and notes.

    ``.csv`` tables and ``.txt``, the labels that Audacity exports, hold a gap of all channels per line, start and end
    in seconds, with commas or tabs between them. Lines that are blank or begin with ``#``, a table's header, further
    columns, and Audacity's lines of frequencies, which begin with a backslash, are ignored. Any other file is audio
    that is zero where samples are missing, with the recording's rate and length, and one channel for all or as many.

    Raises:
        InputError: The file cannot be read or does not go with the recording, or nothing of a channel is left.
    """
    if path.suffix.lower() in (".csv", ".txt"):
        return make_gaps(_read_lines(path, recording), recording, f"{path}: ")
    return _read_audio_mask(path, recording)


def _read_lines(path: Path, recording: Recording) -> Iterator[Interval]:
    """Interval of every line of a table or of labels."""
    try:
        # Spreadsheets write byte-order marks, and some of them UTF-16. What is not UTF-8 is only in people's remarks.
        is_utf16 = path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = path.read_text("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    is_table = path.suffix.lower() == ".csv"
    form = f"START{',' if is_table else ', a tab, '}END in seconds with decimal points, such as 0.50 and 0.56"
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if _NO_REMARK.match(line)]
    for index, (number, line) in enumerate(lines):
        # A quotation mark that is never closed must not hide the gaps of further lines: each is read by itself.
        fields = [field.strip().strip('"') for field in line.split("," if is_table else "\t")]
        source = f"{path}, line {number}: "
        if is_table and index == 0 and len(fields) > 1 and all(map(_NAME.match, fields[:2])):
            continue
        if is_table and len(fields) > 2 and all(field.isdigit() for field in fields[:3]):
            # 0,5,0,56 may be 0.5 to 0.56 or 0 to 5 s. Gaps of whole seconds are rare, and replacing sound does harm.
            raise InputError(f"{source}looks like decimal commas; write decimal points, and START,END alone")
        try:
            interval = _to_samples(fields[:2], recording.rate, f"{line[:40]!r} is no gap; write {form}")
        except ValueError as error:
            raise InputError(f"{source}{error}") from None
        _check_inside(interval, recording, source)
        yield interval


def _read_audio_mask(path: Path, recording: Recording) -> tuple[Gaps, list[str]]:
    with open_audio(path) as mask:
        fits = (mask.rate, mask.length) == (recording.rate, recording.length)
        if not fits or mask.channels not in (1, recording.channels):
            raise InputError(
                f"{path}: has {shape_in_words(mask)}, the recording {shape_in_words(recording)}; "
                "a mask has the same rate and length, and one channel or as many"
            )
        if not mask.subtype.startswith(PORTABLE_SUBTYPES):
            raise InputError(f"{path}: {mask.subtype} may not keep zeros; save the mask as WAV or FLAC")
        channels = find_stretches((block == 0 for block in blocks(mask)), mask.channels, 1)
    return checked_gaps(channels * (recording.channels // mask.channels), recording, f"{path}: "), list(mask.notes)


def find_stretches(flags: Iterable[Flags], channels: int, shortest: int) -> list[list[Interval]]:
    """For every channel the intervals of at least ``shortest`` samples in which flags ``[C, n]`` are true.

    The flags come in blocks that follow each other; an interval may go on over several.
    """
    found: list[list[Interval]] = [[] for _ in range(channels)]
    offset = 0
    for block in flags:
        turns = np.diff(np.pad(block, ((0, 0), (1, 1))), axis=1)
        for intervals, turn in zip(found, turns, strict=True):
            bounds = np.flatnonzero(turn).reshape(-1, 2)
            kept = (np.diff(bounds)[:, 0] >= shortest) | (bounds[:, 0] == 0) | (bounds[:, 1] == block.shape[1])
            intervals += map(tuple, (offset + bounds[kept]).tolist())
        offset += block.shape[1]
    # Those that go on in the next block touch there.
    return [[each for each in merge(intervals) if _length(each) >= shortest] for intervals in found]


# For people, and as JSON


def list_intervals(gaps: Gaps) -> list[list[int | list[int]]]:
    """Intervals as start, stop and, unless all channels miss it, the channels, counted from 1; for JSON."""
    total = len(gaps.channels)
    return [
        [start, stop] if len(numbers) == total else [start, stop, numbers]
        for (start, stop), numbers in _by_interval(gaps)
    ]


def describe(gaps: Gaps, rate: int) -> list[str]:
    """One line for people per gap, such as ``0.500-0.560 s (60 ms), both channels``; ``rate`` is in Hz."""
    lines = []
    for interval, numbers in _by_interval(gaps):
        length = f"{1000 * _length(interval) / rate:.2f}".rstrip("0").rstrip(".")
        line = f"{span_in_words(interval, rate)} ({length} ms)"
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
    if gaps.longest > LONGEST_RESTORED * rate:
        longest = max(chain(*gaps.channels), key=_length)
        notes.append(
            f"{span_in_words(longest, rate)} is {gaps.longest / rate:.3f} s long; what fills gaps of more than "
            f"{LONGEST_RESTORED:g} s is a guess, for sound cannot be predicted so far"
        )
    for number, channel in enumerate(gaps.channels, 1):
        alone = Gaps((channel,))
        known = recording.length - alone.missing
        if alone.longest > known:
            notes.append(
                f"a gap of {alone.longest / rate:.3f} s is longer than all that is known of channel {number}, "
                f"{known / rate:.3f} s; what fills it is a guess"
            )
    return notes


def span_in_words(interval: Interval, rate: int) -> str:
    """Start and end in seconds; ``rate`` is in Hz."""
    return f"{interval[0] / rate:.3f}-{interval[1] / rate:.3f} s"


def _is_interval(given: object) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and all(isinstance(each, Integral) for each in given)


def _length(interval: Interval) -> int:
    return interval[1] - interval[0]


def _by_interval(gaps: Gaps) -> list[tuple[Interval, list[int]]]:
    """Intervals in order, with the channels that miss them, counted from 1."""
    where: dict[Interval, list[int]] = {}
    for number, channel in enumerate(gaps.channels, 1):
        for interval in channel:
            where.setdefault(interval, []).append(number)
    return sorted(where.items())
