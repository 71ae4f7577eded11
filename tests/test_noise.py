"""Noise: estimates of it, steady or not, that are not fooled by sound; and protection of the sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, lfilter, resample_poly, sosfilt

from dapcli.signal import noise_spectrum as steady
from dapcli.signal import noise_tracking as moving
from dapcli.signal.noise import Noise, estimate_noise, protect
from dapcli.signal.stft import STFT
from tests import signals

RATE = 16_000
STFT_1022 = STFT(1022, 128)
HOP_S, BIN_HZ = 128 / RATE, RATE / 1022


def white(seconds: float = 2.0, std: float = 0.1, seed: int = 0) -> np.ndarray:
    return signals.noise(round(seconds * RATE), std=std, seed=seed)


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
    return steady.estimate_spectrum(inner_power(samples)[None], BIN_HZ)


def true_power(samples: np.ndarray) -> np.ndarray:
    """The expected power ``[F, 1]`` of steady noise."""
    return np.asarray(steady.power_spectrogram(STFT_1022, tensor(samples))[0].mean(axis=1, keepdims=True))


SILENCE = np.zeros(RATE)


@pytest.mark.parametrize(
    ("samples", "tolerance"),
    [
        *((white(seed=seed), 0.03) for seed in range(3)),
        (white() + notes(), 0.08),
        # Padding with digital silence does not pass for quiet noise.
        (np.concatenate([SILENCE, white() + notes(), SILENCE, SILENCE]), 0.1),
    ],
)
def test_white_noise_is_recognised_and_its_level_found(samples: np.ndarray, tolerance: float) -> None:
    spectrum = estimate(samples)
    assert steady.is_white(spectrum)
    assert steady.noise_std(spectrum, STFT_1022) == pytest.approx(0.1, rel=tolerance)
    profile = steady.profile_spectrum(STFT_1022, tensor(white(10.0)))
    assert steady.noise_std(profile, STFT_1022) == pytest.approx(0.1, rel=0.02)


def test_coloured_noise_is_followed_over_frequency_in_each_channel() -> None:
    spectra = steady.estimate_spectrum(np.stack([inner_power(white()), inner_power(coloured())]), BIN_HZ)
    np.testing.assert_allclose(spectra[0], estimate(white())[0])
    assert not steady.is_white(spectra[1:])
    error_db = 10 * np.log10(spectra[1, 8:-8] / true_power(coloured(30.0, seed=9))[8:-8, 0])
    assert abs(error_db.mean()) < 1
    assert error_db.std() < 1.5


def test_noise_of_a_recording_that_was_made_at_a_lower_rate_is_found_in_its_band() -> None:
    faint = 1e-3 * signals.noise(1, 96_000, std=1.0, seed=1)
    samples = resample_poly(white(), 3, 1)[None] + faint  # to 48 kHz, and dithered
    stft = STFT(3066, 384)
    found = estimate_noise(stft, torch.from_numpy(samples).float(), 48_000, "auto").power.mean(dim=(0, 2))
    true = stft.forward(torch.from_numpy(samples)).square().sum(dim=1).mean(dim=(0, 2))
    for band in (slice(50, 450), slice(600, 1500)):
        assert 10 * np.log10(found[band].mean() / true[band].mean()) == pytest.approx(0, abs=1.5)


def test_mains_hum_counts_as_noise_and_a_tone_does_not() -> None:
    t = np.arange(2 * RATE) / RATE
    plain = estimate(coloured())[0]
    hum = estimate(coloured() + 0.5 * np.sin(2 * np.pi * 50 * t))[0]
    tone = estimate(coloured() + 0.5 * np.sin(2 * np.pi * 1000 * t))[0]
    assert hum[round(50 * 1022 / RATE)] > 10 * plain[round(50 * 1022 / RATE)]
    assert tone[round(1000 * 1022 / RATE)] < 2 * plain[round(1000 * 1022 / RATE)]


@given(st.integers(2, 1_500))
@settings(max_examples=20, deadline=None)
def test_recordings_of_few_samples_have_a_spectrum(length: int) -> None:
    spectrum = estimate(white()[:length])
    assert spectrum.shape == (1, 512)
    assert ((spectrum > 0) & np.isfinite(spectrum)).all()


# Noise that moves

Level = Callable[[np.ndarray], np.ndarray]


def gained(samples: np.ndarray, level_db: np.ndarray) -> np.ndarray:
    return np.asarray(samples * 10 ** (level_db / 20))


def swell_db(times: np.ndarray) -> np.ndarray:
    """A level that goes 10 dB up and down within a second."""
    return np.asarray(10 * np.sin(2 * np.pi * times))


def dip_db(times: np.ndarray) -> np.ndarray:
    """A level that is 10 dB lower for a quarter of every second."""
    return np.where(times % 1 < 0.25, -10.0, 0.0)


TIMES, FRAME_TIMES = np.arange(2 * RATE) / RATE, np.arange(251) * HOP_S


def inner_power(samples: np.ndarray) -> np.ndarray:
    return np.asarray(steady.inner_frames(steady.power_spectrogram(STFT_1022, tensor(samples)), STFT_1022)[0])


@pytest.mark.parametrize("make", [white, coloured])
@pytest.mark.parametrize("seed", range(2))
def test_the_floor_moves_with_the_noise_and_not_with_the_sound(make: Callable[..., np.ndarray], seed: int) -> None:
    def floor_movement(samples: np.ndarray) -> float:
        return moving.floor_movement_db(inner_power(samples) / estimate(samples)[0][:, None], HOP_S, BIN_HZ)

    noise = make(seed=seed)
    assert max(floor_movement(each) for each in (noise, noise + notes())) < 0.9
    assert min(floor_movement(gained(noise, level_db(TIMES))) for level_db in (swell_db, dip_db)) > 1.5


@pytest.mark.parametrize("change_db", [10.0, -10.0])
def test_the_tracker_follows_a_step_within_three_tenths_of_a_second(change_db: float) -> None:
    power = steady.power_spectrogram(STFT_1022, tensor(gained(coloured(), change_db * (TIMES >= 1))))[0]
    tracked = moving.track(power, HOP_S) / true_power(coloured(30.0, seed=9))
    error_db = 10 * np.log10(tracked.mean(axis=0)) - change_db * (FRAME_TIMES >= 1)
    far = (np.abs(FRAME_TIMES - 1) > 0.3) & (np.abs(FRAME_TIMES - 1) < 0.9)
    assert np.abs(error_db[far]).max() < 3


def test_notes_that_last_are_tonal_and_bursts_of_noise_are_not() -> None:
    def tonality(samples: np.ndarray) -> float:
        return moving.tonality(inner_power(samples), HOP_S, BIN_HZ)

    bursts = white() * (TIMES % 0.3 < 0.05)
    assert tonality(notes() + 0.1 * white()) > 0.75
    assert tonality(bursts + 0.1 * white()) < 0.4
    assert tonality(0 * bursts) == 0


@pytest.mark.parametrize(("model", "gain"), [("auto", 1e-3), ("moving", 1e3)])
def test_noise_that_moves_scales_with_the_recording(model: str, gain: float) -> None:
    samples = gained(coloured(), swell_db(TIMES)) + 0.1 * notes()
    plain, scaled = (estimate_noise(STFT_1022, tensor(each), RATE, model) for each in (samples, gain * samples))
    for one, other in ((scaled.power, plain.power), (scaled.spectrum, plain.spectrum)):
        torch.testing.assert_close(one, gain**2 * other, rtol=1e-4, atol=0)
    assert (scaled.rumble, scaled.white) == (plain.rumble, plain.white)
    assert scaled.tonality == pytest.approx(plain.tonality, rel=1e-6)


@pytest.mark.parametrize(
    ("samples", "model"),
    [(white() + notes(), "auto"), (gained(coloured(), swell_db(TIMES)), "steady")],
    ids=["white", "steady model"],
)
def test_steady_noise_has_one_power_at_all_times(samples: np.ndarray, model: str) -> None:
    noise = estimate_noise(STFT_1022, tensor(samples), RATE, model)
    assert noise.white == (model == "auto")
    assert torch.equal(noise.power, noise.spectrum[..., None].expand(1, 512, 251))
    power = torch.rand(1, 512, 251)
    assert noise.refine(power, power + 1, 0 * power) is power


@pytest.mark.parametrize("level_db", [swell_db, dip_db])
def test_noise_that_moves_is_followed_in_time(level_db: Level) -> None:
    truth_db = 10 * np.log10(true_power(coloured(30.0, seed=9))) + level_db(FRAME_TIMES)

    def error_db(model: str) -> float:
        noise = estimate_noise(STFT_1022, tensor(gained(coloured(seed=1), level_db(TIMES))), RATE, model)
        return float(np.abs(10 * np.log10(noise.power[0].numpy()) - truth_db)[8:, 4:-4].mean())

    assert max(error_db("moving"), error_db("auto")) < 0.75 * error_db("steady")


def test_rumble_is_found_while_the_fit_goes_on() -> None:
    rumbling = FRAME_TIMES % 1 < 0.4
    low = sosfilt(butter(4, 60, fs=RATE, output="sos"), white(seed=3))
    flat, heavy = (true_power(samples)[1:4] for samples in (coloured(seed=1), low))
    loudness = np.sqrt(30 * flat.mean() / heavy.mean())
    samples = tensor(coloured(seed=1) + loudness * low * (TIMES % 1 < 0.4))
    truth_db = 10 * np.log10(flat + loudness**2 * heavy * rumbling)
    noise = estimate_noise(STFT_1022, samples, RATE, "auto")
    observed = torch.from_numpy(steady.power_spectrogram(STFT_1022, samples)).float()

    def error_db(power: torch.Tensor) -> float:
        return float(np.abs(10 * np.log10(power[0, 1:4].numpy()) - truth_db).mean())

    power = noise.power
    for _ in range(16):  # nothing of this is sound
        power = noise.refine(power, observed, torch.zeros_like(observed))
    assert error_db(power) < 3.5 < 5 < error_db(noise.spectrum[..., None].expand_as(noise.power))
    assert torch.equal(power[:, noise.rumble :], noise.power[:, noise.rumble :])


def test_every_second_frame_of_noise_is_the_noise_of_every_second_frame() -> None:
    noise = Noise.steady(torch.rand(2, 5), 7, 0.008)
    noise = replace(noise, power=torch.rand(2, 5, 7))
    half = noise.every(2)
    assert torch.equal(half.power, noise.power[..., [0, 2, 4, 6]])
    assert half.hop_s == 0.016


# Protection of the sound


def protected(sound_db: float, seed: int = 0, **known: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Noise]:
    """Gain before and after, power, and noise: a fifth of the bins holds sound so far above steady noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = replace(Noise.steady(0.1 + torch.rand(2, 257, generator=generator), 40, 0.008), **known)
    loud = torch.rand(2, 257, 40, generator=generator) < 0.2
    power = noise.power * torch.where(loud, 1 + 5 * 10 ** (sound_db / 10), 1.0)
    gain = torch.where(loud, 1.0, 0.1) * torch.rand(2, 257, 40, generator=generator)
    return gain, protect(gain, power, noise, 31.25)[0], power, noise


