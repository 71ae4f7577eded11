"""Noise spectra: the estimate is right on noise, and is not fooled by sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from dapcli import noise
from dapcli.spectral import STFT

RATE = 16_000
STFT_1022 = STFT(1022, 128)


def white(seconds: float = 2.0, std: float = 0.1, seed: int = 0) -> np.ndarray:
    return std * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def coloured(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """Noise that falls by about 30 dB from low to high frequencies."""
    return np.asarray(lfilter([1.0], [1.0, -0.95], 0.02 * white(seconds, 1.0, seed)))


def notes(seconds: float = 2.0) -> np.ndarray:
    """Four decaying harmonic notes with silence between them."""
    t = np.arange(round(seconds * RATE / 4)) / RATE
    tone = sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 10)) * np.exp(-6 * t)
    return np.tile(0.3 * tone, 4)


def tensor(samples: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(samples)[None]


def estimate(samples: np.ndarray) -> np.ndarray:
    return noise.estimate_spectrum(STFT_1022, tensor(samples), RATE)


@pytest.mark.parametrize("seed", range(5))
def test_white_noise_is_recognised_and_its_level_found(seed: int) -> None:
    spectrum = estimate(white(seed=seed))
    assert noise.is_white(spectrum)
    assert noise.noise_std(spectrum, STFT_1022) == pytest.approx(0.1, rel=0.03)


def test_notes_in_white_noise_do_not_hide_its_level() -> None:
    spectrum = estimate(white() + notes())
    assert noise.is_white(spectrum)
    assert noise.noise_std(spectrum, STFT_1022) == pytest.approx(0.1, rel=0.08)


def test_coloured_noise_is_followed_over_frequency() -> None:
    truth = noise.power_spectrogram(STFT_1022, tensor(coloured(30.0, seed=9)))[0].mean(axis=1)
    spectrum = estimate(coloured())
    assert not noise.is_white(spectrum)
    error_db = 10 * np.log10(spectrum[0, 8:-8] / truth[8:-8])
    assert abs(error_db.mean()) < 1
    assert error_db.std() < 1.5


def test_mains_hum_counts_as_noise_and_a_tone_does_not() -> None:
    t = np.arange(2 * RATE) / RATE
    plain = estimate(coloured())[0]
    hum = estimate(coloured() + 0.5 * np.sin(2 * np.pi * 50 * t))[0]
    tone = estimate(coloured() + 0.5 * np.sin(2 * np.pi * 1000 * t))[0]
    assert hum[round(50 * 1022 / RATE)] > 10 * plain[round(50 * 1022 / RATE)]
    assert tone[round(1000 * 1022 / RATE)] < 2 * plain[round(1000 * 1022 / RATE)]


@given(gain=st.floats(1e-4, 1e3))
@settings(max_examples=10, deadline=None)
def test_estimate_scales_with_the_recording(gain: float) -> None:
    samples = coloured(0.5) + notes(0.5)
    np.testing.assert_allclose(estimate(gain * samples), gain**2 * estimate(samples), rtol=1e-4)


def test_padding_with_digital_silence_does_not_pass_for_quiet_noise() -> None:
    padded = np.concatenate([np.zeros(RATE), white() + notes(), np.zeros(2 * RATE)])
    assert noise.noise_std(estimate(padded), STFT_1022) == pytest.approx(0.1, rel=0.1)


def test_channels_are_estimated_one_by_one() -> None:
    both = torch.from_numpy(np.stack([white(), coloured()]))
    spectra = noise.estimate_spectrum(STFT_1022, both, RATE)
    np.testing.assert_allclose(spectra[0], estimate(white())[0])
    np.testing.assert_allclose(spectra[1], estimate(coloured())[0])


def test_profile_is_the_mean_power() -> None:
    spectrum = noise.profile_spectrum(STFT_1022, tensor(white(10.0)))
    assert noise.noise_std(spectrum, STFT_1022) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("length", [2, 3, 100, 1021, 1023])
def test_recordings_shorter_than_a_window_have_a_spectrum(length: int) -> None:
    spectrum = estimate(white()[:length])
    assert spectrum.shape == (1, 512)
    assert (spectrum > 0).all()
    assert np.isfinite(spectrum).all()
