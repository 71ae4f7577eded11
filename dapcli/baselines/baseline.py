"""What a baseline is given, what it returns, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dapcli.errors import SettingsError
from dapcli.signal.degradation import Degradation
from dapcli.signal.source_types import DEFAULT_TYPES

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Observed:
    """What is known of a recording, ``samples`` ``[C, N]`` at ``rate`` Hz.

    ``degradation`` is what happened to it, ``noise_psd`` ``[C, F]`` the noise as ``noise_power`` returns it (None leaves a
    denoiser blind), ``kinds`` those of the sources to separate. All randomness comes from ``seed``.
    """

    samples: Array
    rate: int
    degradation: Degradation | None = None
    noise_psd: Array | None = None
    kinds: tuple[str, ...] = DEFAULT_TYPES[2]
    seed: int = 0

    @property
    def sources(self) -> int:
        """Number of sources K."""
        return len(self.kinds)


@dataclass(frozen=True)
class Baseline:
    """A method by others.

    ``method`` returns the restored recording ``[C, N]``, or sources ``[K, C, N]``. ``told`` says that it can be told
    the noise; the others do not look at it. ``trained`` says that it learned from other recordings; the others need
    no training set. ``packages`` are those that it imports and dap can do without.
    """

    method: Callable[[Observed], Array]
    told: bool = False
    trained: bool = False
    packages: tuple[str, ...] = ()

    def __call__(self, observed: Observed) -> Array:
        """Estimates ``[K, C, N]``: the restored recording, with K = 1, or the sources.

        Raises:
            SettingsError: A package is missing, or the method cannot do what is asked for.
        """
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise SettingsError(f"this baseline needs {' and '.join(missing)}: pip install 'dapcli[peers]'")
        estimates = self.method(observed)
        return estimates if estimates.ndim == 3 else estimates[None]


def untouched(observed: Observed) -> Array:
    """The recording as it is: what every method has to beat."""
    return np.array(observed.samples)
