"""Denoisers that need no training set.

Each takes one channel ``[N]`` at its own rate (Hz) and returns N samples. Some can be handed the power spectrum ``[F]``
of the noise, as :func:`noise_power` returns it; without it, and always for the others, they are *blind* and estimate
the noise from the recording.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeAlias

import librosa
import numpy as np
from numpy.typing import NDArray
from scipy.signal import get_window
from scipy.signal import wiener as scipy_local_wiener

from dapcli.audio import Samples, resample
from dapcli.signal.log_spectral import log_spectral_gain
from dapcli.signal.noise_tracking import track_forwards
from dapcli.tasks.problem import Problem

Gain: TypeAlias = Callable[[Samples, Samples], Samples]

HOP_S = 0.008
OVERLAP = 4  # the window is four hops, 32 ms: 512 samples at 16 kHz
PRIOR_SMOOTHING = 0.98
PRIOR_SNR_FLOOR = 10 ** (-25 / 10)
POWER_FLOOR = 1e-10
SCIPY_WIENER_RADIUS_S = 0.00034  # 11 samples at 16 kHz, the best of 3 to 17 on speech, digits and piano
WAVELET_SHIFTS = 8
LEAD_S = 0.064
# RNNoise counts in 16-bit steps, and is two frames of 480 samples late.
_RNNOISE_RATE, _FULL_SCALE, _LATE = 48_000, 32_768, 960


def each_channel(denoise: Callable[..., Samples]) -> Callable[[Problem[Any]], Samples]:
    """A denoiser of single channels as a method for recordings; it is not asked to denoise silence."""

    def method(problem: Problem[Any]) -> Samples:
        noise, restored = known_noise(problem), np.zeros_like(problem.samples)
        for c, noisy in enumerate(problem.samples):
            # Silence has nothing to remove, and several libraries divide by its zero variance.
            if noisy.any():
                spectrum = [] if noise is None else [noise_power(noise[c], problem.rate)]
                restored[c] = denoise(noisy, problem.rate, *spectrum)
        return restored

    return method


def known_noise(problem: Problem[Any]) -> Samples | None:
    """Noise ``[C, M]`` by itself: all of a recording's, or else that of its noise profile."""
    profile = problem.noise_profile
    if problem.oracle_noise is not None or profile is None:
        return problem.oracle_noise
    if isinstance(profile, tuple):
        start, stop = (round(seconds * problem.rate) for seconds in profile)
        return problem.recording.read(start, stop)
    return profile.read(0, profile.length)


def noise_power(noise: Samples, rate: int) -> Samples:
    """Mean over frames of |STFT|^2 per bin ``[F]`` of a channel of noise ``[N]``.

    The 32 ms Hann window has unit energy, so that white noise of variance v has power v in every bin at any rate.
    """
    return np.asarray(np.mean(np.abs(stft(noise, rate)) ** 2, axis=0))


def track_noise(power: Samples) -> Samples:
    """Noise power per frame and bin [T, F] of a noisy recording's ``power`` [T, F], by speech presence probability.

    The tracker of Gerkmann & Hendriks, whose constants are per frame, kept although frames lie 8 ms apart here and
    16 ms there: slower ones lost 0.1 dB.

    It cannot look ahead and takes any sound that lasts for noise. Here the whole recording of a few seconds is at hand,
    so the track is kept below its own median over time. On pure noise this puts it at 0.64 of the truth, yet it gave
    both filters 0.6 to 1 dB more SNR on average, and scaling it back up gained neither more than 0.1 dB.
    """
    track = track_forwards(power.T, HOP_S, POWER_FLOOR).T
    return np.asarray(np.minimum(track, np.median(track, axis=0)))


def wiener(noisy: Samples, rate: int, noise_psd: Samples | None = None) -> Samples:
    """Wiener filter with the decision-directed prior SNR.

    Scalart & Filho, "Speech enhancement based on a priori signal to noise estimation" (ICASSP 1996,
    https://doi.org/10.1109/ICASSP.1996.543199).
    """
    return _filter(noisy, rate, noise_psd, lambda prior, _: prior / (1 + prior))


def lead_wiener(noisy: Samples, rate: int) -> Samples:
    """The same filter, which takes the first 64 ms for noise: the 1024 samples of the Harmonic paper."""
    return wiener(noisy, rate, noise_power(noisy[: max(1, round(LEAD_S * rate))], rate))


def log_spectral_amplitude(noisy: Samples, rate: int, noise_psd: Samples | None = None) -> Samples:
    """Minimum mean-square error estimate of the log-spectral amplitude, with the decision-directed prior SNR."""
    return _filter(noisy, rate, noise_psd, log_spectral_gain)


def prior_snr(previous: Samples, posterior: Samples, smoothing: float) -> Samples:
    """Prior SNR of a frame by its posterior SNR and that of the estimate of the frame before it, decision-directed."""
    return np.maximum(smoothing * previous + (1 - smoothing) * np.maximum(posterior - 1, 0), PRIOR_SNR_FLOOR)


