"""Clipping: samples beyond a level were replaced by the level, and only that they were beyond is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapcli.audio import Recording, Samples
from dapcli.audio.recording import blocks, count_channels
from dapcli.audio.view import View
from dapcli.errors import InputError, SettingsError
from dapcli.signal.degradation import Bounded, Flags, TrainingPair, full_scale

# Levels of the training pairs relative to the recording's. At 1 there is nothing to learn: a restoration that is
# clipped where the recording was is the recording, and restored in the same way it is the truth itself.
_HARDER = (0.75, 0.6)

# Samples within so much of the highest, relative to it and not less than rounding makes, are at the highest.
_WIDTH = 1e-4
# Clipping piles up so many samples, in so many runs of two or more, and so many times more than at any of the next
# lower values that occur. In other music a sample or two are the highest; waves that rest at their peaks, and values
# as coarse as those of 8 bits, are as frequent below.
_PILE = 10
_RUNS = 3
_RATIO = 5
_NEXT = 10
# The largest fraction of a channel's samples, but for those of less than 1 % of its peak, that clipping takes: sounds
# that are clipped so hard that as much is lost as is left have 40 to 94 %.
_MOST = 0.9
_SILENCE = 0.01


@dataclass(frozen=True)
class Clipping(Bounded):
    """Hard clipping at the levels ``low < 0 < high`` of every channel, infinite where a side is not clipped.

    Raises ``ValueError`` where the levels are not so.
    """

    task: ClassVar[str] = "declip"

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(low < 0 < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"levels are not on both sides of zero: {self.low}, {self.high}")

    def check(self, recording: Recording) -> None:
        """Raise ``InputError`` unless there are levels for every channel of a recording."""
        if len(self.low) != recording.channels:
            raise InputError(
                f"there are levels for {count_channels(len(self.low))}, the recording has {recording.channels}"
            )

    def alike(self, one: int, other: int, sign: int) -> bool:
        """Whether two channels are clipped at the same levels, one of them multiplied by a sign."""
        low, high = self.low[other], self.high[other]
        return (self.low[one], self.high[one]) == ((low, high) if sign > 0 else (-high, -low))

    def for_view(self, view: View) -> Clipping:
        """Clipping of the channels that are seen, at their level."""
        low, high = (tuple(view.gain * side[channel] for channel in view.kept) for side in (self.low, self.high))
        return Clipping(low, high)

    def affected(self, samples: Samples) -> Flags:
        """True where samples ``[C, N]`` are at or beyond a level."""
        return (samples <= np.array(self.low)[:, None]) | (samples >= np.array(self.high)[:, None])

    def bounds(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The level and infinity for clipped samples; the others are reliable."""
        channels = list(zip(samples, self.low, self.high, strict=True))
        low = torch.stack([row.clamp(max=high).masked_fill(row <= low, -torch.inf) for row, low, high in channels])
        high = torch.stack([row.clamp(min=low).masked_fill(row >= high, torch.inf) for row, low, high in channels])
        return low, high

    def describe(self, recording: Recording) -> dict[str, Any]:
        """The levels, None where a side is not clipped, and the fraction of clipped samples."""
        clipped = sum(int(self.affected(block).sum()) for block in blocks(recording))
        return {
            "kind": "clipping",
            "low": [None if np.isinf(level) else level for level in self.low],
            "high": [None if np.isinf(level) else level for level in self.high],
            "clipped": clipped / (recording.length * recording.channels),
        }

    def candidates(self, samples: Samples, rate: int) -> Samples:
        """The sparsest signals that would have been clipped into samples ``[C, N]``, and refined: ``[2, C, N]``.

        The second is mostly the better one; the ensemble finds out where it is not.
        """
        sparsest = self.sparsest(samples, rate)
        return np.stack([sparsest, self.refined(sparsest, samples, rate)])

    def training_pairs(self, samples: Samples, candidates: Samples, rate: int, seed: int) -> list[TrainingPair]:  # noqa: ARG002
        """The first candidate, clipped at lower levels: the samples that this takes away count."""
        truth = candidates[0]
        pairs = []
        for factor in _HARDER:
            harder = Clipping(tuple(factor * low for low in self.low), tuple(factor * high for high in self.high))
            again = harder.clip(truth)
            pairs.append(TrainingPair(harder.candidates(again, rate), truth, harder.affected(again)))
        return pairs

    def clip(self, samples: Samples) -> Samples:
        """Samples ``[C, N]`` with those beyond a level replaced by it."""
        return np.clip(samples, np.array(self.low)[:, None], np.array(self.high)[:, None])


