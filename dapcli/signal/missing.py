"""Missing samples: some are known exactly, the others not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Recording, Samples
from dapcli.audio.view import View
from dapcli.errors import InputError
from dapcli.signal.degradation import TrainingPair
from dapcli.signal.gaps import Flags, Gaps, Interval, list_intervals, merge
from dapcli.signal.lpc import draw_deviation, predict

#: A method that fills samples ``[N]`` where flags ``[N]`` are true.
Fill: TypeAlias = Callable[[Samples, Flags], Samples]

#: Orders of linear prediction that gaps are filled with, s: from what follows a voice to what resolves a chord.
ORDERS_S = (0.005, 0.01, 0.02, 0.04)
# Sound on either side of a gap that a prediction learns from: so many times its order, within limits in s.
_CONTEXT_ORDERS = 7
_CONTEXT_S = (0.05, 0.25)
# Gaps up to this length, s, are left to prediction; in longer ones sound is drawn, by a prediction of this order, s.
_LONG_S = 0.08
_TEXTURE_ORDER_S = 0.01
# Training pairs, and the gaps opened in each channel of one.
_PAIRS = 3
_GAPS_PER_PAIR = 4
# Least distance between the gaps of a training pair, s.
_SPACING_S = 0.1


@dataclass(frozen=True)
class Missing:
    """Gaps in a recording."""

    task: ClassVar[str] = "inpaint"
    initial_estimate: ClassVar[str] = "linear prediction"

    gaps: Gaps

    def check(self, recording: Recording) -> None:
        """Raise ``InputError`` unless the gaps are those of a recording."""
        if not isinstance(self.gaps, Gaps):
            raise InputError(f"the gaps are {self.gaps!r}; give those of make_gaps(intervals, recording)")
        self.gaps.check(recording)

    def part(self, start: int, stop: int) -> Missing:
        """The gaps within the samples ``start`` to ``stop``."""
        return Missing(self.gaps.part(start, stop))

    def alike(self, one: int, other: int, sign: int) -> bool:  # noqa: ARG002
        """Whether two channels have the same gaps."""
        return self.gaps.channels[one] == self.gaps.channels[other]

    def for_view(self, view: View) -> Missing:
        """The gaps of the channels that are seen."""
        return Missing(Gaps(tuple(self.gaps.channels[channel] for channel in view.kept)))

    def describe(self, recording: Recording) -> dict[str, Any]:
        """Number and length of the gaps, and the intervals in samples."""
        return {
            "kind": "gaps",
            "count": self.gaps.count,
            "missing": self.gaps.missing,
            "longest_s": self.gaps.longest / recording.rate,
            "intervals": list_intervals(self.gaps),
        }

    def affected(self, samples: Samples) -> Flags:
        """Flags ``[C, N]`` of the missing samples."""
        return self.gaps.mask(0, samples.shape[1])

    def candidates(self, samples: Samples, rate: int) -> Samples:
        """Fills by linear prediction of several orders, ``[K, C, N]``, of samples ``[C, N]`` at ``rate`` Hz."""
        return _predictions(samples, self.gaps, self.affected(samples), rate)

    def training_pairs(self, samples: Samples, candidates: Samples, rate: int, seed: int) -> list[TrainingPair]:
        """The recording with further gaps, as long as those that it has, filled in the same way."""
        rng = np.random.default_rng(seed)
        pairs = [self._training_pair(samples, candidates, rate, rng) for _ in range(_PAIRS)]
        # With hardly anything known there is nothing to learn but that no fill is better than another.
        return [pair for pair in pairs if pair.scored.any()] or [
            TrainingPair(candidates, candidates.mean(axis=0), self.affected(samples))
        ]

    def data_fidelity(self, estimate: Tensor, samples: Tensor) -> Tensor:
        """Mean squared error at the known samples, both ``[C, N]``; 0 where none is known."""
        known = torch.from_numpy(~self.gaps.mask(0, samples.shape[1])).to(samples.device)
        return (estimate - samples)[known].square().sum() / known.sum().clamp(min=1)

    def add_texture(self, estimate: Samples, samples: Samples, rate: int, seed: int) -> Samples:
        """The estimate with sound in the middle of gaps that are too long to be predicted.

        There the least squared error is that of silence, which is heard as a hole. A draw from the distribution of the
        sound around is added, no louder than that sound. Gaps that are short, or are predicted for the larger part, are
        left as they are.
        """
        rng = np.random.default_rng(seed)
        textured: Samples = estimate.copy()
        channels = zip(textured, samples, self.gaps.channels, self.affected(samples), strict=True)
        for filled, known, gaps, missing in channels:
            for start, stop in gaps:
                if stop - start > _LONG_S * rate:
                    texture = _draw_texture(known, missing, (start, stop), rate, rng)
                    if np.sum(texture**2) > np.sum(filled[start:stop] ** 2):
                        filled[start:stop] += texture
        return textured

    def project(self, estimate: Samples, samples: Samples) -> Samples:
        """The known samples as they are, the others from the estimate, ``[C, N]``."""
        return np.asarray(np.where(self.affected(samples), estimate, samples))

    def _training_pair(
        self, samples: Samples, candidates: Samples, rate: int, rng: np.random.Generator
    ) -> TrainingPair:
        missing = self.affected(samples)
        spacing = round(_SPACING_S * rate)
        opened = [
            _open_gaps([stop - start for start, stop in gaps or chain(*self.gaps.channels)], row, spacing, rng)
            for gaps, row in zip(self.gaps.channels, missing, strict=True)
        ]
        further = Gaps(tuple(opened))
        scored = further.mask(0, samples.shape[1])
        # The gaps that it has are filled already.
        filled = _predictions(samples, further, missing | scored, rate)
        return TrainingPair(np.where(scored, filled, candidates), samples, scored)


def _open_gaps(lengths: list[int], missing: Flags, spacing: int, rng: np.random.Generator) -> tuple[Interval, ...]:
    """A few gaps with some of these lengths where samples ``[N]`` are known, ``spacing`` samples from one another."""
    taken = missing.copy()
    opened = []
    for length in rng.choice(lengths, _GAPS_PER_PAIR):
        # A gap with its surroundings may begin wherever nothing is taken.
        free = np.concatenate([[0], np.cumsum(taken)])
        reach = length + 2 * spacing
        starts = np.flatnonzero(free[reach:] == free[:-reach]) if reach < len(free) else np.array([])
        if starts.size:
            start = int(rng.choice(starts)) + spacing
            opened.append((start, start + int(length)))
            taken[start : start + length] = True
    return merge(opened)


def fill_gaps(samples: Samples, gaps: Gaps, missing: Flags, context: int, method: Fill) -> Samples:
    """Samples ``[C, N]`` with every gap filled by a method out of so many samples on either side."""
    known = np.where(missing, 0.0, samples)
    filled: Samples = known.copy()
    for c, channel in enumerate(gaps.channels):
        for start, stop in channel:
            first = max(0, start - context)
            found = method(known[c, first : stop + context], missing[c, first : stop + context])
            filled[c, start:stop] = found[start - first : stop - first]
    return filled


def _predictions(samples: Samples, gaps: Gaps, missing: Flags, rate: int) -> Samples:
    """Samples ``[C, N]`` with every gap filled by linear prediction of several orders: ``[K, C, N]``."""
    methods = [(_context(order, rate), partial(predict, order=round(order * rate), rate=rate)) for order in ORDERS_S]
    return np.stack([fill_gaps(samples, gaps, missing, context, method) for context, method in methods])


def _draw_texture(known: Samples, missing: Flags, gap: Interval, rate: int, rng: np.random.Generator) -> Samples:
    """Sound that may be heard in a gap of samples ``[N]`` beside what is predicted."""
    start, stop = gap
    context, order = _context(_TEXTURE_ORDER_S, rate), round(_TEXTURE_ORDER_S * rate)
    around = slice(max(0, start - context), stop + context)
    deviation = draw_deviation(known[around], missing[around], order, rate, rng)
    texture = deviation[start - around.start : stop - around.start]
    sides = (known[side][~missing[side]] for side in (slice(around.start, start), slice(stop, around.stop)))
    levels = [np.sqrt(np.mean(side**2)) for side in sides if side.size]
    level = np.prod(levels) ** (1 / max(len(levels), 1))
    # The draw's own level is too high for a voice: the power of that is in its pulses, which the draw has not.
    return np.asarray(texture * min(1.0, level / max(np.sqrt(np.mean(texture**2)), 1e-12)))


def _context(order: float, rate: int) -> int:
    """Samples on either side of a gap that a prediction of an order in s learns from."""
    return round(min(max(_CONTEXT_ORDERS * order, _CONTEXT_S[0]), _CONTEXT_S[1]) * rate)
