"""Gaps that are given by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from dapcli.audio import Recording
from dapcli.errors import InputError, SettingsError
from dapcli.signal.gaps import Gaps, Interval, checked_gaps, merge, span_in_words

_IN_SAMPLES = re.compile(r"(\d+)n:(\d+)n")


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
        return to_samples(start, stop, 1 if in_samples else rate)
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
        check_inside(interval, recording, source)
    merged = merge(given)
    notes = []
    if len(merged) < len(given):
        notes.append(f"{source}gaps that overlap or touch are merged: {len(given)} become {len(merged)}")
    return checked_gaps([merged] * recording.channels, recording, source), notes


def to_samples(start: float, stop: float, rate: int) -> Interval:
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


def check_inside(interval: Interval, recording: Recording, source: str) -> None:
    """Raise ``InputError``, beginning with ``source``, unless an interval is within a recording."""
    if interval[1] > recording.length:
        # In samples too, for the two may be the same to the millisecond.
        raise InputError(
            f"{source}the gap {span_in_words(interval, recording.rate)} (samples {interval[0]} to {interval[1]}) is "
            f"outside the recording, which ends at {recording.length / recording.rate:.3f} s "
            f"({recording.length} samples)"
        )
