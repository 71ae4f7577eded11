"""The sources of one mixture: which is which, how loud they are, and their ratio masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray
from torch import Tensor

# Power that every source is given in every bin, so that masks of silence are finite, and equal.
_SILENCE = 1e-20


def match(errors: NDArray[np.floating], types: Sequence[str]) -> NDArray[np.intp]:
    """For each of K sources the one that it is matched with, so that the sum of ``errors`` ``[K, K]`` is least.

    Only sources of the same type are matched.
    """
    allowed = np.array([[one == other for other in types] for one in types])
    return np.asarray(scipy.optimize.linear_sum_assignment(np.where(allowed, errors, errors.sum() + 1))[1])


def ratio_masked(mixture: Tensor, sources: Tensor) -> Tensor:
    """A mixture ``[C, 2, F, T]`` under the ratio mask of each source, ``[K, C, 2, F, T] -> [K, C, 2, F, T]``.

    A source's mask is its power in a bin relative to that of all: the Wiener filter with the others as its noise. The
    result sums to the mixture.
    """
    powers = sources.square().sum(dim=2, keepdim=True) + _SILENCE
    return powers / powers.sum(dim=0) * mixture


def levels(sources: Tensor) -> Tensor:
    """Energy ``[K]`` of each source in ``[K, ...]`` relative to that of all together."""
    energies = sources.flatten(1).square().sum(dim=1)
    return energies / (energies.sum() + _SILENCE)
