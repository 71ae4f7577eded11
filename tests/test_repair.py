"""Repairs as a whole, on small recordings: known samples are kept, and the others are restored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dapcli.audio import Audio
from dapcli.errors import InputError, SettingsError
from dapcli.metrics.waveform import snr_db
from dapcli.pipeline.run import Progress
from dapcli.settings import Settings
from dapcli.signal.degradation import ROUNDING
from dapcli.signal.clipping import Clipping
from dapcli.signal.gaps import Gaps, Interval
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import Quantization
from dapcli.tasks._api_restore import repair

Samples = NDArray[np.float64]

RATE = 4_000
MIX = Settings(estimator="mix", width=4, iterations=2, refinement=0, perturbation=0.0)
GENERATE = replace(MIX, estimator="generate", stop="fixed", iterations=3, perturbation=0.1)
ESTIMATORS = pytest.mark.parametrize("settings", [MIX, GENERATE], ids=["mix", "generate"])


def harmonics(seconds: float = 0.6, channels: int = 1) -> Samples:
    """Decaying harmonics, which differ between channels."""
    t = np.arange(round(seconds * RATE)) / RATE
    rows = [sum(0.4 / k * np.sin(2 * np.pi * f * k * t + k) for k in range(1, 5)) for f in (220, 330)[:channels]]
    return np.asarray(np.stack(rows) * np.exp(-t))


def with_gaps(samples: Samples, *channels: tuple[Interval, ...]) -> tuple[Audio, Missing]:
    degradation = Missing(Gaps(channels))
    return Audio(np.where(degradation.gaps.mask(0, samples.shape[1]), 0.0, samples), RATE), degradation


def test_a_gap_in_a_harmonic_tone_is_filled() -> None:
    recording, degradation = with_gaps(harmonics(), ((1000, 1100),))
    restored = repair(recording, degradation, MIX, device="cpu").audio.samples
    truth = harmonics()
    # Silence has 0 dB.
    assert snr_db(truth[:, 1000:1100], restored[:, 1000:1100], RATE) > 15


@ESTIMATORS
def test_known_samples_come_back_bit_by_bit(settings: Settings) -> None:
    recording, degradation = with_gaps(harmonics(channels=2), ((1000, 1100),), ((400, 430), (1050, 1080)))
    result = repair(recording, degradation, settings, device="cpu")
    missing = degradation.gaps.mask(0, recording.length)
    restored = result.audio.samples
    np.testing.assert_array_equal(restored[~missing], recording.samples[~missing])
    assert np.isfinite(restored).all()
    assert (restored[missing] != 0).all()
    assert result.outside is not None
    assert 0 <= result.outside <= 1
    assert (result.noise_std, result.input_snr_db) == (None, None)


@ESTIMATORS
def test_the_estimate_itself_differs_at_known_samples(settings: Settings) -> None:
    recording, degradation = with_gaps(harmonics(), ((1000, 1100),))
    free = repair(recording, degradation, settings, device="cpu", consistent=False).audio.samples
    kept = repair(recording, degradation, settings, device="cpu").audio.samples
    missing = degradation.gaps.mask(0, recording.length)
    assert np.mean(free[~missing] != recording.samples[~missing]) > 0.9
    np.testing.assert_array_equal(free[missing], kept[missing])


@ESTIMATORS
def test_the_same_seed_gives_the_same_bits(settings: Settings) -> None:
    recording, degradation = with_gaps(harmonics(), ((1000, 1100),))
    first, again = (repair(recording, degradation, settings, device="cpu").audio.samples for _ in range(2))
    np.testing.assert_array_equal(first, again)


@ESTIMATORS
def test_clipped_and_quantized_recordings_are_restored_within_their_bounds(settings: Settings) -> None:
    clean = harmonics(channels=2)
    clipping, quantization = Clipping((-0.25,) * 2, (0.3,) * 2), Quantization(1 / 8, 1 / 16)
    for degradation, damaged in ((clipping, clipping.clip(clean)), (quantization, quantization.quantize(clean))):
        restored = repair(Audio(damaged, RATE), degradation, settings, device="cpu").audio.samples
        assert np.abs(restored - degradation.project(restored, damaged)).max() <= ROUNDING
        np.testing.assert_array_equal(degradation.project(restored, damaged), restored)
        if settings is MIX:
            assert snr_db(clean, restored, RATE) > snr_db(clean, damaged, RATE) + 1
    restored = repair(Audio(clipping.clip(clean), RATE), clipping, settings, device="cpu").audio.samples
    np.testing.assert_array_equal(clipping.clip(restored), clipping.clip(clean))


@ESTIMATORS
def test_segments_without_a_gap_are_copied(settings: Settings) -> None:
    recording, degradation = with_gaps(harmonics(5.0), ((9_800, 9_850),))
    seen: list[Progress] = []
    result = repair(recording, degradation, replace(settings, segment=1.5), device="cpu", on_step=seen.append)
    (fit,) = result.segments
    assert fit.start < 9_800 < 9_850 < fit.stop
    assert {step.segment for step in seen} == {2}
    assert seen[0].segments > 3
    assert seen[-1].completed <= seen[-1].total
    missing = degradation.gaps.mask(0, recording.length)
    np.testing.assert_array_equal(result.audio.samples[~missing], recording.samples[~missing])
    # Outside of that segment nothing is estimated either.
    free = repair(recording, degradation, replace(settings, segment=1.5), device="cpu", consistent=False).audio.samples
    for part in (slice(0, fit.start), slice(fit.stop, None)):
        np.testing.assert_allclose(free[:, part], recording.samples[:, part], atol=1e-6)


def test_a_gap_across_segments_is_filled_by_both() -> None:
    samples = harmonics(2.2)
    longer = replace(MIX, segment=1.5)
    whole = repair(*with_gaps(samples, ((100, 110),)), longer, device="cpu").segments
    assert len(whole) == 1
    recording, degradation = with_gaps(samples, ((3_350, 3_450),))
    plan_start = 8_800 - (whole[0].stop - whole[0].start)
    recording, degradation = with_gaps(samples, ((plan_start - 30, plan_start + 70),))
    result = repair(recording, degradation, longer, device="cpu")
    assert [(fit.start, fit.stop) for fit in result.segments] == [(0, whole[0].stop), (plan_start, 8_800)]
    gap = slice(plan_start - 30, plan_start + 70)
    assert snr_db(samples[:, gap], result.audio.samples[:, gap], RATE) > 15


@ESTIMATORS
def test_silence_comes_back_as_it_is(settings: Settings) -> None:
    recording, degradation = with_gaps(np.zeros((2, 3000)), ((1000, 1100),), ())
    result = repair(recording, degradation, settings, device="cpu")
    np.testing.assert_array_equal(result.audio.samples, recording.samples)
    assert result.segments == ()
    assert "silent" in result.notes[0]


def test_a_recording_without_damage_comes_back_as_it_is() -> None:
    recording, degradation = with_gaps(harmonics(), ())
    result = repair(recording, degradation, MIX, device="cpu")
    np.testing.assert_array_equal(result.audio.samples, recording.samples)
    assert result.segments == ()


@ESTIMATORS
@pytest.mark.parametrize("rubbish", [0.0, 0.7])
def test_where_all_is_missing_the_result_is_finite(settings: Settings, rubbish: float) -> None:
    degradation = Missing(Gaps((((0, 500),),)))
    restored = repair(Audio(np.full((1, 500), rubbish), RATE), degradation, settings, device="cpu").audio.samples
    assert np.isfinite(restored).all()


@ESTIMATORS
@pytest.mark.parametrize("length", [2, 3, 17, 250])
def test_recordings_shorter_than_a_window_are_repaired(settings: Settings, length: int) -> None:
    recording, degradation = with_gaps(harmonics()[:, 100 : 100 + length], ((length // 2, length // 2 + 1),))
    restored = repair(recording, degradation, settings, device="cpu").audio.samples
    assert restored.shape == (1, length)
    assert np.isfinite(restored).all()


# Refused


def test_what_has_no_use_for_repairs_is_refused() -> None:
    recording, degradation = with_gaps(harmonics(), ((1000, 1100),))
    for settings, message in (
        (replace(MIX, rate=16_000), "--rate"),
        (replace(MIX, estimator="mask", perturbation=0.7), "unknown estimator 'mask'; choose one of mix, generate"),
        (replace(GENERATE, stop="validation"), "--estimator mix"),
        (replace(MIX, stop="discrepancy"), "--stop discrepancy"),
        (replace(MIX, stop="held-out"), "--stop held-out.*noise"),
        (replace(MIX, stop="oracle"), "--reference"),
    ):
        with pytest.raises(SettingsError, match=message):
            repair(recording, degradation, settings, device="cpu")
    with pytest.raises(InputError, match="one sample"):
        repair(Audio(np.ones((1, 1)), RATE), Missing(Gaps((((0, 1),),))), MIX, device="cpu")
    with pytest.raises(InputError, match="reference"):
        repair(recording, degradation, MIX, device="cpu", reference=Audio(harmonics(0.5), RATE))


def test_the_recording_s_own_rate_is_no_other() -> None:
    recording, degradation = with_gaps(harmonics(), ((1000, 1100),))
    high = Audio(recording.samples, 8_000)
    assert repair(high, degradation, replace(GENERATE, rate=8_000), device="cpu").rate == 8_000


def test_the_oracle_takes_a_reference() -> None:
    recording, degradation = with_gaps(harmonics(), ((1000, 1100),))
    result = repair(
        recording, degradation, replace(MIX, stop="oracle"), device="cpu", reference=Audio(harmonics(), RATE)
    )
    assert result.segments[0].rule == "oracle"
    assert snr_db(harmonics()[:, 1000:1100], result.audio.samples[:, 1000:1100], RATE) > 15
