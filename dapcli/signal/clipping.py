"""Clipping: samples beyond a level were replaced by the level, and only that they were beyond is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Recording, Samples
from dapcli.audio.recording import blocks
from dapcli.errors import InputError, SettingsError
from dapcli.signal.degradation import ROUNDING, Bounded, Flags, TrainingPair

# Levels of the training pairs relative to the recording's. At 1 there is nothing to learn: a restoration that is
# clipped where the recording was is the recording, and restored in the same way it is the truth itself.
_HARDER = (0.75, 0.6)

# Samples within so much of the highest, relative to it and not less than a step of 16 bits, are at the highest.
_WIDTH = 1e-4
# Clipping piles up so many samples, in so many runs of two or more, and so many times more than at any of the next
# lower values that occur. In other music a sample or two are the highest; waves that rest at their peaks, and values
# as coarse as those of 8 bits, are as frequent below.
_PILE = 10
_RUNS = 3
_RATIO = 5
_NEXT = 10


@dataclass(frozen=True)
class Clipping(Bounded):
    """Hard clipping at the levels ``low < 0 < high`` of every channel, infinite where a side is not clipped.

    Raises ``ValueError`` where the levels are not so.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(low < 0 < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"levels are not on both sides of zero: {self.low}, {self.high}")

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
    """Clipping of all channels at ``level`` and ``-level``, less what rounding to 16 bits may have taken from it.

    Raises:
        SettingsError: The level is not a finite number above one step of 16 bits.
        InputError: No sample of the recording reaches the level.
    """
    if not ROUNDING < level < np.inf:
        raise SettingsError(
            f"--level {level:g}: must be finite and above {ROUNDING:.1g}, a step of 16 bits; full scale is 1"
        )
    peak = max((float(np.abs(block).max()) for block in blocks(recording)), default=0.0)
    threshold = level - ROUNDING
    if peak < threshold:
        raise InputError(
            f"no sample reaches the level {level:g}: the highest is {peak:.6g}; "
            "give that or less, or leave --level out to have it detected"
        )
    return Clipping((-threshold,) * recording.channels, (threshold,) * recording.channels)


def detect_clipping(recording: Recording) -> Clipping | None:
    """The levels at which a recording was clipped, by channel and sign; ``None`` where no side of any channel was.

    Clipping leaves many samples at the highest value, in runs, and few at each of the values right below. Quantized
    recordings may look alike: look for those first. A square wave cannot be told from a clipped recording.
    """
    tops = reduce(np.maximum, (block.max(axis=1) for block in _sides(recording)), np.zeros(2 * recording.channels))
    sides = [_Side(float(top)) for top in tops]
    for block in _sides(recording):
        for side, samples in zip(sides, block, strict=True):
            side.add(samples)
    levels = [side.level if side.is_clipped else np.inf for side in sides]
    if all(np.isinf(levels)):
        return None
    low, high = levels[: recording.channels], levels[recording.channels :]
    return Clipping(tuple(-level for level in low), tuple(high))


def _sides(recording: Recording) -> Iterator[Samples]:
    """Blocks of a recording upside down, and as they are: ``[2C, n]``."""
    return (np.concatenate([-block, block]) for block in blocks(recording))


class _Side:
    """Counts of the values of one side of a channel, of which ``top`` is the highest."""

    def __init__(self, top: float) -> None:
        #: The lowest of the samples at the top.
        self.level = np.inf
        self._top = top
        self._width = max(_WIDTH * top, 1.01 * ROUNDING)
        # Samples by their distance from the top in widths.
        self._counts = np.zeros(int(top / self._width) + 1, dtype=np.int64)
        self._runs = 0
        self._before = np.zeros(2, dtype=np.bool_)

    def add(self, samples: Samples) -> None:
        """Take in the samples ``[n]`` that follow."""
        loud = samples[samples > 0]
        self._counts += np.bincount(((self._top - loud) / self._width).astype(np.int64), minlength=len(self._counts))
        at_top = samples > self._top - self._width
        self.level = float(samples[at_top].min(initial=self.level))
        # Runs are counted where they have their second sample.
        at_top = np.concatenate([self._before, at_top])
        second = at_top[1:] & at_top[:-1]
        self._runs += int((second[1:] & ~second[:-1]).sum())
        self._before = at_top[-2:]

    @property
    def is_clipped(self) -> bool:
        """Whether the highest value is one that clipping made."""
        if self._top == 0:
            return False
        pile, *others = self._counts[self._counts > 0]
        return bool(pile >= _PILE and self._runs >= _RUNS and pile > _RATIO * max([1, *others[:_NEXT]]))
