"""What a baseline is given, what it returns, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dapcli.errors import SettingsError
from dapcli.tasks.problem import Problem

Array: TypeAlias = NDArray[np.float64]
Restoration: TypeAlias = Callable[[Problem[Any]], Array]


@dataclass(frozen=True)
class Baseline:
    """A method by others.

    ``method`` returns the restored recording ``[C, N]``, or sources ``[K, C, N]``. ``oracle`` says that it can make use
    of a problem's ``oracle_noise``, or its ``noise_profile``; the others are not handed them. ``trained`` says that it
    learned from other recordings; the others need no training set. ``packages`` are those that it imports and dap can
    do without.
    """

    method: Restoration
    oracle: bool = False
    trained: bool = False
    packages: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]

    def __call__(self, problem: Problem[Any]) -> Array:
        """Estimates ``[K, C, N]``: the restored recording, with K = 1, or the sources.

        Raises:
            SettingsError: A package is missing, or the method cannot do what is asked for.
        """
        if self.missing:
            raise SettingsError(f"this baseline needs {' and '.join(self.missing)}: pip install 'dapcli[peers]'")
        estimates = self.method(problem if self.oracle else replace(problem, oracle_noise=None, noise_profile=None))
        return estimates if estimates.ndim == 3 else estimates[None]


def untouched(problem: Problem[Any]) -> Array:
    """The recording as it is."""
    return np.array(problem.samples)
