"""Missing samples: some are known exactly, of the others nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import gmean
from torch import Tensor

from dapcli.audio import Samples
from dapcli.damage import Exercise, Flags
from dapcli.gaps import Gaps, Interval, merge
from dapcli.prediction import draw_deviation, predict

#: Orders of linear prediction that gaps are filled with, s: from what follows a voice to what resolves a chord.
ORDERS_S = (0.005, 0.01, 0.02, 0.04)
# Sound on either side of a gap that a prediction learns from: so many times its order, within limits in s.
_CONTEXT_ORDERS = 7
_CONTEXT_S = (0.05, 0.25)
# Gaps up to this length, s, are left to prediction; in longer ones sound is drawn, by a prediction of this order, s.
_LONG_S = 0.08
_TEXTURE_ORDER_S = 0.01
# Gaps opened in what is known for the network to learn from, and copies of the recording that they are spread over.
_EXERCISES = 3
_GAPS_PER_EXERCISE = 4
# What is left between gaps of one exercise, s.
_SPACING_S = 0.1


@dataclass(frozen=True)
class MissingSamples:
    """Gaps in a recording."""

    guide: ClassVar[str] = "linear prediction"

    gaps: Gaps

    def part(self, start: int, stop: int) -> MissingSamples:
        """The gaps within the samples ``start`` to ``stop``."""
        return MissingSamples(self.gaps.part(start, stop))

    def touches(self, samples: Samples) -> bool:
        """Whether any sample is missing."""
        del samples
        return bool(self.gaps)

    def candidates(self, samples: Samples, rate: int) -> Samples:
        """Fills by linear prediction of several orders, ``[K, C, N]``, of samples ``[C, N]`` at ``rate`` Hz."""
        filled = [
            [
                _fill_gaps(channel, gaps, missing, order, rate)
                for channel, gaps, missing in zip(samples, self.gaps.channels, self._missing(samples), strict=True)
            ]
            for order in ORDERS_S
        ]
        return np.array(filled)

    def exercises(self, samples: Samples, candidates: Samples, rate: int, seed: int) -> list[Exercise]:
        """The same recording with further gaps, as long as those that it has, filled in the same way."""
        rng = np.random.default_rng(seed)
        exercises = [self._exercise(samples, rate, rng) for _ in range(_EXERCISES)]
        # With hardly anything known there is nothing to learn but that no fill is better than another.
        return [each for each in exercises if each.scored.any()] or [
            Exercise(candidates, candidates.mean(axis=0), self._missing(samples))
        ]

    def misfit(self, estimate: Tensor, samples: Tensor) -> Tensor:
        """Mean squared error at the known samples, both ``[C, N]``; 0 where none is known."""
        known = torch.from_numpy(~self.gaps.mask(0, samples.shape[1])).to(samples.device)
        return (estimate - samples)[known].square().sum() / known.sum().clamp(min=1)

    def finish(self, estimate: Samples, samples: Samples, rate: int, seed: int) -> Samples:
        """The estimate with sound in the middle of gaps that are too long to be predicted.

        There the least squared error is that of silence, which is heard as a hole. What is added is as likely as
        silence is not: a draw from the distribution of the sound around. Gaps that are short, or are predicted for
        the larger part, are left as they are.
        """
        rng = np.random.default_rng(seed)
        finished: Samples = estimate.copy()
        for channel, known, gaps, missing in zip(
            finished, samples, self.gaps.channels, self._missing(samples), strict=True
        ):
            for start, stop in gaps:
                if stop - start <= _LONG_S * rate:
                    continue
                around = _around(start, stop, _TEXTURE_ORDER_S, rate)
                order = round(_TEXTURE_ORDER_S * rate)
                deviation = draw_deviation(known[around], missing[around], order, rate, rng)
                added = deviation[start - around.start : stop - around.start]
                if np.sum(added**2) > np.sum(channel[start:stop] ** 2):
                    sides = (
                        known[side][~missing[side]] for side in (slice(around.start, start), slice(stop, around.stop))
                    )
                    power = gmean([np.mean(side**2) if side.size else 0.0 for side in sides])
                    # No louder than what is around: the power of a voice is in its pulses, which the draw has not.
                    channel[start:stop] += added * min(1.0, np.sqrt(power / np.mean(added**2)))
        return finished

    def project(self, estimate: Samples, samples: Samples) -> Samples:
        """The known samples as they are, the others from the estimate, ``[C, N]``."""
        return np.asarray(np.where(self._missing(samples), estimate, samples))

    def _missing(self, samples: Samples) -> Flags:
        return self.gaps.mask(0, samples.shape[1])

    def _exercise(self, samples: Samples, rate: int, rng: np.random.Generator) -> Exercise:
        missing = self._missing(samples)
        opened = [
            _open_gaps(np.diff(gaps).ravel() if gaps else _lengths(self.gaps), row, round(_SPACING_S * rate), rng)
            for gaps, row in zip(self.gaps.channels, missing, strict=True)
        ]
        scored = Gaps(tuple(opened)).mask(0, samples.shape[1])
        more = MissingSamples(
            Gaps(tuple(merge([*old, *new]) for old, new in zip(self.gaps.channels, opened, strict=True)))
        )
        return Exercise(more.candidates(np.where(scored, 0.0, samples), rate), samples, scored)


def _lengths(gaps: Gaps) -> np.ndarray:
    return np.array([stop - start for channel in gaps.channels for start, stop in channel])


def _open_gaps(lengths: np.ndarray, missing: Flags, spacing: int, rng: np.random.Generator) -> tuple[Interval, ...]:
    """A few gaps with some of these lengths where samples ``[N]`` are known, ``spacing`` samples from one another."""
    taken = missing.copy()
    opened = []
    for length in rng.choice(lengths, _GAPS_PER_EXERCISE):
        # A gap with its surroundings may begin wherever nothing is taken.
        free = np.concatenate([[0], np.cumsum(taken)])
        reach = length + 2 * spacing
        starts = np.flatnonzero(free[reach:] == free[:-reach]) if reach < len(free) else np.array([])
        if starts.size:
            start = int(rng.choice(starts)) + spacing
            opened.append((start, start + int(length)))
            taken[start : start + length] = True
    return merge(opened)


def _fill_gaps(samples: Samples, gaps: tuple[Interval, ...], missing: Flags, order: float, rate: int) -> Samples:
    """Every gap of samples ``[N]`` filled by prediction of an order in s out of its surroundings."""
    filled = np.where(missing, 0.0, samples)
    for start, stop in gaps:
        around = _around(start, stop, order, rate)
        predicted = predict(samples[around], missing[around], round(order * rate), rate)
        filled[start:stop] = predicted[start - around.start : stop - around.start]
    return filled


def _around(start: int, stop: int, order: float, rate: int) -> slice:
    """A gap and what a prediction of an order in s learns from."""
    context = round(min(max(_CONTEXT_ORDERS * order, _CONTEXT_S[0]), _CONTEXT_S[1]) * rate)
    return slice(max(0, start - context), stop + context)
