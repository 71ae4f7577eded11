"""Restoration as a whole, on small recordings: known samples are kept, and the others are restored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dapcli import TASKS, Audio, Progress, Settings, restore
from dapcli.priors import NO_PRIOR
from dapcli.signal.gaps import Gaps, Interval
from dapcli.signal.missing import Missing
from dapcli.tasks.options import DeclipOptions
from dapcli.tasks.restore import pose_clipping
from tests.signals import Samples, degraded, harmonics, snr_db

RATE = 4_000
LENGTH = 2_400
ENSEMBLE = replace(TASKS["inpaint"].presets["quality"], base_channels=4, iterations=2)
GENERATE = replace(TASKS["inpaint"].presets["generate"], base_channels=4, iterations=3, optimizer="muon")
ESTIMATORS = pytest.mark.parametrize("settings", [ENSEMBLE, GENERATE], ids=["ensemble", "generate"])
GAP = ((1_000, 1_100),)


def restored(recording: Audio, degradation: Any, settings: Settings = ENSEMBLE, **options: Any) -> Samples:
    return restore(recording, degradation, settings, device="cpu", **options).audio.samples


def with_gaps(samples: Samples, *channels: tuple[Interval, ...]) -> tuple[Audio, Missing]:
    degradation = Missing(Gaps(channels))
    return Audio(np.where(degradation.gaps.mask(0, samples.shape[1]), 0.0, samples), RATE), degradation


@ESTIMATORS
def test_known_samples_come_back_bit_by_bit_and_gaps_are_filled(settings: Settings) -> None:
    clean = harmonics(LENGTH, 2)
    recording, degradation = with_gaps(clean, GAP, ((400, 430), (1050, 1080)))
    result = restore(recording, degradation, settings, device="cpu")
    missing = degradation.gaps.mask(0, LENGTH)
    found = result.audio.samples
    np.testing.assert_array_equal(found[~missing], recording.samples[~missing])
    assert np.isfinite(found).all()
    assert (found[missing] != 0).all()
    assert result.inconsistent is not None
    assert 0 <= result.inconsistent <= 1
    assert (result.noise_std, result.input_snr_db) == (None, None)
    # Silence has 0 dB.
    assert settings is GENERATE or snr_db(clean[missing], found[missing]) > 15
    # Without what is known put back, the estimate differs there and nowhere else. The seed decides its bits.
    free, again = (restored(recording, degradation, settings, consistent=False) for _ in range(2))
    assert np.mean(free[~missing] != recording.samples[~missing]) > 0.9
    np.testing.assert_array_equal(free[missing], found[missing])
    np.testing.assert_array_equal(free, again)


@ESTIMATORS
@pytest.mark.parametrize("kind", ["clipping", "quantization"])
def test_bounded_recordings_are_restored_within_their_bounds(kind: str, settings: Settings) -> None:
    clean = harmonics(LENGTH, 2)
    degradation, samples = degraded(kind, clean)
    found = restored(Audio(samples, RATE), degradation, settings)
    np.testing.assert_array_equal(degradation.project(found, samples), found)
    assert np.abs(degraded(kind, found)[1] - samples).max() <= 2**-15
    if settings is ENSEMBLE:
        assert snr_db(clean, found) > snr_db(clean, samples) + 1


@pytest.mark.parametrize("kind", ["gaps", "clipping", "quantization"])
def test_without_a_network_the_classical_ensemble_is_left(kind: str) -> None:
    clean = harmonics(LENGTH)
    degradation, samples = degraded(kind, clean)
    recording = Audio(samples, RATE)
    result = restore(recording, degradation, replace(ENSEMBLE, prior=NO_PRIOR), device="cpu")
    (fit,) = result.segments
    assert (fit.iterations, fit.parameters, fit.validation) == ((), 0, None)
    assert result.receptive_field[0] > 0
    assert snr_db(clean, result.audio.samples) > snr_db(clean, recording.samples) + 1
    # It is where a network begins, up to rounding.
    begun = restored(recording, degradation, replace(ENSEMBLE, iterations=1))
    np.testing.assert_allclose(begun, result.audio.samples, atol=1e-6)
    learned = restore(recording, degradation, ENSEMBLE, device="cpu").segments[0]
    assert learned.validation == min(each.validation or np.inf for each in learned.iterations)
    assert learned.iterations[0].validation == pytest.approx(1.0, rel=1e-4)


def test_a_gap_across_segments_is_filled_by_both_and_a_segment_without_one_is_copied() -> None:
    samples, longer = harmonics(8_800), replace(ENSEMBLE, segment=1.5)
    seen: list[Progress] = []
    recording, degradation = with_gaps(samples, ((100, 110),))
    result = restore(recording, degradation, longer, consistent=False, device="cpu", on_step=seen.append)
    size = result.segments[0].stop
    assert ({progress.segment for progress in seen}, seen[0].segments, len(result.segments)) == ({0}, 2, 1)
    assert seen[-1].completed <= seen[-1].total
    np.testing.assert_allclose(result.audio.samples[:, size:], recording.samples[:, size:], atol=1e-6)
    start = 8_800 - size
    gap = slice(start - 30, start + 70)
    result = restore(*with_gaps(samples, ((gap.start, gap.stop),)), longer, device="cpu")
    assert [(fit.start, fit.stop) for fit in result.segments] == [(0, size), (start, 8_800)]
    assert snr_db(samples[:, gap], result.audio.samples[:, gap]) > 15


@ESTIMATORS
def test_silence_and_what_lacks_nothing_come_back_as_they_are(settings: Settings) -> None:
    for samples, gaps in ((np.zeros((2, 3000)), (GAP, ())), (harmonics(LENGTH, 2), ((), ()))):
        recording, degradation = with_gaps(samples, *gaps)
        result = restore(recording, degradation, settings, device="cpu")
        np.testing.assert_array_equal(result.audio.samples, samples)
        assert result.segments == ()
        assert samples.any() or "silent" in result.notes[0]


@ESTIMATORS
@pytest.mark.parametrize("rubbish", [0.0, 0.7])
def test_where_all_is_missing_the_result_is_finite(settings: Settings, rubbish: float) -> None:
    assert np.isfinite(restored(Audio(np.full((1, 500), rubbish), RATE), Missing(Gaps((((0, 500),),))), settings)).all()


@ESTIMATORS
@pytest.mark.parametrize("length", [2, 3, 17, 250])
def test_recordings_shorter_than_a_window_are_restored(settings: Settings, length: int) -> None:
    found = restored(*with_gaps(harmonics(LENGTH)[:, -length:], ((length // 2, length // 2 + 1),)), settings)
    assert found.shape == (1, length)
    assert np.isfinite(found).all()


def test_the_oracle_takes_a_reference() -> None:
    recording, degradation = with_gaps(harmonics(LENGTH), GAP)
    oracle, reference = replace(ENSEMBLE, stop="oracle"), Audio(harmonics(LENGTH), RATE)
    result = restore(recording, degradation, oracle, device="cpu", references=[reference])
    assert result.segments[0].rule == "oracle"
    assert snr_db(reference.samples[:, 1000:1100], result.audio.samples[:, 1000:1100]) > 15


@pytest.mark.parametrize(("level", "detected", "noted"), [(0.03, True, True), (0.5, True, False), (0.03, False, False)])
def test_clipping_of_more_than_half_of_the_samples_is_noted_unless_it_was_given(
    level: float, detected: bool, noted: bool
) -> None:
    clean = harmonics(LENGTH, rate=RATE)
    recording = Audio(np.clip(clean, -level, level), RATE)
    options = DeclipOptions(level=None if detected else level)
    assert bool(pose_clipping(recording, options, Path("a.wav")).notes) == noted
