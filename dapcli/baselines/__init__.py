"""Baselines: what dap is compared against. All but those marked as trained need no training set either.

A baseline is one function of a :class:`~dapcli.tasks.problem.Problem` and one line in ``BASELINES``, under the task
that it is for. A task's ``input`` is its recording without a restoration: what every method has to beat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from dapcli.audio import Samples
from dapcli.baselines.denoising import (
    each_channel,
    lead_wiener,
    log_spectral_amplitude,
    noisereduce,
    rnnoise,
    scipy_wiener,
    wavelet,
    wiener,
)
from dapcli.baselines.imcra import om_lsa
from dapcli.baselines.restoration import a_spade, cubic_spline, dequantizing_wiener, janssen, silence, untouched
from dapcli.baselines.separation import HPSS_WINDOW_S, hpss, median_filters, mixture, nmf
from dapcli.errors import SettingsError
from dapcli.tasks.problem import Problem

__all__ = ["BASELINES", "Baseline"]


@dataclass(frozen=True)
class Baseline:
    """A method by others.

    ``method`` returns the restored recording ``[C, N]``, or sources ``[K, C, N]``. ``oracle`` says that it can make use
    of a problem's ``oracle_noise``, or its ``noise_profile``; the others are not handed them. ``trained`` says that it
    learned from other recordings; the others need no training set. ``packages`` are those that it imports and dap can
    do without.
    """

    method: Callable[[Problem[Any]], Samples]
    oracle: bool = False
    trained: bool = False
    packages: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]

    def __call__(self, problem: Problem[Any]) -> Samples:
        """Estimates ``[K, C, N]``: the restored recording, with K = 1, or the sources.

        Raises:
            SettingsError: A package is missing, or the method cannot do what is asked for.
        """
        if self.missing:
            raise SettingsError(f"this baseline needs {' and '.join(self.missing)}: pip install 'dapcli[peers]'")
        estimates = self.method(problem if self.oracle else replace(problem, oracle_noise=None, noise_profile=None))
        return estimates if estimates.ndim == 3 else estimates[None]


BASELINES: dict[str, dict[str, Baseline]] = {
    "denoise": {
        "input": Baseline(untouched),
        "wiener": Baseline(each_channel(wiener), oracle=True),
        "lead-wiener": Baseline(each_channel(lead_wiener)),
        "log-spectral-amplitude": Baseline(each_channel(log_spectral_amplitude), oracle=True),
        "om-lsa": Baseline(each_channel(om_lsa), oracle=True),
        "wavelet": Baseline(each_channel(wavelet), packages=("skimage", "pywt")),
        "noisereduce": Baseline(each_channel(noisereduce), packages=("noisereduce",)),
        "scipy-wiener": Baseline(each_channel(scipy_wiener)),
        "rnnoise": Baseline(each_channel(rnnoise), trained=True, packages=("pyrnnoise",)),
    },
    "inpaint": {
        "input": Baseline(silence),
        "janssen": Baseline(janssen),
    },
    "declip": {
        "input": Baseline(untouched),
        "cubic-spline": Baseline(cubic_spline),
        "a-spade": Baseline(a_spade),
    },
    "dequantize": {
        "input": Baseline(untouched),
        "wiener": Baseline(dequantizing_wiener),
        "a-spade": Baseline(a_spade),
    },
    "separate": {
        "input": Baseline(mixture),
        "median-filters": Baseline(median_filters),
        "hpss": Baseline(hpss(HPSS_WINDOW_S)),
        "librosa-hpss": Baseline(hpss()),
        "nmf": Baseline(nmf),
    },
}
