"""The baselines: what holds for all of them, and known answers of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate

from dapcli.audio import Audio, resample
from dapcli.baselines import BASELINES, Baseline
from dapcli.baselines.denoising import noise_power, stft, track_noise
from dapcli.baselines.imcra import imcra
from dapcli.errors import SettingsError
from dapcli.signal.clipping import Clipping
from dapcli.signal.gaps import Gaps
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import Quantization
from dapcli.signal.source_types import DEFAULT_TYPES
from dapcli.tasks.problem import Problem
from tests.signals import Samples, noise, snr_db

RATE = 16_000
DENOISERS = BASELINES["denoise"]
ORACLES = [name for name, baseline in DENOISERS.items() if baseline.oracle]
ALL = [(task, name) for task, baselines in BASELINES.items() for name in baselines]
# A-SPADE and the quantizer's cells stop at tolerances of their own; noisereduce has thresholds in dB, and RNNoise was
# trained on levels.
LEVEL_MATTERS = ("a-spade", "noisereduce", "rnnoise")


@pytest.fixture(params=ALL, ids=" ".join)
def case(request: pytest.FixtureRequest) -> tuple[str, Baseline]:
    task, name = request.param
    for package in BASELINES[task][name].packages:
        pytest.importorskip(package, reason=f"the baseline {name} needs {package}: pip install 'dapcli[peers]'")
    return task, BASELINES[task][name]


def problem(samples: Samples, rate: int = RATE, **known: Any) -> Problem[Any]:
    return Problem(Audio(samples, rate), **known)


def harmonic_tone(seconds: float = 1.0) -> Samples:
    t = np.arange(int(seconds * RATE)) / RATE
    harmonics = np.arange(1, 9)[:, None]
    tone = np.sum(np.sin(2 * np.pi * 220 * harmonics * t + harmonics) / harmonics, axis=0)
    # Swells, so that a blind denoiser meets pauses.
    return np.asarray(0.2 * tone * np.sin(np.pi * 3 * t) ** 2)[None]


def sine(hertz: float, samples: int = RATE) -> Samples:
    return np.asarray(0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE))[None]


def degraded(task: str, clean: Samples, gain: float = 1.0) -> Problem[Any]:
    """A problem of a task's baselines that clean samples ``[C, N]`` make, all of it ``gain`` times as loud."""
    channels, length = clean.shape
    samples = gain * clean
    if task == "inpaint":
        gap = length // 3, length // 3 + length // 20 + 1
        return problem(samples, degradation=Missing(Gaps(((gap,),) * channels)))
    if task == "declip":
        clipping = Clipping((-0.1 * gain,) * channels, (0.15 * gain,) * channels)
        return problem(clipping.clip(samples), degradation=clipping)
    if task == "dequantize":
        quantizer = Quantization(0.05 * gain, 0.0)
        return problem(quantizer.quantize(samples), degradation=quantizer)
    return problem(samples)


# All of them


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 15), (1, 256), (2, 1001)], ids=str)
def test_every_baseline_keeps_the_shape_and_its_input_and_repeats_itself(
    case: tuple[str, Baseline], shape: tuple[int, int]
) -> None:
    task, baseline = case
    posed = degraded(task, noise(*shape))
    before = posed.samples.copy()
    estimates = baseline(posed)
    assert estimates.shape == ((2 if task == "separate" else 1), *shape)
    assert estimates.dtype == np.float64
    assert np.isfinite(estimates).all()
    np.testing.assert_array_equal(posed.samples, before)
    estimates += 1.0  # a returned array is no view of the input either
    np.testing.assert_array_equal(posed.samples, before)
    np.testing.assert_array_equal(baseline(posed) + 1.0, estimates)


def test_silence_stays_silent_and_is_survived_inside_a_recording(case: tuple[str, Baseline]) -> None:
    task, baseline = case
    for length in (1, 4000):
        assert np.abs(baseline(degraded(task, np.zeros((1, length))))).max() < 1e-12
    clean = noise(1, 10_000) * (np.arange(10_000) % 6_000 >= 3_000)
    assert np.isfinite(baseline(degraded(task, clean))).all()


def test_a_channel_is_restored_as_it_is_alone(case: tuple[str, Baseline]) -> None:
    task, baseline = case
    if task == "separate":
        pytest.skip("channels share the sources")
    clean = np.concatenate([harmonic_tone(0.25), noise(1, 4000)])
    for channel, estimate in zip(clean, baseline(degraded(task, clean))[0], strict=True):
        np.testing.assert_allclose(baseline(degraded(task, channel[None]))[0, 0], estimate, atol=1e-9)


