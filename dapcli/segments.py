"""Long recordings as overlapping segments of equal length, joined by cross-fades."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


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


def fade_weights(segments: list[tuple[int, int]], index: int) -> NDArray[np.float64]:
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


def _rise(length: int) -> NDArray[np.float64]:
    return np.asarray(np.sin(0.5 * np.pi * (np.arange(length) + 0.5) / length) ** 2)
