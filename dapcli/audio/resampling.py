"""Conversion of sample rates."""

from __future__ import annotations

import math

import numpy as np

from dapcli.audio.recording import Samples
from dapcli.errors import SettingsError

# A polyphase resampler keeps one filter per output phase: this many coefficients are 200 MB.
_MAX_RESAMPLER_COEFFICIENTS = 50_000_000
_RESAMPLER_WIDTH = 64


def resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Resample ``[C, N]`` from ``rate`` to ``new_rate`` Hz, giving ``ceil(N * new_rate / rate)`` samples.

    Raises:
        SettingsError: The two rates have so little in common that the filter would not fit in memory.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    if (new_rate // divisor) * (rate // divisor + 2 * _RESAMPLER_WIDTH) > _MAX_RESAMPLER_COEFFICIENTS:
        raise SettingsError(f"cannot resample {rate} to {new_rate} Hz; choose rates with a larger common divisor")
    import torch  # deferred: reading and checking files must not wait for it
    from torchaudio.functional import resample as polyphase

    resampled = polyphase(
        torch.from_numpy(samples),
        rate,
        new_rate,
        lowpass_filter_width=_RESAMPLER_WIDTH,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    return np.asarray(resampled.numpy(), dtype=np.float64)
