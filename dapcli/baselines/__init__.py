"""Baselines: what dap is compared against. All but those marked as trained need no training set either.

A baseline is one function of a :class:`~dapcli.tasks.problem.Problem` and one line in ``BASELINES``, under the task
that it is for. A task's ``input`` is its recording without a restoration: what every method has to beat.
"""

from __future__ import annotations

from dapcli.baselines.baseline import Baseline, untouched
from dapcli.baselines.denoising import (
    each_channel,
    log_spectral_amplitude,
    noisereduce,
    rnnoise,
    scipy_wiener,
    wavelet,
    wiener,
)
from dapcli.baselines.imcra import om_lsa
from dapcli.baselines.restoration import a_spade, cubic_spline, dequantizing_wiener, janssen, silence
from dapcli.baselines.separation import HPSS_WINDOW_S, hpss, median_filters, mixture, nmf

__all__ = ["BASELINES", "Baseline"]

BASELINES: dict[str, dict[str, Baseline]] = {
    "denoise": {
        "input": Baseline(untouched),
        "wiener": Baseline(each_channel(wiener), oracle=True),
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
