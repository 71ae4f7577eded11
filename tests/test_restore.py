"""Restoration as a whole, on small recordings: it removes noise, and keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dapcli import Audio, Progress, Settings, denoise
from dapcli.errors import InputError, SettingsError
from dapcli.fit import OPTIMIZERS
from dapcli.metrics.waveform import snr_db
from dapcli.objectives import ESTIMATORS, REPAIR_ESTIMATORS, SEPARATION_ESTIMATORS
from dapcli.settings import PRESETS
from dapcli.tasks.postfilter import POST_FILTERS
from dapcli.tasks.rules import DENOISING, REPAIRING, SEPARATING, choose_rule

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = 8_000
TINY = Settings(width=4, iterations=2, refinement=1)


def melody(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Decaying notes with five partials, ``[1, N]``."""
    t = np.arange(round(seconds * rate)) / rate
    start = np.floor(t * 4) / 4
    pitch = 220 * 2 ** ((np.floor(t * 4) % 5) / 5)
    tone = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 6))
    return (0.3 * tone * np.exp(-5 * (t - start)))[None]


def noisy_melody(seconds: float = 1.0, std: float = 0.1, seed: int = 0) -> tuple[np.ndarray, Audio]:
    clean = melody(seconds)
    noise = std * np.random.default_rng(seed).standard_normal(clean.shape)
    return clean, Audio(clean + noise, RATE)


def test_fast_preset_removes_noise() -> None:
    clean, noisy = noisy_melody()
    result = denoise(noisy, PRESETS["fast"], device="cpu")
    before, after = snr_db(clean, noisy.samples, RATE), snr_db(clean, result.audio.samples, RATE)
    assert after > before + 6
    assert result.noise_std == pytest.approx(0.1, rel=0.15)
    assert result.input_snr_db == pytest.approx(before, abs=1.5)


def test_generating_from_noise_finds_the_sound_and_the_oracle_finds_the_best() -> None:
    clean, noisy = noisy_melody()
    settings = replace(PRESETS["generate"], width=8, iterations=150, hop=256 / 16_000)
    blind = denoise(noisy, settings, device="cpu")
    assert blind.segments[0].rule == "held-out"
    assert snr_db(clean, blind.audio.samples, RATE) > snr_db(clean, noisy.samples, RATE) + 3


def test_oracle_is_never_worse_than_running_to_the_end() -> None:
    clean, noisy = noisy_melody(0.5)
    settings = Settings(width=4, iterations=30)
    snr = {
        stop: snr_db(
            clean,
            denoise(noisy, replace(settings, stop=stop), device="cpu", reference=Audio(clean, RATE)).audio.samples,
            RATE,
        )
        for stop in ("fixed", "oracle")
    }
    assert snr["oracle"] >= snr["fixed"] - 1e-6


