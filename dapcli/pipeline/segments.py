"""Long recordings as overlapping segments of equal length, joined by cross-fades."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dapcli.audio import Recording, Samples
from dapcli.settings import SEGMENT_OVERLAP, Settings
from dapcli.signal.sources import match

Load = Callable[[int], NDArray[np.floating]]


def plan(recording: Recording, settings: Settings) -> list[tuple[int, int]]:
    """Start and end, in samples of the recording, of the segments that are fitted one by one."""
    longest, overlap = (round(seconds * recording.rate) for seconds in (settings.segment, SEGMENT_OVERLAP))
    return plan_segments(recording.length, longest, min(overlap, longest // 3))  # at odd rates both are rounded


def plan_segments(length: int, longest: int, overlap: int) -> list[tuple[int, int]]:
    """Start and end of the segments that cover ``length`` samples, none longer than ``longest``.

    All have the same length, so that none is a short rest; neighbours share ``overlap`` samples, at most one more.
    Raises ``ValueError`` unless ``longest >= 3 * overlap > 0``.
    """
    if not 0 < 3 * overlap <= longest:
        raise ValueError("segments must be at least three overlaps long")
    if length <= longest:
        return [(0, length)]
    count = math.ceil((length - overlap) / (longest - overlap))
    size = math.ceil((length + (count - 1) * overlap) / count)
    starts = [index * (length - size) // (count - 1) for index in range(count)]
    return [(start, start + size) for start in starts]


def fade_weights(segments: Sequence[tuple[int, int]], index: int) -> Samples:
    """Weight of each sample ``[N]`` of one segment; over all segments the weights of a sample sum to 1."""
    start, stop = segments[index]
    weights = np.ones(stop - start)
    if index > 0:
        shared = segments[index - 1][1] - start
        weights[:shared] = _rise(shared)
    if index + 1 < len(segments):
        shared = stop - segments[index + 1][0]
        weights[-shared:] = 1 - _rise(shared)
    return weights


class Joined:
    """Segments joined by cross-fades, ``[K, C, N]``, with no more than a few of them in memory.

    ``load`` returns the K sources ``[K, C, n]`` of a segment by its index; ``types`` are theirs. Sources of one type
    have no order of their own, and continue those of the segment before.
    """

    def __init__(self, segments: Sequence[tuple[int, int]], types: Sequence[str], channels: int, load: Load) -> None:
        self._segments = segments
        self._shape = (len(types), channels)
        # Blocks are read in order, and at most two segments overlap.
        self._load = lru_cache(maxsize=2)(lambda index: load(index)[orders[index]])
        orders = [np.arange(len(types))] * len(segments)
        if len(set(types)) == len(types):
            return
        for index in range(1, len(segments)):
            shared = segments[index - 1][1] - segments[index][0]
            before = self._load(index - 1)[..., -shared:].reshape(len(types), -1)
            after = load(index)[..., :shared].reshape(len(types), -1)
            # What is left of a source when another is taken for its continuation.
            errors = np.array([[np.sum((one - other) ** 2) for other in after] for one in before])
            orders[index] = match(errors, types)

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[K, C, stop - start]``. Raises ``ValueError`` outside the recording."""
        if not 0 <= start <= stop <= self._segments[-1][1]:
            raise ValueError(f"{start} to {stop} is not within 0 to {self._segments[-1][1]}")
        joined = np.zeros((*self._shape, stop - start))
        for index, (begin, end) in enumerate(self._segments):
            low, high = max(start, begin), min(stop, end)
            if low < high:
                weights = fade_weights(self._segments, index)[low - begin : high - begin]
                joined[..., low - start : high - start] += self._load(index)[..., low - begin : high - begin] * weights
        return joined


def _rise(length: int) -> Samples:
    return np.asarray(np.sin(0.5 * np.pi * (np.arange(length) + 0.5) / length) ** 2)
