"""Quantization: every sample was replaced by the centre of a cell, and only the cell is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dapcli.audio import Recording, Samples
from dapcli.audio.recording import blocks
from dapcli.audio.view import View
from dapcli.audio.writing import step_of
from dapcli.errors import InputError, SettingsError
from dapcli.signal.degradation import ROUNDING, Bounded, Flags, TrainingPair, full_scale

#: The most levels that can be given: their cells are 16 times those of 16 bits.
MOST_LEVELS = 4096
#: The most levels that are detected: an ordinary file of 8 bits has twice as many.
MOST_DETECTED = 128

# Gains of the training pairs before they are quantized, undone after. At 1 there is nothing to learn: what lies in the
# cells is quantized into their centres again. Above 1 it may no longer fit.
_GAINS = (0.93, 0.83, 0.71)
# Levels that are detected occur so often on average, and are so many: chance and square waves have grids, too.
_OFTEN = 8
_FEWEST = 3


@dataclass(frozen=True)
class Quantization(Bounded):
    """A uniform quantizer whose centres are ``offset`` and what is any number of steps away from it.

    Samples may be off the centres by ``rounding``. Raises ``ValueError`` where that could take them out of their cells.
    """

    task: ClassVar[str] = "dequantize"

    step: float
    offset: float
    rounding: float = ROUNDING

    def __post_init__(self) -> None:
        if not self.step > 4 * self.rounding:
            raise ValueError(f"steps are too small: {self.step}")

    def alike(self, one: int, other: int, sign: int) -> bool:  # noqa: ARG002
        """Whether the quantizer is the same for samples multiplied by a sign."""
        return sign > 0 or self.offset in (0.0, self.step / 2)

    def for_view(self, view: View) -> Quantization:
        """The quantizer at the level of what is seen."""
        return Quantization(view.gain * self.step, view.gain * self.offset, view.gain * self.rounding)

    def bounds(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The cells of samples, narrower by the rounding on both sides.

        Between them a signal is quantized into the same samples again even after it is written in 16 bits. Samples
        that were themselves rounded have the cell that they would have without.
        """
        centre = torch.round((samples - self.offset) / self.step) * self.step + self.offset
        reach = self.step / 2 - self.rounding
        return centre - reach, centre + reach

    def quantize(self, samples: Samples) -> Samples:
        """The centres of the cells in which samples ``[C, N]`` lie."""
        return np.round((samples - self.offset) / self.step) * self.step + self.offset

    def describe(self, recording: Recording) -> dict[str, Any]:  # noqa: ARG002
        """The quantizer."""
        return {"kind": "quantization", "step": self.step, "offset": self.offset}

    def affected(self, samples: Samples) -> Flags:
        """All samples ``[C, N]`` if any channel changes: silence has nothing to restore."""
        return np.full(samples.shape, (samples != samples[:, :1]).any())

    def candidates(self, samples: Samples, rate: int) -> Samples:
        """Samples ``[C, N]`` themselves, and the sparsest that would have been quantized into them: ``[2, C, N]``."""
        return np.stack([samples, self.sparsest(samples, rate)])

    def training_pairs(self, samples: Samples, candidates: Samples, rate: int, seed: int) -> list[TrainingPair]:  # noqa: ARG002
        """The sparsest candidate at lower gains, quantized again; all of it counts."""
        truth = candidates[1]
        everywhere = np.ones(truth.shape, dtype=np.bool_)
        return [
            TrainingPair(self.candidates(self.quantize(gain * truth), rate) / gain, truth, everywhere)
            for gain in _GAINS
        ]


def quantization_of(levels: int, recording: Recording) -> Quantization:
    """The quantizer with so many cells between -1 and 1, of which a recording holds the centres.

    Raises:
        SettingsError: ``levels`` is not between 2 and ``MOST_LEVELS``.
        InputError: Samples of the recording are further from all centres than rounding to 16 bits explains.
    """
    if not 2 <= levels <= MOST_LEVELS:
        raise SettingsError(f"--levels {levels}: must be between 2 and {MOST_LEVELS}")
    step = 2 / levels
    last = 1 - step / 2
    likely = [(Quantization(step, 0.0 if levels % 2 else step / 2), -last)]
    if levels % 2 == 0:
        # Files of few bits have one of their levels at zero, and therefore one at -1.
        likely.append((Quantization(step, 0.0), -1.0))
    off = [
        max(
            (float(np.abs(block - np.clip(each.quantize(block), first, last)).max()) for block in blocks(recording)),
            default=0,
        )
        for each, first in likely
    ]
    if min(off) > ROUNDING:
        raise InputError(
            f"samples are up to {min(off):.2g} off the {levels} levels, which are {step:.2g} apart; "
            "leave --levels out to have them detected"
        )
    return likely[off.index(min(off))][0]


def detect_quantization(recording: Recording) -> Quantization | None:
    """The quantizer of a recording that takes few values, all on one grid; ``None`` for any other recording.

    The grid has a centre or a bound of a cell at zero, and at most ``MOST_DETECTED`` cells between both ends of the
    recording's scale, the power of two that holds its peak.
    """
    values = np.zeros(0)
    for block in blocks(recording):
        values = np.union1d(values, block)
        if len(values) > MOST_DETECTED:
            return None
    if len(values) < _FEWEST or recording.length * recording.channels < _OFTEN * len(values):
        return None
    step = float(np.diff(values).min())
    scale, rounding = full_scale(float(np.abs(values).max()), recording.subtype)
    # The steps of integers themselves are none to restore.
    if step < max(2 * scale / MOST_DETECTED, 2 * (step_of(recording.subtype) or 0.0), 8 * rounding) - 2 * rounding:
        return None
    # The slope of the values over their numbers does not hang on the rounding of any two of them.
    numbers = np.concatenate([[0], np.cumsum(np.round(np.diff(values) / step))])
    step = float(np.polyfit(numbers, values, 1)[0])
    # A whole number of levels is far more likely than one close to it.
    for exact in (2 * scale / round(2 * scale / step), step):
        for offset in (exact / 2, 0.0):
            quantization = Quantization(exact, offset, rounding)
            if np.abs(values - quantization.quantize(values)).max() <= 2 * rounding:
                return quantization
    return None
