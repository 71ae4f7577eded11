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

# Distance from a run within which the sound is looked at, s. A dropout cuts sound off; an editor's fade and a noise
# gate's release are all but silent so close to their end.
_BESIDE_S = 0.001
# Sound counts from so many of its smallest steps on, and from so much of the channel's peak: -60 dB.
_STEPS = 4
_AUDIBLE = 1e-3


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
    # The highest and the lowest sample of a channel, and its smallest step between two that differ.
    highest, lowest, step = levels = np.repeat([[-np.inf], [np.inf], [np.inf]], recording.channels, axis=1)

    def held() -> Iterator[Flags]:
        before = np.full((recording.channels, 1), np.nan)  # equal to no sample
        for block in blocks(recording):
            change = np.abs(np.diff(block, axis=1, prepend=before))
            np.maximum(highest, block.max(axis=1), out=highest)
            np.minimum(lowest, block.min(axis=1), out=lowest)
            np.minimum(step, np.where(change > 0, change, np.inf).min(axis=1), out=step)
            before = block[:, -1:]
            yield change == 0

    stretches = find_stretches(held(), recording.channels, shortest - 1)
    found: list[list[Interval]] = [[] for _ in stretches]
    left_out: dict[str, list[Interval]] = {}
    for (start, stop), channel in sorted((each, channel) for channel, row in enumerate(stretches) for each in row):
        # A run's first sample differs from the one before.
        gap, reason = _judge(recording, channel, (start - 1, stop), levels[:, channel])
        if gap[1] - gap[0] < shortest:
            continue
        if reason:
            left_out.setdefault(reason, []).append(gap)
        else:
            found[channel].append(gap)
    notes = [
        f"not taken for gaps: {len(gaps)} run{'s' * (len(gaps) > 1)} of one value {reason}, "
        f"the first at {span_in_words(gaps[0], recording.rate)}"
        for reason, gaps in left_out.items()
    ]
    return checked_gaps(found, recording, ""), notes


def _judge(recording: Recording, channel: int, run: Interval, levels: Samples) -> tuple[Interval, str]:
    """The samples that would be missing if a run were a dropout, and why it is none; empty where it is one.

    ``levels`` ``[3]`` are those of the channel.
    """
    first, stop = run
    highest, lowest, step = levels
    reach = max(1, round(_BESIDE_S * recording.rate))
    left = recording.read(max(0, first - reach), first + 1)[channel]
    value = left[-1]
    gap = (first if value == 0 else first + 1, stop)
    if first == 0 or stop == recording.length:
        return gap, "at the beginning or the end"
    if stop - gap[0] > LONGEST_GAP * recording.rate:
        return gap, f"longer than {LONGEST_GAP:g} s"
    if value != 0 and value in (highest, lowest):
        return gap, "at the channel's peak, as clipping makes"
    right = recording.read(stop, min(stop + reach, recording.length))[channel]
    # Half the range, for a constant offset is not heard.
    audible = max(_STEPS * step, _AUDIBLE * (highest - lowest) / 2)
    if min(np.abs(side - value).max() for side in (left, right)) < audible:
        return gap, "beside near silence"
    return gap, ""
