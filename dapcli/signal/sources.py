"""What several sources of one mixture have in common, as estimates hold them: one after the other, ``[K * C, ...]``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# Below this power no source is to be heard in a bin, and all have the same share of it.
_SILENCE = 1e-20


def match(errors: NDArray[np.floating], kinds: Sequence[str]) -> NDArray[np.intp]:
    """For each of K sources the one that it is matched with, so that the sum of ``errors`` ``[K, K]`` is least.

    Only sources of one kind can stand for each other.
    """
    allowed = np.array([[kind == other for other in kinds] for kind in kinds])
    return np.asarray(linear_sum_assignment(np.where(allowed, errors, errors.sum() + 1))[1])


def share_out(mixture: Tensor, sources: Tensor) -> Tensor:
    """A mixture ``[C, 2, F, T]`` shared out among sources ``[K * C, 2, F, T]`` in proportion to their power in a bin.

    This is the Wiener filter of every source with the others as its noise; what it returns sums to the mixture.
    """
    powers = sources.reshape(-1, *mixture.shape).square().sum(dim=2, keepdim=True) + _SILENCE
    return (powers / powers.sum(dim=0) * mixture).flatten(0, 1)


def levels(sources: Tensor, count: int) -> Tensor:
    """Energy ``[K]`` of ``count`` sources ``[K * C, ...]`` relative to that of all together."""
    energies = sources.reshape(count, -1).square().sum(dim=1)
    return energies / (energies.sum() + _SILENCE)
