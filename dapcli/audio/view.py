"""A recording as fits see it: at a usual level, and without channels that repeat others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from dapcli.audio.recording import Recording, Samples, blocks

# Root mean square of the loudest channel, to a factor of the square root of 2. Losses, features and step sizes have
# absolute limits, which were chosen on recordings of this level.
_USUAL_LEVEL = 0.125


@dataclass(frozen=True)
class View:
    """A recording of which some channels are seen, scaled by ``gain``: a power of two, which is exact.

    ``kept`` are the channels of the ``recording`` that are seen. ``copies`` has, for every channel of it, the one among
    these that it equals, and in which sign: 1, -1 where it is inverted, 0 where it is silent.
    """

    recording: Recording
    gain: float
    kept: tuple[int, ...]
    copies: tuple[tuple[int, int], ...]
    rate: int = field(init=False)
    subtype: str = field(init=False)
    format: str = field(init=False)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("rate", "subtype", "format", "length"):
            object.__setattr__(self, name, getattr(self.recording, name))

    @property
    def channels(self) -> int:
        """Number of channels that are seen."""
        return len(self.kept)

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[V, stop - start]`` of the V channels that are seen."""
        return np.asarray(self.gain * self.recording.read(start, stop)[list(self.kept)])

    def of(self, other: Recording) -> View:
        """The same view of another recording of the same shape."""
        return replace(self, recording=other)

    def every_channel(self, samples: Samples) -> Samples:
        """Samples ``[..., V, n]`` of the channels that are seen as those ``[..., C, n]`` of all."""
        kept, signs = np.array(self.copies).T
        return np.asarray(samples[..., kept, :] * signs[:, None] + 0.0)  # which turns -0 into 0


def view(recording: Recording, alike: Callable[[int, int, int], bool] = lambda *_: True) -> View:
    """The view of a recording ``[C, N]`` at the usual level, of one channel of all that are equal up to their sign.

    Two channels are only taken for one where they are ``alike``, which is called with both and their sign.
    """
    channels = recording.channels
    energies = np.zeros(channels)
    heard = np.zeros(channels, dtype=np.bool_)
    triples = product(range(channels), range(channels), (1, -1))
    pairs = {(one, other, sign) for one, other, sign in triples if one < other and alike(one, other, sign)}
    for block in blocks(recording):
        energies += np.square(block).sum(axis=1)
        heard |= block.any(axis=1)
        pairs = {each for each in pairs if np.array_equal(block[each[0]], each[2] * block[each[1]])}
    kept: list[int] = []
    copies: list[tuple[int, int]] = []
    for channel in range(channels):
        equal = next(((one, sign) for one, other, sign in sorted(pairs) if other == channel and one in kept), None)
        if heard[channel] and equal is None:
            equal = channel, 1
            kept.append(channel)
        copies.append((kept.index(equal[0]), equal[1]) if heard[channel] and equal else (0, 0))
    power = float(energies.max(initial=0.0)) / max(recording.length, 1)
    exponent = math.frexp(power / _USUAL_LEVEL**2)[1] // 2 if power else 0
    return View(recording, 2.0**-exponent, tuple(kept) or (0,), tuple(copies))