def wavelet(noisy: Samples, rate: int) -> Samples:  # noqa: ARG001
    """Wavelet shrinkage with the BayesShrink threshold, averaged over shifts of the recording (cycle spinning).

    Chang, Yu, Vetterli, "Adaptive wavelet thresholding for image denoising and compression" (IEEE TIP 2000,
    https://doi.org/10.1109/83.862633), with the Harmonic paper's symlets of 8 taps; those of 16 were within 0.1 dB. The
    noise level comes from the finest scale, so the method assumes white noise: there VisuShrink was 4 to 6 dB lower; in
    coloured noise BayesShrink does next to nothing, and VisuShrink 1 dB more.
    """
    from skimage.restoration import denoise_wavelet

    # Boundary handling needs more samples than the longest filter; a mirror image adds no edge.
    padded = np.pad(noisy, (0, max(0, 256 - noisy.size)), mode="symmetric")
    options = {"wavelet": "sym4", "method": "BayesShrink", "rescale_sigma": False}
    shifted = (np.roll(denoise_wavelet(np.roll(padded, k), **options), -k) for k in range(WAVELET_SHIFTS))
    return np.asarray(sum(shifted) / WAVELET_SHIFTS)[: noisy.size]


def noisereduce(noisy: Samples, rate: int) -> Samples:
    """Spectral gating with the noisereduce package's defaults (non-stationary), as its users meet it.

    Sainburg, https://github.com/timsainb/noisereduce.
    """
    from noisereduce import reduce_noise

    return np.asarray(reduce_noise(noisy, rate), dtype=np.float64)


def scipy_wiener(noisy: Samples, rate: int) -> Samples:
    """Wiener filter on the local mean and variance of the samples: `scipy.signal.wiener`, blind."""
    # It divides where the variance is zero, and then discards the quotient.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(scipy_local_wiener(noisy, 2 * round(SCIPY_WIENER_RADIUS_S * rate) + 1), dtype=np.float64)


def rnnoise(noisy: Samples, rate: int) -> Samples:
    """RNNoise, a small recurrent network that was trained on hours of speech and noise: what training is worth.

    With the model that the package pyrnnoise carries, at 48 kHz, lined up with its input to the sample. It returns 16
    bits, as its users meet it: what it silences altogether is worth 0.2 of CSIG less in finer steps.

    Valin, "A hybrid DSP/deep learning approach to real-time full-band speech enhancement" (MMSP 2018,
    https://doi.org/10.1109/MMSP.2018.8547084).
    """
    from pyrnnoise.rnnoise import FRAME_SIZE, create, destroy, lib

    samples = _FULL_SCALE * resample(noisy[None], rate, _RNNOISE_RATE)[0]
    count = -(-(samples.size + _LATE) // FRAME_SIZE)
    frames = np.zeros((count, FRAME_SIZE), dtype=np.float32)
    frames.ravel()[: samples.size] = samples
    state = create()
    try:
        # Not by the binding's own function, where what is louder than full scale wraps.
        for frame in frames:
            pointer = frame.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            lib.rnnoise_process_frame(state, pointer, pointer)
    finally:
        destroy(state)
    restored = frames.ravel()[_LATE : _LATE + samples.size].astype(np.float64)
    return np.rint(resample(restored[None], _RNNOISE_RATE, rate)[0, : noisy.size]) / _FULL_SCALE


def decision_directed(posterior: Samples, gain: Gain, smoothing: float) -> tuple[Samples, Samples]:
    """Prior SNR and gain, both ``[T, F]``, of every frame of a posterior SNR, each leaning on the frame before it."""
    prior, gains = np.empty_like(posterior), np.empty_like(posterior)
    previous = np.ones(posterior.shape[1])
    for t, observed in enumerate(posterior):
        prior[t] = prior_snr(previous, observed, smoothing)
        gains[t] = gain(prior[t], observed)
        previous = gains[t] ** 2 * observed
    return prior, gains


def _filter(noisy: Samples, rate: int, noise_psd: Samples | None, gain: Gain) -> Samples:
    """A channel under a decision-directed gain, with the noise that is known or tracked."""
    spectrum = stft(noisy, rate)
    posterior = to_posterior_snr(np.abs(spectrum) ** 2, noise_psd, track_noise)
    return istft(spectrum * decision_directed(posterior, gain, PRIOR_SMOOTHING)[1], rate, noisy.size)


def to_posterior_snr(power: Samples, noise_psd: Samples | None, track: Callable[[Samples], Samples]) -> Samples:
    """Power [T, F] over that of the noise, which is known [F], or tracked [T, F] in the recording's power."""
    noise = track(power) if noise_psd is None else noise_psd
    return np.asarray(power / np.maximum(noise, power_floor(power)))


def power_floor(power: Samples) -> float:
    """Least noise power to divide by: relative to the loudest bin, so that denoisers stay scale-equivariant."""
    return max(POWER_FLOOR * float(power.max()), float(np.finfo(np.float64).tiny))


def stft(samples: Samples, rate: int) -> NDArray[np.complex128]:
    """Spectrum [T, F] of samples [N], mirrored at both ends so that no frame is partly empty."""
    n_fft, hop, window = _frame(rate)
    padded = np.pad(samples, (n_fft - hop, n_fft - hop + -samples.size % hop), mode="reflect")
    return np.asarray(librosa.stft(padded, n_fft=n_fft, hop_length=hop, window=window, center=False).T)


def istft(spectrum: NDArray[np.complex128], rate: int, n_samples: int) -> Samples:
    """Invert `stft` [T, F] to samples [n_samples], exactly if the spectrum is unchanged."""
    n_fft, hop, window = _frame(rate)
    samples = librosa.istft(spectrum.T, n_fft=n_fft, hop_length=hop, window=window, center=False)
    return np.asarray(samples[n_fft - hop :][:n_samples])


def _frame(rate: int) -> tuple[int, int, Samples]:
    """Length and distance of frames in samples, and a Hann window of unit energy."""
    hop = max(1, round(HOP_S * rate))
    window = get_window("hann", OVERLAP * hop)
    return window.size, hop, np.asarray(window / np.sqrt(np.sum(window**2)))
