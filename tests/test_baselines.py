"""The baselines: what holds for all of them, and known answers of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dapcli.audio import resample
from dapcli.baselines import BASELINES, Baseline, Observed, noise_power
from dapcli.baselines.denoising import stft, track_noise, white_noise_power
from dapcli.baselines.imcra import imcra
from dapcli.errors import SettingsError
from dapcli.signal.clipping import Clipping
from dapcli.signal.degradation import Degradation
from dapcli.signal.gaps import Gaps
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import Quantization
from dapcli.signal.source_types import DEFAULT_TYPES

Array = NDArray[np.float64]

RATE = 16_000
DENOISERS = BASELINES["denoise"]
TOLD = [name for name, baseline in DENOISERS.items() if baseline.told]
ALL = [(task, name) for task, baselines in BASELINES.items() for name in baselines]


@pytest.fixture(params=ALL, ids=" ".join)
def case(request: pytest.FixtureRequest) -> tuple[str, Baseline]:
    task, name = request.param
    for package in BASELINES[task][name].packages:
        pytest.importorskip(package, reason=f"the baseline {name} needs {package}: pip install 'dapcli[peers]'")
    return task, BASELINES[task][name]


def harmonic_tone(seconds: float = 1.0) -> Array:
    t = np.arange(int(seconds * RATE)) / RATE
    harmonics = np.arange(1, 9)[:, None]
    tone = np.sum(np.sin(2 * np.pi * 220 * harmonics * t + harmonics) / harmonics, axis=0)
    # Swells, so that a blind denoiser meets pauses.
    return np.asarray(0.2 * tone * np.sin(np.pi * 3 * t) ** 2)[None]


def white(*shape: int, seed: int = 0) -> Array:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape)


def sine(hertz: float, samples: int = RATE) -> Array:
    return np.asarray(0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE))[None]


def damaged(task: str, clean: Array, gain: float = 1.0) -> Observed:
    """What a task's baselines are given of clean samples ``[C, N]``, all of it ``gain`` times as loud."""
    channels, length = clean.shape
    degradation: Degradation | None = None
    samples = gain * clean
    if task == "inpaint":
        degradation = Missing(Gaps(tuple(((length // 3, length // 3 + length // 20 + 1),) for _ in clean)))
    elif task == "declip":
        clipping = Clipping((-0.1 * gain,) * channels, (0.15 * gain,) * channels)
        degradation, samples = clipping, clipping.clip(samples)
    elif task == "dequantize":
        quantizer = Quantization(0.05 * gain, 0.0)
        degradation, samples = quantizer, quantizer.quantize(samples)
    return Observed(samples, RATE, degradation)


def snr_db(clean: Array, estimate: Array) -> float:
    return float(10 * np.log10(np.sum(clean**2) / np.sum((clean - estimate) ** 2)))


# All of them


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 15), (1, 255), (1, 256), (2, 1001), (1, 5003)], ids=str)
def test_every_baseline_keeps_the_shape_and_its_input_and_repeats_itself(
    case: tuple[str, Baseline], shape: tuple[int, int]
) -> None:
    task, baseline = case
    observed = damaged(task, white(*shape))
    before = observed.samples.copy()
    estimates = baseline(observed)
    assert estimates.shape == ((2 if task == "separate" else 1), *shape)
    assert estimates.dtype == np.float64
    assert np.isfinite(estimates).all()
    np.testing.assert_array_equal(observed.samples, before)
    estimates += 1.0  # what is returned is no view of the input either
    np.testing.assert_array_equal(observed.samples, before)
    np.testing.assert_array_equal(baseline(observed) + 1.0, estimates)


@pytest.mark.parametrize("length", [1, 4000])
def test_silence_stays_silent(case: tuple[str, Baseline], length: int) -> None:
    task, baseline = case
    assert np.abs(baseline(damaged(task, np.zeros((1, length))))).max() < 1e-12


@pytest.mark.parametrize("silent", [slice(0, 4000), slice(4000, 8000)])
def test_digital_silence_inside_a_recording_is_survived(case: tuple[str, Baseline], silent: slice) -> None:
    task, baseline = case
    clean = white(1, 12_000)
    clean[:, silent] = 0
    assert np.isfinite(baseline(damaged(task, clean))).all()


def test_a_channel_is_restored_as_it_is_alone(case: tuple[str, Baseline]) -> None:
    task, baseline = case
    if task == "separate":
        pytest.skip("channels share the sources")
    clean = np.concatenate([harmonic_tone(0.25), white(1, 4000)])
    estimates = baseline(damaged(task, clean))[0]
    for channel, estimate in zip(clean, estimates, strict=True):
        np.testing.assert_allclose(baseline(damaged(task, channel[None]))[0, 0], estimate, atol=1e-9)


@pytest.mark.parametrize(
    ("task", "name"),
    # A-SPADE and the quantizer's cells stop at tolerances of their own; noisereduce has thresholds in dB, and RNNoise
    # was trained on levels.
    [(task, name) for task, name in ALL if name not in ("a-spade", "noisereduce", "rnnoise") and task != "dequantize"],
)
def test_level_does_not_matter(task: str, name: str) -> None:
    baseline = BASELINES[task][name]
    for package in baseline.packages:
        pytest.importorskip(package)
    clean = harmonic_tone(0.5) + 0.2 * white(1, RATE // 2)
    quiet, loud = (baseline(damaged(task, clean, gain)) for gain in (1.0, 8.0))
    np.testing.assert_allclose(loud, 8 * quiet, atol=1e-6)


def test_a_missing_package_is_named() -> None:
    baseline = Baseline(lambda observed: observed.samples, packages=("numpy", "no_such_package"))
    with pytest.raises(SettingsError, match=r"needs no_such_package: pip install 'dapcli\[peers\]'"):
        baseline(Observed(white(1, 10), RATE))


@pytest.mark.parametrize(("task", "name"), [(t, n) for t, n in ALL if t in ("inpaint", "declip", "dequantize")])
def test_a_baseline_that_must_be_told_the_damage_says_so(task: str, name: str) -> None:
    if name == "input":
        pytest.skip("asks for nothing")
    with pytest.raises(SettingsError, match="need"):
        BASELINES[task][name](Observed(white(1, 100), RATE))


# Denoisers


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 3000), rate=st.sampled_from([8000, 16000, 22050, 44100]), seed=st.integers(0, 2**16))
def test_decision_directed_filters_keep_any_length_at_any_rate(n: int, rate: int, seed: int) -> None:
    observed = Observed(white(1, n, seed=seed), rate)
    for name in TOLD:
        for psd in (None, noise_power(white(1, 4000, seed=seed + 1), rate)):
            restored = DENOISERS[name](replace(observed, noise_psd=psd))
            assert restored.shape == (1, 1, n)
            assert np.isfinite(restored).all()


@pytest.mark.parametrize(("told", "gain"), [(True, 6), (False, 4)])
@pytest.mark.parametrize("name", TOLD)
def test_decision_directed_filters_remove_white_noise(name: str, told: bool, gain: float) -> None:
    clean, noise = harmonic_tone(), white(1, RATE)
    psd = noise_power(white(1, RATE, seed=9), RATE) if told else None
    restored = DENOISERS[name](Observed(clean + noise, RATE, noise_psd=psd))
    assert snr_db(clean, restored[0]) > snr_db(clean, clean + noise) + gain


@pytest.mark.parametrize("name", TOLD)
def test_the_level_of_a_told_filter_does_not_matter_either(name: str) -> None:
    noise = white(1, RATE)
    observed = Observed(harmonic_tone() + noise, RATE, noise_psd=noise_power(noise, RATE))
    louder = Observed(2 * observed.samples, RATE, noise_psd=noise_power(2 * noise, RATE))
    np.testing.assert_allclose(DENOISERS[name](louder), 2 * DENOISERS[name](observed), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TOLD)
def test_noise_free_input_told_so_is_unchanged(name: str) -> None:
    clean = harmonic_tone()
    observed = Observed(clean, RATE, noise_psd=noise_power(np.zeros((1, RATE)), RATE))
    assert snr_db(clean, DENOISERS[name](observed)[0]) > 40


@pytest.mark.parametrize("name", TOLD)
def test_a_noise_spectrum_of_another_rate_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"noise_psd has 707 bins; noise_power gives 257 at 16000 Hz"):
        DENOISERS[name](Observed(white(1, RATE), RATE, noise_psd=noise_power(white(1, RATE), 44_100)))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_noise_power_of_white_noise_is_its_variance(rate: int) -> None:
    power = noise_power(white(2, 4 * rate), rate)
    assert power.shape == (2, 2 * round(0.008 * rate) + 1)
    assert power.mean(axis=1) == pytest.approx([0.01, 0.01], rel=0.05)
    np.testing.assert_array_equal(white_noise_power(0.01, rate), np.full(power.shape[1], 0.01))


