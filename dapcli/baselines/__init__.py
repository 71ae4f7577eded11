"""Baselines: what dap is compared against. All but those marked as trained need no training set either.

A baseline is one function of an :class:`Observed` and one line in ``BASELINES``, under the task that it is for.
"""

from __future__ import annotations

from dapcli.baselines.baseline import Baseline, Observed, untouched
from dapcli.baselines.denoising import (
    each_channel,
    log_spectral_amplitude,
    noise_power,
    noisereduce,
    scipy_wiener,
    wavelet,
    wiener,
)
from dapcli.baselines.imcra import om_lsa
from dapcli.baselines.inpainting import janssen, silence
from dapcli.baselines.restoration import a_spade, cubic_spline, dequantizing_wiener
from dapcli.baselines.rnnoise import rnnoise
from dapcli.baselines.separation import by_kinds, hpss, librosa_hpss, mixture, nmf

__all__ = ["BASELINES", "Baseline", "Observed", "noise_power"]

BASELINES: dict[str, dict[str, Baseline]] = {
    "denoise": {
        "input": Baseline(untouched),
        "wiener": Baseline(each_channel(wiener), told=True),
        "log-spectral-amplitude": Baseline(each_channel(log_spectral_amplitude), told=True),
        "om-lsa": Baseline(each_channel(om_lsa), told=True),
        "wavelet": Baseline(each_channel(wavelet), packages=("skimage", "pywt")),
        "noisereduce": Baseline(each_channel(noisereduce), packages=("noisereduce",)),
        "scipy-wiener": Baseline(each_channel(scipy_wiener)),
        "rnnoise": Baseline(each_channel(rnnoise), trained=True, packages=("pyrnnoise",)),
    },
    "inpaint": {
        "silence": Baseline(silence),
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
        "mixture": Baseline(mixture),
        "kinds": Baseline(by_kinds),
        "hpss": Baseline(hpss),
        "librosa-hpss": Baseline(librosa_hpss),
        "nmf": Baseline(nmf),
    },
}