def test_level_does_not_matter(case: tuple[str, Baseline]) -> None:
    task, baseline = case
    if task == "dequantize" or baseline in [BASELINES[task].get(name) for name in LEVEL_MATTERS]:
        pytest.skip("has levels of its own")
    clean = harmonic_tone(0.5) + 0.2 * noise(1, RATE // 2)
    quiet, loud = (baseline(degraded(task, clean, gain)) for gain in (1.0, 8.0))
    np.testing.assert_allclose(loud, 8 * quiet, atol=1e-6)


def test_a_missing_package_is_named() -> None:
    baseline = Baseline(lambda problem: problem.samples, packages=("numpy", "no_such_package"))
    with pytest.raises(SettingsError, match=r"needs no_such_package: pip install 'dapcli\[peers\]'"):
        baseline(problem(noise(1, 10)))


def test_only_an_oracle_is_handed_the_noise(case: tuple[str, Baseline]) -> None:
    task, baseline = case
    posed = degraded(task, harmonic_tone(0.25) + 0.3 * noise(1, RATE // 4))
    knowing = replace(posed, oracle_noise=0.3 * noise(1, RATE // 4))
    assert np.array_equal(baseline(posed), baseline(knowing)) == (not baseline.oracle)


# Denoisers


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3000), st.sampled_from([8000, 22050, 44100]), st.sampled_from([None, noise(1, 4000, seed=1)]))
def test_decision_directed_filters_keep_any_length_at_any_rate(n: int, rate: int, known: Samples | None) -> None:
    for name in ORACLES:
        restored = DENOISERS[name](problem(noise(1, n), rate, oracle_noise=known))
        assert restored.shape == (1, 1, n)
        assert np.isfinite(restored).all()


@pytest.mark.parametrize("name", ORACLES)
def test_decision_directed_filters_remove_white_noise_at_any_level(name: str) -> None:
    clean, added = harmonic_tone(), noise(1, RATE)
    for known, gain in ((noise(1, RATE, seed=9), 6), (None, 4)):
        restored = DENOISERS[name](problem(clean + added, oracle_noise=known))
        assert snr_db(clean, restored[0]) > snr_db(clean, clean + added) + gain
    posed, louder = (problem(factor * (clean + added), oracle_noise=factor * added) for factor in (1, 2))
    np.testing.assert_allclose(DENOISERS[name](louder), 2 * DENOISERS[name](posed), rtol=1e-9, atol=1e-12)
    noiseless = DENOISERS[name](problem(clean, oracle_noise=np.zeros((1, RATE))))
    assert snr_db(clean, noiseless[0]) > 40


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_lead_is_taken_for_the_noise(rate: int) -> None:
    posed = problem(harmonic_tone() + noise(1, RATE), rate)
    lead = posed.samples[:, : round(0.064 * rate)]
    expected = DENOISERS["wiener"](replace(posed, oracle_noise=lead))
    np.testing.assert_array_equal(DENOISERS["lead-wiener"](posed), expected)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_noise_power_of_white_noise_is_its_variance(rate: int) -> None:
    power = noise_power(noise(4 * rate), rate)
    assert power.shape == (2 * round(0.008 * rate) + 1,)
    assert power.mean() == pytest.approx(0.01, rel=0.05)


def test_tracked_noise_follows_the_noise_and_not_a_burst() -> None:
    power = np.random.default_rng(3).exponential(1.0, (200, 257))
    power[80:110, 40:60] += 100.0
    track = track_noise(power)
    assert 0.5 < track[:, :40].mean() < 1.1
    assert track[109, 40:60].max() < 5


def test_imcra_follows_noise_that_rises_and_falls_and_not_a_burst() -> None:
    samples = noise(10 * RATE)
    samples[2 * RATE : 7 * RATE] *= 10**0.5
    samples[8 * RATE : 8 * RATE + RATE // 4] += sine(1000, RATE // 4)[0]
    track = imcra(np.abs(stft(samples, RATE)) ** 2)
    for start, stop, power in ((0.0, 1.8, 0.01), (2.3, 6.7, 0.1), (7.2, 10.0, 0.01)):
        assert np.median(track[round(start / 0.008) : round(stop / 0.008)]) == pytest.approx(power, rel=0.25)
    assert track[900:, 32].max() < 0.03  # where the burst has 20


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_rnnoise_keeps_a_voice_where_it_was_and_removes_noise(rate: int) -> None:
    pytest.importorskip("pyrnnoise")
    rnnoise = DENOISERS["rnnoise"]
    assert rnnoise.trained
    # A voice: harmonics of a pitch that wanders, in syllables.
    t, k = np.arange(round(1.5 * RATE)) / RATE, np.arange(1, 25)[:, None]
    phase = 2 * np.pi * np.cumsum(140 + 25 * np.sin(2 * np.pi * 2.1 * t)) / RATE
    voice = 0.15 * np.sum(np.sin(k * phase + k) / k, axis=0) * np.sin(3 * np.pi * t) ** 2
    clean, added = (resample(samples[None], RATE, rate) for samples in (voice, noise(voice.size, std=0.003)))
    restored = rnnoise(problem(clean + added, rate))[0]
    assert restored.shape == clean.shape
    lag = int(correlate(restored[0], clean[0]).argmax()) - (clean.size - 1)
    assert abs(lag) <= rate // RATE // 2  # exactly at 16 kHz
    assert snr_db(clean, restored) > 5
    assert np.mean(rnnoise(problem(added, rate)) ** 2) < 0.1 * np.mean(added**2)


# Restorations


def test_a_gap_without_restoration_is_silent_and_the_rest_is_as_it_was() -> None:
    posed = degraded("inpaint", noise(1, 3000))
    silent = BASELINES["inpaint"]["input"](posed)[0]
    assert not silent[:, 1000:1151].any()
    np.testing.assert_array_equal(np.delete(silent, slice(1000, 1151)), np.delete(posed.samples, slice(1000, 1151)))


def test_linear_prediction_restores_the_gaps_of_a_few_tones() -> None:
    clean = sine(440) + sine(1234.5) + sine(3000)
    # The last two are unknown at once.
    degradation = Missing(Gaps((((2000, 2320), (8000, 8160), (8400, 8500)),)))
    missing = degradation.gaps.mask(0, RATE)
    garbage = np.where(missing, 7.0, clean)
    restored = BASELINES["inpaint"]["janssen"](problem(garbage, degradation=degradation))[0]
    assert snr_db(clean[missing], restored[missing]) > 25
    np.testing.assert_array_equal(restored[~missing], clean[~missing])
    everything = Missing(Gaps((((0, 1000),),)))
    assert not BASELINES["inpaint"]["janssen"](problem(noise(1, 1000), degradation=everything)).any()


@pytest.mark.parametrize(
    ("task", "name", "gain"),
    [
        *(("declip", name, 10) for name in ("cubic-spline", "a-spade")),
        *(("dequantize", name, 2) for name in ("wiener", "a-spade")),
    ],
)
def test_restorations_are_consistent_and_nearer_to_the_truth(task: str, name: str, gain: float) -> None:
    clean = sine(440, 4000) / 3 if task == "declip" else harmonic_tone()
    posed = degraded(task, clean)
    restored = BASELINES[task][name](posed)[0]
    affected = posed.degradation.affected(posed.samples)
    assert snr_db(clean[affected], restored[affected]) > snr_db(clean[affected], posed.samples[affected]) + gain
    np.testing.assert_array_equal(restored[~affected], clean[~affected])
    np.testing.assert_allclose(posed.degradation.project(restored, posed.samples), restored, atol=1e-9)


def test_a_spline_is_exact_for_a_cubic_and_ends_at_the_ends() -> None:
    t = np.linspace(-1, 1, 101)
    clean = (t**3 - 0.8 * t)[None]
    clipping = Clipping((-0.25,), (0.25,))
    for expected in (clean, np.full((1, 50), 0.25)):
        restored = BASELINES["declip"]["cubic-spline"](problem(clipping.clip(expected), degradation=clipping))[0]
        np.testing.assert_allclose(restored, expected, atol=1e-12)


# Separations


@pytest.mark.parametrize("name", [name for name in BASELINES["separate"] if name != "input"])
def test_a_tone_and_clicks_are_told_apart_and_sources_add_up_to_the_mixture(name: str) -> None:
    # As loud as each other, so that the mixture has 0 dB for both.
    click = np.where(np.arange(RATE) % 6000 == 1500, 2.5, 0.0)[None]
    sources = sine(440) / 10, click
    for source, estimate in zip(sources, BASELINES["separate"][name](problem(sources[0] + sources[1])), strict=True):
        assert snr_db(source, estimate) > 8
    samples = np.concatenate([harmonic_tone(), click]) + 0.1 * noise(2, RATE)
    np.testing.assert_allclose(BASELINES["separate"][name](problem(samples)).sum(axis=0), samples, atol=1e-9)


def test_how_many_sources_a_separation_has() -> None:
    posed = problem(noise(1, RATE // 2), types=DEFAULT_TYPES[3])
    np.testing.assert_array_equal(BASELINES["separate"]["input"](posed), [posed.samples] * 3)
    assert BASELINES["separate"]["nmf"](posed).shape == (3, 1, RATE // 2)
    with pytest.raises(SettingsError, match="2 sources, and not 3"):
        BASELINES["separate"]["hpss"](posed)


def test_another_seed_begins_the_factorisation_elsewhere() -> None:
    posed = problem(harmonic_tone(0.5) + noise(1, RATE // 2))
    one, other = (BASELINES["separate"]["nmf"](replace(posed, seed=seed)) for seed in (0, 1))
    assert not np.allclose(one, other)