def test_tracked_noise_follows_the_noise_and_not_a_burst() -> None:
    rng = np.random.default_rng(3)
    power = rng.exponential(1.0, (200, 257))
    power[80:110, 40:60] += 100.0
    track = track_noise(power)
    assert 0.5 < track[:, :40].mean() < 1.1
    assert track[109, 40:60].max() < 5


def test_imcra_follows_noise_that_rises_and_falls_and_not_a_burst() -> None:
    noise = white(1, 10 * RATE)[0]
    noise[2 * RATE : 7 * RATE] *= 10**0.5
    noise[8 * RATE : 8 * RATE + RATE // 4] += sine(1000, RATE // 4)[0]
    track = imcra(np.abs(stft(noise, RATE)) ** 2)
    for start, stop, power in ((0.0, 1.8, 0.01), (2.3, 6.7, 0.1), (7.2, 10.0, 0.01)):
        assert np.median(track[round(start / 0.008) : round(stop / 0.008)]) == pytest.approx(power, rel=0.25)
    assert track[900:, 32].max() < 0.03  # where the burst has 20


# Trained


def voice(seconds: float = 1.5) -> Array:
    """Harmonics of a pitch that wanders, in syllables."""
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(140 + 25 * np.sin(2 * np.pi * 2.1 * t)) / RATE
    k = np.arange(1, 25)[:, None]
    return np.asarray(0.15 * np.sum(np.sin(k * phase + k) / k, axis=0) * np.sin(3 * np.pi * t) ** 2)[None]


def lag(reference: Array, estimate: Array) -> int:
    """By how many samples an estimate ``[N]`` is late."""
    size = 2 * reference.size
    product = np.fft.rfft(estimate, size) * np.conj(np.fft.rfft(reference, size))
    found = int(np.argmax(np.fft.irfft(product, size)))
    return found if found < reference.size else found - size


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_rnnoise_keeps_a_voice_where_it_was_and_removes_noise(rate: int) -> None:
    pytest.importorskip("pyrnnoise")
    rnnoise = DENOISERS["rnnoise"]
    assert rnnoise.trained
    clean = resample(voice(), RATE, rate)
    noise = resample(0.03 * white(*voice().shape), RATE, rate)
    restored = rnnoise(Observed(clean + noise, rate))[0]
    assert restored.shape == clean.shape
    assert abs(lag(clean[0], restored[0])) <= rate // RATE // 2  # exactly at 16 kHz
    assert snr_db(clean, restored) > 5
    assert np.mean(rnnoise(Observed(noise, rate)) ** 2) < 0.1 * np.mean(noise**2)


# Repairs


def test_silence_is_all_that_a_gap_has_and_the_rest_is_as_it_was() -> None:
    observed = damaged("inpaint", white(1, 3000))
    silent = BASELINES["inpaint"]["silence"](observed)[0]
    assert not silent[:, 1000:1151].any()
    np.testing.assert_array_equal(np.delete(silent, slice(1000, 1151)), np.delete(observed.samples, slice(1000, 1151)))


def test_linear_prediction_restores_the_gaps_of_a_few_tones() -> None:
    clean = sine(440) + sine(1234.5) + sine(3000)
    # The last two are unknown at once.
    gaps = ((2000, 2320), (8000, 8160), (8400, 8500))
    degradation = Missing(Gaps((gaps,)))
    missing = degradation.gaps.mask(0, RATE)
    garbage = np.where(missing, 7.0, clean)
    restored = BASELINES["inpaint"]["janssen"](Observed(garbage, RATE, degradation))[0]
    assert snr_db(clean[missing], restored[missing]) > 25
    np.testing.assert_array_equal(restored[~missing], clean[~missing])


def test_linear_prediction_leaves_silent_what_nothing_tells_of() -> None:
    degradation = Missing(Gaps((((0, 1000),),)))
    assert not BASELINES["inpaint"]["janssen"](Observed(white(1, 1000), RATE, degradation)).any()


@pytest.mark.parametrize("name", ["cubic-spline", "a-spade"])
def test_clipped_peaks_come_back_beyond_the_level_and_reliable_samples_as_they_were(name: str) -> None:
    clean = sine(440, 4000)
    clipping = Clipping((-0.4,), (0.35,))
    observed = Observed(clipping.clip(clean), RATE, clipping)
    restored = BASELINES["declip"][name](observed)[0]
    clipped = clipping.affected(observed.samples)
    assert snr_db(clean[clipped], restored[clipped]) > snr_db(clean[clipped], observed.samples[clipped]) + 10
    np.testing.assert_array_equal(restored[~clipped], clean[~clipped])
    np.testing.assert_allclose(clipping.clip(restored), observed.samples)


def test_a_spline_is_exact_for_a_cubic_and_ends_at_the_ends() -> None:
    t = np.linspace(-1, 1, 101)
    clean = (t**3 - 0.8 * t)[None]
    clipping = Clipping((-0.25,), (0.25,))
    observed = Observed(clipping.clip(clean), RATE, clipping)
    np.testing.assert_allclose(BASELINES["declip"]["cubic-spline"](observed)[0], clean, atol=1e-12)
    everything = Observed(np.full((1, 50), 0.25), RATE, clipping)
    np.testing.assert_allclose(BASELINES["declip"]["cubic-spline"](everything)[0], 0.25)


@pytest.mark.parametrize("name", ["wiener", "a-spade"])
def test_quantized_tones_come_back_within_their_cells(name: str) -> None:
    clean = harmonic_tone()
    quantizer = Quantization(0.05, 0.025)
    observed = Observed(quantizer.quantize(clean), RATE, quantizer)
    restored = BASELINES["dequantize"][name](observed)[0]
    assert snr_db(clean, restored) > snr_db(clean, observed.samples) + 2
    np.testing.assert_allclose(quantizer.quantize(restored), observed.samples)


# Separations

SPLITS = ["kinds", "hpss", "librosa-hpss", "nmf"]


def clicks() -> Array:
    train = np.zeros((1, RATE))
    train[:, 1500::6000] = 2.5
    return train


@pytest.mark.parametrize("name", SPLITS)
def test_a_tone_and_a_train_of_clicks_are_told_apart(name: str) -> None:
    # As loud as each other, so that the mixture has 0 dB for both.
    lasting, sudden = sine(440) / 10, clicks()
    estimates = BASELINES["separate"][name](Observed(lasting + sudden, RATE))
    for source, estimate in zip((lasting, sudden), estimates, strict=True):
        assert snr_db(source, estimate) > 8


@pytest.mark.parametrize("name", SPLITS)
def test_sources_add_up_to_the_mixture(name: str) -> None:
    samples = np.concatenate([harmonic_tone(0.5), clicks()[:, : RATE // 2]]) + 0.1 * white(2, RATE // 2)
    estimates = BASELINES["separate"][name](Observed(samples, RATE))
    np.testing.assert_allclose(estimates.sum(axis=0), samples, atol=1e-9)


def test_the_mixture_stands_for_every_source() -> None:
    samples = white(2, 100)
    estimates = BASELINES["separate"]["mixture"](Observed(samples, RATE, kinds=DEFAULT_TYPES[3]))
    np.testing.assert_array_equal(estimates, [samples] * 3)


def test_factorisation_separates_any_number_of_sources_and_others_say_what_they_cannot() -> None:
    observed = Observed(harmonic_tone(0.5) + clicks()[:, : RATE // 2], RATE, kinds=DEFAULT_TYPES[3])
    assert BASELINES["separate"]["nmf"](observed).shape == (3, 1, RATE // 2)
    with pytest.raises(SettingsError, match="2 sources, and not 3"):
        BASELINES["separate"]["hpss"](observed)


def test_another_seed_begins_the_factorisation_elsewhere() -> None:
    observed = Observed(harmonic_tone(0.5) + white(1, RATE // 2), RATE)
    one, other = (BASELINES["separate"]["nmf"](replace(observed, seed=seed)) for seed in (0, 1))
    assert not np.allclose(one, other)