def test_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    _, noisy = noisy_melody(0.3)
    runs = [denoise(noisy, replace(TINY, seed=seed), device="cpu").audio.samples for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_caller_s_random_state_is_neither_used_nor_changed() -> None:
    _, noisy = noisy_melody(0.3)
    torch.manual_seed(5)
    first = denoise(noisy, TINY, device="cpu").audio.samples
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    torch.manual_seed(6)
    np.testing.assert_array_equal(denoise(noisy, TINY, device="cpu").audio.samples, first)


def test_level_does_not_matter() -> None:
    _, noisy = noisy_melody(0.4)
    plain = denoise(noisy, TINY, device="cpu").audio.samples
    loud = denoise(noisy.with_samples(64 * noisy.samples), TINY, device="cpu").audio.samples
    np.testing.assert_allclose(loud / 64, plain, atol=1e-4)


def test_silence_comes_back_as_it_is_and_says_so() -> None:
    silent = Audio(np.zeros((2, 4000)), RATE)
    result = denoise(silent, TINY, device="cpu")
    np.testing.assert_array_equal(result.audio.samples, silent.samples)
    assert "silent" in result.notes[0]
    assert result.noise_std is None


def test_a_silent_segment_stays_silent_between_others() -> None:
    _, noisy = noisy_melody(6.0)
    samples = noisy.samples.copy()
    samples[:, 2 * RATE : 9 * RATE // 2] = 0
    result = denoise(noisy.with_samples(samples), replace(TINY, segment=1.5), device="cpu")
    assert any("silence" in note for note in result.notes)
    assert not result.audio.samples[:, round(2.8 * RATE) : round(4.0 * RATE)].any()


def test_a_silent_channel_stays_silent_beside_a_noisy_one() -> None:
    _, noisy = noisy_melody(0.5)
    stereo = Audio(np.concatenate([noisy.samples, np.zeros_like(noisy.samples)]), RATE)
    restored = denoise(stereo, replace(TINY, iterations=20), device="cpu").audio.samples
    assert not restored[1].any()
    assert 0 < restored[0].std() < noisy.samples.std()


@pytest.mark.parametrize("length", [2, 3, 17, 500, 1022])
def test_recordings_shorter_than_a_window_work(length: int) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal((1, length))
    result = denoise(Audio(samples, RATE), TINY, device="cpu")
    assert result.audio.samples.shape == (1, length)
    assert np.isfinite(result.audio.samples).all()


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
def test_working_at_another_rate_keeps_the_length(rate: int) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal((2, 3001))
    result = denoise(Audio(samples, rate), replace(TINY, rate=16_000), device="cpu")
    assert result.audio.rate == rate
    assert result.audio.samples.shape == (2, 3001)
    assert result.rate == 16_000


def test_progress_covers_every_iteration_of_every_segment() -> None:
    seen: list[Progress] = []
    _, noisy = noisy_melody(4.0)
    result = denoise(noisy, replace(TINY, segment=1.5, refinement=3), device="cpu", parallel=1, on_step=seen.append)
    count = len(result.segments)
    learning = [(None, 1), (None, 2)]
    assert [(p.segment, p.step.iteration) for p in seen] == learning + [(s, i) for s in range(count) for i in (1, 2, 3)]
    assert [p.completed for p in seen] == list(range(1, 2 + 3 * count + 1))
    assert {(p.segments, p.total) for p in seen} == {(count, 2 + 3 * count)}


def test_reported_noise_level_of_a_fit_to_nothing_is_that_of_the_recording() -> None:
    # The first estimate of a generating network is near zero, so that all of the recording is left over.
    seen: list[Progress] = []
    samples = 0.2 * np.random.default_rng(0).standard_normal((1, 8000))
    denoise(Audio(samples, RATE), replace(TINY, estimator="generate"), device="cpu", on_step=seen.append)
    assert seen[0].noise_std == pytest.approx(0.2, rel=0.1)


def test_segments_join_without_a_seam() -> None:
    clean, noisy = noisy_melody(3.0, std=0.02)
    result = denoise(noisy, replace(PRESETS["fast"], segment=1.5, iterations=20), device="cpu")
    error = result.audio.samples - clean
    at_seams = np.concatenate([error[0, fit.start : fit.start + RATE // 2] for fit in result.segments[1:]])
    assert np.abs(np.diff(at_seams)).max() < 2 * np.abs(np.diff(error[0])).max()
    assert at_seams.std() < 1.5 * error.std()


def coloured(length: int, fall_db: float, seed: int = 0) -> np.ndarray:
    """Noise of standard deviation 1 whose spectrum falls evenly by so many dB, ``[1, N]``."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    samples = np.fft.irfft(spectrum * 10 ** (-fall_db / 20 * np.linspace(0, 1, len(spectrum))), length)
    return np.asarray(samples / samples.std())[None]


def chords(seconds: float = 1.0) -> np.ndarray:
    """Notes of five partials that begin every tenth of a second and sound on, ``[1, N]``."""
    t = np.arange(round(seconds * RATE)) / RATE
    samples = np.zeros_like(t)
    for start, semitones in zip(np.arange(0, seconds, 0.1), (0, 4, 7, 11, 14, 12, 5, 9, 2, 7), strict=False):
        since = np.maximum(t - start, 0)
        tone = sum(np.sin(2 * np.pi * 220 * 2 ** (semitones / 12) * k * since) / k for k in range(1, 6))
        samples += 0.1 * tone * np.exp(-3 * since)
    return samples[None]


def syllables() -> np.ndarray:
    """Three syllables of a gliding voice within 1 s, and nothing from 0.75 s on, ``[1, N]``."""
    t = np.arange(RATE) / RATE
    phase = 2 * np.pi * np.cumsum(130 + 40 * np.sin(2 * np.pi * 1.7 * t) + 80 * (t % 0.25)) / RATE
    loudness = np.sin(np.pi * np.clip(t % 0.25 / 0.17, 0, 1)) ** 2 * (t < 0.75)
    return (0.2 * loudness * sum(np.sin(k * phase) / k for k in range(1, 20)))[None]


def with_noise(clean: np.ndarray, snr: float, fall_db: float) -> Audio:
    noise = coloured(clean.shape[1], fall_db)
    return Audio(clean + 10 ** (-snr / 20) * clean.std() * noise, RATE)


def level_db(samples: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.square(samples).sum() / np.square(reference).sum()))


PAUSE = slice(round(0.85 * RATE), round(0.98 * RATE))


@pytest.mark.parametrize("snr", [10, 20])
def test_strongly_coloured_noise_does_not_come_back_as_it_was(snr: float) -> None:
    noisy = with_noise(syllables(), snr, fall_db=50)
    restored = denoise(noisy, PRESETS["fast"], device="cpu").audio.samples
    assert level_db(restored[:, PAUSE], noisy.samples[:, PAUSE]) < -6
    assert snr_db(syllables(), restored, RATE) > snr + 2


@pytest.mark.parametrize("again", [False, True])
def test_a_fit_that_lets_the_noise_pass_is_fitted_again_and_noted(again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([True, again])
    monkeypatch.setattr("dapcli.engine.denoising._lets_noise_pass", lambda *_: next(verdicts))
    completed: list[int] = []
    result = denoise(
        with_noise(syllables(), 10, 20), TINY, device="cpu", on_step=lambda p: completed.append(p.completed)
    )
    assert ("twice" in result.notes[0]) is again
    assert next(verdicts, None) is None
    assert completed == sorted(completed)


def test_a_recording_with_little_noise_is_changed_little_unless_the_noise_is_known() -> None:
    clean = np.concatenate([np.zeros((1, 2 * RATE // 5)), chords()], axis=1)
    noisy = with_noise(clean, 40, fall_db=30)
    without_lead = noisy.with_samples(noisy.samples[:, 2 * RATE // 5 :])
    blind = denoise(without_lead, PRESETS["fast"], device="cpu")
    assert level_db(blind.audio.samples - without_lead.samples, without_lead.samples) < -30
    assert any("--noise-profile" in note for note in blind.notes)
    known = denoise(noisy, PRESETS["fast"], device="cpu", noise_profile=(0.0, 0.35))
    assert not known.notes
    lead = slice(RATE // 20, 3 * RATE // 10)
    assert level_db(known.audio.samples[:, lead], noisy.samples[:, lead]) < -12


@pytest.mark.parametrize("fall_db", [0, 30])
def test_the_attenuation_limit_is_how_far_noise_is_lowered(fall_db: float) -> None:
    noisy = with_noise(syllables(), 10, fall_db)
    limited = denoise(noisy, replace(PRESETS["fast"], attenuation_limit=10.0), device="cpu")
    assert level_db(limited.audio.samples[:, PAUSE], noisy.samples[:, PAUSE]) == pytest.approx(-10, abs=1)
    untouched = denoise(noisy, replace(TINY, attenuation_limit=0.0), device="cpu")
    np.testing.assert_allclose(untouched.audio.samples, noisy.samples, atol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_removes_noise(optimizer: str) -> None:
    clean, noisy = noisy_melody(0.5)
    rate = {"muon": 0.05, "adam": 5e-3}[optimizer]
    result = denoise(noisy, replace(PRESETS["fast"], optimizer=optimizer, learning_rate=rate), device="cpu")
    assert snr_db(clean, result.audio.samples, RATE) > snr_db(clean, noisy.samples, RATE) + 4


def test_noise_profile_is_what_the_fit_goes_by() -> None:
    clean, noisy = noisy_melody(1.0)
    lead = 0.1 * np.random.default_rng(7).standard_normal((1, RATE // 2))
    recording = noisy.with_samples(np.concatenate([lead, noisy.samples], axis=1))
    result = denoise(recording, PRESETS["fast"], device="cpu", noise_profile=(0.0, 0.5))
    assert result.noise_std == pytest.approx(0.1, rel=0.05)
    assert snr_db(clean, result.audio.samples[:, RATE // 2 :], RATE) > snr_db(clean, noisy.samples, RATE) + 6


@pytest.mark.parametrize(
    ("stretch", "message"),
    [
        ((0.5, 0.2), "not a stretch"),
        ((-1.0, 0.2), "not a stretch"),
        ((0.0, 9.0), "ends at 9"),
        ((0.0, 0.01), "at least"),
    ],
)
def test_impossible_noise_profiles_are_refused(stretch: tuple[float, float], message: str) -> None:
    _, noisy = noisy_melody()
    with pytest.raises((InputError, SettingsError), match=message):
        denoise(noisy, TINY, device="cpu", noise_profile=stretch)


def test_noise_profile_over_silence_is_refused() -> None:
    _, noisy = noisy_melody()
    samples = noisy.samples.copy()
    samples[:, : RATE // 2] = 0
    with pytest.raises(InputError, match="silence"):
        denoise(noisy.with_samples(samples), TINY, device="cpu", noise_profile=(0.0, 0.5))


def test_one_sample_and_a_wrong_reference_are_refused() -> None:
    with pytest.raises(InputError, match="one sample"):
        denoise(Audio(np.ones((1, 1)), RATE), TINY, device="cpu")
    _, noisy = noisy_melody()
    with pytest.raises(InputError, match="reference"):
        denoise(noisy, TINY, device="cpu", reference=Audio(noisy.samples[:, 1:], RATE))


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"averaging": 1.0},
        {"perturbation": 0.0},
        {"hop": 0.05},
        {"segment": 0.5},
        {"rate": 4_000},
        {"seed": -1},
        {"width": 0},
        {"fold": 0},
        {"attenuation_limit": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(changes)).replace('_', '-')}"):
        replace(Settings(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stop", "reason"), [("validation", "training_pairs"), ("oracle", "--reference")])
def test_a_rule_that_has_nothing_to_go_by_is_refused_before_the_fit(stop: str, reason: str) -> None:
    def on_step(progress: Progress) -> None:
        raise AssertionError("a fit has started")

    _, noisy = noisy_melody(0.2)
    with pytest.raises(SettingsError, match=f"--stop {stop}.*{reason}"):
        denoise(noisy, replace(TINY, stop=stop), device="cpu", on_step=on_step)


def test_a_dilation_that_would_have_no_effect_is_refused() -> None:
    _, noisy = noisy_melody(0.2)
    with pytest.raises(SettingsError, match="--dilation"):
        denoise(noisy, replace(TINY, dilation=3), device="cpu")
    denoise(noisy, replace(TINY, dilation=3, prior="dilated"), device="cpu")


def test_auto_chooses_by_estimator() -> None:
    assert choose_rule(Settings(), DENOISING)[0] == "fixed"
    assert choose_rule(PRESETS["generate"], DENOISING)[0] == "held-out"
    assert choose_rule(replace(PRESETS["generate"], stop="discrepancy"), DENOISING) == ("discrepancy", "asked for")


def test_auto_knows_every_estimator_of_every_task() -> None:
    assert DENOISING.keys() == ESTIMATORS.keys()
    assert REPAIRING.keys() == REPAIR_ESTIMATORS.keys()
    assert SEPARATING.keys() == SEPARATION_ESTIMATORS.keys()


def test_wiener_post_filter_keeps_strong_bins_and_removes_weak_ones() -> None:
    observed = torch.ones(1, 2, 3, 4)
    power = torch.full((1, 3, 4), 2.0)
    strong = POST_FILTERS["wiener"](100 * observed, observed, power)
    weak = POST_FILTERS["wiener"](0.01 * observed, observed, power)
    torch.testing.assert_close(strong, observed, rtol=1e-3, atol=0)
    assert float(weak.abs().max()) < 1e-3
    torch.testing.assert_close(POST_FILTERS["wiener"](observed, observed, power), observed / 2)
    assert POST_FILTERS["none"](strong, observed, power) is strong