FACTS = st.fixed_dictionaries(
    {"rumble": st.integers(0, 4), "tonality": st.floats(0, 1), "white": st.booleans(), "known": st.booleans()}
)


@given(st.floats(-30, 60), st.integers(0, 1000), FACTS)
@settings(max_examples=50, deadline=None)
def test_protection_never_lowers_and_leaves_the_residue_that_it_says(
    sound_db: float, seed: int, facts: dict[str, Any]
) -> None:
    gain, after, power, noise = protected(sound_db, seed, **facts)
    assert (after >= gain - 1e-6).all()
    assert (after <= 1 + 1e-6).all()
    sound, left = ((each.square() * of)[:, 6:].sum() for each, of in ((gain, power), (after, noise.power)))
    residue_db = 10 * float((left / sound).log10())
    assert residue_db > (-45 if noise.white or noise.known else -27) - 0.01 or after.min() > 10 ** (-15.01 / 20)


@pytest.mark.parametrize("certain", ["white", "known"])
def test_noise_that_is_certain_may_go_deeper(certain: str) -> None:
    assert protected(0.0, **{certain: True})[1].min() < 0.4 * protected(0.0)[1].min()


def test_a_clean_recording_is_changed_less_than_its_noise_would_have_it_unless_the_noise_is_known() -> None:
    for known in (False, True):
        gain, after, power, _ = protected(30.0, known=known)
        unlimited, changed = (
            10 * float((((1 - each).square() * power).sum() / power.sum()).log10()) for each in (gain, after)
        )
        assert unlimited > -15
        assert changed > -15 if known else changed == pytest.approx(-31.5, abs=0.1)
