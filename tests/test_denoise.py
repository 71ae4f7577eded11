"""Denoising as a whole, on small recordings: it removes noise, and keeps its promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from dapcli import TASKS, Audio, Progress, Settings, denoise
from dapcli.errors import InputError, SettingsError
from dapcli.tasks.denoise import POST_FILTERS
from tests.signals import RATE, Samples, melody, noise, noisy_melody, snr_db

TINY = Settings(prior="conv", base_channels=4, iterations=2, finetune_iterations=1, hop=0.016)
FAST = replace(TASKS["denoise"].presets["fast"], iterations=20)
GENERATE = replace(TASKS["denoise"].presets["generate"], fold=2, base_channels=4, iterations=2, hop=0.016)
ESTIMATORS = pytest.mark.parametrize("settings", [TINY, GENERATE], ids=["mask", "generate"])


def denoised(recording: Audio, settings: Settings = TINY) -> Samples:
    return denoise(recording, settings, device="cpu").audio.samples


def coloured(length: int, fall_db: float) -> Samples:
    """Noise of standard deviation 1 whose spectrum falls evenly by so many dB, ``[1, N]``."""
    spectrum = np.fft.rfft(noise(length))
    samples = np.fft.irfft(spectrum * 10 ** (-fall_db / 20 * np.linspace(0, 1, len(spectrum))), length)
    return np.asarray(samples / samples.std())[None]


def chords() -> Samples:
    """Notes of five partials that begin every tenth of 1 s and sound on, ``[1, N]``."""
    t = np.arange(RATE) / RATE
    samples = np.zeros_like(t)
    for start, semitones in zip(np.arange(0, 1, 0.1), (0, 4, 7, 11, 14, 12, 5, 9, 2, 7), strict=True):
        since = np.maximum(t - start, 0)
        note = sum(np.sin(2 * np.pi * 220 * 2 ** (semitones / 12) * k * since) / k for k in range(1, 6))
        samples += 0.1 * note * np.exp(-3 * since)
    return samples[None]


def syllables() -> Samples:
    """Three syllables of a gliding voice within 1 s, and nothing from 0.75 s on, ``[1, N]``."""
    t = np.arange(RATE) / RATE
    phase = 2 * np.pi * np.cumsum(130 + 40 * np.sin(2 * np.pi * 1.7 * t) + 80 * (t % 0.25)) / RATE
    loudness = np.sin(np.pi * np.clip(t % 0.25 / 0.17, 0, 1)) ** 2 * (t < 0.75)
    return np.asarray(0.2 * loudness * sum(np.sin(k * phase) / k for k in range(1, 20)))[None]


PAUSE = slice(round(0.85 * RATE), round(0.98 * RATE))


def with_noise(clean: Samples, snr: float, fall_db: float) -> Audio:
    return Audio(clean + 10 ** (-snr / 20) * clean.std() * coloured(clean.shape[1], fall_db), RATE)


def level_db(samples: Samples, reference: Samples) -> float:
    return float(10 * np.log10(np.square(samples).sum() / np.square(reference).sum()))


# Quality


@pytest.mark.parametrize(("rate", "seconds"), [(2_000, 2.0), (4_000, 1.0), (384_000, 0.1)])
def test_recordings_of_any_rate_keep_it_and_their_sound(rate: int, seconds: float) -> None:
    length = round(rate * seconds)
    n = np.arange(length)
    # A chirp from an eighth of the rate to a sixth, on and off.
    clean = 0.3 * np.sin(2 * np.pi * (n / 8 + n**2 / 48 / length)) * (np.sin(10 * np.pi * n / length) > 0)
    result = denoise(Audio((clean + 0.02 * noise(length))[None], rate), replace(FAST, iterations=2), device="cpu")
    assert (result.audio.rate, result.rate, result.audio.length) == (rate, rate, length)
    gain = np.vdot(clean, result.audio.samples[0]) / np.vdot(clean, clean)
    assert abs(20 * np.log10(gain)) < 1


@pytest.mark.parametrize(("optimizer", "rate"), [("muon", 0.05), ("adam", 5e-3)])
def test_the_fast_preset_removes_noise_and_knows_how_much_there_was(optimizer: str, rate: float) -> None:
    clean, noisy = noisy_melody(0.5)
    result = denoise(noisy, replace(FAST, optimizer=optimizer, learning_rate=rate), device="cpu")
    before = snr_db(clean, noisy.samples)
    assert snr_db(clean, result.audio.samples) > before + 8
    assert result.noise_std == pytest.approx(0.1, rel=0.15)
    assert result.input_snr_db == pytest.approx(before, abs=1.5)
    assert result.inconsistent is None


def test_generating_from_noise_finds_the_sound_where_held_out_samples_say() -> None:
    clean, noisy = noisy_melody(0.4)
    result = denoise(noisy, replace(GENERATE, base_channels=8, iterations=60), device="cpu")
    assert result.segments[0].rule == "held-out"
    assert snr_db(clean, result.audio.samples) > snr_db(clean, noisy.samples) + 3


def test_the_oracle_is_never_worse_than_running_to_the_end() -> None:
    clean, noisy = noisy_melody(0.4)
    both = (replace(GENERATE, base_channels=2, iterations=15, stop=stop) for stop in ("fixed", "oracle"))
    results = [denoise(noisy, each, device="cpu", references=[Audio(clean, RATE)]) for each in both]
    fixed, oracle = (snr_db(clean, each.audio.samples) for each in results)
    assert oracle >= fixed - 1e-6


def test_strongly_coloured_noise_does_not_come_back_as_it_was() -> None:
    noisy = with_noise(syllables(), 20, fall_db=50)
    restored = denoised(noisy, FAST)
    assert level_db(restored[:, PAUSE], noisy.samples[:, PAUSE]) < -6
    assert snr_db(syllables(), restored) > 20 + 2


@pytest.mark.parametrize("again", [False, True])
def test_a_fit_that_lets_the_noise_pass_is_fitted_again_and_noted(again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([True, again])
    monkeypatch.setattr("dapcli.tasks.denoise._lets_noise_pass", lambda *_: next(verdicts))
    completed: list[int] = []
    noisy = with_noise(syllables(), 10, 20)
    result = denoise(noisy, TINY, device="cpu", on_step=lambda progress: completed.append(progress.completed))
    assert ("twice" in result.notes[0]) is again
    assert next(verdicts, None) is None
    assert completed == sorted(completed)


def test_a_recording_with_little_noise_is_changed_little_unless_the_noise_is_known() -> None:
    lead = 3 * RATE // 10
    noisy = with_noise(np.concatenate([np.zeros((1, lead)), chords()], axis=1), 40, fall_db=30)
    without_lead = noisy.with_samples(noisy.samples[:, lead:])
    blind = denoise(without_lead, FAST, device="cpu")
    assert level_db(blind.audio.samples - without_lead.samples, without_lead.samples) < -30
    assert any("--noise-profile" in note for note in blind.notes)
    known = denoise(noisy, FAST, device="cpu", noise_profile=(0.0, 0.25))
    assert not known.notes
    assert level_db(known.audio.samples[:, RATE // 20 : RATE // 4], noisy.samples[:, RATE // 20 : RATE // 4]) < -12


def test_the_attenuation_limit_is_how_far_noise_is_lowered() -> None:
    noisy = with_noise(syllables(), 10, fall_db=30)
    limited = denoised(noisy, replace(FAST, attenuation_limit=10.0))
    assert level_db(limited[:, PAUSE], noisy.samples[:, PAUSE]) == pytest.approx(-10, abs=1)
    untouched = denoised(noisy, replace(TINY, attenuation_limit=0.0))
    np.testing.assert_allclose(untouched, noisy.samples, atol=1e-6)


def test_the_noise_of_a_stretch_or_of_a_recording_is_what_the_fit_goes_by() -> None:
    _, noisy = noisy_melody()
    lead = noise(1, RATE // 2, std=0.2, seed=7)
    recording = noisy.with_samples(np.concatenate([lead, noisy.samples], axis=1))
    stretch, other, without = (
        denoise(recording, TINY, device="cpu", noise_profile=each) for each in ((0.0, 0.5), Audio(lead, RATE), None)
    )
    assert stretch.noise_std == other.noise_std == pytest.approx(0.2, rel=0.05)
    np.testing.assert_array_equal(stretch.audio.samples, other.audio.samples)
    # Twice as much noise as there is: more is taken away.
    assert level_db(stretch.audio.samples, without.audio.samples) < -1


def test_sound_that_comes_late_is_restored_as_well_as_if_every_segment_were_fitted_anew() -> None:
    """The network learns from the loudest segments: from the first ones, all noise, it would learn to be silent."""
    late = melody(1.5)
    clean = np.concatenate([np.zeros((1, 3 * RATE)), late], axis=1)
    noisy = clean + noise(*clean.shape, std=0.05)
    start = -late.shape[1]
    heard = noisy[:, start:]
    settings = replace(FAST, iterations=25, finetune_iterations=6, segment=1.5, hop=0.03)
    result = denoise(Audio(noisy, RATE), settings, device="cpu")
    anew = denoised(Audio(heard, RATE), replace(settings, finetune_iterations=0))
    assert snr_db(late, anew) > snr_db(late, heard) + 3
    assert snr_db(late, result.audio.samples[:, start:]) > snr_db(late, anew) - 1
    # Segments join without a seam.
    error = (result.audio.samples - clean)[0]
    seams = np.concatenate([error[fit.start : fit.start + RATE // 2] for fit in result.segments[1:]])
    assert np.abs(np.diff(seams)).max() < 2 * np.abs(np.diff(error)).max()
    assert seams.std() < 1.5 * error.std()


# Invariants


@ESTIMATORS
def test_the_caller_s_random_state_is_left_alone(settings: Settings) -> None:
    state = torch.get_rng_state()
    denoised(noisy_melody(0.3)[1], settings)
    assert torch.equal(torch.get_rng_state(), state)


def test_neither_the_level_nor_a_silent_channel_matters() -> None:
    _, noisy = noisy_melody(0.4)
    plain, loud = (denoised(Audio(k * noisy.samples, RATE)) for k in (1, 64))
    np.testing.assert_allclose(loud / 64, plain, atol=1e-4)
    stereo = Audio(np.concatenate([noisy.samples, np.zeros_like(noisy.samples)]), RATE)
    restored = denoised(stereo, replace(TINY, iterations=20))
    assert not restored[1].any()
    assert 0 < restored[0].std() < noisy.samples.std()


def test_silence_comes_back_as_it_is_and_says_so() -> None:
    silent = Audio(np.zeros((2, 4000)), RATE)
    result = denoise(silent, TINY, device="cpu")
    np.testing.assert_array_equal(result.audio.samples, silent.samples)
    assert "silent" in result.notes[0]
    assert (result.noise_std, result.segments) == (None, ())
    samples = noisy_melody(4.5)[1].samples
    samples[:, RATE : 7 * RATE // 2] = 0
    result = denoise(Audio(samples, RATE), replace(TINY, segment=1.5), device="cpu")
    assert "silence" in result.notes[0]
    assert not result.audio.samples[:, round(1.8 * RATE) : 3 * RATE].any()


@ESTIMATORS
@given(st.integers(2, 1022))
@example(2)
@example(3)
@properties(max_examples=5, deadline=None)
def test_recordings_shorter_than_a_window_work(settings: Settings, length: int) -> None:
    if settings is GENERATE and length < 17:
        settings = replace(settings, stop="fixed")  # no sample can be held out
    restored = denoised(Audio(noise(1, length), RATE), settings)
    assert restored.shape == (1, length)
    assert np.isfinite(restored).all()


def test_progress_begins_at_the_level_of_the_recording() -> None:
    seen: list[Progress] = []
    denoise(Audio(noise(1, 8_000, std=0.2), RATE), GENERATE, device="cpu", on_step=seen.append)
    # The first estimate of a generating network is near zero.
    assert seen[0].noise_std == pytest.approx(0.2, rel=0.1)


def test_the_wiener_filter_keeps_strong_bins_and_removes_weak_ones() -> None:
    observed, power = torch.ones(1, 2, 3, 4), torch.full((1, 3, 4), 2.0)
    strong = POST_FILTERS["wiener"](100 * observed, observed, power)
    weak = POST_FILTERS["wiener"](0.01 * observed, observed, power)
    torch.testing.assert_close(strong, observed, rtol=1e-3, atol=0)
    assert float(weak.abs().max()) < 1e-3
    torch.testing.assert_close(POST_FILTERS["wiener"](observed, observed, power), observed / 2)
    assert POST_FILTERS["none"](strong, observed, power) is strong


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_model": "wild"}, "unknown noise model"),
        ({"post_filter": "median"}, "unknown post-filter"),
        ({"estimator": "generate", "attenuation_limit": 3.0}, "for --estimator mask"),
    ],
)
def test_settings_that_do_not_suit_are_refused(changes: dict[str, Any], message: str, no_fit: None) -> None:
    with pytest.raises(SettingsError, match=message):
        denoised(noisy_melody(0.2)[1], replace(TINY, **changes))


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ((0.5, 0.2), "not a stretch"),
        ((-1.0, 0.2), "not a stretch"),
        ((0.0, 0.01), "at least"),
        ((0.0, 0.5), "silence"),
        (Audio(noise(2, RATE), RATE), "as many, or one"),
    ],
)
def test_impossible_noise_profiles_are_refused(profile: Any, message: str, no_fit: None) -> None:
    samples = noisy_melody()[1].samples
    samples[:, : RATE // 2] = 0
    with pytest.raises((InputError, SettingsError), match=message):
        denoise(Audio(samples, RATE), TINY, device="cpu", noise_profile=profile)
