"""OM-LSA, the log-spectral amplitude weighted by how likely speech is, with the noise that IMCRA tracks.

Cohen & Berdugo, "Speech enhancement for non-stationary noise environments" (Signal Processing 2001,
https://doi.org/10.1016/S0165-1684(01)00128-1) and, for the noise, Cohen, "Noise spectrum estimation in adverse
environments: improved minima controlled recursive averaging" (IEEE TSAP 2003,
https://doi.org/10.1109/TSA.2003.811544). All constants are theirs, for frames of 32 ms every 8 ms, as they are here.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import convolve1d, minimum_filter1d
from scipy.signal import get_window, lfilter

from dapcli.audio import Samples
from dapcli.baselines.denoising import (
    decision_directed,
    istft,
    power_floor,
    prior_snr,
    stft,
    to_posterior_snr,
)
from dapcli.signal.log_spectral import log_spectral_gain

# Decision-directed prior SNR, and what is left where there is no speech.
_PRIOR_SMOOTHING = 0.92
_LEAST_GAIN = 10 ** (-25 / 20)

# IMCRA. Smoothing of the power over time and of the noise, frames in which the minimum is searched (0.96 s), what
# smoothed noise is in relation to its minimum, and bounds of speech in relation to that.
_POWER_SMOOTHING, _NOISE_SMOOTHING = 0.9, 0.85
_SEARCH = 120
_MINIMUM_BIAS, _NOISE_BIAS = 1.66, 1.47
_ROUGH_POSTERIOR, _FINE_POSTERIOR, _RATIO = 4.6, 3.0, 1.67

# OM-LSA: smoothing of the prior SNR over time and over bins on either side, and the range in which it tells of speech.
_RECURSION, _LOCAL, _GLOBAL = 0.7, 1, 15
_LOW, _HIGH = 10 ** (-10 / 10), 10 ** (-5 / 10)
_PEAK_LOW, _PEAK_HIGH = 1.0, 10.0
_MOST_ABSENCE = 0.95


def om_lsa(noisy: Samples, rate: int, noise_psd: Samples | None = None) -> Samples:
    """Optimally modified log-spectral amplitude of a channel ``[N]``, with the noise that is known or IMCRA tracks."""
    spectrum = stft(noisy, rate)
    posterior = to_posterior_snr(np.abs(spectrum) ** 2, noise_psd, imcra)
    prior, gain = decision_directed(posterior, log_spectral_gain, _PRIOR_SMOOTHING)
    presence = _presence(prior, posterior, 1 - _likelihood(prior))
    return istft(spectrum * gain**presence * _LEAST_GAIN ** (1 - presence), rate, noisy.size)


def imcra(power: Samples) -> Samples:
    """Noise power [T, F] of a noisy recording's ``power`` [T, F], tracked in both directions: the higher of the two.

    The tracker of the paper cannot look ahead, and takes noise that rises for speech for two seconds, until both minima
    have forgotten what was before. Backwards that noise falls, and is followed at once. Here the whole recording is at
    hand; both ways gave noisy speech and digits 0.3 to 2.8 dB more SNR (and piano, which lasts, 2.6 dB less).
    """
    return np.maximum(_track(power), _track(power[::-1])[::-1])


def _track(power: Samples) -> Samples:
    """Noise power [T, F] by recursive averaging controlled by minima.

    A first minimum tells roughly where speech is; a second one, of what is left then, how likely its absence is.
    """
    least = power_floor(power)
    local = _over_bins(power, 1)
    smoothed = _over_time(local, _POWER_SMOOTHING)
    minimum = np.maximum(_MINIMUM_BIAS * _running_minimum(smoothed), least)
    silent = (power < _ROUGH_POSTERIOR * minimum) & (smoothed < _RATIO * minimum)

    # Speech is left out of the second average, which stands still where there is nothing else.
    weight = _over_bins(silent.astype(np.float64), 1)
    without = _over_bins(np.where(silent, power, 0.0), 1) / np.maximum(weight, 1e-12)
    steady = np.empty_like(power)
    state = local[0]
    for t in range(len(power)):
        state = np.where(weight[t] > 0, _POWER_SMOOTHING * state + (1 - _POWER_SMOOTHING) * without[t], state)
        steady[t] = state
    minimum = np.maximum(_MINIMUM_BIAS * _running_minimum(steady), least)
    absence = np.clip((_FINE_POSTERIOR - power / minimum) / (_FINE_POSTERIOR - 1), 0, 1)
    absence = np.where(smoothed < _RATIO * minimum, absence, 0.0)

    noise = np.empty_like(power)
    average, previous = power[0], np.ones(power.shape[1])
    for t, observed in enumerate(power):
        noise[t] = _NOISE_BIAS * average
        posterior = observed / np.maximum(noise[t], least)
        prior = prior_snr(previous, posterior, _PRIOR_SMOOTHING)
        previous = log_spectral_gain(prior, posterior) ** 2 * posterior
        presence = _presence(prior, posterior, absence[t])
        smoothing = _NOISE_SMOOTHING + (1 - _NOISE_SMOOTHING) * presence
        average = smoothing * average + (1 - smoothing) * observed
    return noise


def _presence(prior: Samples, posterior: Samples, absence: Samples) -> Samples:
    """Probability of speech, given its SNRs and how likely its absence was beforehand."""
    ratio = (1 + prior) * np.exp(-posterior * prior / (1 + prior))
    # What is certain beforehand stays so, even where the ratio vanishes.
    return np.asarray((1 - absence) / (1 - absence + absence * ratio + np.finfo(np.float64).tiny))


def _likelihood(prior: Samples) -> Samples:
    """How likely speech is beforehand, by the prior SNR [T, F] in each bin, around it, and in the whole frame."""
    smoothed = _over_time(prior, _RECURSION)
    near, wide = (_in_range(_over_bins(smoothed, radius)) for radius in (_LOCAL, _GLOBAL))
    frames = smoothed.mean(axis=1)
    whole = np.zeros(len(frames))
    last, peak = np.inf, _PEAK_LOW
    for t, value in enumerate(frames):
        if value > _LOW:
            if value > last:
                peak = min(max(value, _PEAK_LOW), _PEAK_HIGH)
                whole[t] = 1
            else:
                whole[t] = _in_range(value / peak)
        last = value
    return np.maximum(near * wide * whole[:, None], 1 - _MOST_ABSENCE)


def _in_range(snr: Samples) -> Samples:
    """0 below the range of SNRs that tell of speech, 1 above it, and by the logarithm in between."""
    return np.asarray(np.clip(np.log(snr / _LOW) / np.log(_HIGH / _LOW), 0, 1))


def _over_bins(values: Samples, radius: int) -> Samples:
    """Values [T, F] averaged over so many bins on either side, by a Hann window."""
    window = get_window("hann", 2 * radius + 3, fftbins=False)[1:-1]
    return np.asarray(convolve1d(values, window / window.sum(), axis=1, mode="nearest"))


def _over_time(values: Samples, smoothing: float) -> Samples:
    """Values [T, F] averaged recursively, from the first frame on."""
    averaged, _ = lfilter([1 - smoothing], [1, -smoothing], values, axis=0, zi=smoothing * values[:1])
    return np.asarray(averaged)


def _running_minimum(values: Samples) -> Samples:
    """The least of each bin in this frame and those before it, as far back as is searched: [T, F] of [T, F]."""
    return np.asarray(minimum_filter1d(values, _SEARCH, axis=0, origin=_SEARCH // 2 - 1, mode="nearest"))
