"""Detection of gaps: dropouts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dapcli.audio import Recording, Samples
from dapcli.audio.recording import blocks
from dapcli.errors import SettingsError
from dapcli.signal.gaps import Flags, Gaps, Interval, checked_gaps, find_stretches, span_in_words

#: The shortest dropout that is detected, s. Lost packets and buffers mostly last longer. Sound without noise rests on
#: one value for some ms at a time: at the peaks of a low tone, and in quiet passages of 16 bits.
DEFAULT_MIN_GAP = 0.005
#: The longest dropout that is detected, s: longer silence is rather meant.
LONGEST_GAP = 1.0

# Distance from a run within which there is sound beside a dropout, s.
_BESIDE_S = 0.001
# Sound counts from so many of its smallest steps on, and from so much of the channel's peak: -60 dB.
_STEPS = 4
_AUDIBLE = 1e-3
# A fade is seen by how little sound is left so close to a run, relative to that further off, which is as far as the run
# is long, within limits. All in s.
_CLOSE_S = 0.00025
_AROUND_S = (0.01, 0.1)
_FADED = 1 / 30
# Of fades so short that this does not show them, the samples next to the run, s, are small on both sides: relative to
# the sound within _BESIDE_S, and multiplied.
_NEXT_S = 1 / 16_000
_BOTH_FADED = 1 / 100
# Silence is within so much of the channel's range from its mean, from which dropouts take it away a little.
_OFFSET = 0.01
# Why a run may be no dropout in a channel although it is one in another.
_QUIET = ("beside near silence", "beside a fade")


def detect_gaps(
    recording: Recording, min_gap: float = DEFAULT_MIN_GAP, *, each: bool = False
) -> tuple[Gaps, list[str]]:
    """Dropouts of a recording, channel by channel; and notes on runs that were not taken for any.

    There is a note for every reason, or, with ``each``, one for every run, dropouts too.

    A dropout is a run of one and the same value, exactly: zeros, or the last good sample repeated, which itself is
    not missing. It lasts at least ``min_gap`` seconds, and two samples. Of such runs, these are left out:

    - runs that reach the beginning or the end of the recording: silence, mostly, and there is sound on one side only;
    - runs of more than ``LONGEST_GAP``: silence between sounds;
    - runs, not of zeros, at the highest or lowest value of the channel: clipping;
    - runs with near silence on one side: a decay, or rounding in a quiet passage. Within 1 ms on both sides a sample
      must differ from the run's value by 60 dB below the channel's peak or more, and by four of the smallest steps
      between two samples of the channel, which in integer formats is the quantization step;
    - runs of silence, be it zero or the channel's mean, that begin or end in a fade: a noise gate, an editor's cut, a
      pause of a synthetic voice. A dropout cuts sound off on both sides. Thus a hit out of digital silence after a
      fade is no end of a dropout.

    What is a dropout in one channel is not left out in others as quiet or a fade.

    Sound that is switched on and off without a fade, such as generated Morse code, cannot be told from dropouts.

    Raises:
        SettingsError: ``min_gap`` is not between 0 and ``LONGEST_GAP``.
    """
    if not 0 < min_gap <= LONGEST_GAP:
        raise SettingsError(f"--min-gap {min_gap:g}: must be above 0 and at most {LONGEST_GAP:g} s")
    shortest = max(2, round(min_gap * recording.rate))
    # The highest and the lowest sample of a channel, its smallest step between two that differ, and its mean.
    levels = np.repeat([[-np.inf], [np.inf], [np.inf], [0.0]], recording.channels, axis=1)
    highest, lowest, step, mean = levels

    def held() -> Iterator[Flags]:
        before = np.full((recording.channels, 1), np.nan)  # equal to no sample
        for block in blocks(recording):
            change = np.abs(np.diff(block, axis=1, prepend=before))
            np.maximum(highest, block.max(axis=1), out=highest)
            np.minimum(lowest, block.min(axis=1), out=lowest)
            np.minimum(step, np.where(change > 0, change, np.inf).min(axis=1), out=step)
            mean[:] += block.sum(axis=1) / recording.length
            before = block[:, -1:]
            yield change == 0

    stretches = find_stretches(held(), recording.channels, shortest - 1)
    runs: list[tuple[Interval, int, str]] = []
    for channel, row in enumerate(stretches):
        for start, stop in row:
            # A run's first sample differs from the one before.
            gap, reason = _judge(recording, channel, (start - 1, stop), levels[:, channel])
            if gap[1] - gap[0] >= shortest:
                runs.append((gap, channel, reason))
    dropouts = {gap for gap, _, reason in runs if not reason}
    found: list[list[Interval]] = [[] for _ in stretches]
    reasons: dict[str, list[Interval]] = {}
    for gap, channel, reason in sorted(runs):
        if gap in dropouts and reason in ("", *_QUIET):
            found[channel].append(gap)
            reason = ""
        reasons.setdefault(reason, []).append(gap)
    return checked_gaps(found, recording, ""), (_each if each else _by_reason)(reasons, recording.rate)


def _each(reasons: dict[str, list[Interval]], rate: int) -> list[str]:
    """One line for every run of one value, in order."""
    runs = sorted({(gap, reason) for reason, gaps in reasons.items() for gap in gaps})
    return [
        f"not taken for gaps: {span_in_words(gap, rate)}, {reason}"
        if reason
        else f"taken for a gap: {span_in_words(gap, rate)}, one value between sounds that are cut off"
        for gap, reason in runs
    ]


def _by_reason(reasons: dict[str, list[Interval]], rate: int) -> list[str]:
    """One line for every reason not to take runs of one value for gaps."""
    return [
        f"not taken for gaps: {len(gaps)} run{'s' * (len(gaps) > 1)} of one value {reason}, "
        f"the first at {span_in_words(gaps[0], rate)}"
        for reason, gaps in reasons.items()
        if reason
    ]


def _judge(recording: Recording, channel: int, run: Interval, levels: Samples) -> tuple[Interval, str]:
    """The samples that would be missing if a run were a dropout, and why it is none; empty where it is one.

    ``levels`` ``[4]`` are those of the channel.
    """
    first, stop = run
    highest, lowest, step, mean = levels
    shortest, longest = _AROUND_S
    beside, close, following, furthest = (
        max(1, round(reach * recording.rate)) for reach in (_BESIDE_S, _CLOSE_S, _NEXT_S, longest)
    )
    left = recording.read(max(0, first - furthest), first + 1)[channel]
    value = left[-1]
    gap = (first if value == 0 else first + 1, stop)
    if first == 0 or stop == recording.length:
        return gap, "at the beginning or the end"
    if stop - gap[0] > LONGEST_GAP * recording.rate:
        return gap, f"longer than {LONGEST_GAP:g} s"
    if value != 0 and value in (highest, lowest):
        return gap, "at the channel's peak, as clipping makes"
    right = recording.read(stop, min(stop + furthest, recording.length))[channel]
    # How far the sound on either side is from the run's value, from there on.
    sides = [np.abs(side - value) for side in (left[-2::-1], right)]
    # Half the range, for a constant offset is not heard.
    audible = max(_STEPS * step, _AUDIBLE * (highest - lowest) / 2)
    present = [side[:beside].max() for side in sides]
    if min(present) < audible:
        return gap, _QUIET[0]
    around = max(stop - first, round(shortest * recording.rate), 1)
    fades = any(side[:close].max() < _FADED * side[:around].max() for side in sides)
    products = [side[:following].max() / level for side, level in zip(sides, present, strict=True)]
    # A value that is held elsewhere is no silence.
    if (value == 0 or abs(value - mean) < _OFFSET * (highest - lowest)) and (fades or np.prod(products) < _BOTH_FADED):
        return gap, _QUIET[1]
    return gap, ""