def clipping_at(level: float, recording: Recording) -> Clipping:
    """Clipping of all channels at ``level`` and ``-level``, less what rounding may have taken from it.

    Raises:
        SettingsError: The level is not a finite number above what rounding makes.
        InputError: No sample of the recording reaches the level.
    """
    peak = max((float(np.abs(block).max()) for block in blocks(recording)), default=0.0)
    rounding = full_scale(peak, recording.subtype)[1]
    if not rounding < level < np.inf:
        raise SettingsError(f"--level {level:g}: must be finite and above {rounding:.1g}; full scale is 1")
    threshold = level - rounding
    if peak < threshold:
        raise InputError(
            f"no sample reaches the level {level:g}: the highest is {peak:.6g}; "
            "give that or less, or leave --level out to have it detected"
        )
    return Clipping((-threshold,) * recording.channels, (threshold,) * recording.channels)


def detect_clipping(recording: Recording) -> Clipping | None:
    """The levels at which a recording was clipped, by channel and sign; ``None`` where no side of any channel was.

    Clipping leaves many samples at the highest value, in runs, and few at each of the values right below. Quantized
    recordings may look alike: look for those first. Square waves have next to nothing but such samples.
    """
    channels = recording.channels

    def sides() -> Iterator[Samples]:  # upside down, and as they are: [2C, n]
        return (np.concatenate([-block, block]) for block in blocks(recording))

    tops = reduce(np.maximum, (block.max(axis=1) for block in sides()), np.zeros(2 * channels))
    widths = np.maximum(_WIDTH * tops, 1.01 * full_scale(tops.max(), recording.subtype)[1])
    # Samples of a side by their distance from its top in widths, the lowest of those at the top, and runs of them.
    counts = [np.zeros(int(top / width) + 1, dtype=np.int64) for top, width in zip(tops, widths, strict=True)]
    lowest = np.full(2 * channels, np.inf)
    runs = np.zeros(2 * channels, dtype=np.int64)
    before = np.zeros((2 * channels, 2), dtype=np.bool_)
    for block in sides():
        for count, top, width, samples in zip(counts, tops, widths, block, strict=True):
            distances = (top - samples[samples > 0]) / width
            count += np.bincount(distances.astype(np.int64), minlength=len(count))
        at_top = block > (tops - widths)[:, None]
        lowest = np.minimum(lowest, np.where(at_top, block, np.inf).min(axis=1))
        at_top = np.concatenate([before, at_top], axis=1)
        # Runs are counted where they have their second sample.
        runs += (at_top[:, 2:] & at_top[:, 1:-1] & ~at_top[:, :-2]).sum(axis=1)
        before = at_top[:, -2:]
    clipped = (tops > 0) & (runs >= _RUNS) & [_is_pile(count) for count in counts]
    piles, present = (
        np.reshape(values, (2, channels))
        for values in (
            [clip * count[0] for clip, count in zip(clipped, counts, strict=True)],
            [count[: round((1 - _SILENCE) * len(count))].sum() for count in counts],
        )
    )
    clipped &= np.tile(piles.sum(axis=0) <= _MOST * present.sum(axis=0), 2)
    levels = np.where(clipped, lowest, np.inf).tolist()
    if not clipped.any():
        return None
    return Clipping(tuple(-level for level in levels[:channels]), tuple(levels[channels:]))


def _is_pile(counts: NDArray[np.int64]) -> bool:
    """Whether far more samples are at the top than at the next values; none may be above zero."""
    pile, *others = *counts[counts > 0], 0
    return bool(pile >= _PILE and pile > _RATIO * max([1, *others[:_NEXT]]))
